// What the verdict rests on: the conditions of the gate, the answers that changed, and what to type next.

const TERMS = {
  "95% interval": "The range in which the true difference lies in 95 of 100 repetitions with other questions of the same kind.",
  p: "The probability of a difference at least this large if base and adapter were equally good.",
  undecided: "The judge could not tell whether the answer is right. Such questions do not count in the accuracy. The gate counts them a second time, each at its worst for the adapter.",
  forgetting: "The accuracy lost on questions that have nothing to do with the training. The gate looks at the largest loss that the data do not rule out.",
  "hints that leak": "Hints that give the answer away: the student becomes almost certain of the reference answer before it has reasoned.",
  "KL divergence": "How far the probabilities of the next token have moved from those of the base, in nats per token. Above 0.1 the page warns.",
};

/** A technical term whose meaning shows on hover and on focus. */
const term = (name) => (TERMS[name] ? el("abbr", { title: TERMS[name], tabindex: 0 }, name) : name);

const points = (share) => `${signed(share)} points`;
const interval = (one) => `${points(one.difference)} (${signed(one.ci95[0])} to ${signed(one.ci95[1])})`;
const atMost = (value, most) => most == null || value <= most; // a null threshold is no condition

const CONDITIONS = ["file_integrity", "basic_inference", "base_comparison", "recall", "forgetting", "prompt_responses"];

/** The conditions of the gate, each with what was measured, what was required, and what helps where it failed. */
function conditions({ results, gate, fewest_sources: fewest }) {
  const { tests } = results.validation, found = [];
  const add = (name, measured, required, passed, help = "") => found.push({ name, measured, required, passed, help });
  const files = tests.file_integrity, heldOut = tests.base_comparison, { recall, forgetting, meters } = tests;
  if (files) add("Adapter files", files.passed ? plural(Object.keys(files.sha256).length, "file") : files.problems.join("; "), "complete, and made for this base", files.passed);
  if (tests.basic_inference) add("Answers", [`${count(tests.basic_inference.silent ?? 0)} empty`, ...Object.entries(tests.basic_inference.looped ?? {}).map(([side, stopped]) => `${plural(stopped, "answer")} of the ${side} repeated themselves and were stopped`)].join("; "), "at most half of them empty", tests.basic_inference.passed);
  if (heldOut) {
    const taught = results.stages.curate?.outcomes?.solved_with_evidence > 0 && recall?.clusters >= fewest;
    const notLost = heldOut.verdict !== "worse" && (heldOut.passed || heldOut.difference >= -gate.max_held_out_loss);
    const enough = heldOut.rows_needed ? `About ${count(heldOut.rows_needed)} held-out questions would show a difference of this size.` : "More rows to train on, another learning rate or more epochs may raise the gain.";
    if (taught) add("Held-out questions", interval(heldOut), `a loss of at most ${rounded(100 * gate.max_held_out_loss, 1)} points`, notLost);
    const gained = taught ? recall : heldOut, both = [gained, gained.worst_case ?? gained];
    add(taught ? "Recall of the taught facts" : "Better than its base", interval(gained), "95% interval above 0, p below 0.05", gained.passed, enough);
    if (gate.min_gain) add("Size of the gain", points(Math.min(...both.map((one) => one.difference))), `at least ${points(gate.min_gain)}`, both.every((one) => one.difference >= gate.min_gain), "Train on more rows, or set validate.gate.min_gain lower in a new run.");
    if (gate.min_lower_bound) add("Lower end of the gain", points(Math.min(...both.map((one) => one.ci95[0]))), `more than ${points(gate.min_lower_bound)}`, both.every((one) => one.ci95[0] > gate.min_lower_bound), "More held-out questions make the interval narrower.");
    const most = gained.majority;
    if (gate.beat_majority && most?.ci95) add(`Better than always “${most.reference}”`, interval(most), "95% interval above 0", most.ci95[0] > 0, "Use questions whose answers differ more.");
    const open = heldOut.undecided?.pairs ?? 0, asked = heldOut.worst_case?.n ?? heldOut.n + open;
    add("Undecided questions", `${count(open)} of ${count(asked)} (${percent(open / Math.max(asked, 1))})`, gate.max_undecided_share == null ? "no limit" : `at most ${percent(gate.max_undecided_share, 0)}`, atMost(open / Math.max(asked, 1), gate.max_undecided_share), "Name a judge model that can decide: --judge-model.");
  }
  if (forgetting) add("Forgetting", forgetting.drop_upper95 == null ? forgetting.reason : `${rounded(100 * forgetting.drop, 1)} points lost, at most ${rounded(100 * forgetting.drop_upper95, 1)} (95%), on ${plural(forgetting.n, "other question")}`,
    gate.max_forgetting == null ? "no limit" : `at most ${rounded(100 * gate.max_forgetting, 1)} points lost`, forgetting.passed,
    forgetting.enough === false ? "The base solves too few of these questions to show a loss. Name questions it can answer: validate.forgetting." : "A larger curate.replay_share, a lower learning rate or fewer epochs help.");
  if (meters && !meters.passed) add("Manner of thinking", meters.warnings.join("; "), "like its base", false);
  for (const [name, test] of Object.entries(tests)) if (![...CONDITIONS, "meters"].includes(name) && test?.passed === false) add(words(name), figuresOf(test), "", false);
  return found;
}

const outcomeMark = (passed) => el("span", { class: passed ? "good" : "bad" }, passed ? "passed" : "failed");

function checksSection(data) {
  const tests = data.results.validation?.tests;
  if (!tests) return null;
  const found = conditions(data), failed = found.filter((one) => !one.passed);
  const said = failed.length ? `${failed.length} of ${plural(found.length, "condition")} failed: ${failed.map((one) => one.name).join(", ")}.` : `All ${plural(found.length, "condition")} hold.`;
  const rows = [...failed, ...found.filter((one) => one.passed)].map(({ name, measured, required, passed, help }) => el("tr", { class: passed ? "" : "failed" },
    el("th", { scope: "row" }, ...visible(name)), el("td", { "data-label": "Measured" }, ...visible(measured), !passed && help && el("small", {}, help)),
    el("td", { "data-label": "Required" }, ...visible(required)), el("td", { "data-label": "Outcome" }, outcomeMark(passed))));
  const others = Object.keys(tests).filter((name) => !CONDITIONS.includes(name) && tests[name]);
  return section("checks", "Checks", el("p", {}, said),
    el("table", { class: "stacked gate" }, el("thead", {}, el("tr", {}, ["Check", "Measured", "Required", "Outcome"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)),
    others.length > 0 && el("details", {}, el("summary", {}, "Other measurements"),
      el("dl", { class: "terms" }, others.flatMap((name) => [el("dt", {}, words(name)), el("dd", {}, ...visible(measuredText(name, tests[name])))]))),
    promptsTried(tests.prompt_responses),
    el("details", {}, el("summary", {}, "What these terms mean"),
      el("dl", { class: "terms" }, Object.entries(TERMS).flatMap(([name, meaning]) => [el("dt", {}, name), el("dd", {}, meaning)]))));
}

function promptsTried(found) {
  const prompts = Array.isArray(found) ? found : Object.values(found ?? {}).find(Array.isArray);
  const shown = (prompts ?? []).filter((one) => typeof one?.prompt === "string").slice(0, 50);
  if (!shown.length) return null;
  const verdict = (one) => one.verdict ?? (one.passed == null ? "not judged" : one.passed ? "correct" : "incorrect");
  return el("details", { class: "prompts" }, el("summary", {}, plural(prompts.length, "test prompt"), prompts.length > shown.length && `, the first ${shown.length}`),
    shown.map((one) => el("div", {}, el("h3", {}, ...firstLine(one.prompt), " · ", verdictMark(verdict(one))), textBlock(one.response ?? "", "pipeline_results.json"))));
}

const MEASURED = {
  performance: (test) => `The first token comes after ${figure(test.time_to_first_token_s)} s. Prompts are read at ${count(Math.round(test.prefill_tokens_per_second))} tokens per second. ` +
    `One answer is written at ${count(Math.round(test.decode_tokens_per_second))} tokens per second, 64 at once at ${count(Math.round(test.tokens_per_second))}. Peak memory is ${figure(test.gpu_memory_used_gb || test.peak_memory_gb)} GB.`,
  meters: (test) => [`On ${plural(test.prompts, "neutral prompt")} the KL divergence from the base is ${figure(test.mean_kl_nats)} nats per token`,
    ...Object.entries(test.shift).map(([name, by]) => `${words(name)} ${by < 0 ? "−" : "+"}${percent(Math.abs(by))}`), ...test.warnings].join("; ") + ".",
};

/** A measurement in words; the plain figures of one that has other names here. */
function measuredText(name, test) {
  try {
    return MEASURED[name](test);
  } catch {
    return figuresOf(test);
  }
}

/** The plain figures of a check, nested ones by their path; hashes and examples are left to the JSON file. */
function figuresOf(test) {
  const parts = [];
  const walk = (value, path) => {
    if (parts.length > 24) return;
    if (Array.isArray(value)) {
      if (value.length && value.every((one) => typeof one !== "object")) parts.push(`${path}: ${value.slice(0, 8).map(figure).join(", ")}`);
    } else if (value && typeof value === "object") {
      for (const [name, inner] of Object.entries(value)) if (!["passed", "sha256", "manifest", "examples"].includes(name)) walk(inner, path ? `${path} ${words(name)}` : words(name));
    } else if (value != null && value !== "") parts.push(`${path}: ${figure(value)}`);
  };
  walk(test, "");
  return parts.join(" · ");
}

/** The held-out questions whose verdict changed, the lost ones first. */
function flipsSection({ flips, answers, lists }) {
  if (!flips.lost.length && !flips.won.length) return null;
  const cell = (name, value, verdict) => el("td", { "data-label": name }, verdict && verdictMark(verdict), textBlock(value, lists.answers.file));
  const group = (kind) => {
    const [name, meaning, tone] = KIND_NAMES[kind], all = answers[kind] ?? 0, rows = flips[kind], more = all - rows.length;
    return el("tbody", {}, el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: 4 }, el("span", { class: all ? tone : "" }, `${count(all)} ${name}`), ` – ${meaning}`)),
      rows.map((row) => el("tr", {}, el("th", { scope: "row", "data-label": "Question" }, textBlock(row.question, lists.answers.file)), cell("Reference", row.reference),
        cell("Base", row.base.response, row.base.verdict), cell("Adapter", row.adapter.response, row.adapter.verdict))),
      more > 0 && el("tr", {}, el("td", { colspan: 4 }, el("button", { type: "button", class: "quiet", onclick: () => showKind(kind) }, `Show all ${count(all)} in “Row by row”`))));
  };
  const open = answers.undecided ? ` ${plural(answers.undecided, "question")} could not be decided for one of the two.` : "";
  const same = (answers.both_right ?? 0) + (answers.both_wrong ?? 0);
  return section("flips", "What changed", el("p", {}, `${plural(same, "question")} kept the verdict: ${count(answers.both_right ?? 0)} right and ${count(answers.both_wrong ?? 0)} wrong with both.${open}`),
    el("table", { class: "stacked flips" }, el("thead", {}, el("tr", {}, ["Question", "Reference", "Base", "Adapter"].map((name) => el("th", { scope: "col" }, name)))), ["lost", "won"].map(group)));
}

/** What to type next, for the outcome that there is. */
function nextSection({ run, results, home }) {
  if (home && !live) return null; // a site of many runs, read by people who do not have the run folders
  const name = /^[\w.\/-]+$/.test(run) ? run : `'${run.replaceAll("'", `'\\''`)}'`, trained = results.stages?.train?.status === "done";
  const compare = ["Ask base and adapter the same question", `socratune chat ${name} --compare`], again = ["Continue where it stopped", `socratune validate ${name}`];
  const steps = {
    passed: [compare, ["Write it for other programs", `socratune export ${name} --to merged`],
      results.stages?.publish?.status !== "done" && ["See what a publication would hold", `socratune publish ${name} --hub-id YOU/NAME --dry-run`]],
    failed: [trained && compare, trained && ["Look at the rows that were trained on", `socratune inspect ${name}`], ["Train again with another setting", `socratune train ${name} --restart --set train.learning_rate=…`], ["Then prove it again", `socratune validate ${name}`]],
    running: [],
  }[results.status] ?? [again];
  const shown = steps.filter(Boolean);
  return shown.length ? section("next", "Next", el("dl", { class: "next" }, shown.flatMap(([what, command]) => [el("dt", {}, what), el("dd", {}, el("code", {}, ...visible(command)))])),
    el("p", { class: "note" }, "Type these in the folder that holds the run folder.")) : null;
}
