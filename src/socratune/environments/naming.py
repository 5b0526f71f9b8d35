"""Finds the environments that `--env` names: `reasoning_gym:NAME(option=value,…)[,NAME…]`, `verifiers:MODULE`,
`python:FILE.py`.

Whatever is named gives three functions, and nothing else here asks which kind it is:

    questions(seed)        an iterator of entries, the same for the same seed: `question`, `answer`, perhaps `solution`
                           (a worked one), and whatever else the other two functions read
    verify(entry, said)    is `said`, the final answer in short, right? True, False, or None where it cannot tell
    template(entry)        the name of what the question was made from, or None where there is one form only
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from socratune.config import RunConfig
from socratune.environments.protocol import Entry, Environment
from socratune.errors import Fault, Shown, UserError
from socratune.llm import module_of

KINDS = "reasoning_gym:NAME[(option=value,…)][,NAME…], verifiers:MODULE[(option=value,…)] or python:FILE.py"


_TASK = re.compile(r"\s*([^,()\s]+)\s*(?:\(([^()]*(?:\([^()]*\)[^()]*)*)\))?\s*(?:,|$)")
_FUNCTIONS = ("questions", "verify", "template")
_GUIDE = "docs/guides/environments.md"


def named_environments(text: str) -> list[str]:
    """Returns the environments of a setting, each by its full name: `reasoning_gym:chain_sum(max_terms=2)`.

    Raises:
        UserError: that is no list of environments, or names one twice.
    """
    world, _, rest = text.partition(":")
    if world == "python" and rest:
        return [text]
    names, at = [], 0
    while at < len(rest) and (match := _TASK.match(rest, at)):
        names.append(f"{world}:{match.group(1)}" + (f"({match.group(2)})" if match.group(2) else ""))
        at = match.end()
    if world not in ("reasoning_gym", "verifiers") or not names or at < len(rest):
        raise UserError(Fault("--env", KINDS, text))
    kinds = [kind_of(name) for name in names]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise UserError(Fault("--env", "each environment once", Shown(f"{twice} twice")))
    return names


def kind_of(name: str) -> str:
    """Returns an environment's short name: `chain_sum`, the stem of a file, or the name of a folder."""
    world, _, rest = name.partition(":")
    return Path(rest).stem if world == "python" else Path(rest.partition("(")[0]).name


def options_of(name: str) -> dict[str, Any]:
    """Returns the options in an environment's name.

    Raises:
        UserError: they are not `option=value` with a number, a text, a list, True or False.
    """
    inner = name.partition("(")[2].removesuffix(")")
    try:
        call = ast.parse(f"f({inner})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(option.arg): ast.literal_eval(option.value) for option in call.keywords if option.arg}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(Fault(f"--env {name}", "options like (min_terms=2,max_terms=3)", inner)) from None


@lru_cache(64)
def environment(name: str) -> Environment:
    """Returns the environment of that name.

    Raises:
        UserError: there is none of that name, its package is missing, or its options are refused.
    """
    if name.startswith("python:"):
        return _own_file(name.removeprefix("python:"))
    if name.startswith("verifiers:"):
        from socratune.environments.verifiers_package import verifiers_environment

        return verifiers_environment(name.removeprefix("verifiers:").partition("(")[0], options_of(name))
    from socratune.environments.gym import gym_environment

    return gym_environment(kind_of(name), options_of(name))


def _own_file(path: str) -> Environment:
    where = f"--env python:{path}"
    if not Path(path).is_file():
        raise UserError(Fault(where, "an existing Python file", Shown(f"no file {path}")))
    module = module_of(path, where)
    if missing := [name for name in _FUNCTIONS if not callable(getattr(module, name, None))]:
        expected = "functions questions(seed), verify(entry, said) and template(entry)"
        raise UserError(Fault(where, expected, Shown(f"no {' and no '.join(missing)}"), _GUIDE))
    return _OwnFile(where, module)


@dataclass(frozen=True, slots=True)
class _OwnFile:
    """Wraps the functions of a user's file and reports what they raise as an error in that file.

    What `verify` raises is told by the judge, of the one answer that it could not judge.
    """

    where: str
    module: Any

    def questions(self, seed: int) -> Iterator[Entry]:
        with self._blamed("questions"):
            for entry in self.module.questions(seed):
                if not isinstance(entry, dict) or not {"question", "answer"} <= entry.keys():
                    raise UserError(Fault(self.where, "entries with `question` and `answer`", entry, _GUIDE))
                yield entry

    def verify(self, entry: Entry, said: str) -> bool | None:
        return self.module.verify(entry, said)

    def template(self, entry: Entry) -> str | None:
        with self._blamed("template"):
            return self.module.template(entry)

    @contextmanager
    def _blamed(self, function: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the user's own code may raise anything
            got = Shown(f"{type(error).__name__}: {error}")
            raise UserError(Fault(self.where, f"a function {function} that does not raise", got, _GUIDE)) from error


_GSM8K = re.compile(r"gsm[-_ ]?8k", re.IGNORECASE)


def environment_faults(config: RunConfig, *, asked: bool) -> list[Fault]:
    """Returns the errors in a run's environments and in a test that overlaps with them.

    Args:
        asked: they are still to give their questions; each is asked for a first one.
    """
    tasks = str(config.env.tasks)
    return [*(_task_faults(tasks) if asked else ()), *_template_faults(config, tasks)]


def _task_faults(tasks: str) -> list[Fault]:
    try:
        for name in named_environments(tasks):
            if next(iter(environment(name).questions(0)), None) is None:
                return [Fault(f"--env {name}", "questions", Shown("none"))]
    except UserError as error:
        return [*error.faults]
    except Exception as error:  # of somebody else's code
        got = Shown(f"{type(error).__name__}: {error}")
        return [Fault(f"--env {tasks}", "an environment that gives questions", got)]
    return []


def _template_faults(config: RunConfig, tasks: str) -> list[Fault]:
    if "gsm_symbolic" not in tasks:
        return []
    tests = {"split.held_out": [config.split.held_out], "split.eval_file": config.split.eval_file}
    proof = config.validate_
    tests |= {"validate.lm_eval": proof.lm_eval, "validate.prompts_file": [proof.prompts_file]}
    expected = "another test than GSM8K beside gsm_symbolic, whose templates are questions of GSM8K's test set"
    fix = "Leave it out: what gsm_symbolic shows is accuracy on templates that were held out."
    named = ((where, name) for where, names in tests.items() for name in names if name)
    return [Fault(where, expected, name, fix) for where, name in named if _GSM8K.search(name)]
