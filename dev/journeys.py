"""How far one thing travels through the source, in four figures: `python dev/journeys.py [-v] [--json] [--src PATH]`.

The first and the third come from a real run of the embedded model in this process: 25 rows to train on, a held-out
file, a forgetting file of 24 questions, one epoch, and a budget, so that the code of the budget is at work. Every call
of a function under `src/socratune` is seen by `sys.setprofile`, in all threads. Child processes are not seen (the
formula checker is one). The other two figures come from the syntax trees, and nothing is run for them. No figure
depends on where a module lies or on what it is called, so the same script compares two layouts of the source.

row       Files that a row meets on its way to the adapter: the distinct files in which at least one function is called
          while one of the stages split, enhance, curate and train is under way. A stage is under way from the moment
          `pipeline_results.json` says that it runs to the moment it says that it is done. What runs only because a
          module is imported meanwhile (module and class bodies, and whatever they call) does not count.

max_usd   Files that the setting `max_usd` meets: the files that name it in code, as an identifier, an attribute, a
          parameter, a keyword, or within a string such as a key or a flag (`max_usd`, `MaxUsd`, `--max-usd`).
          Docstrings and comments do not count. The package that compares whole runs with each other (`ablation/` or
          `ways/`) is a client of the setting; the figure includes it, and the note says how many files it has.

answer    Changes of file per held-out answer: how many calls that cross from one file into another one more held-out
          answer costs in `validate`. A call counts where a function begins (a coroutine that goes on does not begin)
          and the nearest caller under `src/socratune` lies in another file, or the event loop has called it (a task
          that is begun, a callback). Returns do not count. Only the thread of the event loop counts: the decoder's own
          thread works by the token and for many answers at once. The figure is a slope, so that loading and reporting
          drop out: `validate` is run with 8 and with 24 held-out rows, which have no row in common, and the difference
          in calls is divided by the difference in answers (base and adapter answer each row, so 32). One row is in
          flight at a time, so that the figure does not depend on timing. The note says how many of these calls leave
          a room, that is a package, or a file in the root.

verdict   Places that set the verdict: the expressions that hold the constant "passed" or "failed" as a value and put it
          into a status or verdict, that is a dict entry, a keyword, a variable, an attribute or a subscript of that
          name (or one that ends in `_status`, `_verdict`), an argument of a call of such a name, or the value that a
          function of such a name returns; and every choice between the two constants. A constant that is only compared
          with reads a verdict and does not count. What goes into the entry of a stage (`set_stage`, `stage_status`)
          says how the stage ended and does not count either, nor does the `passed` of a single test. `-v` lists the
          places. The page's scripts are not looked at: they get the status in their data.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dis import get_instructions
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any, NamedTuple

AIMS = {"row": 45, "max_usd": 9, "answer": 12, "verdict": 1}
LABELS = {
    "row": "files that a row meets on its way to the adapter",
    "max_usd": "files that the setting max_usd meets",
    "answer": "changes of file per held-out answer",
    "verdict": "places that set the verdict",
}
STAGES = ("split", "enhance", "curate", "train")
TRAIN_ROWS, FEW, MANY, FORGETTING_ROWS = 25, 8, 24, 24
CLIENTS = ("ablation", "ways")
EVENT_LOOP = str(Path("asyncio") / "events.py")


class Figure(NamedTuple):
    """A figure, what it is made of, and a remark for the table."""

    value: float
    parts: list[str]
    note: str = ""


# --- the run -------------------------------------------------------------------------------------------------------


class Trace:
    """Sees every call of a function under `source`; what it counts depends on the stage that is under way."""

    def __init__(self, source: Path) -> None:
        self.stage: str | None = None
        self.files: dict[str, Counter[str]] = {}
        """Stage → file → calls."""
        self.crossings: Counter[tuple[str, str]] = Counter()
        """(from, to) → calls that cross, in the thread of the event loop, during `validate`."""
        self._source = f"{source}{os.sep}"
        self._known: dict[CodeType, tuple[str, int] | None] = {}
        self._importing = threading.local()
        self._loop_thread = threading.get_ident()

    def __enter__(self) -> Trace:
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]

    def _seen(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        if code not in self._known:
            self._known[code] = self._place(code)
        place = self._known[code]
        if place is None:
            return
        file, start = place
        if code.co_name == "<module>":
            step = 1 if event == "call" else -1
            self._importing.depth = getattr(self._importing, "depth", 0) + step
        elif event == "call" and self.stage and frame.f_lasti <= start and not getattr(self._importing, "depth", 0):
            self.files.setdefault(self.stage, Counter())[file] += 1
            if self.stage == "validate" and threading.get_ident() == self._loop_thread:
                caller = self._caller(frame)
                if caller != file:
                    self.crossings[caller, file] += 1

    def _place(self, code: CodeType) -> tuple[str, int] | None:
        """The file of a code object, and up to which instruction its frame counts as new; None for others' code."""
        if not code.co_filename.startswith(self._source):
            return None
        made = [one.offset for one in get_instructions(code) if one.opname == "RETURN_GENERATOR"]
        begins = next((one.offset for one in get_instructions(code) if one.opname == "RESUME"), 0)
        return code.co_filename.removeprefix(self._source), max([begins, *made])

    def _caller(self, frame: FrameType) -> str:
        above = frame.f_back
        while above is not None and not above.f_code.co_filename.endswith(EVENT_LOOP):
            if above.f_code not in self._known:
                self._known[above.f_code] = self._place(above.f_code)
            if place := self._known[above.f_code]:
                return place[0]
            above = above.f_back
        return "the event loop"


def follow_stages(trace: Trace) -> None:
    """Keep `trace.stage` at the stage that `pipeline_results.json` says is running; audit hooks stay for good."""

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(args[1]).endswith("pipeline_results.json"):
            stages = json.loads(Path(args[0]).read_text("utf-8")).get("stages", {})
            trace.stage = next((name for name, entry in stages.items() if entry.get("status") == "running"), None)

    sys.addaudithook(heard)


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def crossings_of(trace: Trace, done: Path, held_out: list[str], settings: dict[str, Any]) -> Counter[tuple[str, str]]:
    """The crossing calls of `validate` in a copy of the trained run folder with other held-out rows."""
    import socratune

    copy = done.with_name(f"{done.name}-{len(held_out)}")
    shutil.copytree(done, copy)
    write_lines(copy / "held_out.jsonl", held_out)
    trace.crossings.clear()
    with trace:
        socratune.run(**{**settings, "output": copy}, until="validate")
    return Counter(trace.crossings)


def journeys(source: Path) -> tuple[Figure, Figure]:
    """The row's and the answer's journey, from one run."""
    import socratune

    data = next(path for path in source.rglob("demo_data") if path.is_dir())
    trace = Trace(source)
    follow_stages(trace)
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()

        def part_of(file: str, rows: int) -> str:
            lines = (data / file).read_text("utf-8").splitlines()[:rows]
            return str(write_lines(folder / file, lines))

        settings: dict[str, Any] = {
            "model": "demo",
            "dataset": part_of("train.jsonl", TRAIN_ROWS),
            "output": folder / "run",
            "config": {
                "enhance": {"max_usd": 1.0, "concurrency": 1},
                "split": {"held_out": part_of("held_out.jsonl", FEW + MANY)},
                "train": {"num_train_epochs": 1},
                "validate": {"forgetting": part_of("probe.jsonl", FORGETTING_ROWS)},
            },
        }
        with trace:
            results = socratune.run(**settings, until="train")
        if results["stages"].get("train", {}).get("status") != "done":
            raise SystemExit(f"The run did not come to its adapter: {results.get('error')}")
        rows = (folder / "run" / "held_out.jsonl").read_text("utf-8").splitlines()
        few = crossings_of(trace, folder / "run", rows[:FEW], settings)
        many = crossings_of(trace, folder / "run", rows[FEW:], settings)
    return met(trace), slope(few, many, 2 * (MANY - FEW))


def met(trace: Trace) -> Figure:
    stages = {stage: trace.files.get(stage, Counter()) for stage in STAGES}
    files = sorted(set().union(*stages.values()))
    parts = [f"{file}  ({', '.join(stage for stage in STAGES if file in stages[stage])})" for file in files]
    by_stage = ", ".join(f"{stage} {len(found)}" for stage, found in stages.items())
    return Figure(len(files), parts, f"in {len(set(map(room_of, files)))} rooms; {by_stage}")


def slope(few: Counter[tuple[str, str]], many: Counter[tuple[str, str]], answers: int) -> Figure:
    per_edge = {edge: (many[edge] - few[edge]) / answers for edge in many.keys() | few.keys()}
    ordered = sorted(per_edge.items(), key=lambda found: (-found[1], found[0]))
    parts = [f"{value:6.2f}  {edge[0]} -> {edge[1]}" for edge, value in ordered if abs(value) >= 0.005]
    between = sum(value for (one, other), value in per_edge.items() if room_of(one) != room_of(other))
    note = f"{between:.1f} between rooms; {answers} answers more"
    return Figure(round(sum(per_edge.values()), 1), parts, note)


def room_of(file: str) -> str:
    """The package of a file, or the file itself where it lies in the root."""
    return Path(file).parts[0]


# --- the syntax trees ----------------------------------------------------------------------------------------------


def parsed(source: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(source.rglob("*.py")):
        yield str(path.relative_to(source)), ast.parse(path.read_text("utf-8"))


def setting(source: Path, name: str) -> Figure:
    """The files that name a setting in code."""
    pattern = re.compile(rf"(?<![a-z]){name.replace('_', '[-_]?')}(?![a-z])", re.IGNORECASE)
    found = {file: len(lines) for file, tree in parsed(source) if (lines := _lines_naming(tree, pattern))}
    clients = sum(room_of(file) in CLIENTS for file in found)
    parts = [f"{file}  ({lines} lines)" for file, lines in found.items()]
    return Figure(len(found), parts, f"of these {clients} in {'/ or '.join(CLIENTS)}/")


def _lines_naming(tree: ast.Module, pattern: re.Pattern[str]) -> set[int]:
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str) and id(node) not in prose and pattern.search(text):
                found.add(node.lineno if hasattr(node, "lineno") else 0)  # pyright: ignore[reportAttributeAccessIssue]
    return found


def verdicts(source: Path) -> Figure:
    """The places that set the verdict."""
    parts = []
    for file, tree in parsed(source):
        lines = (source / file).read_text("utf-8").splitlines()
        parts += [f"{file}:{line}  {lines[line - 1].strip()}" for line in sorted(set(_verdict_lines(tree)))]
    return Figure(len(parts), parts)


def _verdict_lines(tree: ast.Module) -> Iterator[int]:
    of_stages = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "set_stage"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        for name, value in _named_values(node):
            wanted = re.search(r"(^|(?<!stage)_)(status|verdict)$", name, re.IGNORECASE) is not None
            if wanted and id(value) not in of_stages and _yields(value):
                yield value.lineno
        if isinstance(node, ast.IfExp) and id(node) not in of_stages and _yields(node) == {"passed", "failed"}:
            yield node.lineno


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of whatever a node puts under a name."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield _name_of(target), node.value
    elif isinstance(node, ast.Call):
        yield from ((_name_of(node.func), argument) for argument in node.args)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield node.name, inner.value


def _name_of(target: ast.expr) -> str:
    if isinstance(target, ast.Subscript):
        return str(target.slice.value) if isinstance(target.slice, ast.Constant) else ""
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def _yields(value: ast.expr) -> set[str]:
    """Which of "passed" and "failed" is or may become the value, and is not just compared with."""
    compared = {id(inner) for node in ast.walk(value) if isinstance(node, ast.Compare) for inner in ast.walk(node)}
    constants = (node for node in ast.walk(value) if isinstance(node, ast.Constant) and id(node) not in compared)
    return {node.value for node in constants if node.value in ("passed", "failed")}


# --- the table -----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=Path(__file__).parent.parent, help="a checkout; default: this one")
    parser.add_argument("--json", action="store_true", help="the figures and what they are made of as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="also what each figure is made of")
    asked = parser.parse_args()
    source = (asked.src / "src" / "socratune").resolve()
    sys.path.insert(0, str(source.parent))
    logging.disable(logging.WARNING)
    row, answer = journeys(source)
    figures = {"row": row, "max_usd": setting(source, "max_usd"), "answer": answer, "verdict": verdicts(source)}
    if asked.json:
        print(json.dumps({name: figure._asdict() for name, figure in figures.items()}, indent=2))
        return
    print(f"{'':48}{'found':>6}{'aim':>6}")
    for name, figure in figures.items():
        print(f"{LABELS[name]:48}{figure.value:>6g}{AIMS[name]:>6}  {figure.note}")
    for name, figure in figures.items() if asked.verbose else ():
        print("", LABELS[name], *(f"    {part}" for part in figure.parts), sep="\n")


if __name__ == "__main__":
    main()
