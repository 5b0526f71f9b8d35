"""Twelve faults, planted one by one: does the suite catch each? `python dev/planted.py [--known] [--only NAME]`.

A fault is a replacement of text that is looked for in all files under `src/socratune`, not under a path, so that it
outlives a move; the script refuses to go on where a text is not found exactly once. All happens in a temporary copy of
the checkout (what git tracks or would track), in which the fault is undone afterwards.

For each fault `pytest -m "not slow" -x` runs; where that passes, the slow tests of the one file that is named for the
fault. The table names the first test that failed. That test has to pass without the fault, or it does not count: it is
left out, and the search goes on. With `--known` the one file that is likeliest to catch the fault is asked first, then
the slow file, and all fast tests only where neither caught it: enough to say that it is caught, and much faster.

Exit code 1 where a fault survived.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple


class Change(NamedTuple):
    """A text that stands in exactly one place, and what takes its place."""

    old: str
    new: str


class Fault(NamedTuple):
    """A fault by the changes that plant it; `likely` and `slow` are names of test files."""

    changes: tuple[Change, ...]
    likely: str
    slow: str


FAULTS = {
    "mask shifted by one": Fault(
        (
            Change(
                "    return Rendered(example.id, [*ids, end], [*labels, end], len(placed.before))\n",
                "    ids, carries = [*ids, end], [label != IGNORE for label in labels[1:]] + [True, False]\n"
                "    labels = [token if trained else IGNORE for token, trained in zip(ids, carries, strict=True)]\n"
                "    return Rendered(example.id, ids, labels, len(placed.before))\n",
            ),
        ),
        likely="test_template.py",
        slow="test_pipeline.py",
    ),
    "leak check off": Fault(
        (Change("            if not leak(hint, self.row):\n", "            if hint:\n"),),
        likely="test_loop.py",
        slow="test_pipeline.py",
    ),
    "gate ignores the interval": Fault(
        (Change("if paired.low > 0 and paired.p < 0.05:", "if paired.difference > 0:"),),
        likely="test_stats.py",
        slow="test_validate.py",
    ),
    "journal key without the seed": Fault(
        (Change("self.max_new_tokens, self.seed, self.json_schema]", "self.max_new_tokens, self.json_schema]"),),
        likely="test_journal.py",
        slow="test_pipeline.py",
    ),
    "dedupe off": Fault(
        (
            Change(
                '            groups = array("q", kept)\n        return wordings, groups\n',
                '            groups = array("q", kept)\n'
                '        own = array("q", range(len(self)))\n        return own, own\n',
            ),
        ),
        likely="test_decontamination.py",
        slow="test_pipeline.py",
    ),
    "budget not checked in flight": Fault(
        (Change("spent_usd + self._reserved_usd + usd > limits.usd", "spent_usd + usd > limits.usd"),),
        likely="test_ledger.py",
        slow="test_http.py",
    ),
    "wrong chat template in validate": Fault(
        (
            Change(
                "LocalStudent(model, tokenizer, name=who, fingerprint=sitting.key)",
                'LocalStudent(model, setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m[\'content\'] }} '
                '{% endfor %}") or tokenizer, name=who, fingerprint=sitting.key)',
            ),
        ),
        likely="test_exam.py",
        slow="test_validate.py",
    ),
    "resume repeats a stage": Fault(
        (
            Change(
                'if not missing and entry.get("status") in ("done", "failed") and',
                'if not missing and entry.get("status") == "failed" and',
            ),
        ),
        likely="test_rounds.py",
        slow="test_pipeline.py",
    ),
    "pod not ended on error": Fault(
        (
            Change(
                "            machine.begin()\n            yield machine\n        finally:\n",
                "            machine.begin()\n            yield machine\n        except BaseException:\n"
                "            raise\n        else:\n",
            ),
            Change(
                "    def __exit__(self, *error: object) -> None:\n        self.end()\n",
                "    def __exit__(self, *error: object) -> None:\n        if error[0] is None:\n"
                "            self.end()\n",
            ),
        ),
        likely="test_renting.py",
        slow="test_renting.py",
    ),
    "escape missing in the page": Fault(
        (Change('    for character in "<>&\\u2028\\u2029":\n', '    for character in ">&\\u2028\\u2029":\n'),),
        likely="test_report.py",
        slow="test_report.py",
    ),
    "split by row instead of source": Fault(
        (Change('            self.clusters = array("q", self._joined())\n', "            pass\n"),),
        likely="test_split.py",
        slow="test_pipeline.py",
    ),
    "judge takes undecided for wrong": Fault(
        (
            Change(
                'Judgement("undecided", "exact", "texts differ, and rules cannot tell',
                'Judgement("incorrect", "exact", "texts differ, and rules cannot tell',
            ),
        ),
        likely="test_rules.py",
        slow="test_pipeline.py",
    ),
}


class Caught(NamedTuple):
    """The test that failed first, by its id, and whether it is of the fast or of the slow ones."""

    test: str
    kind: str


class Suite:
    """The tests of a copy of the checkout, whose source comes before any that is installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seconds = 0.0
        paths = [str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def file(self, name: str) -> list[str]:
        """The test file of that name, wherever it lies; none where there is no such file (any more)."""
        found = sorted(str(path.relative_to(self.root)) for path in (self.root / "tests").rglob(name))
        if not found:
            print(f"    there is no {name}: name another file for this fault", file=sys.stderr)
        return found[:1]

    def first_failure(self, marker: str, files: Sequence[str], left_out: Sequence[str] = ()) -> str | None:
        """The id of the first test that fails; None where all pass.

        Raises:
            SystemExit: the tests did not run.
        """
        noted = self.root / ".pytest_cache" / "v" / "cache" / "lastfailed"
        noted.unlink(missing_ok=True)
        command = ["-m", marker, "-x", "-q", *files]
        for test in left_out:
            command += ["--deselect", test]
        code, said = self._pytest(command)
        if code in (0, 5):  # 5: there is no test of this kind
            return None
        if not noted.exists():
            raise SystemExit(f"pytest ended with {code} and names no test:\n{said[-3000:]}")
        return next(iter(json.loads(noted.read_text("utf-8"))))

    def passes(self, test: str) -> bool:
        """Whether one test passes."""
        return self._pytest(["-q", test])[0] == 0

    def _pytest(self, arguments: list[str]) -> tuple[int, str]:
        before = os.times()
        command = [sys.executable, "-m", "pytest", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self._environment, capture_output=True, text=True, check=False
        )
        after = os.times()
        self.seconds += after.children_user + after.children_system - before.children_user - before.children_system
        return done.returncode, done.stdout + done.stderr


def search(suite: Suite, fault: Fault, root: Path, *, known: bool) -> Caught | None:
    """Plant the fault and look for the test that catches it; None where it survives."""
    rounds = [("fast", "not slow", []), ("slow", "slow", suite.file(fault.slow))]
    if known and (likely := suite.file(fault.likely)):
        rounds = [("fast", "not slow", likely), *reversed(rounds)]
    left_out: list[str] = []
    for kind, marker, files in rounds:
        if kind == "slow" and not files:
            continue
        while True:
            with planted(root, fault):
                test = suite.first_failure(marker, files, left_out)
            if test is None:
                break
            if suite.passes(test):
                return Caught(test, kind)
            print(f"    {test} fails without the fault, too: left out", file=sys.stderr)
            left_out.append(test)
    return None


@contextmanager
def planted(root: Path, fault: Fault) -> Iterator[None]:
    """The fault in the source until the block ends."""
    before: dict[Path, str] = {}
    try:
        for change in fault.changes:
            path = place_of(root, change.old)
            text = path.read_text("utf-8")
            before.setdefault(path, text)
            path.write_text(text.replace(change.old, change.new), "utf-8")
        yield
    finally:
        for path, text in before.items():
            path.write_text(text, "utf-8")


def place_of(root: Path, text: str) -> Path:
    """The one file under `src/socratune` that holds the text, once.

    Raises:
        LookupError: it stands nowhere, or in several places.
    """
    source = root / "src" / "socratune"
    counts = {path: path.read_text("utf-8").count(text) for path in source.rglob("*.py")}
    found = [path for path, count in counts.items() for _ in range(count)]
    if len(found) != 1:
        where = ", ".join(sorted(str(path.relative_to(source)) for path in found)) or "nowhere"
        raise LookupError(f"a text to replace has to stand in one place, and stands in {where}:\n{text}")
    return found[0]


def check(root: Path, names: Sequence[str]) -> None:
    """Every text of the faults that are asked for is found once.

    Raises:
        SystemExit: those that are not.
    """
    missing = []
    for name in names:
        for change in FAULTS[name].changes:
            try:
                place_of(root, change.old)
            except LookupError as error:
                missing.append(f"{name}: {error}")
    if missing:
        raise SystemExit("\n".join(missing))


def copy_of(checkout: Path, folder: Path) -> Path:
    """A copy of what git tracks, or would track; its compiled files are told apart by content, not by time."""
    listed = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (checkout / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target)
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src", "tests"]
    subprocess.run([sys.executable, *compiled], cwd=folder, check=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=Path(__file__).parent.parent, help="a checkout; default: this one")
    parser.add_argument("--only", action="append", choices=list(FAULTS), metavar="NAME", help="repeatable")
    parser.add_argument("--known", action="store_true", help="the likeliest test file first")
    parser.add_argument("--check", action="store_true", help="only see whether every text is found")
    asked = parser.parse_args()
    names = asked.only or list(FAULTS)
    check(asked.src, names)
    if asked.check:
        return 0
    survived = 0
    with TemporaryDirectory(prefix="planted-") as folder:
        root = copy_of(asked.src, Path(folder).resolve())
        print(f"| {'fault':32} | {'kind':8} | {'CPU s':>5} | caught by", flush=True)
        for name in names:
            suite, started = Suite(root), time.monotonic()
            caught = search(suite, FAULTS[name], root, known=asked.known)
            kind, test = (caught.kind, caught.test) if caught else ("SURVIVED", "-")
            survived += caught is None
            print(f"| {name:32} | {kind:8} | {suite.seconds:5.0f} | {test}", flush=True)
            print(f"    {time.monotonic() - started:.0f} s by the clock", file=sys.stderr)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
