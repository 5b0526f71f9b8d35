"""Wraps the package reasoning-gym: its questions, its verifiers, and what some of them need around them.

A verifier is given the final answer in the form in which the task gives its own, and right means a score of exactly 1.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from socratune.environments.protocol import Entry
from socratune.errors import Fault, Shown, UserError
from socratune.judging import final_number

_MANY = 1_000_000
"""The size that a data set is created with. Its entries are created one by one, on request."""
_FAILS = 200
"""A generator counts as broken after this many failed entries in a row."""
EXECUTES = (
    "string_insertion", "spiral_matrix", "binary_matrix", "simple_integration", "intermediate_integration",
    "polynomial_multiplication", "n_queens", "puzzle24",
)  # fmt: skip
"""Tasks whose verifiers pass the answer to `eval` or to a parser that does: a model could run any program here."""
RULES_AGREE = (
    "gsm_symbolic", "leg_counting", "simple_equations", "chain_sum", "products", "basic_arithmetic", "letter_counting",
    "syllogism", "calendar_arithmetic", "family_relationships",
)  # fmt: skip
"""Tasks with one right answer on whose gold test (`tests/environments/gold.py`) our rules are never wrong. In
fraction_simplification they accept 2/4 for 1/2."""
TEMPLATES: dict[str, Callable[[Any, int, Entry], str]] = {
    "gsm_symbolic": lambda dataset, at, _: f"template-{dataset.task_indices[at]}",
    "calendar_arithmetic": lambda _, __, entry: str(entry["metadata"]["task"]),
    "time_intervals": lambda _, __, entry: str(entry["metadata"]["task_type"]),
}
"""Returns the template of an entry, for tasks that have several."""


def _by_value(entry: Entry, said: str) -> bool:
    """Verifies gsm_symbolic, whose own verifier ignores the sign of the first number and reads `1,200` as 1."""
    return final_number(said) == final_number(str(entry["answer"]))


def _of_these_numbers(score: Callable[[str, Entry], float], entry: Entry, said: str) -> bool:
    """Verifies countdown. Its verifier evaluates the answer, so only a short sum of whole numbers may reach it."""
    plain = said.replace("×", "*").replace("÷", "/").split("=")[0].strip()
    return bool(re.fullmatch(r"[-+*/() \d]{1,200}", plain)) and "**" not in plain and score(plain, entry) == 1.0


def gym_environment(name: str, options: dict[str, Any]) -> GymTask:
    """Returns the task of that name.

    Raises:
        UserError: the package is missing or has no such task, the task refuses the options, or its verifier would
            execute answers.
    """
    where = f"--env reasoning_gym:{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of one of its parts, where it is compiled by Python 3.12
            import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        fix = "pip install 'socratune[gym]' (one of its parts is compiled: apt-get install gcc python3-dev)"
        raise UserError(Fault(where, "the package reasoning-gym", Shown(str(error)), fix)) from None
    if name not in DATASETS:
        import difflib

        near = difflib.get_close_matches(name, DATASETS, n=3)
        fix = (
            f"Did you mean {' or '.join(near)}?" if near else "docs/guides/environments.md names those that are tested."
        )
        raise UserError(Fault(where, f"one of the {len(DATASETS)} tasks of reasoning-gym", name, fix))
    if name in EXECUTES:
        raise UserError(Fault(where, "a task whose verifier only reads the answer", Shown("one that executes it")))
    if reserved := options.keys() & {"seed", "size"}:
        raise UserError(Fault(where, "options of the task", ", ".join(reserved), "Give --env-seed and --env-size."))
    task = GymTask(name, options, lambda seed: reasoning_gym.create_dataset(name, seed=seed, size=_MANY, **options))
    try:
        task.make(0)
    except (TypeError, AssertionError, ValueError) as error:
        fix = "Its options: reasoning_gym.factory.DATASETS[NAME][1]."
        raise UserError(Fault(where, "options that the task knows", Shown(str(error) or str(options)), fix)) from None
    return task


@dataclass(frozen=True)
class GymTask:
    """Wraps one task with its options as an `Environment`."""

    name: str
    options: dict[str, Any]
    make: Callable[[int], Any]

    def questions(self, seed: int) -> Iterator[Entry]:
        """Yields the entries. Entry `i` is drawn with `seed + i`, so neighbouring seeds would share nearly all."""
        own = int.from_bytes(hashlib.sha256(f"{self.name}/{seed}".encode()).digest()[:4], "big") >> 1
        dataset, failed = self.make(own), 0
        for at in range(_MANY):
            try:
                entry = dataset[at]
            except Exception:  # a generator that could not make one with these numbers
                failed += 1
                if failed >= _FAILS:
                    return
                continue
            failed = 0
            metadata = dict(entry["metadata"])
            solution = metadata.pop("answer_cot", None)
            row = {"question": entry["question"], "answer": str(entry["answer"]), "metadata": metadata}
            if solution:
                row["solution"] = re.sub(r"\n?####.*", "", str(solution)).strip()
            if name := TEMPLATES.get(self.name):
                row["template"] = name(dataset, at, entry)
            yield row

    def template(self, entry: Entry) -> str | None:
        """Returns the template's number or the kind of question."""
        return entry.get("template")

    def verify(self, entry: Entry, said: str) -> bool:
        """Returns True if the task's verifier scores 1. Our own code replaces verifiers that are broken."""
        if self.name == "gsm_symbolic":
            return _by_value(entry, said)
        score = self._scored.score_answer
        if self.name == "countdown":
            return _of_these_numbers(score, entry, said)
        return score(said, entry) == 1.0

    @cached_property
    def _scored(self) -> Any:
        return self.make(0)
