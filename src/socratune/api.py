"""The Python interface: `socratune.run(...)` is the command `socratune run`, and `compare(...)` the command
`compare`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

from socratune.config import EnhancedTrainingConfig, GrokkingConfig, StudentTeacherConfig
from socratune.errors import Fault, UserError
from socratune.evaluation import compare_logs, open_logs, proof_of
from socratune.inference import LocalModels
from socratune.judging import Judge
from socratune.llm import Ledger, Role, cache_folder, reference_to
from socratune.preflight import check_run, judge_settings
from socratune.publishing import make_report
from socratune.resolve import deep_merge, flatten, read_config_file
from socratune.rounds import run_rounds
from socratune.rows import Judgement, QARow, Trace
from socratune.runs import STAGES, Journal, RunDir, Tell, iter_rows, stage_faults, write_lines
from socratune.teaching import assemble_cast

_Done = TypeVar("_Done")
OwnFunction = Callable[[str, str, Any], Any]
"""A judge (question, reference, response) or a teacher (question, reference, responses). It may be async."""


class RunResult(dict[str, Any]):
    """The content of `pipeline_results.json`, with access to the files that the run has written.

    Attributes:
        output: the run folder.
    """

    def __init__(self, results: dict[str, Any], output: Path) -> None:
        super().__init__(results)
        self.output = output

    @property
    def status(self) -> str:
        """Returns `passed`, `failed`, or how far the run got."""
        return self["status"]

    @property
    def comparison(self) -> dict[str, Any]:
        """Returns base against adapter on the held-out questions: accuracies, difference, `ci95` and verdict. It is
        empty without a comparison.
        """
        proof = proof_of(self)
        return proof.comparison if proof else {}

    @property
    def adapter_path(self) -> Path | None:
        """Returns the adapter's folder, or None if none was trained."""
        folder = RunDir(self.output).adapter
        return folder if (folder / "adapter_config.json").is_file() else None

    def traces(self) -> Iterator[Trace]:
        """Returns what the loop did with each row: attempts, verdicts and hints."""
        path = RunDir(self.output).enhanced
        yield from iter_rows(path, Trace.from_json) if path.is_file() else ()

    def report(self) -> Path:
        """Rebuilds the page of the run and returns its path."""
        return make_report(RunDir(self.output))

    def __repr__(self) -> str:
        parts = [f"status={self.status!r}", f"output={str(self.output)!r}"]
        if found := self.comparison:
            low, high = found["ci95"]
            parts.append(f"base={found['base_accuracy']:.1%}, adapter={found['adapter_accuracy']:.1%}")
            parts.append(f"difference={found['difference']:+.1%} ({low:+.1%} to {high:+.1%})")
        return f"RunResult({', '.join(parts)})"

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table("", "", show_header=False, title=f"{self.output}: {self.status}")
        if found := self.comparison:
            low, high = found["ci95"]
            table.add_row(
                "held-out", f"{found['base_accuracy']:.1%} → {found['adapter_accuracy']:.1%}, n = {found['n']}"
            )
            table.add_row("difference", f"{found['difference']:+.1%}, {low:+.1%} … {high:+.1%}: {found['verdict']}")
        for stage, entry in self["stages"].items():
            table.add_row(stage, entry["status"])
        return table


def run(
    *,
    model: str | None = None,
    dataset: str | Path | Iterable[Any] | None = None,
    output: str | Path | None = None,
    hub_id: str | None = None,
    eval_file: str | Path | Sequence[str | Path] = (),
    enhance: StudentTeacherConfig | dict[str, Any] | None = None,
    train: EnhancedTrainingConfig | dict[str, Any] | None = None,
    judge: str | OwnFunction | None = None,
    teacher: str | OwnFunction | None = None,
    grokking: GrokkingConfig | None = None,
    config: str | Path | dict[str, Any] | None = None,
    until: str = STAGES[-1],
    restart: str | None = None,
    progress: Tell | None = None,
) -> RunResult:
    """Runs the pipeline and returns the content of `pipeline_results.json`, whose `status` is the verdict.

    Where an event loop runs already (a notebook), it works in a thread, for which it waits, and rents no machine.

    Args:
        model: folder or Hub id of the base model; also taken from `train.model_name`.
        dataset: a file, a data set of the Hub, or the rows: dicts, a `datasets.Dataset`; kept in the cache by hash.
        output: run folder; an existing one is gone on with.
        hub_id: publish there when the adapter passed.
        judge: in the place of `enhance.judge_model`; a function gives True, False or None.
        teacher: in the place of `enhance.teacher_model`; a function gives a hint or None.
        eval_file: further tests; what they ask is not trained on.
        config: a YAML file, or the same as a nested dict, for everything else.
        until: the last stage to run.
        restart: the first stage to redo although it is done.
        progress: is called with an event (`begin`, `tick`, `done`, `kept`), the stage, and what is known of it.

    Raises:
        UserError: something given is wrong; `faults` holds all of it.
        OutsideError: something outside failed; call again to go on.
    """
    named = {"model": model, "hub_id": hub_id, "enhance": enhance, "train": train}
    named |= {
        "dataset": None if dataset is None else _named(dataset),
        "output": None if output is None else str(output),
    }
    given = deep_merge(_settings(config), {name: value for name, value in named.items() if value is not None})
    more = {} if grokking is None else {"train": {"grokking": grokking}}
    for part in (_tests(eval_file), more, _people({"judge": judge, "teacher": teacher})):
        given = deep_merge(given, part)
    if faults := stage_faults(None, until, restart):
        raise UserError(*faults)

    def work() -> RunResult:
        resolved = check_run(given, where="socratune.run", until=until, restart=restart)
        results = run_rounds(resolved, until=until, restart=restart, tell=progress or _nobody)
        return RunResult(results, Path(resolved.config.output))

    if _loop_runs():
        given = deep_merge(given, {"where": {"place": _place(given)}})
    return _beside_a_loop(work)


def enhance(
    dataset: str | Path | Iterable[Any],
    *,
    model: str,
    output: str | Path,
    judge: str | OwnFunction | None = None,
    teacher: str | OwnFunction | None = None,
    config: str | Path | dict[str, Any] | None = None,
    progress: Tell | None = None,
) -> RunResult:
    """Runs the loop alone, without training. The result's `traces()` give what it did with each row.

    `run` with the same `output` goes on from there. Arguments and errors are those of `run`.
    """
    people: dict[str, Any] = {"judge": judge, "teacher": teacher, "progress": progress}
    return run(dataset=dataset, model=model, output=output, config=config, until="enhance", **people)


def judge(
    question: str, reference: str, response: str, *, judge: str | OwnFunction | None = None, **settings: Any
) -> Judgement:
    """Judges one answer as a run would: `verdict` is `correct`, `incorrect` or `undecided`.

    >>> import socratune
    >>> found = socratune.judge("What is 12 * 13?", "156", "12 * 13 = 120 + 36 = 156.")
    >>> found.verdict, found.judged_by
    ('correct', 'numeric')
    >>> socratune.judge("Why is the sky blue?", "Rayleigh scattering", "It is scattered light.").verdict
    'undecided'
    >>> mine = lambda question, reference, response: "scatter" in response
    >>> socratune.judge("Why is the sky blue?", "Rayleigh scattering", "It is scattered light.", judge=mine).verdict
    'correct'

    Args:
        question: what was asked.
        reference: the right answer.
        response: the answer to judge.
        judge: who decides what rules leave open, as `run` takes it; without it, rules alone.
        settings: further ones of `enhance`, as `judge_mode` or `judge_api_base`.

    Raises:
        UserError: the judge or a setting is wrong, or one of the three texts is none.
        OutsideError: the judge's server could not be asked.
    """
    texts = {"question": question, "reference": reference, "response": response}
    if faults := [Fault(name, "a text", text) for name, text in texts.items() if not isinstance(text, str)]:
        raise UserError(*faults)
    own = _people({"judge": judge}).get("enhance", {})
    config = judge_settings({**own, **settings}, "socratune.judge")
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]

    async def asked() -> Judgement:
        async with own_judge(config) as found:
            return await found(QARow("judge", turns, {}), response)

    return _beside_a_loop(lambda: asyncio.run(asked()))


@asynccontextmanager
async def own_judge(config: StudentTeacherConfig) -> AsyncIterator[Judge]:
    """Yields the judge of these settings without a run, and closes it when the block ends."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory()))
        journal = stack.enter_context(closing(Journal(place / "journal.sqlite")))
        models = stack.enter_context(LocalModels())
        people = assemble_cast(config, stage="audit", journal=journal, ledger=Ledger(), local=models.load)
        try:
            yield people.judge
        finally:
            await people.close()


class LogComparison(dict[str, Any]):
    """The result of a comparison, as `socratune compare --json` prints it."""

    @property
    def verdicts(self) -> dict[str, str]:
        """Returns `better`, `not_worse`, `worse` or `inconclusive` by metric."""
        return {entry["name"]: entry["verdict"] for entry in self["metrics"]}

    @property
    def passed(self) -> bool:
        """Returns True if B is better or not worse by every metric."""
        return self["gate"]["passed"]

    def __repr__(self) -> str:
        return f"LogComparison({', '.join(f'{name}={verdict!r}' for name, verdict in self.verdicts.items())})"


def compare(
    a: str | Path | Iterable[Any],
    b: str | Path | Iterable[Any],
    *,
    metrics: str | Sequence[str] = (),
    lower: str | Sequence[str] = (),
    by: Literal["id", "question"] | None = None,
    cluster: str | None = None,
    margin: float | None = None,
) -> LogComparison:
    """Compares two evaluations of the same questions and reports whether B is better than A.

    >>> import socratune
    >>> before = [{"id": at, "correct": at % 2 == 0} for at in range(100)]
    >>> after = [{"id": at, "correct": at % 10 > 0} for at in range(100)]
    >>> socratune.compare(before, after)
    LogComparison(correct='better')

    Args:
        a: a log of any tool that `socratune compare` reads, `RUN:base`, `RUN:adapter`, or the rows themselves.
        b: the same, of the evaluation that is held against `a`.
        metrics: which, `NAME` or `NAME_IN_A=NAME_IN_B`; all that both have without it.
        lower: metrics of which less is better.
        by: what questions are matched by; without it, what fits.
        cluster: the field of a row by which rows belong together.
        margin: what B may lose and be not worse, in the metric's own units.

    Raises:
        UserError: a log cannot be read, the two have no question or no metric in common, or an argument is wrong.
    """
    if by not in (None, "id", "question"):
        raise UserError(Fault("by", "id or question", by))
    metrics, lower = ([names] if isinstance(names, str) else names for names in (metrics, lower))
    before, after = open_logs(_named(a), _named(b), metrics, cluster)
    return LogComparison(compare_logs(before, after, metrics=metrics, lower=lower, by=by, margin=margin).result)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _settings(config: Any) -> dict[str, Any]:
    if not isinstance(config, str | Path | dict | None):
        raise UserError(Fault("config", "a YAML file or a dict", config))
    return config if isinstance(config, dict) else read_config_file(config) if config else {}


def _tests(files: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Returns the settings for further tests."""
    several = [files] if isinstance(files, str | Path) else files
    return {"split": {"eval_file": [str(file) for file in several]}} if several else {}


def _people(named: dict[Role, str | OwnFunction | None]) -> dict[str, Any]:
    """Returns the settings that name judge and teacher."""
    refs = {role: who if isinstance(who, str) else reference_to(role, who) for role, who in named.items() if who}
    return {"enhance": {f"{role}_model": ref for role, ref in refs.items()}} if refs else {}


def _place(given: dict[str, Any]) -> str:
    """Returns the only place where a run can train beside an event loop: here. The signals that give back a rented
    machine reach the main thread alone.
    """
    place = flatten(given).get("where.place", "auto")
    if place not in ("auto", "local"):
        fix = "Run it from a script, or from a shell: socratune run."
        raise UserError(Fault("where.place", "local, where an event loop runs already", place, fix))
    return "local"


def _nobody(event: str, stage: str, entry: dict[str, Any]) -> None:
    pass


def _named(dataset: str | Path | Iterable[Any]) -> str:
    """Returns the name of a data set. Rows that are passed as such are written to a file first."""
    if isinstance(dataset, str | Path):
        return str(dataset)
    if not isinstance(dataset, Iterable):
        raise UserError(Fault("the data set", "a path, or rows", dataset))
    lines = list(map(_line, dataset))
    folder = cache_folder() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(''.join(lines).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.jsonl"
    write_lines(path, lines)
    return str(path)


def _line(row: Any) -> str:
    try:
        return json.dumps(dict(row), ensure_ascii=False, default=str) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(Fault("the rows", "dicts of what JSON can hold", row)) from error


def _beside_a_loop(work: Callable[[], _Done]) -> _Done:
    """Returns the result of `work`. If an event loop is running already, the work runs in a thread of its own."""
    if not _loop_runs():
        return work()
    done: list[_Done] = []
    failed: list[BaseException] = []

    def run_it() -> None:
        try:
            done.append(work())
        except BaseException as error:  # raised again where somebody waits for it
            failed.append(error)

    thread = threading.Thread(target=run_it, name="socratune")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
