"""What `publish` and `export` do: call one public function and print."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from socratune.cli.console import Progress, going_on, guarded, start_logging
from socratune.errors import Fault, Shown, UserError
from socratune.pipeline import publish_run
from socratune.publishing import export_adapter
from socratune.resolve import Resolved, deep_merge, read_config_file, resolve_settings, unflatten
from socratune.runs import Results, RunDir, existing_run
from socratune.stages import hub_id_fault, prepared_upload


def publish_command(folder: str, given: dict[str, Any], *, dry_run: bool, force: bool) -> int:
    """`socratune publish RUN`: upload it, or with `dry_run` show what would be uploaded. `given`: by dotted key."""

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
    """Print the files and cards of a publication."""
    config = resolved.config
    with TemporaryDirectory() as place:
        repos = prepared_upload(
            run,
            config.publish,
            Path(place),
            hub_id=config.hub_id or "",
            model_name=config.model,
            results=Results(run).data,
            force=force,
            offline=True,
        )
        for repo in repos:
            print(f"{repo.kind} {config.hub_id} ({'private' if config.publish.private else 'public'}):")
            for name, size in repo.files():
                print(f"{size:>14,}  {name}")
            print(f"\n{(repo.folder / 'README.md').read_text('utf-8')}")
    return 0


def export_command(
    folder: str, to: str, out: str | None, llama_cpp: str | None, *, prompts: int, min_agreement: float
) -> int:
    """`socratune export RUN --to FORMAT`: write it, check it, say how it is used."""

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
