"""Makes the items of a training by its method, from curated rows and traces of the same questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from socratune.config import EnhancedTrainingConfig, RunConfig
from socratune.errors import Fault, Shown, UserError
from socratune.inference import Rendered, render
from socratune.llm import chat_template, is_thinking, with_private_hint, with_private_reference
from socratune.rows import Attempt, Example, Piece, Trace
from socratune.runs import RunDir, iter_rows, review_decisions
from socratune.teaching import last_wrong_answer

if TYPE_CHECKING:  # a preflight needs no PyTorch
    from socratune.training import Distilled, Pair, Sampled, Weighted

_LACKS = {
    "dpo": ("rows with a wrong answer beside the right one", "Give the student harder questions"),
    "weights": ("rows whose samples are not all right", "Draw more samples (enhance.attempts, enhance.enough)"),
    "distil": (
        "wrong attempts and what the teacher said to them",
        "Name a teacher, or set train.distil.context=solution",
    ),
    "grpo": ("questions with right and wrong samples", "Draw more samples (enhance.attempts, enhance.enough), or hint"),
}


def as_items(method: str, replay: list[Rendered]) -> list[Any]:
    """Returns the base's own answers to neutral prompts as items of a method, at full weight and never clipped."""
    from socratune.training import Sampled, Weighted

    if method == "weights":
        return [Weighted(row, 1.0) for row in replay]
    return [Sampled(row, 1.0, off_policy=True) for row in replay] if method == "grpo" else replay


def method_faults(config: RunConfig) -> list[Fault]:
    """Returns why a method does not suit the model, by its small files."""
    distils = config.train.method == "distil" and not config.train.distil.thinking
    if not distils or not is_thinking(chat_template(config.model) or ""):
        return []
    fix = "Published losses are up to 40 % (arXiv:2603.24472). Take another method, or --force."
    got = Shown("one that thinks first")
    return [Fault("train.method: distil", "a model that answers at once", got, fix)]


def training_items(
    run: RunDir, config: EnhancedTrainingConfig, tokenizer: Any, rows: list[Rendered], longest: int
) -> tuple[list[Any], dict[str, int]]:
    """Returns the items of a training without replay, and their number by kind.

    Raises:
        UserError: the method has nothing to train on here.
    """
    if not config.reads_traces:
        return [*rows], {}
    make = {"dpo": _pairs, "weights": _weighted, "distil": _distilled, "grpo": _groups}[config.method]
    maker = _Maker(run, config, tokenizer, {row.id: row for row in rows}, longest)
    items = list(make(maker))
    if not items:
        expected, fix = _LACKS[config.method]
        fix += ", or train with method: sft."
        raise UserError(Fault(f"train.method: {config.method}", expected, Shown("none"), fix))
    if config.method == "distil":
        return [*rows, *items], {"attempts": len(items)}
    kind = {"dpo": "pairs", "weights": "weighted", "grpo": "answers"}[config.method]
    return items, {kind: len(items)}


@dataclass(frozen=True, slots=True)
class _Maker:
    """What the methods share: the traces, and answers rendered after a prompt."""

    run: RunDir
    config: EnhancedTrainingConfig
    tokenizer: Any
    right: Mapping[str, Rendered]
    longest: int

    def traces(self) -> Iterator[Trace]:
        """Yields the traces whose right answer is trained on."""
        return (trace for trace in iter_rows(self.run.enhanced, Trace.from_json) if trace.row.id in self.right)

    def rendered(self, trace: Trace, answer: Attempt | Piece, prompt: Any = None) -> Rendered | None:
        """Renders an answer after its question, or after another prompt. Returns None if it is too long."""
        piece = answer if isinstance(answer, Piece) else Piece(answer.response, token_ids=answer.token_ids)
        if not piece.text:
            return None
        row = render(self.tokenizer, Example(trace.row.id, prompt or trace.row.prompt, (piece,), trace.outcome))
        return row if len(row.ids) <= self.longest or prompt else None


def _pairs(make: _Maker) -> Iterator[Pair]:
    """Yields each row with the student's last wrong answer to its question, if there is one."""
    from socratune.training import Pair

    for trace in make.traces():
        if (wrong := last_wrong_answer(trace)) and (rejected := make.rendered(trace, wrong)):
            yield Pair(make.right[trace.row.id], rejected)


def _weighted(make: _Maker) -> Iterator[Weighted]:
    """Yields each row by what it teaches. A row whose samples are all right teaches nothing and is left out."""
    from socratune.training import Weighted, answer_weight

    for trace in make.traces():
        alone = trace.outcome == "solved_first_try"
        weight = answer_weight(trace.pass_rate or 0.0, alone=alone)
        if weight > 0:
            yield Weighted(make.right[trace.row.id], weight)


def _first_samples(trace: Trace) -> list[Attempt]:
    """Returns the student's decided answers before it was shown anything."""
    plain = takewhile(lambda attempt: attempt.given == "question", trace.attempts)
    return [attempt for attempt in plain if attempt.verdict != "undecided"]


def _groups(make: _Maker) -> Iterator[Sampled]:
    """Yields all samples of a question with their advantages. If all are wrong, the hinted answer joins them."""
    from socratune.training import Sampled, advantages

    for trace in make.traces():
        group = _first_samples(trace)
        rewards = [float(attempt.verdict == "correct") for attempt in group]
        answers: list[Any] = [make.rendered(trace, attempt) for attempt in group]
        if not any(rewards):
            rewards.append(1.0)
            answers.append(make.right[trace.row.id])
        for at, advantage in enumerate(advantages(rewards) or ()):
            if answers[at] is not None:
                yield Sampled(answers[at], advantage, off_policy=at >= len(group))


def _distilled(make: _Maker) -> Iterator[Distilled]:
    """Yields the student's attempts, each also rendered after the hint, or the solution, that the base sees."""
    from socratune.training import Distilled

    config, reviews = make.config.distil, review_decisions(make.run)
    rejected = {name for name, review in reviews.items() if review.decision == "reject"}
    solution = config.context == "solution"
    traces = iter_rows(make.run.enhanced, Trace.from_json) if solution else make.traces()
    for trace in traces:
        if trace.row.id in rejected:
            continue
        hints = [attempt.hint for attempt in trace.attempts if attempt.hint]
        if solution:
            prompt = with_private_reference(trace.row.prompt, trace.row.reference)
        elif hints and trace.outcome == "solved_with_hint":
            prompt = with_private_hint(trace.row.prompt, hints[-1])
        else:
            continue
        for attempt in _first_samples(trace):
            if attempt.verdict == "incorrect" or config.attempts == "all":
                row, seen = make.rendered(trace, attempt), make.rendered(trace, attempt, prompt)
                if row and seen and row.trained_ids == seen.trained_ids:
                    yield Distilled(row, seen)
