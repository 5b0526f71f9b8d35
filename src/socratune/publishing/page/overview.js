// The run at one glance: verdict, where the rows went, curves, cost, configuration.

const KIND_NAMES = {
  unsolved: ["unsolved", "no sample and no hint led to a right answer", "bad"],
  error: ["failed", "a model refused or filtered a call", "bad"],
  undecided: ["undecided", "the judge could not decide", "open"],
  knowledge: ["knowledge", "right only with the evidence in the prompt", ""],
  hinted: ["hinted", "wrong alone, right after a hint", ""],
  reference: ["from the reference", "the reference answer, or the student's wording of it", "open"],
  learnable: ["learnable", "some samples right, some wrong", ""],
  first_try: ["first try", "the only sample was right", "plain"],
  mastered: ["mastered", "every sample right: little to learn", "plain"],
  lost: ["lost", "the base was right, the adapter is wrong", "bad"],
  won: ["won", "the base was wrong, the adapter is right", "good"],
  both_wrong: ["both wrong", "", "open"],
  both_right: ["both right", "", "plain"],
};
const kindName = (kind) => KIND_NAMES[kind]?.[0] ?? words(kind);

function proven(results) {
  const done = ["done", "failed"].includes(results.stages?.validate?.status);
  const comparison = results.validation?.tests?.base_comparison;
  return done && comparison && "base_accuracy" in comparison ? comparison : null;
}

function leadText({ results, why }) {
  const comparison = proven(results);
  const sentences = [];
  if (comparison) {
    const [low, high] = comparison.ci95;
    const open = comparison.undecided?.pairs ?? 0;
    const asked = open
      ? `The judge decided ${comparison.n} of ${plural(comparison.n + open, "question")} that neither model had seen and left the others undecided. Of the decided questions,`
      : `On ${plural(comparison.n, "question")} that neither model had seen,`;
    sentences.push(
      `${asked} the adapter answers ${percent(comparison.adapter_accuracy)} correctly and ` +
        `its base ${percent(comparison.base_accuracy)}: a difference of ${signed(comparison.difference)} points (95% interval ${signed(low)} to ${signed(high)}).`,
    );
  }
  if (why) sentences.push(why);
  if (!sentences.length) sentences.push("There is no proof yet that the adapter is better than its base.");
  return sentences.join(" ");
}

function running({ stages, updated }) {
  const [name, entry] = Object.entries(stages ?? {}).find(([, one]) => one.status === "running") ?? [];
  if (!name) return null;
  const text = `${name}: ${entry.total ? `${count(entry.done)} of ${count(entry.total)}` : "starting"}, ${duration(entry.seconds)}`;
  const left = entry.done > 0 && entry.total > entry.done ? (entry.seconds / entry.done) * (entry.total - entry.done) : null;
  const label = left == null ? text : `${text}; about ${duration(left)} left`;
  return el("div", {}, el("p", { id: "progress-text" }, label),
    el("progress", { "aria-labelledby": "progress-text", max: entry.total || 1, value: entry.total ? entry.done : null }),
    updated && el("p", { class: "note" }, `As of ${updated}.`));
}

function verdictSection(data) {
  const { results } = data;
  const [title, tone] = data.headline;
  const comparison = proven(results);
  const facts = [
    ["model", results.model], ["data", results.dataset],
    comparison && ["won", [count(comparison.wins), ` of ${count(comparison.n)}`]],
    comparison && ["lost", [count(comparison.losses), ` of ${count(comparison.n)}`]],
    comparison?.undecided?.pairs > 0 && ["undecided", [count(comparison.undecided.pairs), ` of ${count(comparison.n + comparison.undecided.pairs)}`]],
    comparison?.p != null && ["p", [comparison.p < 0.001 ? "< 0.001" : comparison.p.toFixed(3), ""]],
    results.stages?.enhance?.leaks && ["hints that leak", [percent(results.stages.enhance.leaks.rate), ` of ${count(results.stages.enhance.leaks.measured)} measured`]],
  ].filter(Boolean).filter(([, value]) => value != null);
  return el("section", { class: "verdict", id: "verdict-section" },
    el("h1", { class: tone }, title),
    el("p", { class: "lead" }, ...visible(leadText(data))),
    results.status === "running" ? running(results) : null,
    comparison && intervalFigure(comparison),
    comparison && accuracyTable(results.validation.tests),
    el("dl", { class: "facts" }, facts.map(([name, value]) => {
      const [main, small] = Array.isArray(value) ? value : [value, ""];
      return el("div", {}, el("dt", {}, term(name)), el("dd", {}, ...visible(String(main)), small && el("small", {}, small)));
    })),
    el("p", { class: "note made" }, ...visible(madeText(results))));
}

/** When, by which version, in what time and for what money the run was made. */
function madeText({ updated, socratune, stages, rented }) {
  const all = Object.values(stages ?? {}), spent = [...all.flatMap((one) => Object.values(one.spent ?? {})), ...(rented ? [rented] : [])];
  return [updated && updated.replace("T", " ").replace(/(:\d\d)?Z$/, " UTC"), socratune && `Socratune ${socratune}`, duration(all.reduce((sum, one) => sum + (one.seconds ?? 0), 0)),
    spent.length ? `cost ${usd(total(spent, "usd"))}` : "no paid calls"].filter(Boolean).join(" · ");
}

/** The sum of what is known; null where a part is not. */
const total = (spent, name) => (spent.some((one) => one[name] == null) ? null : spent.reduce((sum, one) => sum + one[name], 0));

const FREQUENT = 0.1;  // from this share on it is said what the most frequent answer alone would come to

/** Accuracy by set of questions and by kind; nothing where there is one set of one kind. */
function accuracyTable({ base_comparison: heldOut, recall }) {
  const lines = [], parts = [heldOut, recall].filter(Boolean).flatMap((one) => [one, ...Object.values(one.by_kind ?? {})]);
  const telling = (part) => part.majority?.accuracy >= FREQUENT && part.majority.accuracy * part.n > 1.5;  // the answer of one question says nothing
  const frequent = parts.some(telling);
  const add = (name, part, cls) => lines.push(el("tr", { class: cls }, el("th", { scope: "row" }, ...visible(name)),
    [["n", count(part.n)], ["Base", percent(part.base_accuracy)], ["Adapter", percent(part.adapter_accuracy)], ["Difference, 95% interval", `${signed(part.difference)} (${signed(part.ci95[0])} to ${signed(part.ci95[1])})`],
      ...(frequent ? [["For comparison", telling(part) ? `${percent(part.majority.accuracy)} by always saying “${part.majority.reference}”` : ""]] : [])].map(([label, text]) => el("td", { "data-label": label }, ...visible(text)))));
  for (const [name, part] of [["held-out questions", heldOut], ["recall", recall]]) {
    if (!part?.ci95) continue;
    add(part.asks ?? name, part, "");
    const kinds = Object.entries(part.by_kind ?? {});
    if (kinds.length > 1) for (const [kind, one] of kinds) add(kind, one, "part");
  }
  if (lines.length < 2 && !frequent) return null;
  return el("table", { class: "stacked accuracy" }, el("thead", {}, el("tr", {},
    ["Questions", "n", "Base", "Adapter", "Difference, 95% interval", ...(frequent ? ["For comparison"] : [])].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, lines));
}

/** Both accuracies on one axis, the difference with its interval on another. */
function intervalFigure(comparison) {
  const figureNode = el("figure", { class: "drawn" });
  const { base_accuracy: base, adapter_accuracy: adapter, difference, ci95: [low, high] } = comparison;
  const label = `Base ${percent(base)}, adapter ${percent(adapter)}; difference ${signed(difference)} points, 95% interval ${signed(low)} to ${signed(high)}`;
  draw(figureNode, (width) => {
    const left = width < 500 ? 0 : 130, right = width - 8, top = width < 500 ? 26 : 6;
    const x = (share) => left + 8 + share * (right - left - 8);
    const edge = Math.min(1, Math.max(0.1, Math.ceil(Math.max(Math.abs(low), Math.abs(high), Math.abs(difference)) * 11) / 10));
    const from = low < 0 ? -edge : 0, dx = (value) => x((Math.min(edge, Math.max(from, value)) - from) / (edge - from));
    const row = width < 500 ? 92 : 74, node = svg("svg", { viewBox: `0 0 ${width} ${2 * row + 14}`, role: "img", "aria-label": label });
    const axis = (y, ticks, place) => {
      node.append(svg("line", { class: "axis", x1: x(0), x2: right, y1: y, y2: y }));
      for (const [value, text] of ticks) {
        node.append(svg("line", { class: "axis", x1: place(value), x2: place(value), y1: y - 4, y2: y + 4 }));
        node.append(svgText(Math.min(place(value), right), y + 20, text, place(value) > right - 20 ? "end" : place(value) < x(0) + 4 ? "start" : "middle"));
      }
    };
    const y1 = top + 34, y2 = top + row + 34, narrow = width < 500;
    axis(y1, [0, 0.25, 0.5, 0.75, 1].map((v) => [v, percent(v, 0)]), x);
    node.append(svgText(0, narrow ? 12 : y1 + 4, comparison.undecided?.pairs ? "correct, of decided" : "correct answers"));
    node.append(svg("circle", { class: "hollow", cx: x(base), cy: y1, r: 5.5 }));
    node.append(svg("circle", { class: "dot", cx: x(adapter), cy: y1, r: 6 }));
    const names = [`base ${percent(base)}`, `adapter ${percent(adapter)}`].map((text, at) => {  // above its dot, within the drawing
      const half = 4 * text.length;
      return { text, half, at: Math.min(Math.max(at ? x(adapter) : x(base), x(0) + half), right - half) };
    });
    const above = Math.abs(names[0].at - names[1].at) < names[0].half + names[1].half + 8 ? 15 : 0;  // one over the other
    names.forEach(({ text, at }, nth) => node.append(svgText(at, y1 - 13 - (nth ? 0 : above), text, "middle", "value")));
    const fine = edge > 0.5 ? 0.25 : edge > 0.2 ? 0.1 : 0.05, step = narrow && edge - from > 6 * fine ? 2 * fine : fine, ticks = [];
    for (let value = Math.ceil(from / step) * step; value <= edge + 1e-9; value += step) ticks.push([value, Math.abs(value) < 1e-9 ? "0" : `${value < 0 ? "−" : "+"}${Math.round(100 * Math.abs(value))}`]);
    axis(y2, ticks, dx);
    node.append(svgText(0, narrow ? row + 12 : y2 + 4, narrow ? "difference in points, 95% interval" : "difference in points"));
    node.append(svg("line", { class: "zero", x1: dx(0), x2: dx(0), y1: y2 - 9, y2: y2 + 5 }));
    node.append(svg("line", { class: "span", x1: dx(low), x2: dx(high), y1: y2, y2: y2 }));
    for (const end of [low, high]) node.append(svg("line", { class: "cap", x1: dx(end), x2: dx(end), y1: y2 - 6, y2: y2 + 6 }));
    node.append(svg("circle", { class: "dot", cx: dx(difference), cy: y2, r: 5 }));
    const edgeOf = dx(difference) > right - 100 ? "end" : dx(difference) < x(0) + 100 ? "start" : "middle";
    node.append(svgText(edgeOf === "end" ? Math.min(right, dx(difference) + 60) : edgeOf === "start" ? Math.max(x(0), dx(difference) - 60) : dx(difference), y2 - 13, `${signed(difference)} (${signed(low)} to ${signed(high)})`, edgeOf, "value"));
    return node;
  });
  return figureNode;
}

function svgText(x, y, text, anchor = "start", kind = "") {
  const node = svg("text", { x, y, "text-anchor": anchor, class: kind });
  node.textContent = text;
  return node;
}

const PAPER_WIDTH = 660; // of A4 between its margins, in CSS pixels

/** Draw into a figure at its own width, and again when that changes or the page is printed. */
function draw(figureNode, make) {
  let width = 0;
  figureNode.drawAt = (now) => {
    if (!now || now === width) return;
    width = now;
    figureNode.querySelector("svg")?.remove();
    figureNode.prepend(make(width));
  };
  new ResizeObserver(([entry]) => figureNode.drawAt(Math.round(entry.contentRect.width))).observe(figureNode);
}

addEventListener("beforeprint", () => document.querySelectorAll("figure").forEach((one) => one.drawAt?.(one.closest(".charts") ? PAPER_WIDTH / 2 : PAPER_WIDTH)));
addEventListener("afterprint", () => document.querySelectorAll("figure").forEach((one) => one.drawAt?.(Math.round(one.clientWidth))));

/** Lines over steps. `lines`: [{name, points: [[step, value]], second}]. */
function lineFigure(title, lines, { marks = [], share = false, caption = "" } = {}) {
  const points = lines.flatMap((line) => line.points);
  const figureNode = el("figure", {}, el("figcaption", {}, caption));
  const show = (value) => (share ? percent(value, 1) : figure(+value.toPrecision(3)));
  draw(figureNode, (width) => {
    const height = 210, left = 46, right = width - 12, top = 16, bottom = height - 26;
    const last = Math.max(...points.map(([step]) => step)), start = Math.min(...points.map(([step]) => step));
    const values = points.map(([, value]) => value).filter(Number.isFinite);
    const high = share ? 1 : Math.max(...values) || 1, low = share ? Math.min(0.9, Math.floor(Math.min(...values) * 10) / 10) : Math.min(0, ...values);
    const x = (step) => left + ((step - start) / (last - start || 1)) * (right - left);
    const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
    const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${lines.map((l) => `${l.name} from ${show(l.points[0][1])} to ${show(l.points.at(-1)[1])}`).join("; ")}` });
    for (const value of [low, (low + high) / 2, high]) {
      node.append(svg("line", { class: "axis", x1: left, x2: right, y1: y(value), y2: y(value) }));
      node.append(svgText(left - 8, y(value) + 4, share ? percent(value, 0) : Math.abs(value) < 1e4 ? figure(+value.toPrecision(2)) : value.toLocaleString("en-US", { notation: "compact" }), "end"));
    }
    for (const step of start === last ? [start] : [start, last]) node.append(svgText(x(step), height - 8, `step ${count(step)}`, step === start ? "start" : "end"));
    for (const [step] of marks) node.append(svg("line", { class: "best", x1: x(step), x2: x(step), y1: top, y2: bottom }));
    const taken = [];
    const label = (at, heights, text, kind) => {  // at the first height where it covers no other, within the drawing
      const wide = 7.5 * text.length + 4, from = Math.max(left, Math.min(at > width / 2 ? at - wide : at, right - wide));
      const fits = (height) => height > top - 4 && height < bottom && taken.every(([l, r, other]) => from > r || from + wide < l || Math.abs(height - other) > 14);
      const height = heights.find(fits) ?? heights[0];
      taken.push([from, from + wide, height]);
      node.append(at > width / 2 ? svgText(Math.max(at, from + wide), height, text, "end", kind) : svgText(from, height, text, "start", kind));
    };
    for (const line of lines) {
      const kind = line.second ? " second" : "";
      const path = line.points.filter(([, value]) => Number.isFinite(value)).map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      node.append(svg("path", { class: `line${kind}`, d: path }));
      if (line.points.length <= 40) for (const [step, value] of line.points) node.append(svg("circle", { class: `dot${kind}`, cx: x(step), cy: y(value), r: 3 }));
    }
    const around = (at) => [-9, 18, -24, 34, -39, 49].map((shift) => at + shift);
    for (const { name, points } of lines) label(x(points.at(-1)[0]) + (x(points.at(-1)[0]) > width / 2 ? 0 : 6), around(y(points.at(-1)[1])), `${name} ${show(points.at(-1)[1])}`, "value");
    const rising = [...Array(9).keys()].map((at) => bottom - 6 - 15 * at);
    for (const [step, text] of marks) label(x(step) + (x(step) > width / 2 ? -5 : 5), rising, text);
    return node;
  });
  return el("div", {}, el("h3", {}, title), figureNode);
}

function funnelSection(data) {
  const stages = data.results.stages ?? {}, split = stages.split ?? {}, curated = stages.curate ?? {}, train = stages.train ?? {};
  const all = split.rows_in || stages.enhance?.total || 0;
  if (!all && !Object.keys(data.kinds).length) return null;
  const scale = all || 1, lines = [];
  const line = (name, value, note = "", kind = "", tone = "") => lines.push(el("tr", { class: kind },
    el("th", { scope: "row" }, name, note && el("small", {}, note)), el("td", { class: "num" }, count(value)),
    el("td", { class: "num soft wide" }, percent(value / scale)), el("td", {}, bar(value / scale, tone))));
  line("rows in", all, "", "step", "plain");
  if (split.bad_rows) line("unreadable", split.bad_rows, "skipped; see input.rejected.jsonl", "part", "bad");
  if (split.too_long) line("too long", split.too_long, "for the model; see input.rejected.jsonl", "part", "bad");
  const leftOut = Object.entries(split.left_out ?? {});
  for (const [reason, number] of leftOut) line(words(reason), number, "left out by people in the tool that exported them; see input.rejected.jsonl", "part", "open");
  if (split.contaminated) line("also held out", split.contaminated, "dropped because the proof asks them", "part", "open");
  const unused = (split.bad_rows ?? 0) + (split.too_long ?? 0) + (split.contaminated ?? 0) + leftOut.reduce((sum, [, number]) => sum + number, 0);
  const apart = all - (split.train_in ?? all) - unused - (split.dev ?? 0);
  if (split.dev) line("development", split.dev, "used to choose the epoch", "part", "plain");
  if (apart > 0) line("held out and set apart", apart, "never trained on", "part", "plain");
  if (split.train_in != null) line("into the loop", split.train_in, "", "step");
  const order = ["mastered", "first_try", "learnable", "hinted", "knowledge", "reference", "unsolved", "undecided", "error"];
  for (const kind of order) if (data.kinds[kind]) line(kindName(kind), data.kinds[kind], KIND_NAMES[kind][1], "part", KIND_NAMES[kind][2]);
  if (curated.rows_out != null) {
    const dropped = Object.entries(curated.dropped ?? {}).sort((a, b) => b[1] - a[1]);
    line("dropped", dropped.reduce((sum, [, value]) => sum + value, 0), dropped.length ? "train.rejected.jsonl gives the reason for each" : "", "step", "open");
    for (const [reason, value] of dropped) line(words(reason), value, "", "part", "open");
    if (train.too_long) line("too long", train.too_long, "left out, not cut", "part", "open");
    line("trained on", train.rows_out ?? curated.rows_out, train.replay_rows ? `plus ${count(train.replay_rows)} answers of the base to neutral prompts, to prevent forgetting` : "", "step");
  }
  return section("rows-went", "Where the rows went", el("table", { class: "funnel" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Rows"), el("th", { scope: "col", class: "num" }, "Number"), el("th", { scope: "col", class: "num wide" }, "Share"), el("td", {}))),
    el("tbody", {}, lines)));
}

/** What of the source became questions, where the run began with one. */
function coverageSection(data) {
  const made = data.results.stages?.generate;
  if (made?.passages == null) return null;
  const facts = [
    ["documents", count(made.documents), ""], ["passages used", count(made.passages_used), ` of ${count(made.passages)}`],
    ["questions", count(made.rows), ` ${count(made.siblings)} of them siblings`],
    ["per 1,000 tokens", figure(made.questions_per_1000_tokens), ` of ${count(made.tokens)}, by ${made.tokens_by}`], ["written by", made.writer_model, ""],
  ];
  const table = (id, title, found, tone) => {
    const entries = Object.entries(found ?? {}), all = entries.reduce((sum, [, value]) => sum + value, 0) || 1;
    return entries.length ? [el("h3", {}, title), el("table", { class: "funnel" }, el("tbody", {}, entries.map(([name, value]) => el("tr", { class: "part" },
      el("th", { scope: "row" }, words(name)), el("td", { class: "num" }, count(value)), el("td", {}, bar(value / all, tone))))))] : [];
  };
  return section("coverage", "Questions from the source",
    el("dl", { class: "facts" }, facts.map(([name, main, small]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...visible(String(main)), small && el("small", {}, small))))),
    ...table("types", "Types", made.types, "good"), ...table("rejected", "Rejected; qa.rejected.jsonl gives the reason for each", made.rejected, "open"));
}

function bar(share, tone) {
  const node = el("span", { class: `bar ${tone}` });
  node.style.width = `${100 * Math.min(1, share)}%`;
  node.hidden = !share;
  return node;
}

function section(id, title, ...children) {
  return el("section", { id, "aria-labelledby": `${id}-heading` }, el("h2", { id: `${id}-heading` }, title), children);
}

function trainingSection(data) {
  const train = data.results.stages?.train ?? {}, { loss, dev, train: seen } = data.curves, charts = [];
  if (loss?.length) charts.push(lineFigure("Loss", [{ name: "loss", points: loss }], { caption: `On the trained tokens, for every step${loss.length >= 500 ? " (500 steps are shown)" : ""}.` }));
  const epochs = train.epochs?.filter((e) => e.dev_accuracy != null) ?? [];
  const devLine = epochs.length ? epochs.map((e) => [e.step, e.dev_accuracy]) : dev;
  const trainLine = epochs.length ? epochs.filter((e) => e.train_accuracy != null).map((e) => [e.step, e.train_accuracy]) : (seen ?? []);
  if (devLine?.length) {
    const marks = [], best = train.epochs?.find((e) => e.epoch === train.best_epoch);
    if (best) marks.push([best.step, `epoch ${figure(best.epoch)} kept`]);
    const phases = train.grokking;
    if (phases?.memorised_step != null) marks.push([phases.memorised_step, "memorised"]);
    if (phases?.generalised_step != null) marks.push([phases.generalised_step, "generalised"]);
    const lines = [{ name: "dev", points: devLine }];
    if (trainLine.length) lines.push({ name: "train", points: trainLine, second: true });
    const late = phases ? ` Late generalisation: ${phases.delayed_generalisation ? "yes" : "no"}.` : "";
    charts.push(lineFigure("Correct answers", lines, { share: true, marks, caption: `On the development rows, after every epoch.${late}` }));
  }
  return charts.length ? section("training", "Training", el("div", { class: "charts" }, charts)) : null;
}

/** What each round came to, where there were several. */
function roundsSection(data) {
  const { rounds, rounds_end: end } = data.results;
  if (!rounds?.length) return null;
  const heads = ["Round", "Dev", `Any of ${rounds[0].samples}`, "Correct answers per row", "Solved alone", "Hinted", "Trained on"];
  const cells = (one) => [String(one.round), percent(one.dev_accuracy), percent(one.pass_at_k), figure(+one.distinct_traces.toPrecision(3)), count(one.solved), count(one.hinted), count(one.rows)];
  return section("rounds", "Rounds", el("table", {},
    el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: "num" }, name)))),
    el("tbody", {}, rounds.map((one) => el("tr", {}, cells(one).map((text) => el("td", { class: "num" }, text)))))),
    end && el("p", { class: "note" }, `Round ${end.kept} is kept; ${end.reason}.`));
}

function costSection(data) {
  const stages = Object.entries(data.results.stages ?? {});
  if (!stages.length) return null;
  const heads = (names, wide) => el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col", class: `${/^(In|Out|Time|Tokens|USD)$/.test(name) ? "num" : ""} ${wide.includes(name) ? "wide" : ""}` }, name))));
  const tone = { done: "good", failed: "bad", error: "bad", interrupted: "open", stopped: "open" };
  const spentIn = (entry) => Object.values(entry.spent ?? {});
  const rows = stages.map(([name, entry]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: tone[entry.status] ?? "" }, words(entry.status)),
    el("td", { class: "num wide" }, entry.rows_in == null ? "" : count(entry.rows_in)), el("td", { class: "num wide" }, entry.rows_out == null ? "" : count(entry.rows_out)),
    el("td", { class: "num" }, duration(entry.seconds)),
    el("td", { class: "num wide" }, spentIn(entry).length ? count(total(spentIn(entry), "tokens")) : ""), el("td", { class: "num" }, spentIn(entry).length ? usd(total(spentIn(entry), "usd")) : "")));
  const seconds = stages.reduce((all, [, entry]) => all + (entry.seconds ?? 0), 0), { rented } = data.results, paid = stages.flatMap(([, entry]) => spentIn(entry));
  rows.push(el("tr", {}, el("th", { scope: "row" }, "all"), el("td", {}), el("td", { class: "wide" }), el("td", { class: "wide" }), el("td", { class: "num" }, duration(seconds)), el("td", { class: "num wide" }, paid.length ? count(total(paid, "tokens")) : ""), el("td", { class: "num" }, paid.length || rented ? usd(total([...paid, ...(rented ? [rented] : [])], "usd")) : "")));
  if (rented) rows.splice(-1, 0, el("tr", {}, el("th", { scope: "row" }, "rented machine"), el("td", {}), el("td", { class: "wide" }), el("td", { class: "wide" }), el("td", {}), el("td", { class: "wide" }), el("td", { class: "num" }, usd(rented.usd))));
  const roles = stages.flatMap(([stage, entry]) => Object.entries(entry.spent ?? {}).map(([role, spent]) => el("tr", {},
    el("th", { scope: "row" }, role.split(".").at(-1)), el("td", { class: "wide" }, stage), el("td", { class: "num" }, count(spent.tokens)), el("td", { class: "num" }, usd(spent.usd)))));
  const enhance = data.results.stages.enhance ?? {};
  const leaks = enhance.hints == null ? null : el("p", { class: "note" },
    `Hints: ${count(enhance.hints)} given, ${count(enhance.hints_rejected ?? 0)} rejected because they would have given the answer away. ` +
    (enhance.leaks ? `By the student's own probabilities, ${percent(enhance.leaks.rate)} of ${count(enhance.leaks.measured)} measured hints give it away. ` : "") + `${plural(data.leaked, "trace")} marked as leaked.` +
    (enhance.looped ? ` ${plural(enhance.looped, "answer")} repeated themselves and were stopped.` : ""));
  return section("cost", "Time and cost", el("div", {},
    el("table", {}, heads(["Stage", "Outcome", "In", "Out", "Time", "Tokens", "USD"], ["In", "Out", "Tokens"]), el("tbody", {}, rows)),
    el("h3", {}, "By role"),
    roles.length ? el("table", {}, heads(["Role", "Stage", "Tokens", "USD"], ["Stage"]), el("tbody", {}, roles)) : el("p", { class: "note" }, "There were no paid calls: every model ran in this process or is a set of rules."),
    leaks));
}

function configSection(data) {
  if (!data.config.length) return null;
  const only = el("input", { type: "checkbox", id: "config-all" });
  const body = el("tbody");
  const fill = () => body.replaceChildren(...data.config.filter(([, , origin]) => only.checked || origin !== "default").map(([key, value, origin]) =>
    el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, ...visible(value)), el("td", {}, origin))));
  only.addEventListener("change", fill);
  fill();
  return section("configuration", "Configuration",
    el("p", {}, el("label", {}, only, ` show all ${data.config.length} settings, including those at their default`)),
    el("table", { class: "config" }, el("thead", {}, el("tr", {}, ["Setting", "Value", "From"].map((name) => el("th", { scope: "col" }, name)))), body),
    ...hashes(data.results), el("p", { class: "note" }, "The run folder holds everything: config.yaml, pipeline_results.json and provenance.json."));
}

/** Which weights, data and files the figures belong to. */
function hashes({ stages = {}, inputs = {}, validation, provenance }) {
  const student = stages.enhance?.student ?? {}, files = validation?.tests?.file_integrity?.sha256 ?? {};
  const found = [["base, weights", student.weights], ["base, commit", student.revision], ["base, chat template", student.template], ["data set, commit", stages.split?.commit],
    ...Object.entries(inputs).map(([name, hash]) => [`${words(name)}, sha256`, hash]), ["adapter_model.safetensors, sha256", files["adapter_model.safetensors"]], ["provenance.json", provenance]].filter(([, value]) => value);
  return found.length ? [el("h3", {}, "Commits and hashes"), el("table", { class: "config hashes" }, el("tbody", {}, found.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, ...visible(String(value)))))))] : [];
}

/** A part of the page; results of another version may lack what it draws, and then only this part is missing. */
function part(make, data) {
  try {
    return make(data);
  } catch (error) {
    return el("p", { class: "notice" }, `A part of this page could not be drawn: ${error.message}. Its numbers are in pipeline_results.json.`);
  }
}

function showOverview(data) {
  const parts = [verdictSection, ...(data.results.status === "failed" ? [checksSection, flipsSection] : [flipsSection, checksSection]), nextSection, coverageSection, funnelSection, roundsSection, trainingSection, costSection].map((make) => part(make, data)).filter(Boolean);
  document.getElementById("overview").replaceChildren(...parts);
  const appendix = document.getElementById("appendix");
  if (!appendix.firstChild) appendix.replaceChildren(...[part(configSection, data)].filter(Boolean));
  document.getElementById("run-name").replaceChildren(...visible(data.run));
  document.title = `${data.headline[0]} · ${data.run} · Socratune`;
  const links = [...document.querySelectorAll("#overview section[id]:not(.verdict) > h2, .explorer > h2, #configuration > h2")];
  document.getElementById("sections").replaceChildren(...homeLink(data.home), ...links.map((heading) => el("a", { href: `#${heading.id}` }, heading.textContent)));
}
