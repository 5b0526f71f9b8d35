"""Decides whether the measurements let the adapter pass, with every reason against it, most important first.

Only `verdict_on` decides. Results, console, page, card, publish and export read its stored outcome with `proof_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from socratune.config import GateConfig
from socratune.evaluation.stats import FEWEST_CLUSTERS

MANY_LOST = 0.1
"""Share of the base's right answers that are lost, even if as many are won elsewhere, that deserves a warning."""

Tests = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """Holds the outcome of a validation: the entry `validation` of the results.

    Attributes:
        status: None if an earlier version wrote none.
        tests: the measurements, by name.
        reasons: why the adapter does not pass, in full sentences, most important first.
        warnings: what does not stop the adapter, but matters for reading the numbers.
    """

    status: Literal["passed", "failed"] | None
    tests: Tests
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    @property
    def reason(self) -> str:
        """Returns all reasons in one text, which is empty if the adapter passed."""
        return " ".join(self.reasons)

    @property
    def comparison(self) -> dict[str, Any]:
        """Returns base against adapter on the held-out questions, or an empty dict if there is no comparison."""
        return self.tests.get("base_comparison") or {}

    @property
    def files(self) -> dict[str, str]:
        """Returns the sha256 of every file of the validated adapter."""
        return self.tests["file_integrity"]["sha256"]

    @property
    def damage(self) -> list[str]:
        """Returns the problems of these files."""
        integrity = self.tests["file_integrity"]
        return [] if integrity["passed"] else integrity["problems"]

    def to_json(self) -> dict[str, Any]:
        """Returns the entry in the results."""
        told = {"status": self.status, "tests": self.tests, "warnings": list(self.warnings)}
        return {**told, "reason": self.reason, "reasons": list(self.reasons)} if self.reasons else told

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Proof:
        """Builds the outcome from `to_json`, also from other versions' entries."""
        reasons = data.get("reasons") or ([data["reason"]] if data.get("reason") else [])
        return cls(data.get("status"), data.get("tests") or {}, tuple(reasons), tuple(data.get("warnings") or ()))


def proof_of(results: dict[str, Any]) -> Proof | None:
    """Returns the outcome of the run's validation from its results, or None if it was not validated."""
    data = results.get("validation")
    return Proof.from_json(data) if data else None


def verdict_on(tests: Tests, gate: GateConfig, *, knowledge_rows: int, noted: Sequence[str] = ()) -> Proof:
    """Decides whether the adapter passes. A pure function: the same tests always give the same verdict.

    Args:
        tests: the tests as in the results. Tests that did not run have no entry.
        gate: the user's conditions.
        knowledge_rows: number of rows that taught a fact. Such a run must show that the facts are recalled. Questions
            about other sources may then stay unchanged, or lose `gate.max_held_out_loss`.
        noted: further warnings that the tests do not imply.
    """
    reasons, measured = _refusals(tests, gate, knowledge_rows), "base_comparison" in tests
    warned = [*_warnings(tests, knowledge_rows), *noted] if measured else []
    return Proof("failed" if reasons else "passed", tests, tuple(reasons), tuple(warned))


_HEADLINES = {
    "not_worse": ("Failed: not proven better", "open"),
    "inconclusive": ("Failed: inconclusive", "open"),
    "worse": ("Failed: worse than its base", "bad"),
}
_STATES = {
    "running": ("Running", ""),
    "incomplete": ("Not proven yet", ""),
    "stopped": ("Stopped", "open"),
    "interrupted": ("Interrupted", "open"),
    "error": ("Ended in an error", "bad"),
    "failed": ("Failed", "bad"),
    "passed": ("Passed", "good"),
}


def verdict_headline(results: dict[str, Any]) -> tuple[str, str]:
    """Returns a run's outcome in a few words, and its tone: `good`, `open`, `bad`, or empty without an outcome."""
    status, proof = str(results.get("status", "unknown")), proof_of(results)
    state = _STATES.get(status, (status.replace("_", " "), ""))
    word = proof.comparison.get("verdict") if proof else None
    if status == "passed" and word == "better":  # with another verdict it passed because it recalls the facts
        return "Better than its base", "good"
    return _HEADLINES.get(str(word), state) if status == "failed" else state


def why_not_passed(results: dict[str, Any]) -> str:
    """Returns why a run ended as it did: its error, or the gate's reasons, or an empty text without either."""
    proof = proof_of(results)
    return str(results.get("error") or (proof.reason if proof and results.get("status") == "failed" else ""))


def _refusals(tests: Tests, gate: GateConfig, knowledge_rows: int) -> list[str]:
    """Returns why the adapter does not pass, in full sentences; empty if it does."""
    integrity = tests["file_integrity"]
    if not integrity["passed"]:
        return [f"The adapter's files do not pass: {'; '.join(integrity['problems'])}."]
    if "base_comparison" not in tests:
        return ["No held-out rows: nothing can be proven. Raise split.held_out_share."]
    found = []
    if not tests["basic_inference"]["passed"]:
        found.append("The adapter answers with silence.")
    recalled, held_out = _gated_on_recall(tests, knowledge_rows), tests["base_comparison"]
    lost = held_out["difference"] < -gate.max_held_out_loss
    if held_out["verdict"] == "worse" or not (held_out["passed"] or (recalled and not lost)):
        found.append(_not_better(held_out, "held-out questions"))
    if recalled and not tests["recall"]["passed"]:
        found.append(_not_better(tests["recall"], "questions about what it was taught"))
    gained = tests["recall"] if recalled else held_out
    if gained["passed"]:
        found += _too_little(gained, gate)
        found += _one_answer_to_all(gained) if gate.beat_majority else []
    if _undecided_share(held_out) > gate.max_undecided_share:
        found.append(
            f"Of {_undecided_share(held_out):.0%} of the held-out questions an answer is undecided, more than the "
            f"{gate.max_undecided_share:.0%} of validate.gate.max_undecided_share. Give a judge model that can decide."
        )
    if not tests["forgetting"]["passed"]:
        found.append(_forgotten(tests["forgetting"]))
    if not tests["meters"]["passed"]:
        shifts = "; ".join(tests["meters"]["warnings"])
        found.append(f"On neutral prompts the adapter thinks otherwise than its base: {shifts}.")
    named = {"file_integrity", "basic_inference", "recall", "base_comparison", "forgetting", "meters"}
    others = [name for name, test in tests.items() if name not in named and isinstance(test, dict)]
    return found + [f"Failed: {name}." for name in others if not tests[name].get("passed", True)]


def _gated_on_recall(tests: Tests, knowledge_rows: int) -> bool:
    """Returns True if facts were taught and enough questions ask about them."""
    return knowledge_rows > 0 and "recall" in tests and tests["recall"]["clusters"] >= FEWEST_CLUSTERS


def _warnings(tests: Tests, knowledge_rows: int) -> list[str]:
    """Returns what does not stop the adapter, but matters for reading the numbers."""
    found = []
    for name, label in (("base_comparison", "held-out"), ("recall", "recall")):
        if tests.get(name, {}).get("interval") == "t":
            found.append(
                f"Only {tests[name]['clusters']} {label} sources: the interval is Student's t on their means, which is "
                "rough. Rows of more sources help, more rows of the same do not."
            )
    if knowledge_rows and not _gated_on_recall(tests, knowledge_rows):
        count = tests.get("recall", {}).get("n", 0)
        found.append(
            f"{knowledge_rows} rows taught facts, and {count} questions ask for them again (metadata.sibling_of): too "
            "few to tell. That the facts were learnt is not claimed."
        )
    if tests.get("forgetting") and not tests["forgetting"]["proven"] and tests["forgetting"]["passed"]:
        found.append(f"Forgetting is not ruled out: {tests['forgetting']['reason']}.")
    solved = tests.get("forgetting", {}).get("solved", {"n": 0, "lost": 0})
    if solved["lost"] > MANY_LOST * solved["n"]:
        found.append(
            f"Of the {solved['n']} other questions the base solves, {solved['lost']} are lost; what was won elsewhere "
            "makes up for it in the drop."
        )
    found += [f"On neutral prompts: {shift}." for shift in tests.get("meters", {}).get("warnings", [])]
    return found


def _not_better(comparison: dict[str, Any], questions: str) -> str:
    low, high = comparison["ci95"]
    figures = f"{comparison['difference']:+.1%} ({low:+.1%} … {high:+.1%})"
    if comparison["verdict"] == "worse":
        return f"On {questions} the adapter is worse than its base: {figures}."
    text = f"On {questions} the adapter is not proven better than its base: "
    text += f"{comparison['verdict'].replace('_', ' ')}, {figures}."
    if comparison["undecided"]["pairs"]:
        low, high = comparison["worst_case"]["ci95"]
        text += f" With undecided answers at their worst: {low:+.1%} … {high:+.1%}."
    if comparison.get("rows_needed"):
        text += f" About {comparison['rows_needed']} rows would show a gain of this size."
    return text


def _too_little(comparison: dict[str, Any], gate: GateConfig) -> list[str]:
    """Returns a reason if the proven gain is smaller than required, counted by the worse of both ways."""
    both = (comparison, comparison["worst_case"])
    gain, low = (min(found["difference"] for found in both), min(found["ci95"][0] for found in both))
    if gain < gate.min_gain:
        return [f"The adapter gains {gain:+.1%}, and validate.gate.min_gain asks for {gate.min_gain:+.1%}."]
    if low <= gate.min_lower_bound:
        wanted = f"{gate.min_lower_bound:+.1%}"
        return [f"The gain may be as small as {low:+.1%}; validate.gate.min_lower_bound asks for more than {wanted}."]
    return []


def _one_answer_to_all(comparison: dict[str, Any]) -> list[str]:
    """Returns a reason if the gain comes from giving the most frequent answer more often, which shows no reasoning."""
    most = comparison.get("majority", {})
    if "ci95" not in most or most["ci95"][0] > 0:
        return []
    low, high = most["ci95"]
    return [
        f"The adapter is not proven better than always answering {most['reference']!r}, which is right in "
        f"{most['accuracy']:.1%}: {most['difference']:+.1%} ({low:+.1%} … {high:+.1%}). Questions whose answers differ "
        "more can show it; validate.gate.beat_majority: false leaves this out."
    ]


def _undecided_share(comparison: dict[str, Any]) -> float:
    return comparison["undecided"]["pairs"] / max(comparison["worst_case"]["n"], 1)


def _forgotten(test: dict[str, Any]) -> str:
    text = f"Forgetting is not ruled out: {test['reason']}."
    if test["enough"]:
        return text + " More curate.replay_share, a lower learning rate or fewer epochs help."
    return text + (
        " Name questions it can answer (validate.forgetting), or go on without proof "
        "(validate.gate.max_forgetting: null in the configuration)."
    )
