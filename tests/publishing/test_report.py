"""report.html: opens from disk, says the verdict, shows whatever text as text, stays quick and small."""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import socratune, write_rows
from pages import answer, browser, make_large_run, make_run, opened, trace

from socratune.config import GateConfig
from socratune.evaluation import FEWEST_CLUSTERS, verdict_on
from socratune.publishing import report
from socratune.publishing.browsing import Filter, answers_of, traces_of
from socratune.publishing.filling import script_json, shortened
from socratune.publishing.report import curves, make_report, write_report
from socratune.rows import Attempt, QARow, Trace
from socratune.runs.folder import RunDir, write_jsonl
from socratune.runs.review import record_decision, review_decisions

COMPARISON = {
    "base_accuracy": 0.275, "adapter_accuracy": 0.9975, "difference": 0.7225, "ci95": [0.6775, 0.765], "p": 0.0001,
    "n": 400, "wins": 289, "losses": 0, "verdict": "better", "passed": True,
}  # fmt: skip
REFUSED = [{"role": "assistant", "content": "999999"}]
HOSTILE = [
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\"><!-- <script>",
    "red \x1b[31mANSI\x1b[0m, bell \x07, bidi \u202eevil\u202c, tag \U000e0041, line \u2028 end",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def embedded(run: RunDir, name: str) -> Any:
    """The data of the page, by the id of its script element."""
    html = run.report.read_text("utf-8")
    found = re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def url(run: RunDir) -> str:
    return run.report.absolute().as_uri()


def test_the_page_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, [trace("a"), trace("b", outcome="unsolved")], [answer("x")])
    make_report(run)
    html = run.report.read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', html) and "@import" not in html
    assert "connect-src 'none'" in html and "unsafe-inline" not in html
    assert [row["id"] for row in embedded(run, "traces")] == ["b", "a"]
    assert embedded(run, "answers")[0]["kind"] == "won"
    assert ["model", "demo", "given"] in embedded(run, "overview")["config"]


def test_unsolved_and_leaked_come_first_and_losses_lead_the_held_out_answers(tmp_path: Path) -> None:
    leaked = trace("leaked", outcome="solved_with_hint")
    leaked["metadata"]["enhancement"]["hints_rejected"] = 2
    rows = [trace("easy"), trace("hinted", outcome="solved_with_hint"), leaked, trace("open", outcome="unsolved")]
    answers = [answer("won"), answer("lost", "correct", "incorrect"), answer("open", "incorrect", "undecided")]
    run = make_run(tmp_path, rows, answers)
    write_jsonl(run.hint_measures, [{"row_id": "easy", "spoils": False}, {"row_id": "leaked", "spoils": True}])
    write_jsonl(run.rejected("train"), [{"id": "open", "reason": "unsolved", "detail": "", "row": {}}])
    make_report(run)
    shown = embedded(run, "traces")
    assert [row["id"] for row in shown] == ["open", "leaked", "hinted", "easy"]
    assert [len(row["leaks"]) for row in shown] == [0, 2, 0, 0] and embedded(run, "overview")["leaked"] == 1
    assert shown[0]["dropped"] == ["unsolved", ""]
    assert "2 hints would have given the answer away" in shown[1]["leaks"][0]
    assert [row["kind"] for row in embedded(run, "answers")] == ["lost", "undecided", "won"]


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_MOST_ROWS", 3)
    run = make_run(tmp_path, [*(trace(f"t{n}") for n in range(5)), trace("u", outcome="unsolved")])
    make_report(run)
    assert [row["id"] for row in embedded(run, "traces")] == ["u", "t0", "t1"]
    assert embedded(run, "left-out")["traces"] == {"unsolved": 0, "first_try": 3}


@pytest.mark.parametrize("letter", ["x", "字"])
def test_a_page_has_a_size_and_long_texts_are_cut_before_rows_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    monkeypatch.setattr(report, "TRACE_BYTES", 100_000)
    run = make_run(tmp_path, (trace(f"t{n}", response=letter * 20_000) for n in range(100)))
    make_report(run)
    shown, left = embedded(run, "traces"), embedded(run, "left-out")["traces"]
    assert run.report.stat().st_size < 200_000
    assert shown[0]["attempts"][0]["response"] == {"cut": letter * 2_000, "length": 20_000}
    assert 10 < len(shown) == 100 - left["first_try"]


def test_json_in_a_script_element_holds_nothing_a_parser_acts_on() -> None:
    text = script_json({"a": "</script><!--<script>\u2028\u2029&\ud800"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"a": "</script><!--<script>\u2028\u2029&\ud800"}
    assert shortened(["ab", {"c": "abc"}, None], 2) == ["ab", {"c": {"cut": "ab", "length": 3}}, None]


def test_a_run_outlives_its_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path, [trace("a")])
    run.review.write_text("damaged\n\n", "utf-8")
    with caplog.at_level(logging.WARNING):
        write_report(run)
    assert "report.html could not be written: UserError" in caplog.text
    run.review.unlink()
    with run.enhanced.open("a", encoding="utf-8") as stream:
        stream.write('{"torn": \n"no row"\n')
    make_report(run)
    assert embedded(run, "overview")["lists"]["traces"] == {
        "total": 1, "damaged": 2, "file": "enhanced_dataset.jsonl",
    }  # fmt: skip


def test_a_row_of_another_kind_of_file_spoils_no_other(tmp_path: Path) -> None:
    run = make_run(tmp_path, answers=[answer("a"), trace("strange"), answer("b", "correct", "incorrect")])
    index = answers_of(run)
    assert (len(index), index.damaged) == (2, 1)
    assert [row["id"] for row in index.rows(index.order())] == ["b", "a"], "losses first"


def test_curves_come_from_tensorboard_and_stay_short(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    assert curves(tmp_path / "none") == {}
    writer = EventFileWriter(str(tmp_path))
    for step in range(1, 2001):
        value = Summary.Value(tag="train/loss", simple_value=2000 / step if step != 1999 else math.nan)
        writer.add_event(Event(wall_time=float(step), step=step, summary=Summary(value=[value])))
    writer.close()
    found = curves(tmp_path)
    assert set(found) == {"loss"} and len(found["loss"]) in (499, 500)
    assert found["loss"][-1] == (2000, 1.0)


def test_a_sweep_shows_the_curve_of_the_training_it_kept(tmp_path: Path) -> None:
    from socratune.training.monitor import trackers

    run = make_run(tmp_path / "run")
    for rate, loss in (("0.0003", 3.0), ("0.0006", 6.0)):
        (tracker,) = trackers([], run.tensorboard / f"lr-{rate}", rate)
        tracker.log({"train/loss": loss}, 1)
        tracker.close()
    results = json.loads(run.results.read_text("utf-8")) if run.results.exists() else {"stages": {}}
    train = {"status": "done", "learning_rate": 0.0003, "sweep": [{"learning_rate": 0.0003}, {"learning_rate": 0.0006}]}
    results["stages"]["train"] = train
    run.results.write_text(json.dumps(results), "utf-8")
    make_report(run)
    assert embedded(run, "overview")["curves"] == {"loss": [[1, 3.0]]}


def test_credentials_in_an_address_stay_at_home(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    settings = f"output: {tmp_path}\nenhance:\n  judge_api_base: ['http://me:secret@gpu1:8000/v1']\n"
    run.config.write_text(settings, "utf-8")
    make_report(run)
    html = run.report.read_text("utf-8")
    assert "secret" not in html and str(tmp_path) not in html
    assert "http://…@gpu1:8000/v1" in embedded(run, "overview")["config"][0][1]


@pytest.mark.slow
def test_the_command_writes_it_anew_and_names_a_wrong_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [trace("a")])
    done = socratune("report", run.root)
    assert (done.returncode, done.stdout.strip()) == (0, str(run.report))
    wrong = socratune("report", tmp_path / "none")
    assert wrong.returncode == 2 and "no such folder" in wrong.stderr


def test_filters_on_the_server_find_what_the_page_would_show(tmp_path: Path) -> None:
    rows = [trace("a", "Größe „groß“?"), trace("b", outcome="unsolved"), trace("c", 'say "hi"\\n', response="ÜBER 6")]
    run = make_run(tmp_path, rows, [answer("x"), answer("y", "correct", "incorrect")])
    record_decision(run, "c", "accept", None)
    index = traces_of(run, review_decisions(run))

    def found(**wanted: str) -> list[str]:
        return [row["id"] for row in index.rows(index.matching(Filter(**wanted)))]

    assert found() == ["b", "a", "c"]
    assert found(text=" GRÖßE „GROß“ ") == ["a"]
    assert found(text='"HI"\\n') == ["c"] and found(text="über") == ["c"]
    assert found(text="solved_first_try") == ["a", "c"] and found(text="judged_by") == []
    assert found(kind="unsolved") == found(verdict="incorrect") == ["b"]
    assert found(mark="reviewed") == ["c"] and found(mark="leaked") == []
    answers = answers_of(run)
    assert [row["id"] for row in answers.rows(answers.matching(Filter(kind="lost")))] == ["y"]


@pytest.mark.slow
def test_a_stage_that_fails_is_reported_too(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"What is {n} * 3? Say 7."}, *REFUSED]} for n in range(12, 42)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    done = socratune("run", "--model", "demo", "--dataset", data, "--output", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    found = embedded(RunDir(tmp_path / "run"), "overview")
    assert (found["results"]["status"], found["kinds"]["unsolved"]) == ("failed", found["lists"]["traces"]["total"])


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_little_memory(tmp_path: Path) -> None:
    text = "Twice three is six, and six is what was asked. " * 20
    run = make_large_run(tmp_path, 100_000, "What is 2 * 3?", text)
    code = (
        "import sys; from socratune.publishing.report import make_report; from socratune.runs.folder import RunDir\n"
        "make_report(RunDir(sys.argv[1]))\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(run.root)], capture_output=True, text=True, check=True)
    seconds, peak = time.monotonic() - started, int(done.stdout) / 1024
    size, page = run.enhanced.stat().st_size / 1e6, run.report.stat().st_size / 1e6
    print(f"{size:.0f} MB of traces → {page:.0f} MB page in {seconds:.1f} s, peak {peak:.0f} MiB")
    assert peak < 300
    assert len(embedded(run, "traces")) == 10_000 and embedded(run, "left-out")["traces"] == {"hinted": 90_000}


def test_the_verdict_at_one_glance(tmp_path: Path, chromium: Any) -> None:
    stages = {
        "split": {"status": "done", "seconds": 1, "rows_in": 720, "rows_out": 646, "train_in": 646, "dev": 74},
        "enhance": {
            "status": "done", "seconds": 90, "hints": 5, "hints_rejected": 1, "leaks": {"measured": 5, "rate": 0.2},
            "spent": {"enhance.teacher": {"tokens": 1200, "usd": 0.5}, "enhance.judge": {"tokens": 10, "usd": None}},
        },
        "curate": {"status": "done", "seconds": 1, "rows_in": 646, "rows_out": 640, "dropped": {"hint_echo": 6}},
        "train": {
            "status": "done", "seconds": 9, "rows_out": 640, "best_epoch": 2,
            "epochs": [{"epoch": n, "step": 10 * n, "dev_accuracy": n / 3, "train_accuracy": 1.0} for n in (1, 2, 3)],
            "grokking": {"memorised_step": 10, "generalised_step": None, "delayed_generalisation": False},
        },
        "validate": {"status": "done", "seconds": 4.0},
    }  # fmt: skip
    validation = {"status": "passed", "tests": {"base_comparison": COMPARISON}}
    run = make_run(tmp_path, [trace("a")], status="passed", stages=stages, validation=validation)
    make_report(run)
    with opened(chromium, url(run)) as page:
        assert page.inner_text("h1") == "Better than its base"
        lead = page.inner_text(".lead").replace("\xa0", " ")
        assert (
            "answers 99.8% correctly and its base 27.5%: a difference of +72.2 points (95% interval +67.8 to +76.5)"
            in lead
        )
        assert page.title().startswith("Better than its base · ")
        text = page.inner_text("main").replace("\xa0", " ")
        for said in ("hint echo", "640", "teacher", "$0.50", "not known", "20.0% of 5 measured", "1 rejected"):
            assert said in text
        drawn = page.inner_text("#training")
        assert "epoch 2 kept" in drawn and "memorised" in drawn
        assert page.get_attribute("#verdict-section svg", "aria-label")
        levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(h => +h.tagName[1])")
        assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))


def test_accuracy_stands_there_by_kind_beside_what_one_answer_for_all_would_come_to(
    tmp_path: Path, chromium: Any
) -> None:
    part = {"n": 200, "base_accuracy": 0.5, "adapter_accuracy": 0.6, "difference": 0.1, "ci95": [0.02, 0.18]}
    kinds = {"syllogism": {**part, "majority": {"reference": "yes", "accuracy": 0.7}}, "products": part}
    tests = {"base_comparison": {**COMPARISON, "asks": "new templates", "by_kind": kinds}}
    tests["recall"] = {**part, "asks": "new numbers", "passed": True}
    validation = {"status": "passed", "tests": tests}
    stages = {"validate": {"status": "done", "seconds": 4.0}}
    run = make_run(tmp_path, [trace("a")], status="passed", stages=stages, validation=validation)
    make_report(run)
    with opened(chromium, url(run)) as page:
        lines = [" ".join(line.split()) for line in page.inner_text(".accuracy").replace("\xa0", " ").splitlines()]
    names = [line.split(" ")[0] for line in lines if line.startswith(("new", "syllogism", "products"))]
    assert names == ["new", "syllogism", "products", "new"]
    assert lines[-1] == "new numbers 200 50.0% 60.0% +10.0 (+2.0 to +18.0)"
    assert any("70.0% by always saying “yes”" in line for line in lines)


NOT_PASSED = {
    "Failed: worse than its base": ("failed", "worse"),
    "Failed: not proven better": ("failed", "not_worse"),
    "Failed": ("failed", "better"),
    "Interrupted": ("interrupted", None),
}


def test_a_run_that_did_not_pass_says_why(tmp_path: Path, chromium: Any) -> None:
    runs = []
    for title, (status, verdict) in NOT_PASSED.items():
        tests = {"base_comparison": {**COMPARISON, "verdict": verdict}} if verdict else {}
        more = {"error": "Forgetting: <b>7 points</b>.", "validation": {"status": "failed", "tests": tests}}
        runs.append(make_run(tmp_path / title, status=status, **more))
        make_report(runs[-1])
    with opened(chromium, url(runs[0])) as page:
        for run, title in zip(runs, NOT_PASSED, strict=True):
            page.goto(url(run))
            page.wait_for_selector("#count:not(:empty)")
            assert page.inner_text("h1") == title
            assert "Forgetting: <b>7 points</b>." in page.inner_text(".lead")
            assert "0 of 0 rows" in page.inner_text("#count")


def test_results_of_another_version_cost_their_part_of_the_page_only(tmp_path: Path, chromium: Any) -> None:
    stages = {"validate": {"status": "done", "seconds": 1.0}, "enhance": {"status": "done", "spent": {"teacher": 3}}}
    broken = {"status": "passed", "tests": {"base_comparison": {"base_accuracy": "?", "passed": True}}}
    run = make_run(tmp_path, [trace("a", "Still here?")], status="passed", stages=stages, validation=broken)
    make_report(run)
    with opened(chromium, url(run)) as page:
        assert "A part of this page could not be drawn" in page.inner_text("#overview")
        assert page.locator("#next").is_visible() and "Still here?" in page.inner_text("#rows")


def test_answers_that_changed_stand_side_by_side_and_lead_to_all_of_their_kind(tmp_path: Path, chromium: Any) -> None:
    answers = [answer(f"won{n}", question=f"Won {n}?") for n in range(8)]
    answers += [answer("lost", "correct", "incorrect", "Lost <b>?"), answer("open", "correct", "undecided", "Open?")]
    run = make_run(tmp_path, [trace("a")], answers, status="failed")
    make_report(run)
    with opened(chromium, url(run)) as page:
        shown = page.locator("#flips tbody tr").all_inner_texts()
        assert shown[0] == "1 lost – the base was right, the adapter is wrong"
        assert shown[1].split() == ["Lost", "<b>?", "9", "correct", "by", "base", "incorrect", "by", "adapter"]
        assert shown[2].startswith("8 won") and len(shown) == 1 + 1 + 1 + 6 + 1
        assert "1 question could not be decided" in page.inner_text("#flips")
        page.get_by_role("button", name="Show all 8").click()
        page.locator("#count", has_text="8 of 10 rows").wait_for()
        assert page.input_value("#kind") == "won"
        page.emulate_media(media="print")
        assert page.is_visible("#flips table") and page.is_hidden("#rows") and page.is_hidden("#flips button")


def measured(**changed: Any) -> dict[str, Any]:
    """The tests of a validation that every condition lets pass."""
    forgetting = {"passed": True, "proven": True, "reason": "", "enough": True, "drop": 0.0, "drop_upper95": 0.01}
    tests = {
        "file_integrity": {"passed": True, "problems": [], "sha256": {}}, "basic_inference": {"passed": True},
        "base_comparison": compared(), "forgetting": {**forgetting, "margin": 0.03, "n": 100},
        "performance": {"passed": True}, "meters": {"passed": True, "warnings": []},
    }  # fmt: skip
    return tests | changed


def compared(verdict: str = "better", gain: float = 0.2, **more: Any) -> dict[str, Any]:
    ends = {"difference": gain, "ci95": [gain - 0.1, gain + 0.1]}
    figures = {"verdict": verdict, "passed": verdict == "better", "interval": "bootstrap", "clusters": 40, "n": 100}
    undecided = {"base": 0, "adapter": 0, "pairs": 0}
    return {**ends, **figures, "undecided": undecided, "worst_case": {**ends, "n": 100}, **more}


UNSURE: dict[str, Any] = {"undecided": {"base": 0, "adapter": 30, "pairs": 30}}
WORST: dict[str, Any] = {"worst_case": {"difference": 0.1, "ci95": [0.02, 0.2], "n": 100}}
MAJORITY: dict[str, Any] = {"majority": {"reference": "1", "accuracy": 0.78, "difference": 0.01, "ci95": [-0.01, 0.02]}}
GATES: list[tuple[dict[str, Any], dict[str, Any], int, list[str]]] = [
    (measured(), {}, 0, []),
    (measured(file_integrity={"passed": False, "problems": ["x is missing"]}), {}, 0, ["Adapter files"]),
    (measured(basic_inference={"passed": False, "silent": 90}), {}, 0, ["Answers"]),
    (measured(base_comparison=compared("worse", -0.2)), {}, 0, ["Better than its base"]),
    (measured(base_comparison=compared("inconclusive", 0.01, rows_needed=900)), {}, 0, ["Better than its base"]),
    (measured(base_comparison=compared(**WORST)), {"min_gain": 0.15}, 0, ["Size of the gain"]),
    (measured(base_comparison=compared(**WORST)), {"min_lower_bound": 0.05}, 0, ["Lower end of the gain"]),
    (measured(base_comparison=compared(**MAJORITY)), {}, 0, ["Better than always “1”"]),
    (measured(base_comparison=compared(**MAJORITY)), {"beat_majority": False}, 0, []),
    (measured(base_comparison=compared(**UNSURE)), {}, 0, ["Undecided questions"]),
    (measured(base_comparison=compared(**UNSURE)), {"max_undecided_share": 0.3}, 0, []),
    (measured(forgetting={**measured()["forgetting"], "passed": False}), {}, 0, ["Forgetting"]),
    (measured(), {"max_forgetting": None}, 0, []),
    (measured(meters={"passed": False, "warnings": ["think blocks -90%"]}), {}, 0, ["Manner of thinking"]),
    (measured(performance={"passed": False}), {}, 0, ["performance"]),
    (measured(base_comparison=compared("inconclusive", 0.0), recall=compared()), {}, 30, []),
    (measured(base_comparison=compared("inconclusive", -0.03), recall=compared()), {}, 30, ["Held-out questions"]),
    (measured(recall=compared("inconclusive", 0.0)), {}, 30, ["Recall of the taught facts"]),
    (measured(recall=compared("inconclusive", 0.0, clusters=3)), {}, 30, []),
]


def test_the_conditions_on_the_page_fail_where_the_gate_refuses(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path)
    make_report(run)
    with opened(chromium, url(run)) as page:
        for tests, given, taught, names in GATES:
            gate = GateConfig(**given)
            proof = verdict_on(tests, gate, knowledge_rows=taught)
            stages = {"curate": {"outcomes": {"solved_with_evidence": taught}}}
            data = {
                "results": {"stages": stages, "validation": proof.to_json()},
                "gate": gate.model_dump(mode="json"), "fewest_sources": FEWEST_CLUSTERS,
            }  # fmt: skip
            found = page.evaluate(
                "(data) => conditions(data).filter((one) => !one.passed).map((one) => one.name)", data
            )
            assert found == names and proof.passed == (not names), proof.reasons


def test_a_failed_run_names_the_condition_its_figure_and_its_threshold(tmp_path: Path, chromium: Any) -> None:
    gate = GateConfig(min_gain=0.9)
    proof = verdict_on(measured(base_comparison={**COMPARISON, **compared(gain=0.7225)}), gate, knowledge_rows=0)
    stages = {"train": {"status": "done", "seconds": 9}, "validate": {"status": "failed", "seconds": 4.0}}
    run = make_run(
        tmp_path / "it's mine", [trace("a")], status="failed", stages=stages, validation=proof.to_json(),
        config={"validate": {"gate": gate.model_dump(mode="json")}}, updated="2026-12-01T05:21:08Z", socratune="0.1.0",
    )  # fmt: skip
    make_report(run)
    with opened(chromium, url(run)) as page:
        text = page.inner_text("#checks")
        assert "1 of 6 conditions failed: Size of the gain." in text
        first = page.locator("#checks tbody tr").first.inner_text().split("\n")[0].split("\t")
        assert (first[0], first[1]) == ("Size of the gain", "+72.2 points")
        assert "at least +90.0 points" in text
        assert "2026-12-01 05:21 UTC · Socratune 0.1.0 · 13 s · no paid calls" in page.inner_text(".made")
        commands = page.locator("#next code").all_inner_texts()
        assert commands[0] == r"socratune chat 'it'\''s mine' --compare" and len(commands) == 4
        page.locator(".facts abbr").first.focus()
        assert "none" not in page.evaluate("getComputedStyle(document.activeElement, '::after').content")


def test_hostile_texts_are_shown_as_text(tmp_path: Path, chromium: Any) -> None:
    long = "y" * 1_000_000 + "THE END"
    rows = [trace(f"h{n}", text, response=text) for n, text in enumerate([*HOSTILE, long])]
    rows[0]["metadata"]["source"] = HOSTILE[0]
    run = make_run(tmp_path, rows, [answer("x", question=HOSTILE[1])], status="error", error="".join(HOSTILE))
    make_report(run)
    with opened(chromium, url(run)) as page:
        assert HOSTILE[0] in page.inner_text("#rows") and HOSTILE[1] in page.inner_text("#rows")
        buttons = page.locator("#rows button")
        buttons.nth(2).click()
        shown = page.inner_text("#detail .question .text")
        assert (
            shown
            == "red \\x1b[31mANSI\\x1b[0m, bell \\x07, bidi \\u{202e}evil\\u{202c}, tag \\u{e0041}, line \\u{2028} end"
        )
        buttons.nth(3).click()
        assert "3,000 of 1,000,007 characters are shown." in page.inner_text("#detail .question")
        more = page.locator("#detail .question .more")
        while more.is_visible():
            more.click()
        assert page.inner_text("#detail .question .text").endswith("yTHE END")
        assert "taken" not in page.title() and page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_keyboard_is_enough(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path, [trace(f"t{n}", f"Question {n}?") for n in range(300)], [answer("x")])
    make_report(run)
    with opened(chromium, url(run)) as page:
        keys = page.keyboard
        keys.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        keys.type("question 29")
        assert "11 of 300 rows" in page.inner_text("#count")
        keys.press("Enter")
        assert page.evaluate("document.activeElement.textContent").startswith("Question 29?")
        keys.press("j")
        keys.press("Enter")
        page.wait_for_selector("#detail:not([hidden])")
        assert page.inner_text("#detail .question .text") == "Question 290?"
        assert page.evaluate("document.activeElement.id") == "detail"
        keys.press("j")
        page.locator("#detail .question .text", has_text="Question 291?").wait_for()
        keys.press("k")
        page.locator("#detail .question .text", has_text="Question 290?").wait_for()
        keys.press("Escape")
        assert page.is_hidden("#detail")
        assert page.evaluate("document.activeElement.textContent").startswith("Question 290?")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        keys.press("/")
        keys.press("Escape")
        assert "300 of 300 rows" in page.inner_text("#count")
        page.locator("#rows").focus()
        for _ in range(40):
            keys.press("j")
        assert page.evaluate("document.activeElement.textContent").startswith("Question 40?")
        unnamed = "button, input, select, a"
        named = page.eval_on_selector_all(unnamed, "all => all.every(e => e.textContent.trim() || e.labels?.length)")
        assert named


def test_on_a_phone_nothing_scrolls_sideways_and_a_row_fills_the_screen(tmp_path: Path, chromium: Any) -> None:
    stages = {
        "validate": {"status": "done", "seconds": 1.0},
        "enhance": {"status": "done", "seconds": 4000, "hints": 1},
    }
    run = make_run(
        tmp_path, [trace("a", "word" * 200, response="w" * 500)], status="passed", stages=stages,
        model="org/" + "name" * 30, validation={"status": "passed", "tests": {"base_comparison": COMPARISON}},
    )  # fmt: skip
    make_report(run)
    with opened(chromium, url(run), viewport={"width": 360, "height": 740}, has_touch=True) as page:
        wide = """[...document.querySelectorAll('body *')]
            .filter(e => e.getBoundingClientRect().right > 361 && !e.closest('.skip, svg'))
            .map(e => e.outerHTML.slice(0, 90))"""
        assert page.evaluate("document.documentElement.scrollWidth") == 360 and page.evaluate(wide) == []
        page.locator("#rows button").first.tap()
        box = page.locator("#detail").bounding_box()
        assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 360, 740)
        assert page.evaluate("document.documentElement.scrollWidth") == 360 and page.evaluate(wide) == []
        page.get_by_role("button", name="Close").tap()
        assert page.is_hidden("#detail")


def test_light_and_dark_follow_the_system_and_the_button(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path, [trace("a")])
    make_report(run)
    lightness = "parseInt(getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0])"
    with opened(chromium, url(run), color_scheme="dark") as page:
        assert page.evaluate(lightness) < 60
        page.click("#theme")
        assert page.evaluate(lightness) > 200 and page.inner_text("#theme") == "Dark"
        for _ in range(5):  # Chromium hands localStorage to the reloaded page when it gets to it
            page.reload()
            if page.evaluate(lightness) > 200:
                break
        assert page.evaluate(lightness) > 200
    with opened(chromium, url(run), color_scheme="light") as page:
        assert page.evaluate(lightness) > 200


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 10_000])
def test_it_is_quick(tmp_path: Path, chromium: Any, count: int) -> None:
    text = "First I take two, then I add three times the rest of it, and so on. " * 15
    run = make_large_run(tmp_path, count, f"Question {{n}}? {text}", text)
    make_report(run)
    with opened(chromium, url(run)) as page:
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        filtered = page.evaluate("""async () => {
            const box = document.getElementById("search"), times = [];
            for (const text of ["question 77", "no such text", "ADD three", ""]) {
                const start = performance.now();
                box.value = text;
                box.dispatchEvent(new Event("input"));
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                times.push(performance.now() - start);
            }
            return times;
        }""")
        ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        size, slowest = run.report.stat().st_size / 1e6, max(filtered)
        print(
            f"{count} traces, {size:.1f} MB: first paint {paint:.0f} ms, list {ready:.0f} ms, filter {slowest:.0f} ms"
        )
        assert paint <= 1500 and slowest <= 200
        assert page.locator("#rows button").count() < 40
        assert f"{count:,} of {count:,} rows" in page.inner_text("#count")


def failed(base: float, adapter: float, ci95: tuple[float, float], n: int = 12, undecided: int = 0) -> dict[str, Any]:
    found = {
        "base_accuracy": base, "adapter_accuracy": adapter, "difference": adapter - base, "ci95": list(ci95), "p": 0.5,
        "n": n, "wins": 1, "losses": 1, "verdict": "not worse", "passed": False, "undecided": {"pairs": undecided},
    }  # fmt: skip
    epochs = [{"epoch": 1, "step": 1, "dev_accuracy": None}]  # of which only the mark is drawn
    train = {"status": "done", "seconds": 1.0, "best_epoch": 1, "epochs": epochs}
    stages = {"validate": {"status": "failed", "seconds": 1.0}, "train": train}
    proof = {"status": "failed", "tests": {"base_comparison": found}}
    return {"status": "failed", "stages": stages, "validation": proof}


COVERED = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
    const texts = [...svg.querySelectorAll("text")].filter((one) => one.textContent.trim()), found = [];
    const boxes = texts.map((one) => one.getBoundingClientRect()), all = svg.getBoundingClientRect();
    boxes.forEach((a, i) => {
        if (a.left < all.left - 1 || a.right > all.right + 1 || a.top < all.top - 1 || a.bottom > all.bottom + 1)
            found.push(`outside: ${texts[i].textContent}`);
        boxes.slice(i + 1).forEach((b, j) => {
            if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
                found.push(`${texts[i].textContent} over ${texts[i + 1 + j].textContent}`);
        });
    });
    return found;
})"""


@pytest.mark.parametrize("width", [1400, 375])
def test_no_label_of_a_failed_run_covers_another(
    tmp_path: Path, chromium: Any, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    monkeypatch.setattr("socratune.publishing.report.curves", lambda folder: shown)
    cases = [
        failed(0.667, 0.667, (0.0, 0.0)), failed(0.9, 1.0, (-0.1, 0.6), 7, 5), failed(0.0, 0.0, (-0.01, 0.01)),
        failed(1.0, 1.0, (0.0, 0.0)), failed(0.02, 0.08, (-0.9, 0.9)), failed(0.5, 0.4, (-0.3, -0.05)),
        failed(1.0, 0.0, (-1.0, -1.0)),
    ]  # fmt: skip
    drawn: list[dict[str, Any]] = [
        {"loss": [(4, 0.3)], "dev": [(4, 0.43)]},
        {"loss": [(1, 0.6), (4, 0.0)], "dev": [(1, 0.4), (4, 0.4)], "train": [(1, 0.41), (4, 0.41)]},
        {"loss": [(1, 1234567.0), (4, 3.0)], "dev": [(4, 0.5)]},
        {"loss": [(1, 0.0), (4, 3.0)], "dev": [(1, 1.0), (4, 1.0)], "train": [(1, 1.0), (4, 0.99)]},
    ]
    for at, results in enumerate(cases):
        shown.clear()
        shown.update(drawn[at % len(drawn)])
        run = make_run(tmp_path / str(at), [trace("a")], **results)
        make_report(run)
        with opened(chromium, url(run), viewport={"width": width, "height": 900}) as page:
            page.wait_for_selector("figure svg text.value")
            assert page.evaluate(COVERED) == [], (at, width)
            assert page.locator("figure svg").count() >= 3
            assert page.inner_text("h1").startswith("Failed") and page.title().startswith("Failed")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if results is cases[1]:
                said = page.inner_text(".lead")
                assert "The judge decided 7 of 12 questions" in said and "Of the decided questions, the adapter" in said


def test_why_the_judge_could_not_decide_is_shown(tmp_path: Path, chromium: Any) -> None:
    row = QARow("u", [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}], {})
    tried = Attempt(1, "Perhaps.", "undecided", "rules", reason="no number <b>to compare</b>")
    lost = Trace(row, "undecided", (tried,), "direct", {}, pass_rate=0.0).to_json("So.")
    assert Trace.from_json(lost).attempts == (tried,)
    said = answer("x")
    said["adapter"] |= {"verdict": "undecided", "reason": "several options named"}
    run = make_run(tmp_path, [lost, trace("a")], [said])
    make_report(run)
    with opened(chromium, url(run)) as page:
        page.locator("#rows button", has_text="Why?").click()
        assert page.inner_text("#detail .reason") == "Why undecided: no number <b>to compare</b>"
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Held-out answers").click()
        page.locator("#rows button").first.click()
        assert page.inner_text("#detail .reason") == "Why undecided: several options named"
