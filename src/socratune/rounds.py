"""`--rounds N` repeats loop and training, each time with the student that the previous round trained.

    split → N × (enhance → newest traces → curate → train → sample) → the best round by dev → validate → publish

The outer loop of STaR (Zelikman et al. 2022, arXiv:2203.14465). The student of round k + 1 is the base with the adapter
of round k: what that solves now needs no hint. The weights begin anew from the base in every round, so that mistakes
do not pile up; those of `distil` and `grpo` go on instead, and learn from what the student says now alone. Each round
is a run folder below `RUN/rounds/`; all share the journal of the run, so a limit of money holds for all of them, and
nothing is asked twice. Held-out rows are read once, at the end, for the round that is kept.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socratune.config import ON_POLICY, RunConfig
from socratune.errors import Fault, Shown, StageFailed, UserError
from socratune.evaluation import pin_adapter, pin_training
from socratune.inference import LocalModels
from socratune.judging import mechanical_judge
from socratune.llm import WARM
from socratune.pipeline import Pipeline, run_pipeline
from socratune.resolve import Resolved
from socratune.rows import QARow, Trace
from socratune.runs import (
    OUTPUTS,
    STAGES,
    Journal,
    Results,
    RunDir,
    Tell,
    ending_noted,
    file_hashes,
    fingerprint,
    locked_file,
    read_jsonl,
    read_rows,
    whole_folder,
    write_jsonl,
)
from socratune.stages import judged_by_rules
from socratune.teaching import answer_and_judge, rejection, training_text

LOOP = ("enhance", "curate", "train")
"""The stages of a round."""
SAMPLED_ROWS, _SAMPLES = 100, 8
"""After each round, its model answers this many training rows this many times. That shows what it can solve, and in
how many ways.
"""


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round. The lists are by sampled row, in the same order in every round.

    Attributes:
        dev_accuracy: greedy, of the epoch that was kept.
        solved: 1 where any of the samples is right, else 0.
        distinct: right samples that differ, as a share of all samples.
        sources: which rows belong together.
        figures: counts for people: rows `solved` alone and `hinted` in this round, `rows` trained on.
    """

    number: int
    dev_accuracy: float
    solved: list[float]
    distinct: list[float]
    sources: list[str]
    figures: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Returns the row of the table of rounds. `distinct_traces` counts right traces per row, out of `samples`."""
        count = len(self.solved)
        return {
            "round": self.number,
            "dev_accuracy": self.dev_accuracy,
            "samples": _SAMPLES,
            "pass_at_k": sum(self.solved) / count,
            "distinct_traces": sum(self.distinct) * _SAMPLES / count,
            **self.figures,
        }


def run_rounds(
    resolved: Resolved, *, start: str = STAGES[0], until: str = STAGES[-1], restart: str | None = None, tell: Tell
) -> dict[str, Any]:
    """Runs `run_pipeline` with `rounds` of its loop and training, and returns the resulting content of
    `pipeline_results.json`.

    There, `rounds` is the table, `rounds_end` which was kept and why there was no further one. To redo a stage of the
    loop redoes all rounds, as each stands on the one before; the calls of the journal are not made again.

    Args:
        tell: hears of every stage, and of `round` and `rounds` when they are done.

    Raises:
        UserError: as `run_pipeline`; `until` is within a round; no dev rows that rules can judge.
        OutsideError: something outside failed; run again to go on.
    """
    at = STAGES.index
    if resolved.config.rounds == 1 or at(until) < at("enhance") or at(start) > at("train"):
        return run_pipeline(resolved, start=start, until=until, restart=restart, tell=tell)
    if until in LOOP[:-1]:
        fix = "Or leave --rounds out."
        expected = "a stage before the rounds or behind them (split, train, validate, publish)"
        raise UserError(Fault(f"--until {until} --rounds", expected, Shown("one within them"), fix))
    top = RunDir(resolved.config.output)
    top.create()
    with locked_file(top / "rounds.lock", Fault(str(top.root), "a run folder nobody works on")):
        begin, again = STAGES[min(at(start), at("enhance"))], "enhance" if restart in LOOP else restart
        late = restart in STAGES[at("validate") :]
        results = run_pipeline(resolved, start=begin, until="split", restart=None if late else again, tell=tell)
        if results["stages"].get("split", {}).get("status") != "done":
            return results
        results = _play_and_keep(resolved, top, tell)
        if results["status"] == "failed":
            return results
        return run_pipeline(resolved, start="enhance", until=until, restart=restart if late else None, tell=tell)


def _play_and_keep(resolved: Resolved, top: RunDir, tell: Tell) -> dict[str, Any]:
    """Runs all rounds, copies files and stages of the best one into the run folder, and returns the run's results."""
    if not judged_by_rules(read_rows(top.rows("dev"), QARow.from_json)):
        fix = "Raise split.dev_share (and --restart split), or leave --rounds out where rules cannot judge the answers."
        raise UserError(Fault("--rounds", "dev rows to choose the round by", Shown("none"), fix))
    results = Results(top)
    for stale in ("error", "rounds_end"):
        results.data.pop(stale, None)
    results.write(status="running", rounds=[])
    with ending_noted(results):
        played: list[Round] = []
        reason = None
        while reason is None:
            try:
                played.append(play(resolved, len(played) + 1, tell))
            except StageFailed as error:
                if not played:
                    raise
                reason = str(error)
            else:
                reason = why_stop(played, resolved.config.rounds)
                results.write(rounds=[one.to_json() for one in played])
                tell("done", "round", {**played[-1].to_json(), "of": resolved.config.rounds})
        kept = best(played).number
        results.write(rounds_end={"kept": kept, "reason": reason})
        tell("done", "rounds", results.data["rounds_end"])
        _keep(resolved.config, top, results, kept, len(played))
    return results.data


def play(resolved: Resolved, number: int, tell: Tell) -> Round:
    """Runs one round, or the rest of it, on top of the previous one.

    Raises:
        StageFailed: it has nothing to train on, or its training came to nothing.
    """
    top = RunDir(resolved.config.output)
    run = _begun(top, number)
    here = resolved.config.where.model_copy(update={"place": "local"})
    own = resolved.config.model_copy(
        update={"output": str(run.root), "rounds": 1, "hub_id": None, "views": [], "where": here}
    )
    for first, last in (("enhance", "enhance"), ("curate", "train")):
        results = run_pipeline(resolved.model_copy(update={"config": own}), start=first, until=last, tell=_new(tell))
        if results["status"] == "failed":
            raise StageFailed(f"round {number}: {results['error']}")
        if last == "enhance" and number > 1 and own.train.method not in ON_POLICY:
            unite(run, RunDir(top.rounds / str(number - 1)))
    loop, train = results["stages"]["enhance"], results["stages"]["train"]
    outcomes = loop["outcomes"]
    figures = {
        "solved": outcomes.get("solved_first_try", 0),
        "hinted": outcomes.get("solved_with_hint", 0) + outcomes.get("rewritten", 0),
        "rows": train["rows_out"],
    }
    (epoch,) = (one for one in train["epochs"] if one["epoch"] == train["best_epoch"])
    return Round(number, epoch["dev_accuracy"], *_sampled(run, own, tell), figures)


def _begun(top: RunDir, number: int) -> RunDir:
    """Creates the run folder of a round, with the run's own rows and journal, and the previous adapter as student."""
    run = RunDir(top.rounds / str(number))
    if run.root.is_dir():
        return run
    with whole_folder(run.root) as folder:
        for shared in (top.rows("train_in"), top.rows("dev"), top.journal):
            (folder / shared.name).symlink_to(Path("..", "..", shared.name))
        if number > 1:
            RunDir(folder).student.symlink_to(Path("..", str(number - 1), top.adapter.name))
        results = Results(RunDir(folder))
        before = Results(top).data["stages"]  # what writing the rows has cost counts in every round
        results.data["stages"] |= {stage: before[stage] for stage in ("generate", "split") if stage in before}
        results.write()
    return run


def _new(tell: Tell) -> Tell:
    """Wraps `tell` to omit stages that finished earlier, because the round's own line reports them."""

    def told(event: str, stage: str, entry: dict[str, Any]) -> None:
        if event != "kept":
            tell(event, stage, entry)

    return told


def unite(run: RunDir, before: RunDir) -> None:
    """Gives every row of `enhanced_dataset.jsonl` without a usable trace its trace from the previous round. That round
    has inherited those of all earlier ones, so each row is trained on with its newest right trace.

    The newest, as the student has learnt since: it needs a hint less often, and what it says without one leans on
    nothing that is not in the question. Its pass rate stays that of the first round, the base's, because the base is
    what is trained: a row that only the adapter masters is none to leave out. Done twice, it changes nothing.
    """
    write_jsonl(run.enhanced, _united(read_jsonl(run.enhanced), read_jsonl(before.enhanced)))


def _united(rows: Iterator[dict[str, Any]], older: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row, old in zip(rows, older, strict=True):
        now, then = Trace.from_json(row), Trace.from_json(old)
        usable = now if _worth(now) >= _worth(then) else then
        answer = training_text(usable) or usable.row.reference
        yield replace(usable, pass_rate=then.pass_rate).to_json(answer)


def _worth(trace: Trace) -> int:
    """Returns 2 for the student's own right answer, 1 for a reference answer that is trained on, and 0 for neither."""
    if rejection(trace) is not None:
        return 0
    return 2 if trace.chosen is not None else 1


def _sampled(run: RunDir, config: RunConfig, tell: Tell) -> tuple[list[float], list[float], list[str]]:
    """Samples some rows with the round's own model and returns `solved`, `distinct` and `sources` of a `Round`.

    Judged by rules, so nothing is paid. The answers are in the journal.
    """
    rows = read_rows(run.rows("train_in"), QARow.from_json)
    rows = random.Random(config.seed).sample(rows, min(SAMPLED_ROWS, len(rows)))
    weights = file_hashes(*(run.adapter / name for name in ("adapter_config.json", "adapter_model.safetensors")))
    key = f"sample.{fingerprint(weights, config.model, [row.id for row in rows], _SAMPLES)}"
    began = time.monotonic()

    def tick(done: int, total: int) -> None:
        tell("tick", "sample", {"done": done, "total": total, "seconds": time.monotonic() - began})

    with closing(Journal(run.journal)) as journal:
        if len(journal.done_positions(key)) < len(rows):
            tell("begin", "sample", {})
            asyncio.run(_answer(rows, run.adapter, config, journal, key, tick))
        answers = [[answer, *answer["more"]] for answer in journal.rows(key)]
    right = [[" ".join(one["response"].split()) for one in each if one["verdict"] == "correct"] for each in answers]
    solved, distinct = [float(bool(each)) for each in right], [len(set(each)) / _SAMPLES for each in right]
    return solved, distinct, [row.cluster or row.id for row in rows]


async def _answer(rows: list[QARow], adapter: Path, config: RunConfig, journal: Journal, key: str, tick: Any) -> None:
    loop = config.enhance
    asked = {"temperature": loop.temperature, "top_p": loop.top_p, "max_new_tokens": loop.max_new_tokens}
    with LocalModels(load_in_4bit=config.train.load_in_4bit) as models:
        student = models.load(config.model, adapter=adapter)
        usual = student.sampling(**asked)
        warm = usual.drawn(config.seed, max(usual.temperature, WARM))
        named = {"journal": journal, "key": key, "concurrency": loop.concurrency, "tick": tick}
        await answer_and_judge(rows, student, mechanical_judge, warm, samples=_SAMPLES, **named)


def why_stop(rounds: Sequence[Round], most: int) -> str | None:
    """Returns why no further round follows, or None if one does.

    Sharpening is no learning: a round that reaches fewer rows with all its samples, or reaches no more and knows fewer
    ways, has traded breadth for certainty (both beyond chance: 95 % interval, rows drawn by source).
    """
    last = rounds[-1]
    if last.dev_accuracy == 1.0:
        return "every dev row is right"
    if len(rounds) > 1:
        before = rounds[-2]
        top = max(one.dev_accuracy for one in rounds[:-1])
        if last.dev_accuracy <= top:
            return f"dev did not rise in round {last.number}: {last.dev_accuracy:.1%} after {top:.1%}"
        reach, ways = _change(before.solved, last), _change(before.distinct, last, "distinct")
        if reach < 0:
            return f"round {last.number} solves fewer rows with {_SAMPLES} samples: it sharpens and does not learn"
        if reach == 0 and ways < 0:
            return f"round {last.number} knows fewer right ways and solves no more rows: it sharpens and does not learn"
    return f"all {most} rounds are done" if len(rounds) == most else None


def _change(before: Sequence[float], last: Round, name: str = "solved") -> int:
    """Returns -1 for a decrease, 1 for an increase, and 0 for a change that could be chance."""
    from socratune.evaluation import paired_difference

    found = paired_difference(before, getattr(last, name), last.sources, draws=2000, seed=0)
    return (found.low > 0) - (found.high < 0)


def best(rounds: Sequence[Round]) -> Round:
    """Returns the best round on the dev rows. Among equals the first wins, because its student was nearest to the
    base.
    """
    return max(rounds, key=lambda one: (one.dev_accuracy, -one.number))


def _keep(config: RunConfig, top: RunDir, results: Results, kept: int, played: int) -> None:
    """Copies the files and stages of the round `kept` into the run itself, so that later stages find them in their
    usual place.

    Seconds are those of all rounds, and so is what was spent; all other figures are the kept round's.
    """
    run = RunDir(top.rounds / str(kept))
    entries = [Results(RunDir(top.rounds / str(number))).data["stages"] for number in range(1, played + 1)]
    made = {"round": kept, "adapter": file_hashes(run.adapter / "adapter_model.safetensors")[0]}
    if results.stage("enhance").items() >= made.items() and top.enhanced.exists():
        return
    for stage in STAGES[STAGES.index("enhance") :]:
        results.data["stages"].pop(stage, None)
    results.write()
    for name in {name for stage in LOOP for name in OUTPUTS[stage]} - {"rounds", "checkpoints"}:
        _copied(run / name, top / name)
    with closing(Journal(top.journal)) as journal:
        pipeline = Pipeline(config, journal, results)
        for stage in reversed(LOOP):  # the one that says where they are from comes last
            seconds = round(sum(entry[stage]["seconds"] for entry in entries), 2)
            results.data["stages"][stage] = {**entries[kept - 1][stage], "key": pipeline.key(stage), "seconds": seconds}
    pin_training(top, config, results.data)  # as its round has pinned it; the test stands before all of them
    pin_adapter(top, results.data)
    stages = {stage: results.data["stages"][stage] for stage in LOOP}
    results.data["stages"] = {name: entry for name, entry in results.data["stages"].items() if name not in LOOP}
    stages["enhance"] |= {"spent": entries[-1]["enhance"]["spent"], **made}
    results.data["stages"] |= stages
    results.write()


def _copied(source: Path, place: Path) -> None:
    """Makes `place` a copy of `source`, or removes it if `source` is missing. A crash never leaves it half written."""
    fresh = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.unlink(missing_ok=True)
    if source.is_dir():
        shutil.copytree(source, fresh)
    elif source.exists():
        shutil.copyfile(source, fresh)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if fresh.exists():
        fresh.rename(place)
