// Many runs: sorted, filtered, each with its page, and any two of them compared.

const { title, runs, pairs, notice } = readJson("runs-data");
const GAIN_LEFT = 4, GAIN_WIDTH = 104;
const ends = runs.flatMap((run) => run.ci95 ?? []), lowest = Math.min(0, ...ends), highest = Math.max(0.01, ...ends);
const place = (value) => GAIN_LEFT + ((value - lowest) / (highest - lowest)) * (GAIN_WIDTH - 2 * GAIN_LEFT);

const day = (updated) => updated.slice(0, 16).replace("T", "\u00a0");
const lastPart = (text) => (/^([~.]{0,2}\/|[A-Za-z]:\\)/.test(text ?? "") ? text.split(/[/\\]/).pop() : (text ?? "")); // a path's beginning says little
const COLUMNS = [
  { name: "Run", value: (run) => run.name.toLowerCase(), cell: nameCell },
  { name: "Verdict", value: (run) => run.headline[0], cell: verdictCell },
  { name: "Base → adapter", value: (run) => run.adapter_accuracy, cell: (run) => (run.ci95 ? `${percent(run.base_accuracy)} → ${percent(run.adapter_accuracy)}` : ""), kind: "num", most: true },
  { name: "Difference", value: (run) => run.difference, cell: gainCell, kind: "gain", most: true },
  { name: "Rows", value: (run) => run.rows, cell: (run) => (run.rows == null ? "" : count(run.rows)), kind: "num", most: true },
  { name: "Model", value: (run) => lastPart(run.model).toLowerCase(), cell: (run) => named(lastPart(run.model)) },
  { name: "Method", value: (run) => run.method, cell: (run) => named(run.method) },
  { name: "Cost", value: (run) => run.usd, cell: (run) => (run.status === "broken" ? "" : usd(run.usd)), kind: "num", most: true },
  { name: "Date, UTC", value: (run) => run.updated, cell: (run) => day(run.updated), kind: "date", most: true },
];
let sorted = { column: COLUMNS.at(-1), down: true };
const ticked = []; // at most two, the first ticked is A

const named = (text) => visible(text ?? "");

function nameCell(run) {
  const box = el("input", { type: "checkbox", disabled: !run.comparable, "aria-label": `compare ${run.name}`, title: run.comparable ? "compare" : "this run has no proof yet" });
  box.checked = ticked.includes(run);
  box.addEventListener("change", () => {
    if (box.checked) ticked.push(run);
    else ticked.splice(ticked.indexOf(run), 1);
    if (ticked.length > 2) ticked.shift();
    if (pairs) ticked.sort((one, other) => runs.indexOf(one) - runs.indexOf(other)); // a page that is there has its A and B
    show();
  });
  const mark = ticked.length && ticked.includes(run) ? el("span", { class: "side" }, "AB"[ticked.indexOf(run)]) : null;
  return [el("span", { class: "tick" }, box, mark), run.href ? el("a", { href: run.href }, ...visible(run.name)) : el("span", {}, ...visible(run.name))];
}

function verdictCell(run) {
  return [el("span", { class: run.headline[1] }, run.headline[0]), run.why && el("small", { title: run.why }, ...firstLine(run.why))];
}

function gainCell(run) {
  if (!run.ci95) return "";
  const [low, high] = run.ci95, node = svg("svg", { viewBox: `0 0 ${GAIN_WIDTH} 14`, "aria-hidden": "true" });
  const tone = low > 0 ? "var(--good)" : high < 0 ? "var(--bad)" : "var(--open)";
  const line = svg("line", { class: "span", x1: place(low), x2: Math.max(place(high), place(low) + 1), y1: 7, y2: 7 }), dot = svg("circle", { cx: place(run.difference), cy: 7, r: 4 });
  line.style.stroke = dot.style.fill = tone;
  node.append(svg("line", { class: "zero", x1: place(0), x2: place(0), y1: 0, y2: 14 }), line, dot);
  return [el("span", {}, signed(run.difference), el("small", {}, ` ${signed(low)} to ${signed(high)}, n ${count(run.n)}`)), node];
}

function inOrder(one, other) {
  const [a, b] = [one, other].map(sorted.column.value);
  if (a == null || b == null || a === b) return (a == null) - (b == null) || one.name.localeCompare(other.name); // unknown ones last either way
  return (a < b ? -1 : 1) * (sorted.down ? -1 : 1);
}

function sortBy(column, down = column === sorted.column ? !sorted.down : Boolean(column.most)) {
  sorted = { column, down };
  show();
}

function header() {
  $("head").replaceChildren(el("tr", {}, COLUMNS.map((column) => el("th", { scope: "col", class: column.kind ?? "", "aria-sort": column === sorted.column ? (sorted.down ? "descending" : "ascending") : null },
    el("button", { type: "button", class: "quiet", "data-column": column.name, onclick: () => { sortBy(column); $("head").querySelector(`[data-column="${column.name}"]`).focus(); } },
      column.name, column === sorted.column && el("span", { "aria-hidden": "true" }, sorted.down ? " ↓" : " ↑"))))));
}

/** The page that compares the two that are ticked, or why there is none. */
function comparison() {
  if (ticked.length < 2) return { text: "Compare", hint: runs.filter((run) => run.comparable).length > 1 ? "Select two runs to compare them." : "" };
  if (!pairs) return { text: "Compare A and B", href: `compare?${new URLSearchParams({ a: ticked[0].name, b: ticked[1].name })}` };
  const [a, b] = ticked.map((run) => runs.indexOf(run));
  const found = pairs.find(([x, y]) => (x === a && y === b) || (x === b && y === a));
  return found ? { text: "Compare A and B", href: found[2] } : { text: "Compare", hint: "This site has no page for these two runs: they share no question, or the site has reached its limit of pages. On your machine: socratune compare A B." };
}

function show() {
  header();
  $("order").value = `${COLUMNS.indexOf(sorted.column)} ${sorted.down}`;
  const needle = $("search").value.trim().toLowerCase(), status = $("status").value;
  const fitting = runs.filter((run) => (!status || run.headline[0] === status) && (!needle || lowerText(run).includes(needle))).sort(inOrder);
  const focused = document.activeElement?.closest("#body tr")?.dataset.run;
  $("body").replaceChildren(...fitting.map((run) => el("tr", { "data-run": String(runs.indexOf(run)), class: ticked.includes(run) ? "ticked" : "" }, COLUMNS.map((column, at) =>
    el(at ? "td" : "th", { scope: at ? null : "row", class: `${column.kind ?? ""} c${at}`, "data-label": column.name }, column.cell(run))))));
  if (focused != null) $("body").querySelector(`[data-run="${focused}"] input`)?.focus();
  const { text, href, hint } = comparison();
  Object.assign($("compare"), { textContent: text, disabled: !href, onclick: () => void (location.href = href) });
  $("count").textContent = `${fitting.length === runs.length ? "" : `${count(fitting.length)} of `}${plural(runs.length, "run")}. ${hint ?? ""}`;
}

const lowerText = (run) => [run.name, run.model, run.dataset, run.method, run.headline[0], run.why].join("\n").toLowerCase();

function start() {
  startTheme();
  document.title = `${title} · Socratune`;
  $("title").replaceChildren(...visible(title));
  const passed = runs.filter((run) => run.status === "passed").length, going = runs.filter((run) => run.status === "running").length;
  $("lead").textContent = [`${plural(runs.length, "run")}, ${passed} of which passed the gate`, going && `${going} still running`].filter(Boolean).join("; ") + ".";
  $("notice").hidden = !notice;
  $("notice").replaceChildren(...visible(notice));
  const tally = [...new Set(runs.map((run) => run.headline[0]))].map((name) => [name, runs.filter((run) => run.headline[0] === name).length]);
  $("status").replaceChildren(el("option", { value: "" }, "all"), ...tally.map(([name, number]) => el("option", { value: name }, `${name} (${number})`)));
  $("order").replaceChildren(...COLUMNS.flatMap((column, at) => (column.most ? [true, false] : [false, true]).map((down) => el("option", { value: `${at} ${down}` }, `${column.name} ${down ? "↓" : "↑"}`))));
  $("order").addEventListener("change", () => { const [at, down] = $("order").value.split(" "); sortBy(COLUMNS[at], down === "true"); });
  for (const id of ["search", "status"]) $(id).addEventListener("input", show);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select")) { event.preventDefault(); $("search").focus(); }
  });
  show();
}

start();
