"""What the labels say about a judge, and how the labels are got."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from socratune.errors import CallError, UserError
from socratune.evaluation.audit import SIDES, Audit, Judged, Labelled, Rate, Reported, Side, audit_verdicts
from socratune.evaluation.audit_sheet import draw_audit_sheet, read_labels, recorded_judge, reported_by, run_answers
from socratune.rows import Judgement, QARow, Verdict
from socratune.runs.folder import Results, RunDir
from socratune.runs.journal import Journal

ROW = QARow("r", [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], {})


async def says_what_it_reads(row: QARow, response: str) -> Judgement:
    if response == "refused":
        raise CallError("content filter")
    verdicts: dict[str, Verdict] = {"+": "correct", "-": "incorrect", "?": "undecided"}
    return Judgement(verdicts[response], "llm")


def labelled(label: bool, said: str, count: int, side: Side | None = None) -> list[Labelled]:
    return [Labelled(ROW, said, label, side)] * count


def side_of(side: Side, *, hits: int, misses: int, rejections: int, passes: int) -> list[Labelled]:
    return [
        *labelled(True, "+", hits, side),
        *labelled(True, "-", misses, side),
        *labelled(False, "-", rejections, side),
        *labelled(False, "+", passes, side),
    ]


def audited(rows: list[Labelled], reported: dict[Side, Reported] | None = None) -> Audit:
    return asyncio.run(audit_verdicts(rows, says_what_it_reads, reported=reported))


KINDER = [
    *side_of("base", hits=100, misses=0, rejections=95, passes=5),
    *side_of("adapter", hits=100, misses=0, rejections=80, passes=20),
]


def test_a_judge_that_is_kinder_to_the_adapter_is_found_out() -> None:
    reported: dict[Side, Reported] = {"base": Reported(1050, 2000), "adapter": Reported(1200, 2000)}  # both 50 % right
    found = audited(KINDER, reported)
    assert found.leniency is not None and found.gain is not None
    assert found.leniency.value == pytest.approx(0.15) and (found.leniency.low or 0) > 0.05
    assert found.inflation is not None and found.inflation.value == pytest.approx(0.075)
    assert [found.corrected[side].value for side in SIDES] == pytest.approx([0.5, 0.5])
    assert found.gain.value == pytest.approx(0)
    assert "15 points kinder to the adapter's answers" in found.verdict
    assert "20% of the adapter's wrong answers for right, and 5% of the base's" in found.verdict
    assert "The reported gain of +7.5 points is +0.0 corrected" in found.verdict
    assert "50.0%" in found.table().splitlines()[-1]


def test_an_even_judge_is_not_accused_and_a_real_gain_stays() -> None:
    rows = [*side_of("base", hits=58, misses=2, rejections=38, passes=2)]
    rows += side_of("adapter", hits=77, misses=3, rejections=19, passes=1)
    found = audited(rows, {"base": Reported(600, 1000), "adapter": Reported(780, 1000)})
    assert "not shown to be kinder to either side" in found.verdict
    assert found.gain is not None and found.gain.value is not None and found.gain.low is not None
    assert 0.15 < found.gain.value < 0.25 and found.gain.low > 0


def test_counts_and_rates_and_undecided_apart() -> None:
    rows = [*labelled(True, "+", 8), *labelled(True, "-", 2), *labelled(False, "-", 4), *labelled(False, "+", 1)]
    found = audited([*rows, *labelled(True, "?", 3), *labelled(False, "refused", 1)])
    assert found.overall == Judged(8, 2, 4, 1, undecided=4)
    assert (found.overall.sensitivity, found.overall.specificity) == (Rate(8, 10), Rate(4, 5))
    assert found.overall.agreement.value == 12 / 15
    assert not found.sides and found.gain is None
    assert found.verdict.startswith("The judge agrees with 12 of 15 labels (80%") and "4 are undecided" in found.verdict
    data = json.loads(json.dumps(found.to_json()))
    assert data["overall"]["sensitivity"]["count"] == 8 and data["corrected_gain"] is None


def test_wilsons_interval() -> None:
    assert Rate(8, 10).ci95 == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Rate(0, 10).ci95 == pytest.approx((0, 0.2775), abs=1e-4)
    assert Rate(0, 0).ci95 == (0, 1) and Rate(0, 0).value is None


def test_no_correction_where_it_would_be_made_up() -> None:
    reported: dict[Side, Reported] = {"base": Reported(50, 100), "adapter": Reported(60, 100)}
    coin = [*side_of("base", hits=20, misses=20, rejections=20, passes=20), *KINDER[200:]]
    found = audited(coin, reported)
    assert found.corrected["base"].value is None and "hardly better than a coin" in found.corrected["base"].reason
    assert found.gain is not None and found.gain.value is None and "cannot be corrected" in found.verdict
    few = [*side_of("base", hits=20, misses=0, rejections=3, passes=0), *KINDER[200:]]
    assert "only 3 wrong answers of the base" in audited(few, reported).corrected["base"].reason
    none = [*side_of("base", hits=20, misses=0, rejections=0, passes=0), *KINDER[200:]]
    assert "cannot be told" in audited(none, reported).verdict


def test_corrections_stay_between_0_and_1_and_cut_off_answers_are_wrong() -> None:
    harsh: dict[Side, Reported] = {"base": Reported(1, 100), "adapter": Reported(100, 100, truncated=100)}
    found = audited(KINDER, harsh)
    assert found.corrected["base"].value == 0 and (found.corrected["base"].low or 0) >= 0
    assert found.corrected["adapter"].value == pytest.approx(0.5)
    assert found.reported["adapter"] == 0.5


def test_without_a_run_the_labels_speak_for_themselves() -> None:
    found = audited(KINDER)
    assert found.reported == {"base": 105 / 200, "adapter": 120 / 200}
    assert found.corrected["adapter"].value == 0.5 and (found.corrected["adapter"].high or 0) > 0.55


def test_the_interval_of_the_gain_covers_the_truth() -> None:
    generator = random.Random(1)
    covered = 0
    for _ in range(40):
        rows: list[Labelled] = []
        reported: dict[Side, Reported] = {}
        for side, accuracy, leniency in zip(SIDES, (0.5, 0.55), (0.05, 0.15), strict=True):
            answers = []
            for _ in range(400):
                right = generator.random() < accuracy
                answers.append((right, "+" if generator.random() < (0.95 if right else leniency) else "-"))
            reported[side] = Reported(sum(said == "+" for _, said in answers), 400)
            rows += [Labelled(ROW, said, right, side) for right, said in generator.sample(answers, 100)]
        gain = audited(rows, reported).gain
        assert gain is not None and gain.low is not None and gain.high is not None
        covered += gain.low <= 0.05 <= gain.high
    assert covered >= 36


# --- labels and sheets ---------------------------------------------------------------------------------------------


def test_all_faults_of_a_label_file_at_once(tmp_path: Path) -> None:
    good = {"question": "q", "reference": "a", "response": "b", "label": True}
    file = write_rows(
        tmp_path / "labels.jsonl",
        [good, {**good, "label": "yes"}, {**good, "side": "left"}, {"question": 1}, [], {**good, "label": None}],
    )
    with file.open("a", encoding="utf-8") as stream:
        stream.write("{broken\n")
    with pytest.raises(UserError) as caught:
        read_labels(file)
    wheres = [fault.where.rsplit(" ", 1)[-1] for fault in caught.value.faults]
    assert wheres == ["2", "3", "4", "4", "4", "4", "5", "7"]
    assert "true, false, or null" in str(caught.value) and "base or adapter" in str(caught.value)


def test_rows_that_are_not_labelled_yet_are_left_out(tmp_path: Path) -> None:
    row: dict[str, Any] = {"question": "q", "reference": "a", "response": "b", "label": None}
    file = write_rows(tmp_path / "labels.jsonl", [row, {**row, "label": False, "side": "base"}])
    assert [(one.label, one.side) for one in read_labels(file)] == [(False, "base")]
    for path in (write_rows(tmp_path / "none.jsonl", [row]), tmp_path / "missing.jsonl"):
        with pytest.raises(UserError):
            read_labels(path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A finished validation of 40 questions: the base half right, the adapter all but three, one of them cut off."""
    folder = RunDir(tmp_path / "run")
    folder.create()
    rows = [
        QARow(f"row-{n}", [{"role": "user", "content": f"{n} + 1?"}, {"role": "assistant", "content": str(n + 1)}], {})
        for n in range(40)
    ]
    write_rows(folder.rows("held_out"), [row.to_json() for row in rows])
    Results(folder).set_stage("validate", status="done", key="k")
    journal = Journal(folder.journal)

    async def put() -> None:
        for n, row in enumerate(rows):
            base: Verdict = "undecided" if n == 0 else "correct" if n % 2 else "incorrect"
            told = {"base": (base, "numeric"), "adapter": ("incorrect" if n < 3 else "correct", "numeric")}
            if n == 2:
                told["adapter"] = ("incorrect", "truncated")
            for side, (verdict, judged_by) in told.items():
                answer = {"response": f"{side[0]} {n}", "verdict": verdict, "judged_by": judged_by, "tokens": 3}
                await journal.put_row(f"validate.k.{side}", n, row.id, answer)

    asyncio.run(put())
    journal.close()
    yield folder.root


def test_a_sheet_is_blind_half_and_half_and_joins_again(run: Path, tmp_path: Path) -> None:
    sheet = draw_audit_sheet(run, 30)
    assert sheet == draw_audit_sheet(run, 30) != draw_audit_sheet(run, 30, seed=1)
    assert {tuple(row) for row in sheet} == {("id", "question", "reference", "response", "label")}
    assert len({row["id"] for row in sheet}) == 30
    by_place = [row["response"][0] for row in sheet]
    assert by_place.count("b") == 15 and by_place != sorted(by_place) and by_place != sorted(by_place, reverse=True)
    assert not {"b 0", "a 2"} & {row["response"] for row in draw_audit_sheet(run, 78)}, "undecided or cut off"
    file = write_rows(tmp_path / "labels.jsonl", [{**row, "label": True} for row in sheet])
    joined = read_labels(file, run)
    assert [(one.side or "")[0] for one in joined] == by_place
    file.write_text(json.dumps({**sheet[0], "id": "another", "label": True}) + "\n")
    with pytest.raises(UserError, match="one of the sheet of this run"):
        read_labels(file, run)


def test_the_run_is_audited_as_it_judged_then(run: Path, tmp_path: Path) -> None:
    assert reported_by(run) == {"base": Reported(20, 39), "adapter": Reported(37, 39, truncated=1)}
    labels = [{**row, "label": row["response"].startswith("a")} for row in draw_audit_sheet(run, 78)]
    file = write_rows(tmp_path / "labels.jsonl", labels)
    found = asyncio.run(audit_verdicts(read_labels(file, run), recorded_judge(run), reported=reported_by(run)))
    assert found.sides["base"].leniency.count == 20, "all that the base got right are labelled wrong"
    assert found.sides["base"].undecided == found.sides["adapter"].undecided == 0
    judgement = asyncio.run(recorded_judge(run)(ROW, "never seen"))
    assert judgement.verdict == "undecided"


@pytest.mark.parametrize("spoil", ["results", "journal", "rows"])
def test_a_run_without_a_finished_validation_is_refused(run: Path, spoil: str) -> None:
    folder = RunDir(run)
    if spoil == "results":
        folder.results.unlink()
    elif spoil == "journal":
        folder.journal.unlink()
    else:
        with folder.rows("held_out").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(ROW.to_json()) + "\n")
    with pytest.raises(UserError, match="finished validation"):
        draw_audit_sheet(run, 10)


def test_more_than_there_is_is_refused(run: Path) -> None:
    for count in (1, 200):
        with pytest.raises(UserError, match="judged answers of the"):
            draw_audit_sheet(run, count)


def test_a_real_run_has_what_an_audit_needs(finished_run: Path) -> None:
    answers = run_answers(finished_run)
    results = json.loads((finished_run / "pipeline_results.json").read_text("utf-8"))
    comparison = results["validation"]["tests"]["base_comparison"]
    for side in SIDES:
        judgements = [answer.judgement.verdict for answer in answers if answer.side == side]
        assert len(judgements) == comparison["n"]
        assert judgements.count("correct") / len(judgements) == pytest.approx(comparison[f"{side}_accuracy"])
    assert len(draw_audit_sheet(finished_run, 40)) == 40
