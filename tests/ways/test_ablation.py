"""Which way is worth it: the two-level bootstrap, the advice, how arms begin, what they cost, and a kill in mid-run."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Fork, demo_rows, socratune, write_rows
from model_server import Answer, ModelServer

from socratune.errors import StageFailed, UserError
from socratune.llm.ledger import price_of
from socratune.llm.prompts import with_examples
from socratune.llm.references import load_function
from socratune.resolve import resolve_settings
from socratune.rows import QARow, Trace
from socratune.runs.folder import RunDir, read_jsonl, read_rows
from socratune.runs.journal import Journal
from socratune.teaching.hints import breakdown_hint, parse_product
from socratune.ways import controls, report, work, writing
from socratune.ways.arms import ARMS, chosen_arms
from socratune.ways.bench import AblationLimits, _seconds, compare_ways as compare, jobs
from socratune.ways.folders import AblationJob, begin, folder
from socratune.ways.reading import advice, arm_difference, other_readings
from socratune.ways.report import Findings

NAMES = [f"q{at}" for at in range(200)]


def right(share: float, *, seed: int = 0, count: int = 200) -> list[bool]:
    """So many right answers, on questions drawn by the seed."""
    picked = set(random.Random(seed).sample(range(count), round(share * count)))
    return [at in picked for at in range(count)]


# --- the bootstrap


def test_seeds_that_differ_widen_the_interval() -> None:
    base = [right(0.3, seed=9)]
    steady = arm_difference([right(0.6, seed=1), right(0.6, seed=1), right(0.6, seed=1)], base, NAMES)
    shaky = arm_difference([right(0.3, seed=1), right(0.6, seed=1), right(0.9, seed=1)], base, NAMES)
    assert steady.value == pytest.approx(0.3) == shaky.value
    assert steady.clear
    assert shaky.high - shaky.low > 1.5 * (steady.high - steady.low)


def test_questions_of_one_source_are_drawn_together() -> None:
    more, less = [[at < 120 for at in range(200)]], [right(0.3, seed=3)]
    alone = arm_difference(more, less, NAMES)
    together = arm_difference(more, less, [f"source {at // 20}" for at in range(200)])
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert (
        arm_difference(more, less, [f"source {at // 50}" for at in range(200)]).low == -1
    )  # four sources prove nothing


def test_the_interval_holds_the_true_difference() -> None:
    """Ways of 60 and 40 %, trainings that vary by 3 points: the interval of four seeds holds the 20 points."""
    drawn, inside = random.Random(1), 0
    for _ in range(60):
        ways = []
        for share in (0.6, 0.4):
            rates = [share + drawn.gauss(0, 0.03) for _ in range(4)]
            ways.append([[drawn.random() < rate for _ in range(200)] for rate in rates])
        found = arm_difference(ways[0], ways[1], NAMES)
        inside += found.low <= 0.2 <= found.high
    assert inside >= 52


# --- the advice


def test_the_least_demanding_of_equal_ways_is_named() -> None:
    base = [right(0.3)]
    ways = {"direct": [right(0.9, seed=1)], "teacher-in-student-format": [right(0.905, seed=1)], "sft": [right(0.1)]}
    told = advice(base, ways, NAMES)
    assert told.arm == "direct"
    assert "teacher-in-student-format asks more of you" in told.sentence
    assert advice(base, {**ways, "rft": [right(0.9, seed=2)]}, NAMES).arm == "rft"


def test_a_way_that_is_clearly_better_is_worth_what_it_asks() -> None:
    ways = {"rft": [right(0.5, seed=1)], "direct": [right(0.9, seed=2)]}
    assert advice([right(0.3)], ways, NAMES).arm == "direct"


def test_a_prompt_may_do_it_and_nothing_may() -> None:
    assert advice(
        [right(0.3)], {"prompt": [right(0.8, seed=1)], "direct": [right(0.8, seed=2)]}, NAMES
    ).sentence.startswith("A prompt does it, do not fine-tune")
    told = advice([right(0.3)], {"prompt": [right(0.28)], "direct": [right(0.3, seed=4)]}, NAMES)
    assert told.arm is None
    assert told.sentence.startswith("Do not fine-tune")


def test_a_control_is_never_advised_but_warns() -> None:
    ways = {"direct": [right(0.8, seed=1)], "wrong-hints": [right(0.9, seed=1)]}
    told = advice([right(0.3)], ways, NAMES)
    assert told.arm == "direct"
    assert any("Hints of other rows did as well" in text for text in told.cautions)


def test_another_reading_may_have_another_winner() -> None:
    ways = {"direct": [right(0.5, seed=1)], "rft": [right(0.9, seed=2)], "sft": []}
    assert other_readings("direct", "money", ways, NAMES) == ["At equal money rft did clearly better than direct."]


# --- what is compared


def test_the_reference_is_always_one_of_the_arms() -> None:
    assert chosen_arms("sft, prompt") == ["direct", "prompt", "sft"]
    assert chosen_arms(None) == list(ARMS)
    with pytest.raises(UserError, match="rtf"):
        chosen_arms("rtf")


def test_every_arm_once_before_any_second_seed() -> None:
    order = list(jobs(["direct", "prompt", "sft"], 2))
    assert order[:3] == [AblationJob("direct"), AblationJob("prompt"), AblationJob("sft")]
    assert order.index(AblationJob("direct", 1)) > order.index(AblationJob("sft", 0, "money"))
    assert [job for job in order if job.arm == "prompt"] == [AblationJob("prompt")]


def test_a_hint_of_another_row(tmp_path: Path) -> None:
    (tmp_path / "controls.py").write_text(Path(controls.__file__).read_text("utf-8"), "utf-8")
    (tmp_path / "hints.json").write_text(json.dumps([["a?", "for a"], ["b?", "for b"], ["c?", "for c"]]), "utf-8")
    hint = load_function(f"python:{tmp_path}/controls.py:other_rows_hint")
    assert {hint(f"{asked}?", "", ["no"]) for asked in "ab" for _ in range(3)} <= {"for a", "for b", "for c"}
    assert all(hint(f"{asked}?", "", ["no"] * tries) != f"for {asked}" for asked in "abc" for tries in range(5))
    assert hint("a?", "", ["no"]) == hint("a?", "", ["no"])


def test_worked_examples_stand_between_system_and_question() -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    turns = with_examples(chat, [("1+1?", "2")])
    assert [turn["content"] for turn in turns] == ["s", "1+1?", "2", "q"]
    assert with_examples(chat[1:], [("1+1?", "2")])[0]["content"] == "1+1?"


# --- folders and readings


@pytest.fixture
def begun(tmp_path: Path) -> RunDir:
    """A folder as a run leaves it after `curate`, and a file of a later stage."""
    run = RunDir(tmp_path / "source")
    run.create()
    run.config.write_text("model: demo\n", "utf-8")
    stages = {name: {"status": "done"} for name in ("split", "enhance", "curate", "train")}
    run.results.write_text(json.dumps({"status": "incomplete", "stages": stages}), "utf-8")
    write_rows(run.rows("train"), [{"id": str(at)} for at in range(100)])
    write_rows(run.rows("replay"), [{"id": "later"}])
    return run


def test_a_folder_begins_as_a_copy_up_to_a_stage(begun: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "arm" / "seed-0-money")
    half_made = RunDir(tmp_path / "arm" / ".seed-0-money.tmp")
    half_made.create()
    (half_made / "left over").touch()  # by a kill
    begin(run, begun, until="curate", share=0.4)
    assert list(json.loads(run.results.read_text("utf-8"))["stages"]) == ["split", "enhance", "curate"]
    assert len(list(read_jsonl(run.rows("train")))) == 40
    assert not run.rows("replay").exists()
    assert not (run / "left over").exists()
    run.rows("train").unlink()
    begin(run, begun, until="curate")  # what is there is left as it is
    assert not run.rows("train").exists()


def finished(bench: work.Bench, job: AblationJob, **figures: Any) -> None:
    run = folder(bench.output, job)
    run.create()
    (run / "job.json").write_text(json.dumps({"epochs": 3, **figures}), "utf-8")


def test_epochs_and_rows_that_make_tokens_and_money_equal(tmp_path: Path) -> None:
    bench = work.Bench(tmp_path, {}, lambda event, stage, entry: None)
    finished(bench, AblationJob("direct"), trained_tokens=90_000, cost_usd=0.02)
    finished(bench, AblationJob("sft"), trained_tokens=30_000, cost_usd=0.0)
    finished(bench, AblationJob("iterative"), trained_tokens=180_000, cost_usd=0.021)
    finished(bench, AblationJob("mix"), trained_tokens=92_000, cost_usd=0.04)
    finished(bench, AblationJob("rft"), trained_tokens=300, cost_usd=0.02)
    shapes = {arm: work.shape(bench, AblationJob(arm, 0, "tokens")) for arm in ("sft", "iterative", "mix", "rft")}
    assert shapes["sft"] == (1.0, 9)
    assert shapes["mix"] is None  # its training is the same already
    share, epochs = shapes["iterative"] or (0, 0)
    assert share * epochs == pytest.approx(1.5)
    assert shapes["rft"] == (1.0, 30)  # not for ever
    assert work.shape(bench, AblationJob("mix", 0, "money")) == (0.5, 3)
    assert work.shape(bench, AblationJob("sft", 0, "money")) is None  # it costs nothing
    assert work.shape(bench, AblationJob("iterative", 0, "money")) is None


def test_what_a_job_takes_is_foretold_by_the_reference() -> None:
    took = {"loop": 10.0, "train": 30.0, "exam": 2.0}
    assert _seconds(AblationJob("rft"), took, 3) == 42
    assert _seconds(AblationJob("rft"), took, 1) == 102
    assert _seconds(AblationJob("sft"), took, 3) == 32
    assert _seconds(AblationJob("rft", 1), took, 3) == 22
    assert _seconds(AblationJob("rft", 1, "tokens"), took, 3) == 12


# --- somebody else's traces


def product_rows(run: RunDir, count: int = 6) -> list[QARow]:
    run.create()
    rows = [QARow(f"r{at}", data["messages"], {}) for at, data in enumerate(demo_rows("train", count))]
    write_rows(run.rows("train_in"), [row.to_json() for row in rows])
    return rows


def written(run: RunDir, samples: Any, **enhance: Any) -> tuple[list[Trace], dict[str, Any]]:
    given = {"model": "demo", "dataset": "demo", "output": str(run.root), "enhance": enhance}
    spent = asyncio.run(
        writing.solutions(run, resolve_settings(given).config, samples, tick=lambda done, total, **live: None)
    )
    return read_rows(run.enhanced, Trace.from_json), spent


def test_the_mechanical_teacher_writes_in_two_styles(tmp_path: Path) -> None:
    rows = product_rows(RunDir(tmp_path / "run"))
    own, _ = written(RunDir(tmp_path / "run"), None)
    kept, _ = written(RunDir(tmp_path / "run"), [("q", "a")])
    for traces in (own, kept):
        assert [trace.row.id for trace in traces] == [row.id for row in rows]
        assert {trace.outcome for trace in traces} == {"solved_first_try"}
    assert own[0].attempts[0].response != kept[0].attempts[0].response


def test_a_teacher_that_is_a_model_sees_the_students_style_and_only_right_solutions_are_kept(tmp_path: Path) -> None:
    rows = product_rows(RunDir(tmp_path / "run"), 2)

    def behave(body: dict[str, Any], number: int) -> Answer:
        case = json.loads(body["messages"][-1]["content"])
        wrong = case["question"] == rows[1].question
        return Answer("It is 1." if wrong else f"So {case['reference_answer']}", tokens=(150, 10))

    with ModelServer(behave) as server:
        asked = {"teacher_model": "openai/t", "teacher_api_base": [server.openai_base]}
        traces, spent = written(RunDir(tmp_path / "run"), [("2 * 2?", "2 * 2 = 4.")], **asked)
        before = len(server.seen)
        again, _ = written(RunDir(tmp_path / "run"), [("2 * 2?", "2 * 2 = 4.")], **asked)
    assert [trace.outcome for trace in traces] == ["solved_first_try", "unsolved"]
    assert len(traces[1].attempts) == writing.TRIES
    assert json.loads(server.seen[0].body["messages"][-1]["content"])["examples"][0]["solution"] == "2 * 2 = 4."
    assert len(server.seen) == before == 3  # no call twice
    assert again == traces
    assert spent["enhance.teacher"]["tokens"] == 3 * 160


def test_a_function_that_hints_writes_no_solutions(tmp_path: Path) -> None:
    product_rows(RunDir(tmp_path / "run"))
    with pytest.raises(StageFailed, match="hints"):
        written(RunDir(tmp_path / "run"), None, teacher_model=f"python:{controls.__file__}:try_again")


# --- the page


def test_the_page_says_what_is_not_there(tmp_path: Path) -> None:
    found = Findings(["direct", "prompt", "sft"], NAMES, right(0.3))
    figures = {"rows": 10, "trained_tokens": 1000, "calls_tokens": 50, "cost_usd": 0.1, "learning_rate": 1e-4}
    found.done[AblationJob("direct")] = {"right": right(0.9, seed=1), **figures}
    found.done[AblationJob("prompt")] = {"right": right(0.31), "prompt": "a | b", "dev": {"a | b": 0.3}}
    found.not_done[AblationJob("sft")] = found.not_done[AblationJob("sft", 0, "tokens")] = "no time left"
    result = report.write_ablation(tmp_path, found)
    page = (tmp_path / "ablation.md").read_text("utf-8")
    assert "- Not done, no time left: sft, seed 0." in page
    assert "a \\| b" in page
    assert result["advice"]["arm"] == "direct"
    assert (
        result["advice"]["next"] == f"socratune validate {tmp_path}/direct/seed-0" and result["advice"]["next"] in page
    )
    assert result["arms"][2]["readings"]["rows"]["accuracy"] is None
    assert json.loads((tmp_path / "ablation.json").read_text("utf-8")) == result
    drawn = ElementTree.parse(tmp_path / "ablation.svg").getroot()
    assert sum(part.tag.endswith("circle") for part in drawn.iter()) == 2


# --- the command


@pytest.mark.slow
def test_a_wrong_arm_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = socratune("ablate", "--model", "demo", "--dataset", "demo", "--output", tmp_path / "a", "--arms", "rtf")
    assert done.returncode == 2
    assert "--arms" in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_killed_and_started_again_it_names_the_right_way(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", demo_rows("train", 160))
    held_out = write_rows(tmp_path / "held_out.jsonl", demo_rows("held_out", 60))
    args = ["ablate", "--model", "demo", "--dataset", train, "--held-out", held_out, "--output", tmp_path / "a",
            "--arms", "direct,prompt,sft", "--seeds", "1", "--set", "train.num_train_epochs=2"]  # fmt: skip
    kept = folder(tmp_path / "a", AblationJob("direct"))
    process = Fork(*args)
    while not (kept / "job.json").exists():
        assert process.poll() is None, "it ended before its first arm"
        time.sleep(0.02)
    process.kill()
    process.wait()
    calls, stamp = calls_of(kept), (kept / "job.json").stat().st_mtime_ns
    done = socratune(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "a" / "ablation.json").read_text("utf-8"))
    assert result["advice"]["arm"] == "direct", result["advice"]
    assert not result["not_done"]
    sft = result["arms"][2]
    assert sft["readings"]["rows"]["gain"][0] < 0.1
    assert sft["readings"]["tokens"]["accuracy"] is not None
    assert calls_of(kept) == calls
    assert (kept / "job.json").stat().st_mtime_ns == stamp
    assert "which way" in (tmp_path / "a" / "ablation.md").read_text("utf-8").lower()
    assert "is lost" not in done.stderr, "the pins of the split go along"
    assert f"The gate asks it: socratune validate {kept.root}" in done.stdout.replace("\n", " ") + done.stderr


def unheard(event: str, stage: str, entry: dict[str, Any]) -> None:
    """What happens is not looked at."""


def calls_of(run: RunDir) -> dict[str, Any]:
    journal = Journal(run.journal)
    try:
        return journal.spent()
    finally:
        journal.close()


@pytest.mark.slow
def test_arms_that_do_not_fit_into_the_time_are_named(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", demo_rows("train", 40))
    held_out = write_rows(tmp_path / "held_out.jsonl", demo_rows("held_out", 20))
    given = {
        "model": "demo",
        "dataset": str(train),
        "split": {"held_out": str(held_out)},
        "train": {"num_train_epochs": 1},
    }
    said: list[str] = []
    result = compare(
        given, tmp_path / "a", ["direct", "prompt", "sft"], AblationLimits(1, 0.0, None), tell=unheard, say=said.append
    )
    assert said[0].startswith("3 arms, 1 seeds: 1 loops")
    assert result["not_done"] == {"no time left": ["prompt, seed 0", "sft, seed 0"]}
    assert result["arms"][0]["readings"]["rows"]["accuracy"] is not None


@pytest.mark.slow
def test_the_budget_holds_for_all_arms_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher at gpt-4o-mini's price that takes 1,000 tokens a reply: enough for the loop, not for solutions."""
    train = write_rows(tmp_path / "train.jsonl", demo_rows("train", 40))
    held_out = write_rows(tmp_path / "held_out.jsonl", demo_rows("held_out", 20))
    monkeypatch.setenv("TEACHER_KEY", "k")

    def behave(body: dict[str, Any], number: int) -> Answer:
        case = json.loads(body["messages"][-1]["content"])
        factors = parse_product(case["question"])
        hint = breakdown_hint(*factors) if factors else None
        text = hint or "Look again." if "failed_attempts" in case else f"So {case['reference_answer']}"
        return Answer(text, tokens=(0, 1000))

    per_call = price_of("openai", "gpt-4o-mini").usd(0, 1000) or 0.0
    with ModelServer(behave) as server:
        given = {
            "model": "demo",
            "dataset": str(train),
            "split": {"held_out": str(held_out)},
            "train": {"num_train_epochs": 1},
            "enhance": {
                "teacher_model": "openai/gpt-4o-mini",
                "teacher_api_base": [server.openai_base],
                "endpoints": {"teacher": {"api_key_env": "TEACHER_KEY"}},
            },
        }
        budget = 45 * per_call
        arms = ["direct", "teacher-in-student-format", "wrong-hints", "teacher"]
        result = compare(
            given, tmp_path / "a", arms, AblationLimits(1, 30, budget), tell=unheard, say=lambda text: None
        )
    direct, _, wrong, _ = result["arms"]
    assert 20 < len(server.seen) <= 45
    assert direct["cost_usd"] > 20 * per_call
    assert wrong["cost_usd"] > 20 * per_call  # as if a teacher had been paid for them
    assert result["not_done"] == {"no money left": ["teacher-in-student-format, seed 0", "teacher, seed 0"]}
