"""Shards: each row in exactly one, limits that add up, journals and runs that become one again."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, write_rows
from model_server import Answer, ModelServer

from socratune.config import EndpointConfig, EndpointsConfig, StudentTeacherConfig
from socratune.errors import BusyError, UserError
from socratune.llm.ledger import Limits
from socratune.merge import merge_shards
from socratune.pipeline import run_pipeline
from socratune.preflight import check_run
from socratune.resolve import read_config_file
from socratune.runs.folder import RunDir, read_jsonl, write_jsonl
from socratune.runs.journal import Journal
from socratune.runs.shards import (
    divided_limits,
    gather_shards,
    hand_out_shard,
    interleaved,
    parse_shard,
    shard_rows,
    take_over_journal,
)
from socratune.teaching.hints import parse_product


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("rows", [0, 1, 6, 7, 20])
def test_every_row_is_in_one_shard_and_the_shards_make_the_whole_again(rows: int, count: int) -> None:
    shards = [list(shard_rows(range(rows), f"{index}/{count}")) for index in range(1, count + 1)]
    assert list(interleaved(shards)) == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert list(shard_rows(range(rows), None)) == list(range(rows))


@pytest.mark.parametrize("shard", ["3/2", "0/2", "1", "1/0", "a/b", "1/2/3", "-1/2", ""])
def test_a_shard_that_cannot_be_is_refused(shard: str) -> None:
    with pytest.raises(UserError, match="--shard: expected I/N"):
        parse_shard(shard)


def test_what_workers_may_do_adds_up_to_the_limits() -> None:
    judge = EndpointConfig(requests_per_minute=500, tokens_per_minute=2, api_key_env="KEY")
    config = StudentTeacherConfig(concurrency=64, attempts=3, endpoints=EndpointsConfig(judge=judge))
    part = divided_limits(config, 3)
    assert (part.concurrency, part.attempts) == (21, 3)
    assert Limits(1.5, 1000).among(3) == Limits(0.5, 333)
    assert (part.endpoints.judge.requests_per_minute, part.endpoints.judge.tokens_per_minute) == (166, 1)
    assert part.endpoints.judge.api_key_env == "KEY"
    assert part.endpoints.student.requests_per_minute is None
    assert config.concurrency == 64 and config.endpoints.judge.requests_per_minute == 500
    assert Limits().among(2) == Limits()


STAGE = "enhance.k"


def run_with_rows(folder: Path, count: int) -> RunDir:
    run = RunDir(folder)
    run.create()
    write_jsonl(run.rows("train_in"), ({"id": str(at)} for at in range(count)))
    return run


def fill(journal: Path, rows: dict[int, str], calls: tuple[bytes, ...] = ()) -> None:
    """Put rows (position → id) of STAGE and calls of 10 + 5 tokens into a journal."""

    async def put() -> None:
        for at, row_id in rows.items():
            await kept.put_row(STAGE, at, row_id, {"id": row_id})
        for key in calls:
            await kept.put_call(
                key, role="enhance.judge", model="m", answer={"text": key.decode()}, tokens=(10, 5), seconds=1.0
            )

    with closing(Journal(journal)) as kept:
        asyncio.run(put())


def test_workers_go_on_where_the_run_was_and_the_run_where_they_were(tmp_path: Path) -> None:
    run = run_with_rows(tmp_path, 7)
    fill(run.journal, {0: "0", 4: "4", 5: "5"}, (b"key a", b"key b"))
    workers = [hand_out_shard(run, f"{index}/3", of=None, stage=STAGE) for index in (1, 2, 3)]
    assert [[row["id"] for row in read_jsonl(w.rows("train_in"))] for w in workers] == [
        ["0", "3", "6"],
        ["1", "4"],
        ["2", "5"],
    ]
    tokens = 0
    for worker, done in zip(workers, ({0}, {1}, {1}), strict=True):
        with closing(Journal(worker.journal)) as journal:
            assert journal.done_positions(STAGE) == done
            assert journal.find_call(b"key a") == {"text": "key a"}
            tokens += journal.spent()["enhance.judge"]["prompt_tokens"]
    assert tokens == 20  # what is spent already is divided like the limit it counts against
    fill(workers[0].journal, {1: "3", 2: "6"}, (b"key c",))
    fill(workers[1].journal, {0: "1"})
    fill(workers[2].journal, {0: "2"})
    gather_shards(run)
    with closing(Journal(run.journal)) as journal:
        assert [row["id"] for row in journal.rows(STAGE)] == [str(at) for at in range(7)]
        assert journal.spent()["enhance.judge"]["calls"] == 3
        assert journal.spent()["enhance.judge"]["prompt_tokens"] == 30
    assert not (run / "shards").exists()
    gather_shards(run)  # nothing there: nothing to do


def test_workers_of_a_sharded_run_divide_its_shard(tmp_path: Path) -> None:
    run = run_with_rows(tmp_path, 10)
    Journal(run.journal).close()
    workers = [hand_out_shard(run, f"{index}/2", of="2/2", stage=STAGE) for index in (1, 2)]
    assert [[row["id"] for row in read_jsonl(w.rows("train_in"))] for w in workers] == [["1", "5", "9"], ["3", "7"]]


def test_a_worker_still_at_work_is_waited_for_and_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with_rows(tmp_path, 2)
    Journal(run.journal).close()
    worker = hand_out_shard(run, "1/2", of=None, stage=STAGE)
    fill(worker.journal, {0: "0"})
    with worker.locked():
        monkeypatch.setattr("socratune.runs.shards.ORPHANS_S", 0.2)
        with pytest.raises(BusyError):
            gather_shards(run)
        with pytest.raises(BusyError):
            hand_out_shard(run, "1/2", of=None, stage=STAGE)
        monkeypatch.setattr("socratune.runs.shards.ORPHANS_S", 60)
        gathering = threading.Thread(target=gather_shards, args=(run,))
        gathering.start()
    gathering.join(30)
    assert not gathering.is_alive() and not worker.root.exists()
    with closing(Journal(run.journal)) as journal:
        assert journal.done_positions(STAGE) == {0}


def test_taking_over_twice_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "whole", {}, (b"key a",))
    fill(tmp_path / "part", {0: "x", 1: "y"}, (b"key a", b"key b"))
    for _ in range(2):
        take_over_journal(tmp_path / "whole", tmp_path / "part", "2/3", rename=(STAGE, "enhance.other"))
    with closing(Journal(tmp_path / "whole")) as journal:
        assert journal.done_positions("enhance.other") == {1, 4}
        assert journal.done_positions(STAGE) == set()
        assert journal.spent()["enhance.judge"]["calls"] == 2


def student(body: dict[str, Any], number: int) -> Answer:
    """Multiplies right where the first factor divides by 3, with a hint where it does not divide by 5, else never."""
    question = body["messages"][-1]["content"]
    factors = parse_product(question)
    assert factors is not None
    hinted = "Hint" in body["messages"][0]["content"] or "*" in body["messages"][0]["content"]
    right = factors[0] % 3 == 0 or (hinted and factors[0] % 5 != 0)
    return Answer(f"{factors[0]} * {factors[1]} = {factors[0] * factors[1] + (not right)}.", tokens=(20, 9))


def enhanced(data: Path, output: Path, **settings: Any) -> dict[str, Any]:
    """The results of a run up to `enhance`."""
    given = {"model": "demo", "dataset": str(data), "output": str(output)}
    split = {"held_out_share": 0.1, "max_dev_rows": 0}
    resolved = check_run({**given, "split": split, **settings}, where="test")
    return run_pipeline(resolved, until="enhance", tell=quiet)


def quiet(event: str, stage: str, entry: dict[str, Any]) -> None:
    pass


def make_runs(folder: Path, rows: int, **settings: Any) -> Path:
    """`whole`, and the runs of two and of three shards, in `folder`."""
    folder.mkdir(exist_ok=True)
    data = write_rows(folder / "rows.jsonl", demo_rows("train", rows))
    enhanced(data, folder / "whole", **settings)
    for count in (2, 3):
        for index in range(1, count + 1):
            enhanced(data, folder / f"{index}of{count}", shard=f"{index}/{count}", **settings)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(student) as server:
        yield server


@pytest.fixture(scope="module")
def runs(server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made with a student behind a server."""
    enhance = {"student_model": "small", "student_api_base": [server.openai_base], "attempts": 1}
    return make_runs(tmp_path_factory.mktemp("runs"), 60, enhance=enhance, views=["preference"])


@pytest.fixture
def copies(runs: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return shutil.copytree(runs, tmp_path / "runs")


def assert_merged_is_whole(runs: Path, out: Path, count: int) -> None:
    """What is merged from `count` shards is what one machine made."""
    folders = [str(runs / f"{index}of{count}") for index in range(count, 0, -1)]  # in any order
    results = merge_shards(str(out), folders, tell=quiet)
    assert results == json.loads((out / "pipeline_results.json").read_text())
    whole = json.loads((runs / "whole" / "pipeline_results.json").read_text())
    assert (out / "enhanced_dataset.jsonl").read_bytes() == (runs / "whole" / "enhanced_dataset.jsonl").read_bytes()
    entry, expected = results["stages"]["enhance"], whole["stages"]["enhance"]
    leaks, expected_leaks = entry["leaks"], expected["leaks"]
    assert {**entry, "seconds": 0, "leaks": 0} == {**expected, "seconds": 0, "leaks": 0}
    assert leaks == (expected_leaks and pytest.approx(expected_leaks))
    assert (out / "hint_measures.jsonl").exists() == (runs / "whole" / "hint_measures.jsonl").exists() == bool(leaks)
    assert entry["rows_in"] > 45 and entry["seconds"] > 0
    assert results["stages"]["split"]["key"] == whole["stages"]["split"]["key"]
    assert results["status"] == whole["status"] == "incomplete"
    assert results["config"] == whole["config"]
    assert read_config_file(out / "config.yaml")["shard"] is None
    assert "shard: null  # merged" in (out / "config.yaml").read_text()
    with closing(Journal(out / "journal.sqlite")) as ours, closing(Journal(runs / "whole" / "journal.sqlite")) as its:
        spent, expected = ours.spent()["enhance.student"], its.spent()["enhance.student"]
    assert {**spent, "call_seconds": 0} == {**expected, "call_seconds": 0}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_are_the_run_of_one_machine(runs: Path, tmp_path: Path, count: int) -> None:
    out = tmp_path / "deep" / "out"
    assert_merged_is_whole(runs, out, count)
    assert (out / "preference.jsonl").read_bytes() == (runs / "whole" / "preference.jsonl").read_bytes() != b""


@pytest.mark.slow
def test_shards_of_the_embedded_model_too(tmp_path: Path) -> None:
    """Its samples depend on the row, and neither on the rows beside it in the batch nor on their number."""
    runs = make_runs(tmp_path / "runs", 60)
    for count in (2, 3):
        assert_merged_is_whole(runs, tmp_path / str(count) / "out", count)


def test_a_merged_run_goes_on_without_a_call(runs: Path, server: ModelServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before, asked = merge_shards(str(out), [str(runs / "1of2"), str(runs / "2of2")], tell=quiet), len(server.seen)
    given = {**read_config_file(out / "config.yaml"), "output": str(out)}
    told: list[tuple[str, str]] = []

    def tell(event: str, stage: str, entry: dict[str, Any]) -> None:
        told.append((event, stage))

    after = run_pipeline(check_run(given, where="test"), until="curate", tell=tell)
    assert ("kept", "split") in told and ("kept", "enhance") in told and ("done", "curate") in told
    assert after["stages"]["enhance"] == before["stages"]["enhance"]
    whole = (runs / "whole" / "enhanced_dataset.jsonl").read_bytes()
    (out / "enhanced_dataset.jsonl").unlink()
    run_pipeline(check_run(given, where="test"), until="enhance", tell=quiet)
    assert (out / "enhanced_dataset.jsonl").read_bytes() == whole
    run_pipeline(check_run(given, where="test"), until="enhance", restart="enhance", tell=quiet)
    assert (out / "enhanced_dataset.jsonl").read_bytes() == whole
    assert len(server.seen) == asked


def test_merging_again_leaves_the_merge_as_it_is(copies: Path) -> None:
    out, folders = copies / "out", [str(copies / "1of2"), str(copies / "2of2")]
    merge_shards(str(out), folders, tell=quiet)
    (out / "adapter").mkdir()
    assert merge_shards(str(out), folders, tell=quiet)["status"] == "incomplete"
    assert (out / "adapter").exists()
    with pytest.raises(UserError, match="a new or empty folder"):
        merge_shards(str(out), [str(copies / f"{index}of3") for index in (1, 2, 3)], tell=quiet)
    assert (out / "adapter").exists()
    with pytest.raises(UserError, match="a new or empty folder"):
        merge_shards(str(copies / "1of2"), folders, tell=quiet)


def test_an_answer_edited_in_a_shard_stays_edited(copies: Path) -> None:
    path = copies / "2of2" / "enhanced_dataset.jsonl"
    rows = list(read_jsonl(path))
    rows[-1]["messages"][-1]["content"] = "Edited by hand: 195."
    path.write_text("\n".join(json.dumps(row) for row in rows))  # as some editors do, without a last newline
    merge_shards(str(copies / "out"), [str(copies / "1of2"), str(copies / "2of2")], tell=quiet)
    merged = list(read_jsonl(copies / "out" / "enhanced_dataset.jsonl"))
    whole = list(read_jsonl(copies / "whole" / "enhanced_dataset.jsonl"))
    assert [row["id"] for row in merged] == [row["id"] for row in whole]
    assert sum("Edited by hand" in row["messages"][-1]["content"] for row in merged) == 1


def test_what_is_not_one_run_is_not_merged(copies: Path) -> None:
    out = copies / "out"

    def refused(*names: str) -> str:
        with pytest.raises(UserError) as caught:
            merge_shards(str(out), [str(copies / name) for name in names], tell=quiet)
        assert not out.exists() and not list(copies.glob(".*"))
        return str(caught.value)

    assert "none of 2/3, 3/3" in refused("1of3")
    assert "one N, got 1/2, 1/3" in refused("1of2", "1of3")
    twice = refused("1of2", "1of2", "whole", "nowhere")
    assert (
        "each shard once" in twice and "the run of a shard, got one of all rows" in twice and "no such folder" in twice
    )
    (copies / "2of2" / "dev.jsonl").write_text("{}\n")
    results = json.loads((copies / "2of2" / "pipeline_results.json").read_text())
    results["config"]["enhance"]["max_iterations"] = 7
    results["stages"]["enhance"]["student"]["name"] = "another"
    (copies / "2of2" / "pipeline_results.json").write_text(json.dumps(results))
    different = refused("1of2", "2of2")
    assert "enhance.max_iterations: expected 3 as in" in different and "dev.jsonl: expected the rows of" in different
    assert "the model, rows and settings it was enhanced with" in different and "expected the student of" in different
    with RunDir(copies / "1of3").locked():
        assert "nobody works on" in refused("1of3", "2of3", "3of3")


def test_a_shard_that_lost_rows_is_not_merged(copies: Path) -> None:
    folders = [str(copies / f"{index}of3") for index in (1, 2, 3)]
    lines = (copies / "1of3" / "enhanced_dataset.jsonl").read_text().splitlines(keepends=True)
    (copies / "1of3" / "enhanced_dataset.jsonl").write_text("".join(lines[1:]))
    (copies / "2of3" / "journal.sqlite").unlink()
    Journal(copies / "2of3" / "journal.sqlite").close()
    results = json.loads((copies / "3of3" / "pipeline_results.json").read_text())
    results["stages"]["enhance"]["status"] = "stopped"
    (copies / "3of3" / "pipeline_results.json").write_text(json.dumps(results))
    with pytest.raises(UserError) as caught:
        merge_shards(str(copies / "out"), folders, tell=quiet)
    said = str(caught.value)
    assert len(caught.value.faults) == 3 and "got 0 rows" in said and "enhance: stopped" in said
    assert f"got {len(lines) - 1} rows" in said and not (copies / "out").exists()


def test_a_merge_that_fails_leaves_nothing(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [str(copies / "1of2"), str(copies / "2of2")]
    with monkeypatch.context() as patched:
        patched.setattr("socratune.merge.write_lines", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            merge_shards(str(copies / "out"), folders, tell=quiet)
    assert not (copies / "out").exists() and not list(copies.glob(".*"))
    (copies / "out").mkdir()
    assert merge_shards(str(copies / "out"), folders, tell=quiet)["status"] == "incomplete"
