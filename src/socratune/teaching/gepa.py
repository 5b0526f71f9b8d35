"""Runs GEPA: evolves one system prompt by the judge's verdicts on its answers. Nothing is trained.

A model reads answers and verdicts and writes another instruction; those that are best on some question are gone on from
(Agrawal et al. 2025, arXiv:2507.19457). The search is that of the authors' package `gepa`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from socratune.errors import StageFailed
from socratune.llm import GENERIC_PROMPTS, with_system_prompt
from socratune.rows import QARow

_PART = "instruction"

Answering = Callable[[list[QARow]], Sequence[Mapping[str, Any]]]
"""Maps questions to answers, each with `response` and `verdict`."""


def evolve_instruction(
    train: Sequence[QARow],
    dev: Sequence[QARow],
    answer: Answering,
    reflect: Callable[[str], str],
    *,
    calls: int,
    seed: int,
) -> str:
    """Returns the instruction that is best on the dev rows.

    Args:
        train: questions whose answers are reflected on.
        reflect: what a model says to a prompt.
        calls: answers of the student's at most, but for the last batch.

    Raises:
        StageFailed: the package `gepa` is not installed.
    """
    try:
        from gepa.api import optimize  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise StageFailed("the package gepa is not installed (pip install 'socratune[gepa]')") from None
    result = optimize(
        {_PART: GENERIC_PROMPTS[0]},
        list(train),
        list(dev),
        adapter=_Student(answer),
        reflection_lm=reflect,
        max_metric_calls=calls,
        logger=_Silent(),
        seed=seed,
    )
    return result.best_candidate[_PART]


class _Student:
    """Implements the `GEPAAdapter` that `gepa` calls."""

    propose_new_texts = None

    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    def evaluate(self, batch: list[QARow], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        """Returns an `EvaluationBatch` with 1 for each right answer and 0 for any other."""
        from gepa.core.adapter import EvaluationBatch  # pyright: ignore[reportMissingImports]

        asked = [with_instruction(row, candidate[_PART]) for row in batch]
        answers = list(self._answer(asked))
        scores = [float(answer["verdict"] == "correct") for answer in answers]
        return EvaluationBatch(answers, scores, list(zip(batch, answers, strict=True)) if capture_traces else None)

    def make_reflective_dataset(self, candidate: dict[str, str], batch: Any, parts: list[str]) -> Mapping[str, Any]:
        """Returns what the reflecting model reads."""
        read = [
            {
                "Inputs": row.question,
                "Generated Outputs": answer["response"],
                "Feedback": f"The answer is {answer['verdict']}. The reference answer: {row.reference}",
            }
            for row, answer in batch.trajectories
        ]
        return dict.fromkeys(parts, read)


class _Silent:
    def log(self, message: str) -> None:
        pass


def with_instruction(row: QARow, text: str) -> QARow:
    """Returns the row with an instruction appended to its system prompt."""
    return replace(row, messages=[*with_system_prompt(row.prompt, text), row.messages[-1]])
