// One row in full: question, attempts with hints and verdicts, the answer before and after, and the review of it.

const TONES = { correct: "good", incorrect: "bad", undecided: "open" };
const GIVEN = { question: "the question alone", evidence: "with the evidence", hint: "with the hint", reference: "with the reference" };

const verdictMark = (verdict) => el("span", { class: TONES[verdict] ?? "open" }, words(verdict ?? "not judged"));

function titled(title, value, fileName, ...marks) {
  return el("div", {}, el("h3", {}, title, ...marks.flatMap((mark) => [" · ", mark])), textBlock(value, fileName));
}

const reasonOf = (judged) => judged.reason ? el("p", { class: "soft reason" }, "Why undecided: ", ...visible(judged.reason)) : null;

const answerOf = (row) => row.answer ?? row.attempts[row.chosen - 1].response;

function traceDetail(row, fileName) {
  const [name, meaning, tone] = KIND_NAMES[row.kind] ?? [words(row.kind), "", ""];
  const first = row.attempts[0], chosen = row.chosen ? row.attempts[row.chosen - 1] : null;
  const facts = [`row ${row.id}`];
  if (row.pass_rate != null) facts.push(`${percent(row.pass_rate, 0)} of the first samples right`);
  if (row.source != null) facts.push(`source ${row.source}`);
  if (row.dropped) facts.push(`not trained on: ${words(row.dropped[0])}${row.dropped[1] ? ` (${row.dropped[1]})` : ""}`);
  if (row.error) facts.push(row.error);
  return [
    el("p", { class: "about" }, el("span", { class: tone }, name), meaning && ` – ${meaning}`),
    row.leaks.length ? el("ul", { class: "leaks" }, row.leaks.map((leak) => el("li", {}, `Leak: ${leak}.`))) : null,
    el("div", { class: "question" }, titled("Question", row.question, fileName)),
    row.turns.length ? el("details", {}, el("summary", {}, plural(row.turns.length, "turn"), " before it"),
      row.turns.map((turn) => titled(words(turn.role), turn.content, fileName))) : null,
    titled("Reference", row.reference, fileName),
    el("div", { class: "pair" },
      first ? titled("Before: first attempt", first.response, fileName, verdictMark(first.verdict)) : null,
      row.review?.decision === "edit" ? titled("After: edited in review", row.review.text, fileName)
        : chosen || row.kind === "reference" ? titled("After: what is trained on", answerOf(row), fileName, ...(chosen ? [verdictMark(chosen.verdict)] : []))
        : el("div", {}, el("h3", {}, "After"), el("p", { class: "soft" }, "No right answer was found, so this row is not trained on."))),
    el("h3", {}, plural(row.attempts.length, "attempt")),
    el("ol", { class: "attempts" }, row.attempts.map((attempt, at) => el("li", { class: at + 1 === row.chosen ? "chosen" : "" },
      el("h4", {}, `${at + 1} · ${GIVEN[attempt.given] ?? words(attempt.given)} · `, verdictMark(attempt.verdict), attempt.judged_by ? ` by ${words(attempt.judged_by)}` : "", at + 1 === row.chosen ? " · chosen" : ""),
      textBlock(attempt.response, fileName), reasonOf(attempt),
      attempt.hint == null ? null : el("div", { class: "hint" }, el("h4", {}, "Hint after this attempt"), textBlock(attempt.hint, fileName))))),
    el("p", { class: "about" }, ...visible(facts.join(" · "))),
  ];
}

function answerDetail(row, fileName) {
  const [name, meaning, tone] = KIND_NAMES[row.kind];
  return [
    el("p", { class: "about" }, el("span", { class: tone }, name), meaning && ` – ${meaning}`),
    el("div", { class: "question" }, titled("Question", row.question, fileName)),
    titled("Reference", row.reference, fileName),
    el("div", { class: "pair" },
      ...[["Base", row.base], ["Adapter", row.adapter]].map(([name, said]) =>
        el("div", {}, titled(name, said.response, fileName, verdictMark(said.verdict)), reasonOf(said)))),
    el("p", { class: "about" }, ...visible(`row ${row.id}`)),
  ];
}

/** Accept, edit, reject or undo; `decided` hears of what the server has kept. */
function reviewBox(row, decided) {
  const status = el("p", { role: "status" });
  const said = row.review ? `${{ accept: "Accepted", edit: "Edited", reject: "Rejected" }[row.review.decision]}, ${row.review.time}.` : "Not reviewed.";
  status.textContent = `${said} Decisions take effect the next time curate runs.`;
  const send = async (decision, text) => {
    try {
      const answer = await fetch("api/review", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: row.id, decision, text }) });
      if (!answer.ok) throw new Error(await answer.text());
      decided(await answer.json());
    } catch (error) {
      status.textContent = `Not saved: ${error.message}`;
    }
  };
  const editor = el("form", { hidden: true }), area = el("textarea", { id: "edit-text", dir: "auto" });
  const trainable = row.chosen != null || row.kind === "reference";
  area.value = row.review?.decision === "edit" ? row.review.text : trainable ? answerOf(row) : (row.attempts.at(-1)?.response ?? "");
  const close = () => { editor.hidden = true; buttons.querySelector("[data-review=edit]").focus(); };
  editor.append(el("label", { for: "edit-text" }, "The answer to train on"), area, el("div", { class: "buttons" },
    el("button", { type: "submit" }, "Save"), el("button", { type: "button", onclick: close }, "Cancel")));
  editor.addEventListener("submit", (event) => { event.preventDefault(); if (area.value.trim()) send("edit", area.value); });
  editor.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } });
  const buttons = el("div", { class: "buttons" },
    el("button", { type: "button", "data-review": "accept", disabled: !trainable, title: trainable ? null : "There is no right answer to accept. Edit one instead.", "aria-pressed": String(row.review?.decision === "accept"), onclick: () => send("accept", answerOf(row)) }, "Accept"),
    el("button", { type: "button", "data-review": "edit", "aria-pressed": String(row.review?.decision === "edit"), onclick: () => { editor.hidden = false; area.focus(); } }, "Edit"),
    el("button", { type: "button", "data-review": "reject", "aria-pressed": String(row.review?.decision === "reject"), onclick: () => send("reject", answerOf(row)) }, "Reject"),
    row.review ? el("button", { type: "button", "data-review": "undo", class: "quiet", onclick: () => send("undo", null) }, "Undo") : null);
  return el("section", { class: "review", "aria-label": "Review" }, status, buttons, editor);
}
