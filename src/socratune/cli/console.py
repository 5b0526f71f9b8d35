"""What a person sees while a run works: progress on a terminal, plain lines elsewhere, one edge for errors."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from socratune.cli.explain import codes_of, hint
from socratune.errors import Fault, OutsideError, Shown, SocratuneError, UserError, is_interrupt, without_extra

FIRST_LINE_S, LONGEST_PAUSE_S = 2.0, 60.0
"""Without a terminal: the first line of a stage after 2 s, then ever more rarely, at least once a minute."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
"""What lies there is not what a command reads or writes, or not for this user."""


_shown = {"from": "INFO"}


def speak(level: str) -> None:
    """Hides messages below this level from here on: WARNING for `--quiet`, DEBUG for `--verbose`."""
    _shown["from"] = level


def start_logging(run_log: Path | None = None, *, level: str | None = None) -> None:
    """Sends the messages of all libraries through loguru to stderr and, complete, to `run_log`.

    Args:
        level: of what is shown; without it, what `speak` was last told.
    """
    from loguru import logger

    class _ToLoguru(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())

    logger.remove()
    if sys.stderr is not None:
        logger.add(sys.stderr, level=level or _shown["from"], format="<level>{level: <7}</level> {message}")
    if run_log is not None:
        logger.add(
            run_log, level="DEBUG", format="{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {message}", diagnose=False
        )
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    all_of_it = run_log is not None or _shown["from"] == "DEBUG"
    logging.getLogger("socratune").setLevel(logging.DEBUG if all_of_it else logging.INFO)


def print_json(found: Any) -> None:
    """Prints JSON, which is all that `--json` leaves on standard output."""
    print(json.dumps(found, indent=2, ensure_ascii=False))


class Progress:
    """Shows stages and rows: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        self._bar: Any = None
        self._task: Any = None
        self._began = 0.0
        self._next_line_s = FIRST_LINE_S

    def leave_stdout(self) -> None:
        """Moves everything to standard error from here on, because standard output is for JSON."""
        from rich.console import Console

        self.console = Console(highlight=False, stderr=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __call__(self, event: str, stage: str, entry: dict[str, Any]) -> None:
        from loguru import logger

        if event != "tick":
            logger.debug("{} {}: {}", event, stage, entry)
        if _shown["from"] == "WARNING":
            return
        if event == "begin":
            self._begin(stage)
        elif event == "tick":
            self._tick(stage, entry)
        else:
            self.stop()
            again = " (done before)" if event == "kept" else ""
            self.say(f"{stage:<9} {summary(stage, entry)}{again}")

    def _begin(self, stage: str) -> None:
        self._began = time.monotonic()
        self._next_line_s = FIRST_LINE_S
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("[bold]{task.description:<9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[spent]}"),
            )
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(stage, total=None, spent="")

    def _tick(self, stage: str, entry: dict[str, Any]) -> None:
        if self._bar is not None:
            spent = live_text(entry)
            self._bar.update(self._task, completed=entry["done"], total=entry["total"], spent=spent)
        elif (passed := time.monotonic() - self._began) >= self._next_line_s:
            self._next_line_s = passed + min(passed, LONGEST_PAUSE_S)
            spent = live_text(entry)
            text = f"{stage:<9} {entry['done']} of {entry['total']} after {entry['seconds']:.0f} s"
            self.say(f"{text}; {spent}" if spent else text)

    def say(self, text: str, style: str = "") -> None:
        """Prints a line as it is: without markup, and without wrapping off a terminal."""
        self.console.print(text, style=style, markup=False, soft_wrap=not self.console.is_terminal)

    def stop(self) -> None:
        """Removes the bar from the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def live_text(entry: dict[str, Any]) -> str:
    """Returns what to show of a running stage: the course of a training, otherwise what was spent."""
    if "loss" not in entry:
        return spent_text(entry.get("spent", {}))
    parts = [f"loss {entry['loss']:.3f}", f"{short(entry['tokens_per_second'])} tok/s"]
    if "mfu" in entry:
        parts.append(f"MFU {entry['mfu']:.2f}")
    if "memory_gib" in entry:
        parts.append(f"{entry['memory_gib']} GiB")
    if "dev_accuracy" in entry:
        parts.append(f"dev {entry['dev_accuracy']:.1%}")
    return " · ".join([*parts, f"{duration(entry['left_s'])} left"])


def spent_text(spent: dict[str, Any]) -> str:
    """Returns `1.2M tokens, 0.4312 USD (judge 0.1, teacher 0.3312)`; empty if no paid call was made."""
    if not spent:
        return ""
    tokens = sum(entry["tokens"] for entry in spent.values())
    by_role = {role.rsplit(".", 1)[-1]: entry["usd"] for role, entry in spent.items()}
    parts = ", ".join(f"{role} {'?' if usd is None else f'{usd:.4g}'}" for role, usd in by_role.items())
    known = None not in by_role.values()
    usd = f"{sum(by_role.values()):.4g} USD" if known else "price not known"
    return f"{short(tokens)} tokens, {usd} ({parts})"


def short(count: float) -> str:
    """Returns a number like `1.23M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def show_estimate(found: dict[str, Any], console: Any) -> None:
    """Prints what all rows will take according to the pilot, after what writing them will take."""
    if written := found.get("generate"):
        expected, low, high = written["questions"]
        _show_pilot("Writing: {rows} passages", written, console)
        console.print(f"Questions, without siblings and a graph's: about {expected:.0f} ({low:.0f} … {high:.0f}).")
        console.print()
    _show_pilot("The loop: {rows} rows" if written else "{rows} rows", found, console)
    if batches := found.get("batches"):
        console.print(_batches(batches))
    console.print("The pilot's calls are kept: the run will not pay them again.")


def _batches(found: dict[str, Any]) -> str:
    """Prints what batches save, and how much time they cost."""
    from socratune.llm import BATCH_TIMES

    roles, count = " and ".join(found["roles"]), found["in_a_row"]
    return (
        f"Batches for {roles} save about {found['saved_usd']:.4g} USD, which is counted above. They take longer: a row "
        f"of the pilot asked {count} times, so up to {count} batches follow one another, each {BATCH_TIMES}."
    )


def _show_pilot(title: str, found: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    title = f"{title.format(rows=found['rows'])}, by a pilot of {found['pilot_rows']} (95 % interval)"
    table = Table(title=title, title_justify="left")
    for column in ("", "tokens", "USD"):
        table.add_column(column, justify="left" if not column else "right")
    for role, (expected, low, high) in found["tokens"].items():
        usd = found["usd"][role]
        money = "price not known" if usd is None else f"{usd[0]:.4g} ({usd[1]:.4g} … {usd[2]:.4g})"
        name = role.rsplit(".", 1)[-1]
        table.add_row(name, f"{short(expected)} ({short(low)} … {short(high)})", money)
    if usd := found["usd"]["all"]:
        table.add_row("all", "", f"{usd[0]:.4g} ({usd[1]:.4g} … {usd[2]:.4g})")
    console.print(table)
    if seconds := found["seconds"]:
        expected, low, high = (duration(part) for part in seconds)
        console.print(f"Time: about {expected} ({low} … {high}).")
    else:
        console.print("Time: not known, as calls of the pilot were in the journal already.")


def show_proof(tests: dict[str, Any], console: Any) -> None:
    """Prints base against adapter, then what was forgotten, then the user's own prompts with their verdicts."""
    from rich.table import Table

    tested = {"held-out": tests.get("base_comparison"), "recall": tests.get("recall")}
    compared = {(found or {}).get("asks", name): found for name, found in tested.items()}
    table = Table(title="Base and adapter on the same questions", title_justify="left")
    for column in ("", "n", "base", "adapter", "difference", "95 % interval", "verdict"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in compared.items():
        for label, counted in ((name, found), ("  at worst", found and found["worst_case"])):
            if found is None or counted is None or (counted is not found and not found["undecided"]["pairs"]):
                continue
            whole = counted is found
            table.add_row(label, *_figures(counted), found["verdict"].replace("_", " ") if whole else "")
            for kind, part in (found.get("by_kind", {}) if whole else {}).items():
                if len(found["by_kind"]) > 1:
                    table.add_row(f"  {kind}", *_figures(part), "")
    if table.rows:
        console.print(table)
        for text in map(majority_text, filter(None, tested.values())):
            console.print(text, markup=False) if text else None
    if forgotten := tests.get("forgetting"):
        console.print(f"Forgetting, {forgotten['n']} other questions: {forgotten['reason']}.", markup=False)
    if looped := tests.get("basic_inference", {}).get("looped"):
        counts = ", ".join(f"{side} {count}" for side, count in looped.items())
        console.print(f"Answers that repeated themselves and were stopped: {counts}.", markup=False)
    for prompt in tests.get("prompt_responses", []):
        if prompt.get("own"):
            said = " → ".join(" ".join(prompt[name].split())[:200] for name in ("prompt", "response"))
            console.print(f"{prompt['verdict'].replace('_', ' '):<10} {said}", markup=False, soft_wrap=True)


def majority_text(found: dict[str, Any]) -> str:
    """Returns how often the most frequent answer alone would be right, beside the base; empty if that is rare."""
    from socratune.evaluation import FREQUENT

    most = found.get("majority", {"accuracy": 0})
    if most["accuracy"] < FREQUENT:
        return ""
    always = f"Always answering {most['reference']!r} would be right in {most['accuracy']:.1%}"
    sides = f"the base is in {found['base_accuracy']:.1%}, the adapter in {found['adapter_accuracy']:.1%}"
    return f"{always}; {sides}."


def _figures(counted: dict[str, Any]) -> list[str]:
    """Returns rows, both accuracies (none for a worst case), difference and interval as cells."""
    low, high = counted["ci95"]
    sides = [f"{counted[side]:.1%}" if side in counted else "" for side in ("base_accuracy", "adapter_accuracy")]
    return [str(counted["n"]), *sides, f"{counted['difference']:+.1%}", f"{low:+.1%} … {high:+.1%}"]


def show_rounds(rounds: list[dict[str, Any]], console: Any) -> None:
    """Prints the result of each round."""
    from rich.table import Table

    table = Table(title="Rounds, by dev rows and by samples of training rows", title_justify="left")
    heads = ("round", "dev", f"any of {rounds[0]['samples']}", "right ways a row", "solved", "hinted", "trained on")
    for head in heads:
        table.add_column(head, justify="right")
    for one in rounds:
        shares = (f"{one['dev_accuracy']:.1%}", f"{one['pass_at_k']:.1%}", f"{one['distinct_traces']:.2f}")
        table.add_row(str(one["round"]), *shares, *(str(one[name]) for name in ("solved", "hinted", "rows")))
    console.print(table)


def duration(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def summary(stage: str, entry: dict[str, Any]) -> str:
    """Returns a line on what a finished stage did."""
    seconds = f"{entry.get('seconds', 0):.1f} s"
    if stage == "generate":
        if "environments" in entry:
            lines = (f"{'':<9} {kind}: {one['says']}" for kind, one in entry["environments"].items())
            return "\n".join((f"{entry['rows']} rows  {seconds}", *lines))
        kinds = ", ".join(f"{count} {name}" for name, count in entry.get("types", {}).items())
        text = f"{entry.get('rows', 0)} rows" + f" ({kinds})" * bool(kinds)
        text += f" from {entry.get('passages_used')} of {entry.get('passages')} passages"
        text += f"; {sum(entry.get('rejected', {}).values())} rejected"
        text += f"; {spent}" if (spent := spent_text(entry.get("spent", {}))) else ""
    elif stage == "split":
        parts = [f"{entry[name]} {name.replace('_', '-')}" for name in ("train_in", "dev", "held_out")]
        parts += [f"{entry['recall']} recall"] if entry.get("recall") else []
        text = ", ".join(parts)
        text += f"; read by {', '.join(entry['shapes'])}" if entry.get("shapes") else ""
        text += f"; {entry['contaminated']} dropped, asked in a test too" if entry.get("contaminated") else ""
        text += f"; {entry['bad_rows']} bad rows skipped" if entry.get("bad_rows") else ""
        text += f"; {entry['too_long']} too long for the model" if entry.get("too_long") else ""
        left_out = entry.get("left_out", {}).items()
        text += "".join(f"; {count} left out as {reason.replace('_', ' ')}" for reason, count in left_out)
    elif stage == "enhance":
        counts = entry.get("outcomes", {})
        text = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
        text += f"; {entry.get('hints', 0)} hints, {entry.get('hints_rejected', 0)} rejected as leaks"
        text += f"; {entry['looped']} answers repeated themselves and were stopped" if entry.get("looped") else ""
        text += f"; {spent}" if (spent := spent_text(entry.get("spent", {}))) else ""
    elif stage == "curate":
        text = f"{entry.get('rows_out')} of {entry.get('rows_in')} traces kept"
    elif stage == "train":
        text = f"{entry.get('steps')} steps on {entry.get('rows_out')} rows, epoch {entry.get('best_epoch')} kept"
    elif stage == "round":
        text = f"{entry['round']} of at most {entry['of']}: dev {entry['dev_accuracy']:.1%}"
        text += f", any of {entry['samples']} samples right {entry['pass_at_k']:.1%}"
        return f"{text}, {entry['distinct_traces']:.2f} right ways a row"
    elif stage == "rounds":
        return f"round {entry['kept']} kept; {entry['reason']}"
    elif stage == "publish":
        text = str(entry.get("url", ""))
    else:
        text = entry.get("reason") or "all checks passed"
    shows = f"\n{'':<9} {entry['detectable']['says']}" if "detectable" in entry else ""
    return f"{text}  {seconds}{shows}"


GOES_ON = "The same command goes on from here."


def going_on(folder: Path, *, restart: bool = False) -> str:
    """Returns how a command resumes in a run folder; empty if there is nothing to resume yet.

    Args:
        restart: it redoes a stage, and given again it would do so again.
    """
    from socratune.runs import RunDir

    if not RunDir(folder).results.exists():
        return ""
    return "Without --restart the same command goes on from here." if restart else GOES_ON


def guarded(
    command: Callable[[], int],
    run_log: Callable[[], Path | None] = lambda: None,
    goes_on: Callable[[], str] = lambda: "",
) -> int:
    """Runs a command and turns every way it can end into an exit code. Only a bug of ours shows a traceback.

    Args:
        goes_on: says how the command goes on after an interrupt or a full disk, where it does.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is of a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return command()
    except BaseException as error:
        if not is_interrupt(error):
            return _ended(error, run_log(), goes_on())
        _say(f"Interrupted. {goes_on()}".strip())
        return 130


def _ended(error: BaseException, log: Path | None, goes_on: str) -> int:
    """Prints an error and returns its exit code."""
    error = without_extra(error) or error
    if isinstance(error, SocratuneError):
        _say(str(error), *codes_of(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        _say(f"{error.filename or 'The disk'}: {error.strerror}. Make room. {goes_on}".strip(), "S303")
        return OutsideError.exit_code
    if isinstance(error, OSError) and error.errno in _NO_FILE and error.filename:
        got = Shown(f"{error.strerror}".lower())
        fault = Fault(str(error.filename), "a file or folder that can be read and written", got, "Move it away.")
        _say(str(fault), "S303")
        return UserError.exit_code
    if isinstance(error, SystemExit):
        raise error
    return _bug(log)


def _as_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _bug(log: Path | None) -> int:
    text = traceback.format_exc()
    if log is not None and log.parent.is_dir():
        with log.open("a", encoding="utf-8") as stream:
            stream.write(text)
        _say(
            f"This is a bug in Socratune. The traceback is in {log}; please report it.\n{text.splitlines()[-1]}", "S700"
        )
    else:
        _say(f"This is a bug in Socratune; please report it.\n{text}", "S700")
    return 70


def _say(text: str, *codes: str) -> None:
    print(text, *([hint(codes)] if codes else []), sep="\n", file=sys.stderr)
