"""The commands `ablate` and `validate --crossfit`: several runs, and what they show together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socratune.cli.console import GOES_ON, Progress, guarded, print_json, start_logging
from socratune.cli.given import merged_settings
from socratune.errors import UserError
from socratune.runs import RunDir, Tell, existing_run


def ablate_command(
    given: dict[str, Any],
    config_file: str | None,
    settings: list[str] | None,
    output: str,
    arms: str | None,
    limits: tuple[int, float, float | None],
) -> int:
    """Runs `socratune ablate`. `limits`: seeds, minutes, USD."""
    run_log = Path(output) / "run.log"

    def work() -> int:
        from socratune.ways import AblationLimits, chosen_arms, compare_ways

        names = chosen_arms(arms)
        start_logging()
        merged, faults = merged_settings(given, config_file, settings or [])
        if faults:
            raise UserError(*faults)
        RunDir(output).create()
        start_logging(run_log, level="WARNING")
        with Progress() as progress:
            result = compare_ways(
                merged, Path(output), names, AblationLimits(*limits), tell=_only_live(progress), say=progress.say
            )
            show_ablation(result, progress.console)
            progress.say(f"{result['advice']['sentence']}\n{output}/ablation.md", "bold")
            if command := result["advice"]["next"]:
                progress.say(f"What this adapter has forgotten was not asked. The gate asks it: {command}")
        return 0

    return guarded(work, lambda: run_log, lambda: GOES_ON if run_log.exists() else "")


def crossfit_command(folder: str, count: int, *, as_json: bool) -> int:
    """Runs `socratune validate RUN --crossfit K`; returns 0 if the adapters are proven better than the base, else 1."""

    def work() -> int:
        from socratune.ways import tested_by_folds

        run = existing_run(folder)
        start_logging(run / "run.log", level="WARNING")
        with Progress() as progress:
            if as_json:
                progress.leave_stdout()
            result = tested_by_folds(run, count, tell=_only_live(progress))
            if as_json:
                print_json(result)
            else:
                show_crossfit(result, progress.console)
        return 0 if result["passed"] else 1

    return guarded(work, lambda: Path(folder) / "run.log", lambda: GOES_ON)


def _only_live(progress: Progress) -> Tell:
    """Returns a listener that shows the running stage, without a line for each of some hundred stages."""

    def tell(event: str, stage: str, entry: dict[str, Any]) -> None:
        if event in ("begin", "tick"):
            progress(event, stage, entry)
        else:
            progress.stop()

    return tell


SHOWN_OF_ABLATION = ("way", "rows", "equal rows", "equal trained tokens", "equal money", "gain at equal rows (95 %)")
"""The columns of its page for which a terminal has room."""


def show_ablation(result: dict[str, Any], console: Any) -> None:
    """Prints the ways side by side, and what was left out."""
    from rich.table import Table

    from socratune.ways import ARM_HEADS, arm_cells, arms_not_done

    held_out = result["held_out"]
    title = f"{held_out['rows']} held-out questions; the model as it is: {result['base']:.1%}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    shown = [ARM_HEADS.index(head) for head in SHOWN_OF_ABLATION]
    for at in shown:
        table.add_column(ARM_HEADS[at].replace(" ", "\n", 2), justify="right" if at else "left", no_wrap=True)
    for row in result["arms"]:
        found = arm_cells(row)
        table.add_row(*(found[at] for at in shown))
    console.print(table)
    for text in [*result["advice"]["cautions"], *arms_not_done(result)]:
        console.print(text, markup=False)


def show_crossfit(result: dict[str, Any], console: Any) -> None:
    """Prints the accuracies by fold, the pooled difference, and what it proves."""
    from rich.table import Table

    title = f"{result['rows']} rows, each asked of an adapter that saw neither it nor its source"
    table = Table("fold", "rows", "trained on", "base", "adapter", title=title, title_justify="left", box=None)
    for number, fold in enumerate(result["folds"], 1):
        shares = (f"{fold[side]:.1%}" for side in ("base", "adapter"))
        table.add_row(f"{number}", f"{fold['rows']}", f"{fold['trained_on']}", *shares)
    table.add_row(
        "all", f"{result['rows']}", "", *(f"{result[f'{side}_accuracy']:.1%}" for side in ("base", "adapter"))
    )
    console.print(table)
    low, high = (f"{100 * end:+.1f}" for end in result["ci95"])
    verdict = result["verdict"].replace("_", " ")
    console.print(f"{verdict}: {100 * result['difference']:+.1f} points ({low} … {high}, 95 %)", style="bold")
    majority = result["majority"]
    if not result["passed"] and result["verdict"] == "better":
        says = f"Always answering {majority['reference']!r} would be right in {majority['accuracy']:.1%}"
        console.print(f"{says}, and the adapters are not proven better than that.", markup=False)
    if result["rows_needed"]:
        more = result["rows_needed"] - result["rows"]
        console.print(f"Too few rows to show a difference of this size: about {more} more are needed.")
    elif result["verdict"] == "inconclusive":
        low, high = (f"{100 * end:+.1f}" for end in result["by_rows"])
        console.print(
            f"The rows would prove a difference ({low} … {high}), but the folds' adapters differ too much from each "
            "other. More rows, more epochs or a lower learning rate make such trainings steadier."
        )
    console.print(
        "These figures are of adapters that were trained on a part of the rows each. The adapter of the run is another "
        "one, and what it has forgotten is asked by socratune validate without --crossfit."
    )
