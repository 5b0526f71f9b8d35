"""Wraps environments of the package verifiers before version 0.3: modules with a function `load_environment`.

Only those of one turn: a question, a response, and a rubric that gives the whole response a reward.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from socratune.environments.protocol import Entry
from socratune.errors import Fault, Shown, UserError

_THRESHOLD = "right_from"
"""The reward from which a response is right. It is our option, not one of the environment."""
_ROUNDING = 1e-9
"""Tolerance for rewards, which are sums of weighted parts: .7 + .2 + .1 is less than 1."""


def verifiers_environment(name: str, options: dict[str, Any]) -> VerifiersTask:
    """Returns the environment of an installed module or of a folder.

    Raises:
        UserError: the package is missing or too new, there is no such environment, it raises, takes several turns, asks
            a model for its rewards, or compares responses with each other.
    """
    where = f"--env verifiers:{name}"
    try:
        import verifiers as vf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        fix = "pip install 'verifiers>=0.1.14,<0.3'"
        raise UserError(Fault(where, "the package verifiers", Shown(str(error)), fix)) from None
    single = getattr(vf, "SingleTurnEnv", None)
    if single is None:
        got = Shown("a version without SingleTurnEnv")
        raise UserError(Fault(where, "verifiers before 0.3", got, "pip install 'verifiers>=0.1.14,<0.3'"))
    threshold = options.get(_THRESHOLD, 1.0)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or threshold <= 0:
        raise UserError(Fault(where, f"{_THRESHOLD} as a number above 0", threshold))
    try:
        with _signals_left_alone():
            loaded = _module(where, name).load_environment(**{k: v for k, v in options.items() if k != _THRESHOLD})
    except UserError:
        raise
    except Exception as error:  # of somebody else's code
        got = Shown(f"{type(error).__name__}: {error}")
        raise UserError(Fault(where, "a function load_environment that gives an environment", got)) from error
    if not isinstance(loaded, single):
        got = Shown(f"one of the class {type(loaded).__name__}")
        raise UserError(Fault(where, "an environment of one turn (SingleTurnEnv)", got))
    rubrics = getattr(loaded.rubric, "rubrics", [loaded.rubric])
    if any(isinstance(rubric, vf.JudgeRubric) for rubric in rubrics):
        fix = "Take its questions as --dataset, and --judge-model for the judge."
        raise UserError(Fault(where, "a rubric of functions", Shown("one that asks a model"), fix))
    if loaded.rubric.has_group_rewards:
        raise UserError(Fault(where, "a reward for each response", Shown("one that compares several")))
    return VerifiersTask(where, loaded, float(threshold))


@dataclass(frozen=True)
class VerifiersTask:
    """Wraps an environment of one turn as an `Environment` that reads whole responses."""

    where: str
    loaded: Any
    right_from: float

    def questions(self, seed: int) -> Iterator[Entry]:
        """Yields the rows of its data set, shuffled by the seed."""
        for own in self.loaded.get_dataset().shuffle(seed=seed):
            row = json.loads(json.dumps(dict(own), default=str))  # as the rubric gets it back from a row's metadata
            if not str(row.get("answer") or "").strip():
                raise UserError(Fault(self.where, "rows with an `answer`", Shown(f"one with {', '.join(row)}")))
            yield {"question": self._asked(row["prompt"]), "answer": str(row["answer"]), "row": row}

    def verify(self, entry: Entry, said: str) -> bool | None:
        """Returns None: the rubric reads whole responses."""
        return None

    def template(self, entry: Entry) -> str | None:
        """Returns None: templates are unknown."""
        return None

    async def reward(self, entry: Entry, response: str) -> tuple[bool, str]:
        """Returns whether the rubric's reward reaches `right_from`, and the reward as text."""
        from verifiers.types import AssistantMessage, State  # pyright: ignore[reportMissingImports]

        row = dict(entry["row"])
        state = State(input=row, completion=[AssistantMessage(content=response)], trajectory=[])
        await self.loaded.rubric.score_rollout(state)
        reward = float(state["reward"])
        return reward >= self.right_from - _ROUNDING, f"reward {reward:g}"

    def _asked(self, prompt: Any) -> str:
        """Returns the text of a one-turn prompt: the system turn, then the question."""
        if isinstance(prompt, str):
            return prompt
        roles = [message["role"] for message in prompt]
        if roles not in (["user"], ["system", "user"]) or not all(isinstance(turn["content"], str) for turn in prompt):
            raise UserError(Fault(self.where, "prompts of one user turn in words", Shown(", ".join(roles))))
        return "\n\n".join(message["content"] for message in prompt)


def _module(where: str, name: str) -> ModuleType:
    """Returns the module that defines the environment.

    Raises:
        UserError: there is none, or it has no `load_environment`.
    """
    called = Path(name).name.replace("-", "_")
    files = [Path(name, called).with_suffix(".py"), Path(name, called, "__init__.py"), Path(name, "__init__.py")]
    if Path(name).is_dir():
        file = next((path for path in files if path.is_file()), None)
        spec = importlib.util.spec_from_file_location(called, file) if file else None
        if spec is None or spec.loader is None:
            raise UserError(Fault(where, f"{files[0]}, as verifiers lays its folders out", Shown("no such file")))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(called)
        except ModuleNotFoundError as error:
            if error.name != called:
                raise
            fix = "Install its package, or name its folder."
            raise UserError(Fault(where, "an installed module or a folder", Shown(f"no {called}"), fix)) from None
    if not callable(getattr(module, "load_environment", None)):
        raise UserError(Fault(where, "a function load_environment", Shown("none")))
    return module


@contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM for the run, because an environment takes both over when it is created."""
    real, signal.signal = signal.signal, lambda *_: None
    try:
        yield
    finally:
        signal.signal = real
