"""Calls in batches, with the real HTTP client against doubles of both vendors' APIs."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from batch_servers import KEY, BatchServer

from socratune.errors import OutsideError
from socratune.llm import batched
from socratune.llm.base import Chat, Completion, Sampling
from socratune.llm.batched import FEWEST_CALLS, BatchedModel
from socratune.llm.http import HttpModel
from socratune.llm.ledger import UNLIMITED, BudgetSpent, Ledger, Limits, MeteredModel, price_of
from socratune.llm.places import Places
from socratune.llm.vendors import WireProtocol
from socratune.runs import Journal

MODELS: dict[WireProtocol, str] = {"openai": "gpt-4o-mini", "anthropic": "claude-opus-4-5"}
SAMPLING = Sampling(max_new_tokens=100)
BOTH = pytest.mark.parametrize("kind", list(MODELS))
ROLE = "enhance.judge"


def ask(number: int) -> Chat:
    return [{"role": "user", "content": f"Is answer {number} right?"}]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as server:
        yield server


@dataclass
class Run:
    """One start of a command: its rows ask, and what it spent, said and saw stays to be looked at."""

    server: BatchServer
    journal: Path
    kind: WireProtocol = "openai"
    limits: Limits = UNLIMITED
    at_work: int = 256
    on_pause: Callable[[int], None] = lambda number: None
    pauses: list[float] = field(default_factory=list)
    ledger: Ledger = field(init=False)
    main: asyncio.Task[Any] = field(init=False)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause(len(self.pauses))
        await asyncio.sleep(0.002)  # the double works in threads of this process

    async def _rows(self, row: Callable[[Any, int], Awaitable[Any]], count: int, journal: Journal) -> list[Any]:
        main = asyncio.current_task()
        assert main is not None
        self.main = main
        base = self.server.openai_base if self.kind == "openai" else self.server.url
        http = HttpModel(kind=self.kind, model=MODELS[self.kind], api_bases=[base], api_key=KEY)
        price, cheaper = (price_of(self.kind, MODELS[self.kind], batch=batch) for batch in (False, True))
        self.ledger = Ledger(self.limits)
        direct = MeteredModel(http, journal, ROLE, ledger=self.ledger, price=price)
        places = Places(self.at_work)
        model = BatchedModel(
            http,
            direct,
            journal=journal,
            role=ROLE,
            ledger=self.ledger,
            price=cheaper,
            places=places,
            pause=self.pause,
        )

        async def placed(number: int) -> Any:
            async with places.row():
                return await row(model, number)

        tasks = [asyncio.create_task(placed(number)) for number in range(count)]
        try:
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(10):  # others close first, and some take their time
                await asyncio.sleep(0.002)
            await model.close()

    def __call__(self, count: int, rounds: int = 1) -> list[Any]:
        async def row(model: BatchedModel, number: int) -> Completion:
            for step in range(1, rounds):
                await model.generate(ask(number + 1000 * step), SAMPLING)
            return await model.generate(ask(number), SAMPLING)

        try:
            with closing(Journal(self.journal)) as journal:
                return asyncio.run(self._rows(row, count, journal))
        finally:
            gc.collect()  # asyncio tells of a killed task when it is collected, which here is not in another test

    @property
    def usd(self) -> float:
        return self.ledger.usd[ROLE]


class Killed(KeyboardInterrupt):
    """What ends a run in the middle, without a chance to say anything to the vendor."""


def answered(found: list[Any]) -> bool:
    return all(isinstance(one, Completion) and json.loads(one.text)["correct"] for one in found)


def batches_of(journal: Path) -> list[dict[str, Any]]:
    with closing(Journal(journal)) as opened:
        return [note.about for note in opened.batches(ROLE) if note.state == "done"]


@BOTH
def test_all_but_the_first_call_go_out_together_at_half_price(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    server.finish_after = 3
    run = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(run(60))
    assert len(server.batches) == 1 and len(server.batches["batch_1"].calls) == 59 and len(server.direct) == 1
    assert set(server.runs.values()) == {1}
    whole = price_of(kind, MODELS[kind]).usd(100, 20)
    assert whole is not None and run.usd == pytest.approx(whole * (1 + 59 / 2))
    again, seen = Run(server, tmp_path / "j.sqlite", kind), len(server.seen)
    assert answered(again(60)) and len(server.seen) == seen
    assert again.usd == pytest.approx(run.usd)  # as the journal has it


@BOTH
def test_a_loop_goes_on_in_rounds(tmp_path: Path, server: BatchServer, kind: WireProtocol) -> None:
    """More rows than may be at work at once: those that wait for a batch leave their places to others."""
    run = Run(server, tmp_path / "j.sqlite", kind, at_work=8)
    assert answered(run(100, rounds=3))
    assert len(server.batches) == 3 and set(server.runs.values()) == {1} and len(server.runs) == 300


def test_what_fills_a_batch_does_not_wait_for_the_rest(
    tmp_path: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "MOST_CALLS", 25)
    assert answered(Run(server, tmp_path / "j.sqlite")(101))
    assert [len(batch.calls) for batch in server.batches.values()] == [25] * 4


@pytest.mark.parametrize("most_wait_s", [0.0, 1e9])
def test_calls_do_not_wait_for_ever_for_a_row_that_is_long_at_work(
    tmp_path: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch, most_wait_s: float
) -> None:
    monkeypatch.setattr(batched, "MOST_WAIT_S", most_wait_s)
    run = Run(server, tmp_path / "j.sqlite")
    seen: list[int] = []

    async def row(model: BatchedModel, number: int) -> Completion:
        while number == 0 and not server.batches and len(run.pauses) < 30:
            await asyncio.sleep(0.002)
        seen.append(len(server.batches))
        return await model.generate(ask(number), SAMPLING)

    with closing(Journal(run.journal)) as journal:
        assert answered(asyncio.run(run._rows(row, 60, journal)))
    assert seen[-1] == (1 if most_wait_s == 0.0 else 0)  # whether the batch went out before that row was done


def test_few_calls_are_asked_directly(tmp_path: Path, server: BatchServer) -> None:
    run = Run(server, tmp_path / "j.sqlite")
    assert answered(run(FEWEST_CALLS))  # the first is a scout
    assert not server.batches and len(server.direct) == FEWEST_CALLS


def test_the_same_question_of_several_rows_is_paid_once(tmp_path: Path, server: BatchServer) -> None:
    async def row(model: BatchedModel, number: int) -> Completion:
        return await model.generate(ask(number // 2), SAMPLING)

    run = Run(server, tmp_path / "j.sqlite")
    with closing(Journal(run.journal)) as journal:
        found = asyncio.run(run._rows(row, 80, journal))
    assert answered(found) and len(server.batches["batch_1"].calls) in (39, 40)
    assert sum(server.runs.values()) <= 41  # the scout's twin does not wait for it


@BOTH
def test_calls_that_fail_in_a_batch_go_on_directly_and_are_counted(
    tmp_path: Path, server: BatchServer, kind: WireProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    failing = {json.dumps(ask(number)) for number in range(10, 17)}
    server.fate = lambda body: "failed" if json.dumps(body["messages"]) in failing else "answered"
    run = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(run(50))
    assert len(server.direct) == 1 + 7 and set(server.runs.values()) == {1}
    assert batches_of(run.journal)[0].items() >= {"calls": 49, "answered": 42, "failed": 7}.items()
    assert "7 calls of batch batch_1 have no answer" in caplog.text
    whole = price_of(kind, MODELS[kind]).usd(100, 20)
    assert whole is not None and run.usd == pytest.approx(whole * (8 + 42 / 2))


@BOTH
def test_what_expires_goes_into_the_next_batch_and_then_directly(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    late = {json.dumps(ask(number)) for number in range(20, 50)}
    server.fate = lambda body: "expired" if json.dumps(body["messages"]) in late else "answered"
    run = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(run(50))
    assert [len(batch.calls) for batch in server.batches.values()] == [49, 30]
    assert len(server.direct) == 1 + 30 and set(server.runs.values()) == {1}


@BOTH
def test_a_run_killed_while_a_batch_is_out_takes_up_that_very_batch(
    tmp_path: Path, server: BatchServer, kind: WireProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    server.finish_after = None  # slow

    def kill(number: int) -> None:
        if server.batches and number > 30:
            raise Killed

    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", kind, on_pause=kill)(60)
    assert "batch batch_1 with 59 calls continues at the vendor" in caplog.text
    server.finish_after = 1
    again = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(again(60))
    assert len(server.batches) == 1 and len(server.direct) == 1 and set(server.runs.values()) == {1}
    whole = price_of(kind, MODELS[kind]).usd(100, 20)
    assert whole is not None and again.usd == pytest.approx(whole * (1 + 59 / 2))


@BOTH
def test_answers_that_no_row_has_asked_for_yet_are_kept_and_counted(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    server.finish_after = None
    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", kind, on_pause=_killing(server))(60)
    server.finish_after = 1
    some = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(some(30))  # fewer rows than were asked about
    everything = Run(server, tmp_path / "j.sqlite", kind)
    assert answered(everything(60)) and len(server.batches) == 1 and set(server.runs.values()) == {1}
    assert some.usd == pytest.approx(everything.usd)


def _killing(server: BatchServer) -> Callable[[int], None]:
    def kill(number: int) -> None:
        if server.batches and number > 30:
            raise Killed

    return kill


@BOTH
def test_a_batch_whose_id_never_came_is_found_and_not_sent_again(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    path = "/v1/batches" if kind == "openai" else "/v1/messages/batches"
    server.drop = [path]
    assert answered(Run(server, tmp_path / "j.sqlite", kind)(60))
    assert len(server.batches) == 1 and set(server.runs.values()) == {1}


@BOTH
def test_a_run_killed_before_it_knows_the_id_finds_the_batch(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    path = "/v1/batches" if kind == "openai" else "/v1/messages/batches"
    server.drop = [path]

    def kill(number: int) -> None:
        if server.batches:
            raise Killed

    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", kind, on_pause=kill)(60)
    with closing(Journal(tmp_path / "j.sqlite")) as journal:
        assert [(note.state, note.id) for note in journal.batches(ROLE)] == [("wanted", None)]
    assert answered(Run(server, tmp_path / "j.sqlite", kind)(60))
    assert len(server.batches) == 1 and set(server.runs.values()) == {1}


@BOTH
def test_a_run_killed_before_the_batch_was_sent_sends_it(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    path = "/v1/files" if kind == "openai" else "/v1/messages/batches"
    server.busy[path] = 1

    def kill(number: int) -> None:
        if path in {seen for _, seen in server.seen}:
            raise Killed

    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", kind, on_pause=kill)(60)
    assert not server.batches
    assert answered(Run(server, tmp_path / "j.sqlite", kind)(60))
    assert len(server.batches) == 1 and set(server.runs.values()) == {1}


@BOTH
def test_a_server_that_is_down_while_a_batch_is_out_is_waited_for(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    server.finish_after = 4
    stopped: list[int] = []

    def restart(number: int) -> None:
        if server.batches and not stopped:
            stopped.append(number)
            server.stop()
        elif stopped and number == stopped[0] + 3:
            server.start()

    run = Run(server, tmp_path / "j.sqlite", kind, on_pause=restart)
    assert answered(run(60)) and stopped
    assert len(server.batches) == 1 and set(server.runs.values()) == {1}


def test_a_server_that_stays_down_ends_the_run_and_the_next_one_takes_the_batch(
    tmp_path: Path, server: BatchServer
) -> None:
    server.finish_after = None
    looked_at: list[int] = []

    def stop(number: int) -> None:
        if server.batches and not looked_at:
            looked_at.append(number)
            server.stop()

    run = Run(server, tmp_path / "j.sqlite", on_pause=stop)
    found = run(60)
    assert sum(isinstance(one, OutsideError) for one in found) == 59
    assert max(run.pauses) == 60
    server.start()
    server.finish_after = 1
    assert answered(Run(server, tmp_path / "j.sqlite")(60))
    assert len(server.batches) == 1 and set(server.runs.values()) == {1}


def test_looks_at_a_batch_grow_rarer_up_to_one_a_minute(tmp_path: Path, server: BatchServer) -> None:
    server.finish_after = 20
    run = Run(server, tmp_path / "j.sqlite")
    assert answered(run(60))
    looks = [pause for pause in run.pauses if pause > 1]
    assert looks == sorted(looks) and looks[0] == 1.5 and looks[-1] == 60


def test_smaller_batches_follow_where_too_much_is_enqueued(tmp_path: Path, server: BatchServer) -> None:
    server.fail_with = "token_limit_exceeded"
    assert answered(Run(server, tmp_path / "j.sqlite")(101))
    assert [len(batch.calls) for batch in server.batches.values()] == [100, 50, 50]
    looks = [path for _, path in server.seen if path.startswith("/v1/batches/")]
    assert looks == sorted(looks)  # one after the other
    assert set(server.runs.values()) == {1}


def test_what_is_left_over_by_smaller_batches_is_asked_directly(tmp_path: Path, server: BatchServer) -> None:
    server.fail_with = "token_limit_exceeded"
    assert answered(Run(server, tmp_path / "j.sqlite")(112))
    assert [len(batch.calls) for batch in server.batches.values()] == [111, 55, 55]
    assert len(server.direct) == 2


def test_a_run_that_is_stopped_sends_nothing_more(tmp_path: Path, server: BatchServer) -> None:
    run = Run(server, tmp_path / "j.sqlite")

    def stop(number: int) -> None:
        if number == 1:
            run.main.cancel()

    run.on_pause = stop
    with pytest.raises(asyncio.CancelledError):
        run(60)
    assert len(run.pauses) < 3 and not server.batches and not server.files


def test_another_model_in_the_role_leaves_the_batch_alone(tmp_path: Path, server: BatchServer) -> None:
    server.finish_after = None
    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", "openai", on_pause=_killing(server))(60)
    server.finish_after = 1
    assert answered(Run(server, tmp_path / "j.sqlite", "anthropic")(60))
    assert [len(batch.calls) for batch in server.batches.values()] == [59, 59]
    assert not server.batches["batch_1"].results


def test_a_batch_that_is_not_taken_ends_the_run_and_says_how_to_go_on(tmp_path: Path, server: BatchServer) -> None:
    server.fail_with = "model_not_found"
    found = Run(server, tmp_path / "j.sqlite")(60)
    errors = [one for one in found if isinstance(one, OutsideError)]
    assert len(errors) == 59 and "model_not_found: as asked" in str(errors[0])
    assert "--set enhance.endpoints.judge.batch=false" in str(errors[0])
    assert len(server.direct) == 1  # nothing is asked at the full price that was to be asked at half of it
    server.fail_with = ""
    assert answered(Run(server, tmp_path / "j.sqlite")(60))


@BOTH
@pytest.mark.slow
def test_the_limit_holds_with_the_worst_cases_of_a_batch(
    tmp_path: Path, server: BatchServer, kind: WireProtocol
) -> None:
    worst = price_of(kind, MODELS[kind], batch=True).usd(22, 100)
    assert worst is not None
    limit = 40 * worst
    run = Run(server, tmp_path / "j.sqlite", kind, Limits(usd=limit))
    found = run(400)
    assert any(isinstance(one, BudgetSpent) for one in found)
    assert 0.8 * limit < run.usd <= limit
    assert set(server.runs.values()) == {1}
    assert answered(Run(server, tmp_path / "j.sqlite", kind)(400)) and set(server.runs.values()) == {1}


@BOTH
def test_a_lower_limit_cancels_the_batch_that_is_out_and_keeps_what_is_done(
    tmp_path: Path, server: BatchServer, kind: WireProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    server.finish_after = None
    with pytest.raises(Killed):
        Run(server, tmp_path / "j.sqlite", kind, on_pause=_killing(server))(60)
    run = Run(server, tmp_path / "j.sqlite", kind, Limits(usd=1e-9))
    found = run(60)
    assert "batch batch_1 is cancelled" in caplog.text and server.asked(".*/cancel") == 1
    assert sum(isinstance(one, Completion) for one in found) == 1 + 30  # the scout, and half of the batch
    assert any(isinstance(one, BudgetSpent) for one in found)
    server.finish_after = 1
    assert answered(Run(server, tmp_path / "j.sqlite", kind)(60))
    assert set(server.runs.values()) == {1}


def test_a_refusal_in_a_batch_is_its_rows_and_is_paid(tmp_path: Path, server: BatchServer) -> None:
    from socratune.errors import CallError

    work = server.work

    def refusing(body: dict[str, Any]) -> dict[str, Any]:
        found = work(body)
        if body["messages"] == ask(30):
            found["choices"][0]["message"]["refusal"] = "no"
        return found

    server.work = refusing  # type: ignore[method-assign]
    run = Run(server, tmp_path / "j.sqlite")
    found = run(60)
    assert isinstance(found[30], CallError) and "the model refused" in str(found[30])
    assert answered(found[:30] + found[31:])
    assert run.ledger.tokens[ROLE] == 60 * 120
