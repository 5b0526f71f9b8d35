"""What `publish`, `verify` and `export` do: call one public function and print."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from socratune.cli.console import Progress, going_on, guarded, print_json, start_logging
from socratune.cli.given import given_by
from socratune.errors import Fault, Shown, StageFailed, UserError
from socratune.evaluation import Verification, verify_run
from socratune.pipeline import publish_run
from socratune.publishing import (
    ANNOTATORS,
    MOST_PAIRS,
    Published,
    export_adapter,
    export_answers,
    make_report,
    verify_hub,
    verify_published,
    write_bundle,
)
from socratune.resolve import Resolved, deep_merge, flatten, read_config_file, resolve_settings, unflatten
from socratune.runs import PROVENANCE, Results, RunDir, existing_run
from socratune.stages import check_gate, hub_id_fault, prepared_upload


def publish_command(folder: str, given: dict[str, Any], *, dry_run: bool, force: bool) -> int:
    """Uploads a run, or with `dry_run` shows what would be uploaded (`socratune publish RUN`). `given`: dotted keys."""

    def work() -> int:
        start_logging()
        run = existing_run(folder)
        known = deep_merge(read_config_file(run.config), unflatten(given))
        resolved = resolve_settings({**known, "output": folder}, where=str(run.config))
        hub_id = resolved.config.hub_id
        faults = [
            hub_id_fault(hub_id) if hub_id else Fault("--hub-id", "a Hub name like me/my-adapter", Shown("nothing"))
        ]
        if base := resolved.config.publish.base:
            faults.append(hub_id_fault(base, "--base"))
        if found := [fault for fault in faults if fault]:
            raise UserError(*found)
        if dry_run:
            return _shown(run, resolved, force)
        start_logging(run.root / "run.log")
        with Progress() as progress:
            url = publish_run(resolved, force=force, tell=progress)["stages"]["publish"]["url"]
            progress.say(f"published: {url}", "bold green")
        return 0

    return guarded(work, lambda: RunDir(folder) / "run.log", lambda: going_on(Path(folder)))


def _shown(run: RunDir, resolved: Resolved, force: bool) -> int:
    """Prints the files and cards of a publication."""
    config, results = resolved.config, Results(run).data
    with TemporaryDirectory() as place:
        verified = check_gate(run, config, results, force=force)
        repos = prepared_upload(run, config, Path(place), verified, results=results, offline=True)
        for repo in repos:
            print(f"{repo.kind} {config.hub_id} ({'private' if config.publish.private else 'public'}):")
            for name, size in repo.files():
                print(f"{size:>14,}  {name}")
            print(f"\n{(repo.folder / 'README.md').read_text('utf-8')}")
    return 0


def verify_command(what: str, *, as_json: bool) -> int:
    """Verifies a run or a publication; returns 0 if everything agrees and the verdict is *passed*."""

    def work() -> int:
        start_logging()
        if not Path(what).is_dir():
            if Path(what).exists() or hub_id_fault(what):
                got = Shown("a file" if Path(what).exists() else "neither, as no such folder is there")
                fix = "Check the path; an adapter on the Hub is named as in myusername/my-adapter."
                raise UserError(Fault(f"verify {what}", "the folder of a run, or ORG/NAME on the Hub", got, fix))
            return _told(what, verify_hub(what), as_json)
        if not (Path(what) / "config.yaml").exists() and (Path(what) / PROVENANCE).exists():
            return _told(what, verify_published(Path(what)), as_json)  # downloaded
        run = existing_run(what)
        config = resolve_settings({**read_config_file(run.config), "output": what}, where=str(run.config)).config
        verified = verify_run(run, config, Results(run).data)
        if verified is None:
            fix = f"First: socratune validate {what}"
            raise UserError(Fault(what, "a run whose validation is finished", Shown("one without"), fix))
        return _told(what, verified, as_json)

    return guarded(work)


def _told(what: str, found: Verification | Published, as_json: bool) -> int:
    """Prints a verification and returns its exit code."""
    passed = not found.faults and found.proof is not None and found.proof.passed
    if as_json:
        status = found.proof.status if found.proof else None
        known = {"status": status, "agrees": not found.faults, "faults": found.faults, "remarks": found.remarks}
        print_json(known)
        return 0 if passed else StageFailed.exit_code
    for remark in found.remarks:
        print(remark)
    if found.faults:
        print(f"{what} does not hold what it says:")
        for fault in found.faults:
            print(f"- {fault}")
        return StageFailed.exit_code
    assert found.proof is not None
    print(f"{what} holds what it says: {found.proof.status}. {found.proof.reason}".rstrip())
    return 0 if passed else StageFailed.exit_code


def export_command(
    folder: str, to: str, out: str | None, llama_cpp: str | None, *, prompts: int, min_agreement: float
) -> int:
    """Writes and checks an export, and shows how to use it (`socratune export RUN --to FORMAT`)."""

    def work() -> int:
        start_logging()
        run = existing_run(folder)
        config = resolve_settings({**read_config_file(run.config), "output": folder}, where=str(run.config)).config
        done = export_adapter(
            run, config, to, out=out, llama_cpp=llama_cpp, prompts=prompts, min_agreement=min_agreement
        )
        print(done)
        return 0

    return guarded(work)


def export_data_command(folder: str, trainer: str, settings: list[str] | None, out: str | None) -> int:
    """Writes the data for another tool, and shows how to use it (`socratune export-data RUN --for TOOL`)."""

    def work() -> int:
        from socratune.stages import export_training

        start_logging()
        run = existing_run(folder)
        if trainer in ANNOTATORS and settings:
            raise UserError(Fault("--set", f"no settings with --for {trainer}, as none is written", settings[0]))
        if trainer in ANNOTATORS:
            print(export_answers(run, trainer, out=out))
            return 0
        known = {**flatten(read_config_file(run.config)), **given_by({}, settings), "output": folder}
        config = resolve_settings(unflatten(known), where=str(run.config)).config
        print(export_training(run, config, trainer, out=out))
        return 0

    return guarded(work)


def report_command(folders: list[str], bundle: str | None, *, without_rows: bool) -> int:
    """Writes the page of each run, or with `--bundle` a site of all (`socratune report RUN…`)."""

    def work() -> int:
        if bundle is None and without_rows:
            raise UserError(Fault("--without-rows", "--bundle DIR beside it", fix="report.html always has its rows."))
        if bundle is None:
            for run in map(existing_run, folders):
                print(make_report(run))
            return 0
        done = write_bundle(Path(bundle), folders, rows=not without_rows)
        holds = "figures alone" if without_rows else "every question and answer; --without-rows leaves them out"
        counted = ", ".join(
            f"{number} {word}{'' if number == 1 else 's'}"
            for number, word in ((done.runs, "run"), (done.pairs, "comparison"))
        )
        print(f"{done.place / 'index.html'}: {counted} ({holds})")
        if done.pairs_left:
            print(f"At most {MOST_PAIRS} are made, of the newest runs; {done.pairs_left} more pairs share questions.")
        return 0

    return guarded(work)
