"""What the commands do: call one public function and print."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from socratune.api import own_judge
from socratune.cli.console import (
    GOES_ON,
    Progress,
    going_on,
    guarded,
    print_json,
    show_estimate,
    show_proof,
    show_rounds,
    start_logging,
)
from socratune.cli.explain import code_of, hint
from socratune.cli.given import Stages, given_by, merged_settings, resolved_by
from socratune.compute import is_shipped
from socratune.config import StudentTeacherConfig, is_free
from socratune.errors import Fault, OutsideError, Shown, StageFailed, UserError
from socratune.evaluation import proof_of, why_not_passed
from socratune.llm import budget_text
from socratune.pipeline import run_pipeline
from socratune.preflight import judge_settings
from socratune.resolve import Resolved, deep_merge, flatten, read_config_file, resolve_settings, unflatten
from socratune.rounds import run_rounds
from socratune.runs import STAGES, Results, RunDir, after_split, existing_run, write_jsonl


def run_command(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    *,
    start: str | None,
    until: str | None,
    restart: str | None,
) -> int:
    """Runs `socratune run` and its short forms. `given` holds the flags by dotted key."""

    def work(resolved: Resolved, progress: Progress) -> int:
        results = run_rounds(
            resolved, start=start or STAGES[0], until=until or STAGES[-1], restart=restart, tell=progress
        )
        return _verdict(results, RunDir(resolved.config.output), progress)

    return _begun(given, config_file, settings, (start, until, restart), work)


def estimate(
    given: dict[str, Any], config_file: str | None, settings: list[str] | None, stages: Stages, *, as_json: bool
) -> int:
    """Runs a pilot in the place of the run (`--estimate`). `stages` are refused, as a pilot has its own."""

    def work(resolved: Resolved, progress: Progress) -> int:
        if resolved.config.rounds > 1:
            fix = "Leave --rounds out: the first round is estimated, and the later ones ask the teacher less."
            raise UserError(Fault("--estimate", "no --rounds beside it", resolved.config.rounds, fix))
        if as_json:
            progress.leave_stdout()
        from socratune.pilot import estimate_run  # it reads documents, which few commands do

        results = estimate_run(resolved, tell=progress)
        if as_json:
            print_json({name: results[name] for name in ("estimate", "budget") if name in results})
            return 0
        show_estimate(results["estimate"], progress.console)
        if "budget" in results:
            progress.say(budget_text(results["budget"]))
        return 0

    refused = Fault("--estimate", "no --from, --until or --restart beside it", Shown("one of them"))
    return _begun(given, config_file, settings, stages, work, [refused] if any(stages) else [])


def _begun(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    stages: Stages,
    work: Callable[[Resolved, Progress], int],
    faults: Sequence[Fault] = (),
) -> int:
    """Checks a command, then calls `work` with its log in the run folder; returns the exit code. `faults`: so far."""
    run_log: list[Path] = []

    def begin() -> int:
        start_logging()
        resolved = resolved_by(given, config_file, settings or [], stages, faults)
        output = Path(resolved.config.output)
        RunDir(output).create()
        run_log.append(output / "run.log")
        start_logging(run_log[0])
        with Progress() as progress:
            return work(resolved, progress)

    def goes_on() -> str:
        return going_on(run_log[0].parent, restart=stages[2] is not None) if run_log else ""

    return guarded(begin, lambda: run_log[0] if run_log else None, goes_on)


def generate_command(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    *,
    output: str | None,
    database: str | None,
) -> int:
    """Writes rows into a file without a run (`socratune generate`)."""

    def work() -> int:
        from socratune.cli.generate import checked, write_questions

        start_logging()
        merged, faults = merged_settings(given, config_file, settings or [])
        found, place = checked(merged, output, database, faults)
        with Progress() as progress:
            entry = write_questions(found, place, tell=progress)
            progress.say(f"rows: {place}\nrejected: {place.with_suffix('.rejected.jsonl')}")
            if entry["reason"]:
                progress.say(entry["reason"], "bold red")
        return 1 if entry["reason"] else 0

    journal = Path(output or "").with_suffix(".journal.sqlite")
    return guarded(work, goes_on=lambda: GOES_ON if journal.exists() else "")


def go_on(
    folder: str, settings: list[str] | None, *, until: str, restart: bool, given: dict[str, Any], anew: bool = False
) -> int:
    """Runs `socratune train|validate RUN`: up to one stage, with the run's own configuration and what is `given`.

    Args:
        settings: of `--set`, which flags go before.
        restart: redo that stage.
        anew: redo it, too, where something given is not as it was.
    """
    if is_shipped(RunDir(folder)):
        return _shipped(folder, until)
    begun: dict[str, Any] = {}

    def read() -> int:
        run = existing_run(folder)
        known, new = flatten(read_config_file(run.config)), given_by(given, settings)
        changed = any(known.get(key) != value for key, value in new.items() if not is_free(key))
        redo = restart or (anew and changed)
        if "train.method" in new:  # another method has other defaults
            origins = Results(run).data.get("origins", {})
            known = {key: known[key] for key in known if not key.startswith("train.") or origins.get(key) == "given"}
        begun["given"] = unflatten({**known, **new, "output": folder})
        begun["start"] = after_split(run)
        begun["restart"] = until if redo else None
        return 0

    return guarded(read) or run_command(config_file=None, settings=None, until=until, **begun)


def _shipped(folder: str, stage: str) -> int:
    """Runs one stage on a rented machine, whose folder holds only what that stage needs."""

    def work() -> int:
        run = RunDir(folder)
        start_logging(run / "run.log")
        resolved = resolve_settings(deep_merge(read_config_file(run.config), {"output": folder}))
        with Progress() as progress:
            return _verdict(run_pipeline(resolved, start=stage, until=stage, tell=progress), run, progress)

    return guarded(work, lambda: Path(folder) / "run.log", lambda: going_on(Path(folder)))


def answers_only(folder: str, given: dict[str, Any], settings: list[str] | None, *, restart: bool) -> int:
    """Collects the answers of base and adapter for a later `validate` (`socratune validate RUN --answers-only`)."""

    def work() -> int:
        from socratune.evaluation import take_exam_only

        start_logging()
        run, entry = existing_run(folder), {"done": 0, "total": 0, "seconds": 0.0}
        own = given_by(given, settings)
        config = deep_merge(read_config_file(run.config), unflatten({**own, "output": folder}))
        began = time.monotonic()

        def tick(done: int, total: int) -> None:
            entry.update(done=done, total=total, seconds=time.monotonic() - began)
            progress("tick", "exam", entry)

        with Progress() as progress:
            progress("begin", "exam", entry)
            take_exam_only(run, resolve_settings(config, where=str(run.config)).config, tick, restart=restart)
            progress.stop()
            progress.say(f"exam      {entry['done']} answers  {entry['seconds']:.1f} s: {run.rows('exam')}")
        return 0

    return guarded(work, goes_on=lambda: going_on(Path(folder), restart=restart))


def _verdict(results: dict[str, Any], run: RunDir, progress: Progress) -> int:
    """Prints the outcome; returns 0 if the run passed or the requested stages are done, 1 if it failed."""
    if results.get("rounds"):
        show_rounds(results["rounds"], progress.console)
    proof = proof_of(results)
    if results["status"] in ("passed", "failed"):
        show_proof(proof.tests if proof else {}, progress.console)
    status = results["status"]
    if "budget" in results:
        progress.say(budget_text(results["budget"]))
    text = f"{status}: {run.root}"
    if status == "failed":
        text += (
            f"\n{why_not_passed(results)}\n{hint(['S101' if proof else code_of(why_not_passed(results), StageFailed)])}"
        )
    if run.report.exists():
        text += f"\nreport: {run.report}"
    progress.say(text, "bold green" if status == "passed" else "bold red" if status == "failed" else "")
    if status == "passed" and (left := results.get("error")):
        progress.say(f"not published: {left}", "bold red")
        return OutsideError.exit_code
    return 1 if status == "failed" else 0


def inspect_command(
    what: str, model_name: str | None, count: int, row_id: str | None, template: str | None, *, as_json: bool
) -> int:
    """Shows rows with the trained tokens coloured, then the verdict on their labels (`socratune inspect`)."""

    def work() -> int:
        from rich.console import Console

        from socratune.cli.inspection import load_examples, looked_at, opened_tokenizer, show

        start_logging()

        examples, default_model, max_length = load_examples(what)
        if row_id is not None:
            examples = [example for example in examples if example.id == row_id]
            if not examples:
                raise UserError(Fault("--id", f"a row of {what}", row_id))
        name = model_name or default_model
        if name is None:
            raise UserError(Fault("--model", "the model whose template renders the rows", Shown("nothing")))
        tokenizer = opened_tokenizer(name, template)
        if as_json:
            found = looked_at(examples, tokenizer, max_length, count)
            print_json(found)
            return 1 if found["faulty"] else 0
        faults = show(examples, tokenizer, max_length, count, Console(highlight=False))
        return 1 if faults else 0

    return guarded(work)


def merge_command(output: str, shards: list[str]) -> int:
    """Merges the runs of all shards into one (`socratune merge`)."""

    def work() -> int:
        from socratune.merge import merge_shards

        start_logging()
        with Progress() as progress:
            results = merge_shards(output, shards, tell=progress)
            progress.say(f"{len(shards)} shards → {output}. Go on: socratune train {output}")
        return 0 if results["stages"]["enhance"]["status"] == "done" else 1

    return guarded(work)


def audit_sheet(run: str | None, sheet: str, rows: int, seed: int) -> int:
    """Writes answers for a person to label (`socratune audit-judge RUN --sheet FILE`)."""

    def work() -> int:
        from socratune.evaluation import draw_audit_sheet

        if run is None:
            raise UserError(Fault("audit-judge", "the folder of a run before --sheet", Shown("nothing")))
        written = write_jsonl(Path(sheet), draw_audit_sheet(existing_run(run).root, rows, seed=seed))
        print(f'{written} answers in {sheet}. Set every "label" to true or false, then:')
        print(f"socratune audit-judge {run} --labels {sheet}")
        return 0

    return guarded(work)


def audit(run: str | None, labels: str | None, judge: dict[str, Any], *, as_json: bool) -> int:
    """Audits the judge of a finished proof, or the named one (`socratune audit-judge [RUN] --labels FILE`)."""

    def work() -> int:
        from socratune.evaluation import audit_verdicts, read_labels, recorded_judge, reported_by

        if labels is None:
            raise UserError(Fault("audit-judge", "--sheet FILE or --labels FILE", Shown("neither")))
        folder = existing_run(run).root if run else None
        labelled = read_labels(Path(labels), folder)
        if folder is not None and not judge:
            reported = reported_by(folder)
            found = asyncio.run(audit_verdicts(labelled, recorded_judge(folder), reported=reported))
        else:
            found = asyncio.run(asked_again(labelled, judge_settings(judge, "audit-judge")))
        print_json(found.to_json()) if as_json else print(f"{found.table()}\n\n{found.verdict}")
        return 0

    async def asked_again(labelled: Any, config: StudentTeacherConfig) -> Any:
        from socratune.evaluation import audit_verdicts

        async with own_judge(config) as asked:
            return await audit_verdicts(labelled, asked)

    return guarded(work)
