"""Writes a comparison in words and numbers: the cells of its table, its sentences, and all of it as Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

COLUMNS = ("metric", "n", "A", "B", "gain of B", "95% interval", "p", "verdict")
_SHOWN = 5
"""Lost and won questions in the Markdown, each."""
_LONGEST = 200
"""Characters of a text in a cell."""


def compared_cells(result: dict[str, Any]) -> Iterator[tuple[list[str], str]]:
    """Yields (cells of `COLUMNS`, verdict) for every metric and its tasks. A worst-case row has no verdict."""
    for entry in result["metrics"]:
        yield _cells(entry["name"], entry), entry["verdict"]
        if worst := entry["worst_case"]:
            yield _cells("  at worst for B", {**entry, "a": None, "b": None, **worst, "p_adjusted": None}), ""
        for part in entry.get("by_task", ()):
            yield _cells(f"  {part['task']}", part), part["verdict"]


def _cells(name: str, entry: dict[str, Any]) -> list[str]:
    figure = _percent if entry["scale"] == "share" else _number
    low, high = entry["ci95"]
    sides = ["" if entry[side] is None else figure(entry[side], "") for side in ("a", "b")]
    mark = " ↓" if entry["lower_is_better"] else ""
    interval = f"{figure(low, '+')} … {figure(high, '+')}"
    p = (
        ""
        if entry["p_adjusted"] is None
        else "< 0.001"
        if entry["p_adjusted"] < 0.001
        else f"{entry['p_adjusted']:.3f}"
    )
    return [name + mark, f"{entry['n']:,}", *sides, figure(entry["difference"], "+"), interval, p]


def _percent(share: float, sign: str) -> str:
    return f"{share * 100 + 0.0:{sign}.1f}%"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3g}"


def compared_headline(result: dict[str, Any]) -> str:
    """Returns the outcome in a few words."""
    verdict = result["verdict"]
    return "Inconclusive" if verdict == "inconclusive" else f"B is {verdict_words(verdict)}"


def verdict_words(verdict: str) -> str:
    """Returns the verdict on B in words."""
    return {"not_worse": "not worse"}.get(verdict, verdict)


def compared_sentences(result: dict[str, Any]) -> list[str]:
    """Returns, one sentence each, what was compared, what did not match, what more rows would show, and all remarks."""
    a, b, matched = result["a"], result["b"], result["matched"]
    found = [
        f"{matched['questions']:,} questions matched by {matched['by']}: A {a['name']} ({_about(a)}), "
        f"B {b['name']} ({_about(b)})."
    ]
    names = {"only_a": "only in A", "only_b": "only in B", "other_question": "of another question in each",
             "ambiguous": "not equally often in both"}  # fmt: skip
    left_out = [f"{one['count']:,} {names[kind]} ({_examples(one)})" for kind, one in matched["unmatched"].items()]
    if left_out:
        found.append(f"Left out: {'; '.join(left_out)}.")
    found += [text for entry in result["metrics"] if (text := _needed(entry))]
    if result["correction"]:
        found.append(f"p is corrected for {len(result['metrics'])} metrics (Holm).")
    return found + result["remarks"]


def _examples(unmatched: dict[str, Any]) -> str:
    more = [] if unmatched["count"] == len(unmatched["examples"]) else ["…"]
    return ", ".join([*map(_short, unmatched["examples"]), *more])


def _about(side: dict[str, Any]) -> str:
    parts = [side["format"], *([side["model"]] if side["model"] else []), f"{side['questions']:,} questions"]
    return ", ".join([*parts, *([f"{side['samples']} samples each"] if side["samples"] > 1 else [])])


def _needed(entry: dict[str, Any]) -> str:
    """Returns what this many questions can show and how many would be enough. Empty if the verdict needs no more."""
    needed, shown = entry["rows_needed"], entry["detectable"]
    if shown is None or not needed:
        return ""
    size = _points if entry["scale"] == "share" else _number
    parts = [f"{entry['name']}: {entry['n']:,} questions can show a difference of {size(shown)}"]
    if needed["difference"]:
        parts.append(f"one of {size(abs(entry['difference']))} takes about {needed['difference']:,}")
    if "not_worse" in needed:
        takes = f"takes about {needed['not_worse']:,}" if needed["not_worse"] else "is out of reach"
        parts.append(f"to show that at most {size(entry['margin'])} are lost {takes}")
    return "; ".join(parts) + " (80% power)."


def _points(share: float) -> str:
    return f"{share * 100:.3g} points"


def compared_markdown(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns the comparison for a pull request. Texts of models are code, so that nothing in them renders."""
    lines = [f"### {compared_headline(result)}", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * 6 + "---|"]
    for cells, verdict in compared_cells(result):
        name = ("&nbsp;&nbsp;" if cells[0].startswith("  ") else "") + _code(cells[0].strip())
        lines.append("| " + " | ".join([name, *cells[1:], f"**{verdict_words(verdict)}**" if verdict else ""]) + " |")
    lines += ["", *(f"- {_plain(text)}" for text in compared_sentences(result))]
    lines += [
        f"- Gate: {'passed' if result['gate']['passed'] else 'failed. ' + ' '.join(result['gate']['reasons'])}",
        "",
    ]
    first = result["metrics"][0]
    for kind, sign in (("Lost", -1), ("Won", 1)):
        flips = [row for row in rows if sign * gain_of(row, first) > 0]
        flips.sort(key=lambda row: -abs(gain_of(row, first)))
        if flips:
            lines += _details(kind, flips, first["name"])
    return "\n".join(lines).rstrip() + "\n"


def gain_of(row: dict[str, Any], entry: dict[str, Any]) -> float:
    """Returns what B gains on a question by one metric, or 0 if the question was not scored."""
    means = []
    for scores in row["scores"].get(entry["name"], ([], [])):
        scored = [score for score in scores if score is not None]
        if not scored:
            return 0.0
        means.append(sum(scored) / len(scored))
    return means[0] - means[1] if entry["lower_is_better"] else means[1] - means[0]


def _details(kind: str, flips: list[dict[str, Any]], metric: str) -> list[str]:
    lines = [f"<details><summary>{kind} by {html.escape(metric)}: {len(flips):,}</summary>", ""]
    lines += ["| id | question | A | B |", "|---|---|---|---|"]
    for row in flips[:_SHOWN]:
        texts = [row["id"], row["question"], *((row[side] or [""])[0] for side in ("a", "b"))]
        lines.append("| " + " | ".join(map(_code, texts)) + " |")
    if len(flips) > _SHOWN:
        lines.append(f"\n{len(flips) - _SHOWN:,} more.")
    return [*lines, "", "</details>", ""]


def _code(text: str) -> str:
    """Returns a text as code for a table cell: one line without pipes or backticks."""
    shown = _short(text).replace("`", "ˋ").replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def _short(text: str) -> str:
    """Returns one line without invisible characters."""
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _plain(text: str) -> str:
    """Returns text that renders literally: ids and names come from files of others."""
    for character in "\\`*_[]<>@#|":
        text = text.replace(character, f"&#{ord(character)};")
    return text
