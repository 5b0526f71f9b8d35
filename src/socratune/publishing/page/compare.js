// A comparison: the verdict, every metric with its interval, and the questions on which A and B differ, lost ones first.

Object.assign(KIND_NAMES, {
  lost: ["lost", "B does worse than A", "bad"],
  unscored: ["not scored", "A or B has no score", "open"],
  won: ["won", "B does better than A", "good"],
  both_wrong: ["both wrong", "", "open"],
  both_right: ["both right", "", "plain"],
  same: ["same score", "", "plain"],
});
const KIND_ORDER = ["lost", "won", "unscored", "both_wrong", "both_right", "same"];
const VERDICT_TONES = { better: "good", not_worse: "", worse: "bad", inconclusive: "open" };

const compared = readJson("compared-data"), allRows = readJson("rows-data");
let entry = compared.metrics[0], source = null, list = null, openRow = null, kind = "";

// --- scores

const inUnits = (value) => (entry.scale === "share" ? percent(value, 0) : figure(value));
const shown = (value) => (value == null ? "not scored" : entry.binary ? (value ? "right" : "wrong") : inUnits(value));

function meanOf(scores) {
  const held = (scores ?? []).filter((score) => score != null);
  return held.length ? held.reduce((sum, score) => sum + score, 0) / held.length : null;
}

function kindOf(a, b) {
  if (a == null || b == null) return "unscored";
  const gain = entry.lower_is_better ? a - b : b - a;
  if (gain) return gain < 0 ? "lost" : "won";
  return entry.binary && a === 0 ? "both_wrong" : entry.binary && a === 1 ? "both_right" : "same";
}

/** The rows that have the metric, as the list shows them: kind, change, and the largest losses first. */
function rowsByMetric() {
  const rows = allRows.filter((row) => row.scores[entry.name]);
  for (const row of rows) {
    const [a, b] = row.scores[entry.name].map(meanOf);
    row.kind = kindOf(a, b);
    row.size = a == null || b == null ? 0 : Math.abs(b - a);
    row.change = ["lost", "won"].includes(row.kind) && !(entry.binary && row.size === 1) ? `${inUnits(a)} → ${inUnits(b)}` : "";
  }
  return rows.sort((one, other) => KIND_ORDER.indexOf(one.kind) - KIND_ORDER.indexOf(other.kind) || other.size - one.size);
}

// --- what is said of all

function verdictPart() {
  const { a, b, matched } = compared, tone = VERDICT_TONES[compared.verdict];
  const side = (name, one) => el("div", {}, el("dt", {}, name), el("dd", {}, ...visible(one.name), el("small", {}, ...visible(` ${[one.format, one.model, one.samples > 1 && `${one.samples} samples a question`].filter(Boolean).join(", ")}`))));
  const best = compared.metrics.length === 1 ? compared.metrics[0] : null;
  const inPoints = (value) => (best.scale === "share" ? signed(value) : `${value < 0 ? "−" : "+"}${figure(Math.abs(+value.toPrecision(3)))}`);
  const value = (number) => (best.scale === "share" ? percent(number) : figure(number));
  const lead = best
    ? `On ${plural(best.n, "question")} that both answered, ${best.name} is ${value(best.a)} for A and ${value(best.b)} for B. B gains ${inPoints(best.difference)}${best.scale === "share" ? " points" : ""}, 95% interval ${inPoints(best.ci95[0])} to ${inPoints(best.ci95[1])}.`
    : `On ${plural(matched.questions, "question")} that both answered, by ${compared.metrics.length} metrics: ${compared.metrics.map((one) => `${one.name} ${words(one.verdict)}`).join(", ")}.`;
  return el("section", { class: "verdict" },
    el("h1", { class: tone }, compared.headline),
    el("p", { class: "lead" }, ...visible(lead)),
    el("dl", { class: "facts" }, side("A", a), side("B", b),
      el("div", {}, el("dt", {}, "gate"), el("dd", { class: compared.gate.passed ? "good" : "bad" }, compared.gate.passed ? "passed" : "failed"))));
}

/** Differences with their intervals, shares and numbers on axes of their own. */
function forestFigure(entries, unit) {
  const node = el("figure", {});
  draw(node, (width) => {
    const narrow = width < 560, left = narrow ? 8 : Math.min(300, width * 0.34), right = width - 12, step = narrow ? 48 : 34;
    const ends = entries.flatMap((one) => [...one.ci95, one.difference, 0]), lowest = Math.min(...ends), highest = Math.max(...ends), room = (highest - lowest || 0.02) * 0.06;
    const low = lowest - room, high = highest + room, x = (value) => left + ((value - low) / (high - low)) * (right - left), bottom = entries.length * step + 10;
    const text = (value) => (value === 0 ? "0" : unit === "share" ? signed(value) : `${value < 0 ? "−" : "+"}${figure(Math.abs(+value.toPrecision(3)))}`);
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${bottom + 30}`, role: "img", "aria-label": entries.map((one) => `${one.label}: ${text(one.difference)}, ${text(one.ci95[0])} to ${text(one.ci95[1])}`).join("; ") });
    drawn.append(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }), svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: bottom }));
    for (const value of [...new Set([lowest, 0, highest])]) {
      if (value !== 0 && Math.abs(x(value) - x(0)) < 44) continue;
      drawn.append(svg("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }), svgText(Math.min(Math.max(x(value), left), right), bottom + 20, text(value), x(value) > right - 30 ? "end" : x(value) < left + 30 ? "start" : "middle"));
    }
    entries.forEach((one, at) => {
      const y = at * step + (narrow ? 32 : 20), tone = { good: "var(--good)", bad: "var(--bad)", open: "var(--open)" }[VERDICT_TONES[one.verdict]] ?? "var(--accent)";
      drawn.append(svgText(narrow ? 0 : one.part ? 14 : 0, narrow ? y - 14 : y + 4, clipped(one.label, (narrow ? width : left) / 7.4), "start", one.part ? "" : "value"));
      const line = svg("line", { class: "span", x1: x(one.ci95[0]), x2: x(one.ci95[1]), y1: y, y2: y }), dot = svg("circle", { cx: x(one.difference), cy: y, r: one.part ? 4 : 5.5 });
      line.style.stroke = dot.style.fill = tone;
      drawn.append(line, dot);
    });
    return drawn;
  });
  node.append(el("figcaption", {}, unit === "share" ? "Gain of B in points, 95% interval" : "Gain of B in the metric's own units, 95% interval"));
  return node;
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, Math.max(4, most - 1))}…` : text);

function metricsPart() {
  const lines = compared.metrics.flatMap((one) => [{ ...one, label: one.name }, ...(one.by_task ?? []).map((part) => ({ ...part, label: part.task, part: true }))]);
  const shares = lines.filter((one) => one.scale === "share"); // on one axis; every other metric has its own units
  const figures = [...(shares.length ? [["share", shares]] : []), ...compared.metrics.filter((one) => one.scale === "number").map((one) => ["number", lines.filter((line) => line.name === one.name)])];
  const header = ["Metric", "n", "A", "B", "Gain of B", "95% interval", "p", "Verdict"], right = [1, 2, 3, 4, 5, 6], wide = [1, 5, 6];
  const cls = (at) => `${right.includes(at) ? "num" : ""} ${wide.includes(at) ? "wide" : ""}`.trim();
  const table = el("table", { class: "compared" },
    el("thead", {}, el("tr", {}, header.map((name, at) => el("th", { scope: "col", class: cls(at) }, name)))),
    el("tbody", {}, compared.cells.map(([cells, verdict]) => el("tr", { class: cells[0].startsWith("  ") ? "part" : "" },
      el("th", { scope: "row" }, ...visible(cells[0].trim())), ...cells.slice(1).map((cell, at) => el("td", { class: cls(at + 1) }, cell.replaceAll("-", "−"))),
      el("td", { class: VERDICT_TONES[verdict] || "plain" }, words(verdict))))));
  return el("section", { "aria-labelledby": "metrics-heading" }, el("h2", { id: "metrics-heading" }, compared.metrics.length > 1 ? "Metrics" : "The difference"),
    ...figures.map(([unit, ones]) => forestFigure(ones, unit)), table,
    el("ul", { class: "sentences" }, compared.sentences.map((text) => el("li", {}, ...visible(text)))));
}

// --- question by question

function showKinds() {
  const button = (value, name, number) => el("button", { type: "button", "aria-pressed": String(value === kind), "data-kind": value, onclick: () => { kind = value; filter(); } }, `${name} ${count(number)}`);
  $("kinds").replaceChildren(button("", "All", source.rows.length), ...KIND_ORDER.filter((one) => source.kinds[one]).map((one) => button(one, kindName(one)[0].toUpperCase() + kindName(one).slice(1), source.kinds[one])));
}

async function filter() {
  const task = $("task").value;
  const total = await source.filter({ kind, mark: "", verdict: "", text: $("search").value });
  source.found = task ? source.found.filter((row) => row.task === task) : source.found;
  list.show(source, task ? source.found.length : total);
  showKinds();
  const left = compared.left_out ? ` ${plural(compared.left_out, "question")} with equal scores did not fit on this page.` : "";
  $("count").textContent = `${count(source.found.length)} of ${plural(source.rows.length, "question")}.${left}`;
}

function choose(name) {
  entry = compared.metrics.find((one) => one.name === name) ?? compared.metrics[0];
  $("metric").value = entry.name;
  source = new EmbeddedRows(rowsByMetric());
  if (kind && !source.kinds[kind]) kind = "";
  return filter();
}

function sideDetail(name, answers, scores) {
  const marks = (scores ?? []).map((score) => el("span", { class: score == null ? "open" : entry.binary ? (score ? "good" : "bad") : "" }, shown(score)));
  if (!answers.length) return el("div", {}, el("h3", {}, name, ...marks.flatMap((mark) => [" · ", mark])), el("p", { class: "soft" }, "The log has no answer."));
  return el("div", {}, answers.map((answer, at) => el("div", {}, el("h3", {}, answers.length > 1 ? `${name}, sample ${at + 1}` : name, ...(answers.length === marks.length ? [" · ", marks[at]] : marks.flatMap((mark) => [" · ", mark]))), textBlock(answer, "the log"))));
}

const address = (row) => `#question=${encodeURIComponent(row.id)}${entry === compared.metrics[0] ? "" : `&metric=${encodeURIComponent(entry.name)}`}`;

function showRow(index, row, focus = true) {
  openRow = row;
  const [name, meaning, tone] = KIND_NAMES[row.kind];
  const [a, b] = row.scores[entry.name];
  const others = Object.entries(row.scores).filter(([metric]) => metric !== entry.name).map(([metric, scores]) => `${metric}: ${scores.map((side) => { const mean = meanOf(side); return mean == null ? "not scored" : figure(mean); }).join(" → ")}`);
  $("detail").replaceChildren(
    el("div", { class: "detail-head" },
      el("button", { type: "button", onclick: () => step(-1) }, "Previous"), el("button", { type: "button", onclick: () => step(1) }, "Next"),
      el("span", {}, `${count(index + 1)} of ${count(list.total)}`), el("button", { type: "button", onclick: closeRow }, "Close")),
    el("p", { class: "about" }, el("span", { class: tone }, name), meaning && ` – ${meaning}`, compared.metrics.length > 1 && ` (${entry.name})`),
    el("div", { class: "question" }, el("h3", {}, "Question"), textBlock(row.question, "the log")),
    ...(row.reference ? [el("h3", {}, "Reference"), textBlock(row.reference, "the log")] : []),
    el("div", { class: "pair" }, sideDetail("A", row.a, a), sideDetail("B", row.b, b)),
    el("p", { class: "about" }, el("a", { href: address(row) }, ...visible(`question ${row.id}`)), ...visible([row.cluster && ` · cluster ${row.cluster}`, ...others.map((text) => ` · ${text}`)].filter(Boolean).join(""))));
  $("detail").hidden = false;
  $("panes").classList.add("split");
  $("detail").scrollTop = 0;
  behind(getComputedStyle($("detail")).position === "fixed");
  history.replaceState(null, "", address(row));
  if (focus) { $("panes").scrollIntoView({ block: "nearest" }); $("detail").focus({ preventScroll: true }); }
}

/** On a phone an open row covers the page: nothing behind it takes the focus. */
function behind(covered) {
  for (const node of document.querySelectorAll(".skip, .page-head, #overview, #kinds, #filters, #rows")) node.inert = covered;
}

function closeRow() {
  if ($("detail").hidden) return;
  $("detail").hidden = true;
  $("panes").classList.remove("split");
  behind(false);
  openRow = null;
  history.replaceState(null, "", location.pathname + location.search);
  list.focus();
}

function step(by) {
  const open = openRow !== null, inside = $("detail").contains(document.activeElement);
  list.move(by);
  if (open) showRow(list.current, source.at(list.current), inside);
}

/** The question that the address names, in the list without any filter. */
async function openAddress() {
  const named = new URLSearchParams(location.hash.slice(1)), id = named.get("question");
  if (id === null) return;
  kind = $("search").value = $("task").value = "";
  await choose(named.get("metric") ?? compared.metrics[0].name);
  const index = source.found.findIndex((row) => row.id === id);
  if (index < 0) return void ($("count").textContent = `This page has no question ${id}.`);
  list.select(index);
  showRow(index, source.at(index));
}

function onKey(event) {
  const typing = event.target.closest("input, select"), inList = $("rows").contains(event.target);
  if (event.key === "Escape") {
    if (!typing) return closeRow();
    if ($("search").value) { $("search").value = ""; filter(); }
    return typing.blur();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  else if (event.key === "j" || (event.key === "ArrowDown" && inList)) { event.preventDefault(); step(1); }
  else if (event.key === "k" || (event.key === "ArrowUp" && inList)) { event.preventDefault(); step(-1); }
  else if (event.key === "Enter" && event.target === $("rows") && list.current >= 0) list.open(list.current);
}

function start() {
  startTheme();
  $("overview").replaceChildren(verdictPart(), metricsPart());
  document.title = `${compared.headline} · Socratune`;
  $("sections").prepend(...homeLink(compared.home));
  if (!allRows.length) for (const node of document.querySelectorAll(".explorer, .skip, [href='#rows-heading']")) node.remove(); // a page of figures alone
  if (!allRows.length) return;
  list = new VirtualList($("rows"), (index) => showRow(index, source.at(index)));
  const fill = (select, names) => select.replaceChildren(...names.map(([value, name]) => el("option", { value }, name)));
  const tasks = [...new Set(allRows.map((row) => row.task))].filter(Boolean);
  fill($("metric"), compared.metrics.map((one) => [one.name, one.name]));
  fill($("task"), [["", "all"], ...tasks.map((task) => [task, task])]);
  $("metric-label").hidden = compared.metrics.length < 2;
  $("task-label").hidden = tasks.length < 2;
  $("search").addEventListener("input", filter);
  $("task").addEventListener("change", filter);
  $("metric").addEventListener("change", () => { closeRow(); choose($("metric").value); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("rows").addEventListener("focus", () => { if (list.current < 0 && list.total) { list.current = 0; list.draw(); } });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", openAddress);
  choose(entry.name).then(openAddress);
}

start();
