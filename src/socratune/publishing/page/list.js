// Rows from the page itself or from a server, filtered, in a list that draws only what is in view.

const ROW_HEIGHT = 56, TALLEST = 8_000_000, PAGE_ROWS = 100;

function lowerWords(value) {
  if (typeof value === "string") return value.toLowerCase();
  return value && typeof value === "object" ? Object.values(value).map(lowerWords).join("\n") : "";
}

const whenIdle = window.requestIdleCallback?.bind(window) ?? ((work) => setTimeout(() => { // Safari
  const end = performance.now() + 10;
  work({ timeRemaining: () => end - performance.now() });
}));

/** The rows that stand in the page. */
class EmbeddedRows {
  constructor(rows) {
    this.rows = rows;
    this.words = new Array(rows.length);
    this.found = rows;
    this.kinds = {};
    for (const row of rows) this.kinds[row.kind] = (this.kinds[row.kind] ?? 0) + 1;
    this.prepare(0);
  }
  prepare(from) {
    const ready = (deadline) => {
      let at = from;
      while (at < this.rows.length && deadline.timeRemaining() > 2) this.wordsOf(at++);
      if (at < this.rows.length) this.prepare(at);
    };
    if (from < this.rows.length) whenIdle(ready);
  }
  wordsOf(at) {
    return (this.words[at] ??= lowerWords(this.rows[at]));
  }
  async filter({ kind, mark, verdict, text }) {
    const needle = text.trim().toLowerCase();
    const fits = { leaked: (r) => r.leaks?.length, dropped: (r) => r.dropped, trained: (r) => !r.dropped, reviewed: (r) => r.review }[mark];
    this.found = this.rows.filter((row, at) =>
      (!kind || row.kind === kind) && (!fits || fits(row)) && (!verdict || firstVerdict(row) === verdict) && (!needle || this.wordsOf(at).includes(needle)));
    return this.found.length;
  }
  at(index) {
    return this.found[index];
  }
  async full(index) {
    return this.found[index];
  }
}

/** The rows of a server, page by page. */
class ServedRows {
  constructor(what, arrived) {
    this.what = what;
    this.arrived = arrived;
    this.kinds = {};
    this.asked = new Map();
    this.query = "";
  }
  async filter(wanted) {
    this.query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
    const asked = new Map(), first = await this.page(0, asked);
    this.asked = asked; // only now: until then the list draws what it had
    this.kinds = first.kinds ?? {};
    return first.total ?? 0;
  }
  /** A page of the list, at once where it was asked for before. */
  async page(number, asked = this.asked) {
    if (!asked.has(number)) asked.set(number, this.fetched(number));
    const found = asked.get(number);
    if (found instanceof Promise) asked.set(number, await found);
    return asked.get(number);
  }
  async fetched(number) {
    try {
      const answer = await fetch(`api/rows/${this.what}?offset=${number * PAGE_ROWS}&limit=${PAGE_ROWS}&${this.query}`);
      return answer.ok ? await answer.json() : { rows: [] };
    } catch {
      return { rows: [] }; // the server is gone; the page says so
    }
  }
  at(index) {
    const number = Math.floor(index / PAGE_ROWS), found = this.asked.get(number);
    if (!found) this.page(number).then(() => this.arrived());
    return found?.rows?.[index % PAGE_ROWS];
  }
  async full(index) {
    const row = this.at(index) ?? (await this.page(Math.floor(index / PAGE_ROWS))).rows[index % PAGE_ROWS];
    const answer = row && (await fetch(`api/row/${this.what}?id=${encodeURIComponent(row.id)}`));
    return answer?.ok ? answer.json() : null;
  }
}

const firstVerdict = (row) => (row.base ? row.base.verdict : row.attempts?.[0]?.verdict);

/** What stands under a question in the list. */
function rowNote(row) {
  const [name, , tone] = KIND_NAMES[row.kind] ?? [words(row.kind), "", ""];
  const parts = [el("span", { class: tone }, name)];
  if (row.attempts?.length > 1) parts.push(` · ${row.attempts.length} attempts`);
  if (row.leaks?.length) parts.push(" · ", el("span", { class: "bad" }, "leak"));
  if (row.dropped && row.dropped[0] !== row.outcome) parts.push(` · ${words(row.dropped[0])}`);
  if (row.change) parts.push(` · ${row.change}`);
  if (row.review) parts.push(" · ", el("span", { class: "good" }, `reviewed: ${row.review.decision}`));
  return parts;
}

/** A list that holds elements only for the rows in view. */
class VirtualList {
  constructor(box, opened) {
    this.box = box;
    this.opened = opened;
    this.total = 0;
    this.current = -1;
    this.all = el("div", { class: "all", role: "presentation" });
    box.append(this.all);
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
  }
  show(source, total, { keep = false } = {}) {
    this.source = source;
    this.total = total;
    this.all.style.height = `${Math.min(TALLEST, total * ROW_HEIGHT)}px`;
    if (!keep) this.box.scrollTop = 0;
    if (!keep || source.at(this.current)?.id !== this.currentId) this.current = -1;
    this.draw();
  }
  draw() {
    const height = this.box.clientHeight, most = this.all.offsetHeight - height;
    const span = Math.max(0, this.total - height / ROW_HEIGHT);
    const first = most > 0 ? (this.box.scrollTop / most) * span : 0;
    const from = Math.max(0, Math.floor(first) - 3), to = Math.min(this.total, Math.ceil(first + height / ROW_HEIGHT) + 3);
    const focused = this.all.contains(document.activeElement) ? document.activeElement.dataset.index : null;
    const items = [];
    for (let index = from; index < to; index++) items.push(this.item(index, this.box.scrollTop + (index - first) * ROW_HEIGHT));
    if (!this.total) items.push(el("p", { class: "none" }, "No row matches."));
    this.all.replaceChildren(...items);
    this.currentId = this.source?.at(this.current)?.id;
    if (focused != null) this.all.querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }
  item(index, top) {
    const row = this.source.at(index);
    const button = el("button", { type: "button", "data-index": index, tabindex: -1, "aria-current": index === this.current ? "true" : null, onclick: () => this.open(index) },
      el("b", { dir: "auto" }, row ? firstLine(row.question) : "…"), el("small", {}, row ? rowNote(row) : ""));
    const item = el("div", { class: "item", role: "listitem", "aria-setsize": this.total, "aria-posinset": index + 1 }, button);
    item.style.top = `${top}px`;
    return item;
  }
  move(by) {
    if (this.total) this.select(Math.min(this.total - 1, Math.max(0, this.current + by)));
  }
  select(index) {
    this.current = index;
    const height = this.box.clientHeight, most = this.all.offsetHeight - height, span = this.total - height / ROW_HEIGHT;
    const first = most > 0 ? (this.box.scrollTop / most) * span : 0;
    if (most > 0) {
      if (index < first) this.box.scrollTop = (index / span) * most;
      else if (index + 1 > first + height / ROW_HEIGHT) this.box.scrollTop = ((index + 1 - height / ROW_HEIGHT) / span) * most;
    }
    this.draw();
    this.focus();
  }
  focus() {
    this.all.querySelector(`[data-index="${this.current}"]`)?.focus({ preventScroll: true });
  }
  open(index) {
    this.current = index;
    this.draw();
    this.opened(index);
  }
}
