"""Run folders for the tests of the page, and a browser to look at it with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from socratune.rows import Attempt, Outcome, QARow, Trace
from socratune.runs.folder import RunDir, write_jsonl

CHROMIUM = shutil.which("chromium")


def trace(
    name: str, question: str = "What is 2 * 3?", *, outcome: Outcome = "solved_first_try", response: str = "2 * 3 = 6."
) -> dict[str, Any]:
    """A line of `enhanced_dataset.jsonl`: solved at once, solved with a hint, or unsolved."""
    row = QARow(
        name, [{"role": "user", "content": question}, {"role": "assistant", "content": "6"}], {"source": f"of {name}"}
    )
    wrong = Attempt(1, "2 * 3 = 5.", "incorrect", "numeric", hint="Take 2 three times.")
    right = Attempt(1, response, "correct", "numeric")
    if outcome == "solved_first_try":
        return Trace(row, outcome, (right,), "direct", {}, chosen=1, pass_rate=1.0).to_json(response)
    if outcome == "solved_with_hint":
        attempts = (wrong, Attempt(2, response, "correct", "numeric", given="hint"))
        return Trace(row, outcome, attempts, "direct", {}, chosen=2, pass_rate=0.0, gap="skill").to_json(response)
    return Trace(row, outcome, (wrong,), "direct", {}, pass_rate=0.0).to_json("6")


def answer(name: str, base: str = "incorrect", adapter: str = "correct", question: str = "3 * 3?") -> dict[str, Any]:
    """A line of `held_out_answers.jsonl`."""
    said = {"base": {"response": "by base", "verdict": base}, "adapter": {"response": "by adapter", "verdict": adapter}}
    return {"id": name, "question": question, "reference": "9", **said}


def make_run(folder: Path, traces: Any = (), answers: Any = (), **results: Any) -> RunDir:
    """A run folder with these rows."""
    run = RunDir(folder)
    run.create()
    run.config.write_text("model: demo\ndataset: rows.jsonl\nenhance:\n  max_iterations: 3\n", "utf-8")
    count = write_jsonl(run.enhanced, traces)
    write_jsonl(run.rows("held_out_answers"), answers)
    stages = {"enhance": {"status": "done", "seconds": 1.0, "done": count, "total": count, "hints": 0}}
    origins = {"model": "given", "dataset": "given", "enhance.max_iterations": "default"}
    data = {"status": "incomplete", "stages": stages, "model": "demo", "dataset": "rows.jsonl", "origins": origins}
    write_results(run, {**data, **results})
    return run


def make_large_run(folder: Path, count: int, question: str, response: str) -> RunDir:
    """A run folder with so many hinted traces `t0`, `t1`, …; `{n}` in the question is the number.

    One trace is put into JSON, and every line is its text with another number.
    """
    run = make_run(folder)
    line = json.dumps(trace("t{n}", question, outcome="solved_with_hint", response=response))
    with run.enhanced.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{line.replace('{n}', str(n))}\n" for n in range(count))
    results = json.loads(run.results.read_text("utf-8"))
    results["stages"]["enhance"] |= {"done": count, "total": count}
    write_results(run, results)
    return run


def write_results(run: RunDir, data: dict[str, Any]) -> None:
    run.results.write_text(json.dumps(data), "utf-8")


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window; skips, with the reason, where it or Playwright is not there."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(chromium: Any, url: str, **context: Any) -> Iterator[Any]:
    """A page that must not say anything on the console but what the tests expect, which is nothing."""
    said: list[str] = []
    with chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}) as at:
        page = at.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#count:not(:empty)")
        yield page
        assert said == []


@contextmanager
def served(run: RunDir) -> Iterator[str]:
    """`socratune ui` on a free port, in a process of its own; its address."""
    command = [sys.executable, "-m", "socratune", "ui", str(run.root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found, "no address was printed"
        yield found.group()
    finally:
        process.terminate()
        assert process.wait(timeout=20) in (0, 130)
        if process.stdout:
            process.stdout.close()
