"""`socratune compare A B`: which of two logs of the same questions is better. Needs neither PyTorch nor a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from socratune.cli.console import guarded, print_json
from socratune.errors import Fault, Shown, UserError

_TONES = {"better": "green", "not_worse": "default", "worse": "bold red", "inconclusive": "yellow", "": "dim"}


def compare_command(
    logs: Annotated[
        list[str],
        typer.Argument(metavar="A [B]", help="B is compared with A; a run alone compares its adapter with its base."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare only this metric; NAME_IN_A=NAME_IN_B. Repeatable."),
    ] = None,
    lower: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A metric of which less is better. Repeatable.")
    ] = None,
    by: Annotated[
        Literal["id", "question"] | None, typer.Option(help="How questions are matched.  [default: whatever fits]")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Field that tells which rows belong together.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(min=0, help="The loss up to which B counts as not worse.  [default: 0.02]")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 unless B is better or not worse.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    output: Annotated[str | None, typer.Option(metavar="PAGE.html", help="Write a page with every question.")] = None,
) -> None:
    """Tell which of two evaluations of the same questions is better, whichever tool wrote them."""

    def work() -> int:
        from socratune.evaluation import compare_logs, compared_rows, open_logs

        first, second = _sides(logs)
        _refuse(output, both=as_json and markdown)
        before, after = open_logs(first, second, metric or (), cluster)
        compared = compare_logs(before, after, metrics=metric or (), lower=lower or (), by=by, margin=margin)
        result = compared.result
        rows = compared_rows(compared) if markdown or output else []
        if output is not None:
            from socratune.publishing import write_comparison

            write_comparison(Path(output), result, rows)
        if as_json:
            print_json(result)
        elif markdown:
            from socratune.publishing import compared_markdown

            print(compared_markdown(result, rows), end="")
        else:
            _show(result, output, gate=gate)
        return 1 if gate and not result["gate"]["passed"] else 0

    raise typer.Exit(guarded(work))


def _sides(logs: list[str]) -> tuple[str, str]:
    """Returns the two logs to compare; for a run alone, its base and its adapter."""
    from socratune.evaluation import is_run_folder

    if len(logs) == 1 and is_run_folder(logs[0]):
        return f"{logs[0]}:base", f"{logs[0]}:adapter"
    if len(logs) != 2:
        fix = "Name two: socratune compare A B"
        raise UserError(Fault("compare", "two logs, or one run folder that is validated", Shown(", ".join(logs)), fix))
    return logs[0], logs[1]


def _refuse(output: str | None, *, both: bool) -> None:
    """Refuses what would otherwise fail after all the work."""
    if both:
        raise UserError(Fault("--json", "no --markdown beside it", fix="Both go to standard output; ask twice."))
    if output is not None and (Path(output).is_dir() or not Path(output).absolute().parent.is_dir()):
        raise UserError(Fault(f"--output {output}", "a file in a folder that exists"))


def _show(result: dict[str, Any], output: str | None, *, gate: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from socratune.publishing import COLUMNS, compared_cells, compared_headline, compared_sentences, verdict_words

    console = Console(highlight=False)
    table = Table(title=compared_headline(result), title_justify="left", title_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("metric", "verdict") else "right", overflow="fold")
    for cells, verdict in compared_cells(result):
        table.add_row(*cells, verdict_words(verdict), style=_TONES[verdict])
    console.print(table)
    for text in compared_sentences(result):
        console.print(text, markup=False, soft_wrap=not console.is_terminal)
    if gate:
        outcome = result["gate"]
        console.print("gate: passed" if outcome["passed"] else f"gate: failed. {' '.join(outcome['reasons'])}")
    if output is not None:
        console.print(f"page: {output}", markup=False, soft_wrap=True)
