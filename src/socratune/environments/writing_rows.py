"""Writes the rows of a run's environments: training rows, and a test that shares no question with them.

Where an environment has many templates, a test of templates that are never trained on (the headline) and, beside it,
new numbers for those that are (`metadata.sibling_of`: the paper `recall`). Where it has few, a test of new numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from socratune.config import EnvConfig, SplitConfig
from socratune.environments.naming import environment, kind_of, named_environments
from socratune.environments.protocol import Entry, Environment
from socratune.runs import RunDir, StageResult, write_jsonl

FEWEST_HELD_TEMPLATES = 30
"""The fewest templates of a test. Fewer give no useful interval."""
FEWEST_TEMPLATES = 2 * FEWEST_HELD_TEMPLATES
"""The fewest templates of which some are held out. With fewer, too few would be left to learn from."""
HELD_SHARE = 0.2
_LOOKED_AT = 2_000
"""Entries in which templates are searched."""
_NOTHING_NEW = 2_000
"""An environment has no further question after this many repeated entries in a row."""


@dataclass(slots=True)
class _Written:
    """Holds the rows of one environment."""

    kind: str
    templates: int = 0
    held: frozenset[str] = frozenset()
    rows: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Returns the counts for the results file."""
        figures = {
            "rows": len(self.rows), "tests": len(self.tests), "new_numbers": len(self.numbers),
            "templates": self.templates or 1, "templates_held_out": len(self.held),
        }  # fmt: skip
        return figures | {"says": self.says()}

    def says(self) -> str:
        """Returns a sentence about what the test can show."""
        if self.held:
            asked = f"{len(self.held)} of {self.templates} templates are held out"
            return f"{asked}: what is tested are new templates, and beside them new numbers."
        few = "one template" if self.templates <= 1 else f"{self.templates} templates, too few to hold some out"
        return f"{few}: what is tested are new numbers."


def write_environment_rows(run: RunDir, config: EnvConfig, split: SplitConfig) -> StageResult:
    """Writes `qa.jsonl`, which is trained on except for new numbers, and `qa_test.jsonl`.

    The figures say what the test can show.

    Args:
        split: its `max_held_out_rows` and `max_recall_rows` are divided among the environments.

    Raises:
        UserError: there is no such environment.
    """
    names = named_environments(str(config.tasks))
    tests, numbers = (-(-most // len(names)) for most in (split.max_held_out_rows, split.max_recall_rows))
    written = [_of(name, config.size, config.seed, tests, numbers) for name in names]
    # new numbers lie beside what is trained on: one whose original is left out must not pass for a new template
    write_jsonl(run.rows("qa"), (row for task in written for row in (*task.rows, *task.numbers)))
    write_jsonl(run.rows("qa_test"), (row for task in written for row in task.tests))
    rows = sum(len(task.rows) for task in written)
    figures = {"rows": rows, "environments": {task.kind: task.figures() for task in written}}
    failure = None if rows else "No environment gave a question to train on."
    return StageResult(rows_in=rows, rows_out=rows, figures=figures, failure=failure)


def _of(name: str, size: int, seed: int, tests: int, numbers: int) -> _Written:
    env, kind = environment(name), kind_of(name)
    entries = _distinct(env.questions(seed))
    first = next(entries, None)
    if first is None:
        return _Written(kind)
    looked = [first, *islice(entries, _LOOKED_AT if env.template(first) is not None else 0)]
    templates = sorted({template for entry in looked if (template := env.template(entry)) is not None})
    held = _held_out(templates)
    result = _Written(kind, len(templates), held)
    source = chain(looked, entries)
    if held:
        _by_template(result, name, env, source, size, tests, numbers)
    else:
        entries = list(islice(source, size + tests))
        if len(entries) < size + tests:  # of few questions a part is the test
            tests = min(tests, max(int(len(entries) * HELD_SHARE), len(entries) - size))
        _by_row(result, name, env, entries, tests)
    return result


def _by_row(result: _Written, name: str, env: Environment, entries: list[Entry], tests: int) -> None:
    """Sorts each question by itself. The first questions are the test, so that a larger size asks the same test."""
    for at, entry in enumerate(entries):
        (result.tests if at < tests else result.rows).append(_row(name, env, entry, at, held_out=False))


def _by_template(
    result: _Written, name: str, env: Environment, entries: Iterator[Entry], size: int, tests: int, numbers: int
) -> None:
    """Fills the test from held-out templates. Any other template gives a row to train on first, then new numbers."""
    counts, asked, anchors = Counter[str](), Counter[str](), dict[str, str]()
    share = -(-tests // len(result.held))
    each = -(-numbers // max(1, result.templates - len(result.held)))
    for at, entry in enumerate(entries):
        template = str(env.template(entry))
        if template in result.held:
            if counts[template] < share and len(result.tests) < tests:
                counts[template] += 1
                result.tests.append(_row(name, env, entry, at))
        elif template in anchors and asked[template] < each and len(result.numbers) < numbers:
            asked[template] += 1
            row = _row(name, env, entry, at)
            row["metadata"]["sibling_of"] = anchors[template]
            result.numbers.append(row)
        elif len(result.rows) < size:
            row = _row(name, env, entry, at)
            anchors.setdefault(template, row["id"])
            result.rows.append(row)
        if len(result.rows) >= size and len(result.tests) >= tests and len(result.numbers) >= numbers:
            return


def _held_out(templates: list[str]) -> frozenset[str]:
    """Returns the templates of the test, chosen by a hash of their names, or none if there are few."""
    if len(templates) < FEWEST_TEMPLATES:
        return frozenset()
    order = sorted(templates, key=lambda one: hashlib.sha256(f"held_out/{one}".encode()).digest())
    return frozenset(order[: max(FEWEST_HELD_TEMPLATES, int(len(templates) * HELD_SHARE))])


def _distinct(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yields each question once and ends when nothing new comes."""
    seen, stale = set[str](), 0
    for entry in entries:
        text = " ".join(str(entry["question"]).split()).casefold()
        stale = stale + 1 if text in seen else 0
        if stale >= _NOTHING_NEW:
            return
        if text not in seen:
            seen.add(text)
            yield entry


def _row(name: str, env: Environment, entry: Entry, at: int, *, held_out: bool = True) -> dict[str, Any]:
    """Returns a row. Its source is its template if templates are held out, so that the split keeps templates whole."""
    kind, template = kind_of(name), env.template(entry)
    known = {key: value for key, value in entry.items() if key not in ("question", "solution")}
    metadata = {
        "kind": kind,
        "environment": {"name": name, "entry": json.loads(json.dumps(known, default=str))},
    }
    if template is not None:
        metadata["source" if held_out else "template"] = f"{kind}/{template}"
    answer, solution = f"The answer is {entry['answer']}.", entry.get("solution")
    if solution:
        metadata["thinking"], answer = solution, f"{solution}\n{answer}"
    turns = [{"role": "user", "content": str(entry["question"]).strip()}, {"role": "assistant", "content": answer}]
    return {"id": f"{kind}-{at}", "messages": turns, "metadata": metadata}
