"""Damaged run folders: whatever lies in one, every command ends as a command may end, and spoils nothing besides.

A case names a file of the folder, what becomes of it, and the command that is given then. `at` chooses where.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import demo_rows, few_general_questions, socratune, write_rows
from fuzz.targets import Broken, hold

Case = dict[str, Any]

READING = ("report", "inspect", "publish", "chat", "audit-judge", "export")
"""Commands that only look at a run, and write nothing but the page."""
WORKING = ("train", "validate", "run", "enhance")
DAMAGES = ("cut", "cut a line", "empty", "garbage", "another", "delete", "folder", "value", "no right")
ODD = (None, True, 0, -1, 3, 1e300, "", "x", "\udc80", [], [None], {}, {"a": {}}, "../..", 2**70)
MADE_BY_WORK = ("report.html", "pipeline_results.json", "run.log", "run.lock")


@contextmanager
def finished_folder() -> Iterator[Path]:
    """A small run of the embedded model that passed, with a decision of a person in it."""
    with tempfile.TemporaryDirectory(prefix="fuzz-runs-") as place:
        run = Path(place) / "run"
        done = socratune(*made_by(Path(place), run))
        hold(done.returncode == 0, f"the run itself: {done.stdout}{done.stderr}")
        row = json.loads((run / "enhanced_dataset.jsonl").read_text("utf-8").splitlines()[0])
        said = {"id": row["id"], "decision": "accept", "text": None, "time": "2026-01-01T00:00:00Z"}
        (run / "review.jsonl").write_text(json.dumps(said) + "\n", "utf-8")
        yield run


def made_by(place: Path, run: Path) -> list[str]:
    """The command of the run, with what it reads in `place`."""
    train, held_out = place / "train.jsonl", place / "held_out.jsonl"
    if not train.exists():
        write_rows(train, demo_rows("train", 120))
        write_rows(held_out, demo_rows("held_out", 60))
    given = ["run", "--model", "demo", "--dataset", train, "--held-out", held_out, "--output", run]
    return [*map(str, given), "--set", "train.num_train_epochs=6", *few_general_questions(place)]


def drawn(draw: random.Random, run: Path) -> Case:
    """A case; settings and results more often than a checkpoint."""
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    top = [name for name in files if "/" not in name or name.startswith("adapter/")]
    name = draw.choice(top if draw.random() < 0.85 else files)
    command = draw.choice(READING * 2 + WORKING)
    return {"file": name, "damage": draw.choice(DAMAGES), "at": round(draw.random(), 6), "command": command}


def try_damage(case: Case, finished: Path) -> None:
    """Copy the folder, damage it, give the command.

    Raises:
        Broken: it ended as no command may, or changed what it only had to read.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-run-") as place:
        run = Path(place) / "run"
        shutil.copytree(finished, run)
        damage(run, case)
        before = contents(run)
        done = given_to(run, case["command"], finished.parent)
        said = f"{done.stdout}{done.stderr}"[-3000:]
        if done.returncode not in (0, 1, 2, 3) or "Traceback" in said or "bug in Socratune" in said:
            raise Broken(f"exit code {done.returncode}: {said}")
        if case["command"] in READING:
            after = contents(run)
            changed = {name for name in before if before[name] != after.get(name)} - set(MADE_BY_WORK)
            hold(not changed, f"a command that reads changed {sorted(changed)}: {said}")


def given_to(run: Path, command: str, inputs: Path) -> subprocess.CompletedProcess[str]:
    words = {
        "publish": ["publish", run, "--hub-id", "somebody/something", "--dry-run"],
        "chat": ["chat", run, "What is 12 * 13?"],
        "audit-judge": ["audit-judge", run, "--sheet", run.parent / "sheet.jsonl", "--rows", "10"],
        "export": ["export", run, "--to", "merged", "--out", run.parent / "merged", "--prompts", "2"],
        "run": made_by(inputs, run),
        "enhance": [*made_by(inputs, run), "--until", "enhance"],
    }
    try:
        return socratune(*words.get(command, [command, run]))
    except AssertionError as error:  # it did not end
        raise Broken(str(error)) from None


def contents(run: Path) -> dict[str, str]:
    """Every file by its hash; SQLite's log beside the journal is part of reading it."""
    files = (path for path in run.rglob("*") if path.is_file() and "sqlite-" not in path.name)
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- what becomes of a file ----------------------------------------------------------------------------------------


def damage(run: Path, case: Case) -> None:
    """Do to the file what the case says."""
    path, draw = run / case["file"], random.Random(case["at"])
    if path.exists() and path.is_file():
        ways: dict[str, Callable[[], None]] = {
            "cut": lambda: _write(path, path.read_bytes()[: int(case["at"] * path.stat().st_size)]),
            "cut a line": lambda: _write(path, b"\n".join(path.read_bytes().split(b"\n")[: draw.randint(0, 3)])),
            "empty": lambda: _write(path, b""),
            "garbage": lambda: _write(path, draw.randbytes(draw.choice([1, 100, 5000]))),
            "another": lambda: _write(path, _another(run, path, draw)),
            "delete": path.unlink,
            "folder": lambda: (path.unlink(), path.mkdir())[1],
            "value": lambda: _write(path, _other_value(path.read_bytes(), draw)),
            "no right": lambda: path.chmod(0),
        }
        ways[case["damage"]]()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _another(run: Path, path: Path, draw: random.Random) -> bytes:
    others = sorted(other for other in run.iterdir() if other.is_file() and other != path)
    return draw.choice(others).read_bytes()


def _other_value(data: bytes, draw: random.Random) -> bytes:
    """A JSON file (or one of its lines, or of YAML's) with one value replaced or gone."""
    lines = data.decode("utf-8", "replace").splitlines()
    if not lines:
        return b"null"
    try:
        return _dumped(_spoiled(json.loads(data), draw))
    except ValueError:
        at = draw.randrange(len(lines))
    try:
        lines[at] = _dumped(_spoiled(json.loads(lines[at]), draw)).decode()
    except ValueError:
        lines[at] = f"{lines[at].partition(':')[0]}: {json.dumps(draw.choice(ODD))}"
    return "\n".join([*lines, ""]).encode()


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _spoiled(value: Any, draw: random.Random) -> Any:
    """The value with something in it replaced or gone, at a random depth."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        if draw.random() < 0.15:
            del value[key]
        else:
            value[key] = _spoiled(value[key], draw)
        return value
    return draw.choice(ODD)
