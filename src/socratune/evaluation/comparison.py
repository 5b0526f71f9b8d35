"""Compares base and adapter on the same questions: what was won and lost, how certainly, and the verdict.

An undecided answer is counted in two ways: once the pair is left out, once it is taken at its worst for the adapter
(the base's as right, the adapter's as wrong). A verdict must hold both ways, so an adapter cannot choose its own test
by answering vaguely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from socratune.config import ValidateConfig
from socratune.environments import environment_of
from socratune.evaluation.stats import Paired, cautious, compare_paired, paired_difference, rows_needed
from socratune.judging import final_answer, normalise
from socratune.rows import QARow

_EXAMPLES = 3
"""Number of wins, of losses and of ties. All answers are in `held_out_answers.jsonl`."""
LONGEST_EXAMPLE = 600  # characters

Answers = Sequence[dict[str, Any]]
"""Answers as `teaching.answer_and_judge` returns them, in the rows' order."""


def compare_answers(
    rows: list[QARow], base: Answers, adapter: Answers, config: ValidateConfig, seed: int
) -> dict[str, Any]:
    """Returns the paired comparison of the same questions in the form of the results.

    Accuracies, `difference`, `ci95` and `p` cover the decided pairs. `worst_case` covers all pairs, with the undecided
    answers at their worst. `verdict` is the more cautious of the two, and `passed` is True if it is `better`.
    """
    decided = [(score(one), score(other)) for one, other in zip(base, adapter, strict=True)]
    kept = [at for at, pair in enumerate(decided) if None not in pair]
    clusters = [row.cluster or row.id for row in rows]
    before, after = ([float(decided[at][side] or 0) for at in kept] for side in (0, 1))
    paired = _paired(before, after, [clusters[at] for at in kept], config, seed)
    worst_before, worst_after = [worst(answer, 1) for answer in base], [worst(answer, 0) for answer in adapter]
    worst_case = _paired(worst_before, worst_after, clusters, config, seed)
    margin = config.not_worse_margin
    verdict = cautious(compare_paired(paired, margin), compare_paired(worst_case, margin))
    change = {at: after - before for at, before, after in zip(kept, before, after, strict=True)}
    figures: dict[str, Any] = {
        "base_accuracy": _mean(before),
        "adapter_accuracy": _mean(after),
        "difference": paired.difference,
        "ci95": [paired.low, paired.high],
        "interval": paired.interval,
        "p": paired.p,
        "test": paired.test,
        "n": paired.rows,
        "clusters": paired.clusters,
        "samples": max((len(samples(answer)) for answer in (*base, *adapter)), default=1),
        "undecided": {"base": _undecided(base), "adapter": _undecided(adapter), "pairs": len(rows) - len(kept)},
        "worst_case": {
            "difference": worst_case.difference,
            "ci95": [worst_case.low, worst_case.high],
            "p": worst_case.p,
            "n": worst_case.rows,
        },
        "wins": sum(gain > 0 for gain in change.values()),
        "losses": sum(gain < 0 for gain in change.values()),
        "ties": sum(gain == 0 for gain in change.values()),
        "examples": _examples(rows, base, adapter, change),
        "verdict": verdict,
        "passed": verdict == "better",
    }
    figures |= told_of_questions(rows)
    if kept and FREQUENT <= figures["majority"]["accuracy"] < NEARLY_ALL and figures["majority"]["reference"]:
        others = [rows[at] for at in kept]
        figures["majority"] |= against_the_majority(figures["majority"]["reference"], others, after, config, seed)
    if kinds := _by_kind(rows, before, after, kept, config, seed):
        figures["by_kind"] = kinds
    if verdict in ("inconclusive", "not_worse"):
        figures["rows_needed"] = rows_needed(paired if len(kept) == len(rows) else worst_case)
    return figures


FREQUENT, NEARLY_ALL = 0.1, 0.95
"""From this share of the references on, an adapter is compared with always giving the most frequent one. If nearly all
references are equal, they are a wording that all rows share, and not answers for a judge to compare with."""


def against_the_majority(
    answer: str, rows: Sequence[QARow], adapter: list[float], config: ValidateConfig, seed: int
) -> dict[str, Any]:
    """Returns the adapter's lead over one answer to all rows: `difference` and `ci95`."""
    always = [float(_short(row) == answer) for row in rows]
    paired = _paired(always, adapter, [row.cluster or row.id for row in rows], config, seed)
    return {"difference": paired.difference, "ci95": [paired.low, paired.high]}


def _short(row: QARow) -> str:
    """Returns the reference's final answer, as references are counted."""
    return normalise(final_answer(row.reference))[:LONGEST_EXAMPLE]


LISTED_KINDS = 30
"""Most kinds (`metadata.kind`) for a table. With more, `kind` means something else, and nobody reads the table."""


def told_of_questions(rows: Sequence[QARow]) -> dict[str, Any]:
    """Describes the questions: `majority`, the most frequent answer and its share; `asks`, of an environment."""
    found: dict[str, Any] = {}
    if rows:
        [(answer, count)] = Counter(map(_short, rows)).most_common(1)
        found["majority"] = {"reference": answer, "accuracy": count / len(rows)}
    if rows and all(map(environment_of, rows)):
        # a row's source is its template only if whole templates are held out
        news = {
            "new numbers" if row.source is None or "sibling_of" in row.metadata else "new templates" for row in rows
        }
        found["asks"] = " and ".join(sorted(news, reverse=True))
    return found


def _by_kind(
    rows: Sequence[QARow], base: list[float], adapter: list[float], kept: list[int], config: ValidateConfig, seed: int
) -> dict[str, Any]:
    """Returns the comparison within each kind of question (`metadata.kind`) of the decided pairs, or an empty dict."""
    kinds: dict[str, list[int]] = {}
    for place, at in enumerate(kept):
        if (kind := rows[at].metadata.get("kind")) not in (None, ""):
            kinds.setdefault(str(kind), []).append(place)
    if len(kinds) > LISTED_KINDS:
        return {}
    found = {}
    for kind, places in sorted(kinds.items()):
        before, after = ([side[at] for at in places] for side in (base, adapter))
        found[kind] = _of_kind([rows[kept[at]] for at in places], before, after, config, seed)
    return found


def _of_kind(
    rows: list[QARow], base: list[float], adapter: list[float], config: ValidateConfig, seed: int
) -> dict[str, Any]:
    paired = _paired(base, adapter, [row.cluster or row.id for row in rows], config, seed)
    return {
        "n": len(rows),
        "base_accuracy": _mean(base),
        "adapter_accuracy": _mean(adapter),
        "difference": paired.difference,
        "ci95": [paired.low, paired.high],
        **told_of_questions(rows),
    }


def answer_rows(rows: list[QARow], base: Answers, adapter: Answers) -> list[dict[str, Any]]:
    """Returns the rows of `held_out_answers.jsonl`: question, reference, and both answers with their verdicts."""
    return [
        {
            "id": row.id,
            "question": row.question,
            "reference": row.reference,
            "base": _kept(one),
            "adapter": _kept(other),
        }
        for row, one, other in zip(rows, base, adapter, strict=True)
    ]


def _kept(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that a verdict can be derived from again, with further samples in `more`."""
    told = {name: answer[name] for name in ("response", "verdict", "judged_by", "reason", "stop") if name in answer}
    return told if "more" not in answer else {**told, "more": [_kept(one) for one in answer["more"]]}


def samples(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns all answers to a question: one, or several if several were drawn."""
    return [answer, *answer.get("more", [])]


def score(answer: dict[str, Any]) -> float | None:
    """Returns the share of right answers among the decided answers to a question, or None if none was decided."""
    decided = [sample["verdict"] == "correct" for sample in samples(answer) if sample["verdict"] != "undecided"]
    return sum(decided) / len(decided) if decided else None


def worst(answer: dict[str, Any], undecided: int) -> float:
    """Returns the share of right answers if an undecided answer counts as `undecided` (1 or 0)."""
    worth = {"correct": 1, "undecided": undecided, "incorrect": 0}
    drawn = samples(answer)
    return sum(worth[sample["verdict"]] for sample in drawn) / len(drawn)


def _paired(base: list[float], adapter: list[float], names: list[str], config: ValidateConfig, seed: int) -> Paired:
    return paired_difference(base, adapter, names, draws=config.bootstrap_draws, seed=seed)


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0


def _undecided(answers: Answers) -> int:
    """Counts the questions with an undecided answer."""
    return sum(any(sample["verdict"] == "undecided" for sample in samples(answer)) for answer in answers)


def _examples(rows: list[QARow], base: Answers, adapter: Answers, change: dict[int, float]) -> dict[str, Any]:
    kinds = {"wins": 1, "losses": -1, "ties": 0}
    found: dict[str, Any] = {}
    for kind, sign in kinds.items():
        places = [at for at, gain in change.items() if (gain > 0) - (gain < 0) == sign][:_EXAMPLES]
        found[kind] = [
            {
                "question": row.question[:LONGEST_EXAMPLE],
                "reference": row.reference[:LONGEST_EXAMPLE],
                "base": base[at]["response"][:LONGEST_EXAMPLE],
                "adapter": adapter[at]["response"][:LONGEST_EXAMPLE],
            }
            for at in places
            for row in (rows[at],)
        ]
    return found
