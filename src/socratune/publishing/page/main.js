// Connects the parts: which list is shown, the filters, the keyboard, the theme, and, with a server, what is new.

const NAMES = { traces: "Training traces", answers: "Held-out answers" };
const MARKS = { "": "all", leaked: "leaked", dropped: "not trained on", trained: "not dropped", reviewed: "reviewed" };
const POLL_MS = 1000;

let overview = readJson("overview-data");
const live = overview === null;
const sources = {}, leftOut = {};
let what = "traces", list = null, shownFilter = 0, openRow = null, tag = null;

const wanted = () => ({ kind: $("kind").value, mark: what === "traces" ? $("mark").value : "", verdict: $("verdict").value, text: $("search").value });

function options(select, pairs) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, name]) => el("option", { value }, name)));
  select.value = pairs.some(([value]) => value === before) ? before : "";
}

function showLists() {
  $("lists").replaceChildren(...Object.keys(NAMES).filter((name) => name === "traces" || overview.lists[name].total).map((name) =>
    el("button", { type: "button", "aria-pressed": String(name === what), "data-list": name, onclick: () => choose(name) }, `${NAMES[name]} ${count(overview.lists[name].total)}`)));
}

function showKinds() {
  options($("kind"), [["", "all"], ...Object.entries(sources[what].kinds).map(([kind, number]) => [kind, `${kindName(kind)} (${count(number)})`])]);
  options($("mark"), Object.entries(MARKS));
  options($("verdict"), [["", "any"], ["correct", "correct"], ["incorrect", "incorrect"], ["undecided", "undecided"]]);
  $("mark-label").hidden = what !== "traces";
  $("verdict-label").textContent = what === "traces" ? "First answer" : "Base";
}

async function choose(name) {
  what = name;
  closeRow();
  for (const id of ["kind", "mark", "verdict"]) $(id).value = "";
  showLists();
  await filter();
  showKinds();
}

/** Lists the held-out answers of one kind and goes there. */
async function showKind(kind) {
  await choose("answers");
  $("kind").value = kind;
  await filter();
  $("rows-heading").focus();
  $("rows-heading").scrollIntoView();
}

async function filter({ keep = false } = {}) {
  const asked = ++shownFilter, source = sources[what], total = await source.filter(wanted());
  if (asked !== shownFilter) return;
  list.show(source, total, { keep });
  if (live) showKinds();
  const { total: all, damaged, file } = overview.lists[what];
  const missing = Object.entries(leftOut[what] ?? {}).filter(([, number]) => number);
  const parts = [`${count(total)} of ${plural(all, "row")}.`];
  if (missing.length) parts.push(`Not in this page: ${missing.map(([kind, number]) => `${count(number)} ${kindName(kind)}`).join(", ")} (they are in ${file} and in socratune ui).`);
  if (damaged) parts.push(`${plural(damaged, "line")} of ${file} could not be read.`);
  if (!all && what === "traces") parts.push("The loop has not written a trace yet.");
  $("count").textContent = parts.join(" ");
}

async function openAt(index, { focus = true } = {}) {
  const row = await sources[what].full(index);
  if (row && index === list.current) showRow(index, row, focus);
}

function showRow(index, row, focus = true) {
  openRow = row;
  const file = `${overview.lists[what].file} and in socratune ui`, body = what === "traces" ? traceDetail(row, file) : answerDetail(row, file);
  $("detail").replaceChildren(...[
    el("div", { class: "detail-head" },
      el("button", { type: "button", onclick: () => step(-1) }, "Previous"), el("button", { type: "button", onclick: () => step(1) }, "Next"),
      el("span", {}, `${count(index + 1)} of ${count(list.total)}`), el("button", { type: "button", onclick: closeRow }, "Close")),
    live && what === "traces" ? reviewBox(row, (review) => decided(row, review)) : null, ...body].filter(Boolean));
  $("detail").hidden = false;
  $("panes").classList.add("split");
  $("detail").scrollTop = 0;
  behind(getComputedStyle($("detail")).position === "fixed");
  if (focus) $("panes").scrollIntoView({ block: "nearest" });
  if (focus) $("detail").focus({ preventScroll: true });
}

/** On a phone an open row covers the page: nothing behind it takes the focus. */
function behind(covered) {
  for (const node of document.querySelectorAll(".skip, .page-head, #overview, #lists, #filters, #rows, #appendix")) node.inert = covered;
}

function closeRow() {
  if ($("detail").hidden) return false;
  $("detail").hidden = true;
  $("panes").classList.remove("split");
  behind(false);
  openRow = null;
  list.focus();
  return true;
}

function step(by) {
  const open = openRow !== null, inside = $("detail").contains(document.activeElement);
  list.move(by);
  if (open) openAt(list.current, { focus: inside });
}

/** A decision was kept: shown where the row stands now, without asking for the list again, which may have moved on. */
function decided(row, review) {
  for (const one of [row, sources.traces.at(list.current)]) if (one?.id === row.id) one.review = review.decision === "undo" ? null : review;
  list.draw();
  if (openRow === row) showRow(list.current, row);
}

function onKey(event) {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) { if ($("search").value) { $("search").value = ""; filter(); } typing.blur(); } else closeRow();
    return;
  }
  if (typing) {
    if (event.target === $("search") && (event.key === "Enter" || event.key === "ArrowDown")) { event.preventDefault(); list.select(0); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const review = { a: "accept", e: "edit", r: "reject", u: "undo" }[event.key];
  if (event.key === "/") { event.preventDefault(); $("search").focus(); $("search").select(); }
  else if (event.key === "j" || (event.key === "ArrowDown" && inList(event))) { event.preventDefault(); step(1); }
  else if (event.key === "k" || (event.key === "ArrowUp" && inList(event))) { event.preventDefault(); step(-1); }
  else if (event.key === "Enter" && event.target === $("rows") && list.current >= 0) list.open(list.current);
  else if (review && live && openRow) { const button = $("detail").querySelector(`[data-review=${review}]`); if (button) { event.preventDefault(); button.click(); } }
}

const inList = (event) => $("rows").contains(event.target);

function start() {
  list = new VirtualList($("rows"), (index) => openAt(index));
  let waiting = 0;
  $("search").addEventListener("input", () => { clearTimeout(waiting); if (live) waiting = setTimeout(filter, 200); else filter(); });
  for (const id of ["kind", "mark", "verdict"]) $(id).addEventListener("change", () => filter());
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("rows").addEventListener("focus", () => { if (list.current < 0 && list.total) { list.current = 0; list.draw(); } });
  document.addEventListener("keydown", onKey);
  $("review-keys").hidden = !live;
  for (const name of Object.keys(NAMES)) {
    sources[name] = live ? new ServedRows(name, () => list.draw()) : new EmbeddedRows(readJson(`${name}-data`) ?? []);
    leftOut[name] = live ? {} : readJson("left-out-data")[name];
  }
  const bare = !live && Object.values(sources).every((source) => !source.rows.length); // a page of figures alone
  for (const node of document.querySelectorAll("#filters, #panes, .keys")) node.hidden = bare;
  choose("traces");
}

async function poll() {
  try {
    const answer = await fetch("api/state", tag ? { headers: { "If-None-Match": tag } } : {});
    if (answer.ok) {
      tag = answer.headers.get("ETag");
      const fresh = await answer.json(), first = overview === null;
      const marks = (data) => JSON.stringify([data.lists, data.kinds, Object.values(data.results.stages ?? {}).map((stage) => stage.status)]);
      const changed = !first && marks(fresh) !== marks(overview);
      overview = fresh;
      showOverview(overview);
      const news = first ? "" : `${fresh.headline[0]}. ${Object.entries(fresh.results.stages ?? {}).map(([name, stage]) => `${name} ${words(stage.status)}`).at(-1) ?? ""}`;
      if (changed && $("news").textContent !== news) $("news").textContent = news; // read out when a stage begins or ends, not every second
      if (first) start();
      else { showLists(); if (changed && !openRow) await filter({ keep: true }); }
    } else if (answer.status !== 304) throw new Error(await answer.text());
  } catch (error) {
    $("run-name").replaceChildren(...visible(error instanceof TypeError ? "The server has stopped. Start it again: socratune ui" : error.message));
    tag = null;
  }
  setTimeout(poll, POLL_MS);
}

startTheme();
if (live) poll();
else {
  showOverview(overview);
  document.addEventListener("DOMContentLoaded", start);
}
