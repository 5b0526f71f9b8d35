"""Are generated questions worth asking? A person labels them without knowing who wrote which.

    python benchmarks/questions.py sheet A.jsonl B.jsonl …   writes sheet.jsonl: 50 rows of each file, shuffled
    python benchmarks/questions.py table [FILE]              counts the labels; without FILE, those in tests/samples

A label is four digits, 1 for yes: can somebody answer it who knows the subject and has not seen the text; does it have
one answer only; is the reference that answer; would a person ask it.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path

LABELLED = Path(__file__).parents[1] / "tests" / "samples" / "labelled_questions.jsonl"
SHEET = Path("sheet.jsonl")
EACH = 50


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def sheet(paths: list[Path]) -> None:
    """Writes the sheet. The name of the writer's file stands last in a row, so that it is out of sight."""
    draw, found = random.Random(0), []
    for path in paths:
        own = [row for row in rows_of(path) if "sibling_of" not in row["metadata"]]
        for row in draw.sample(own, min(EACH, len(own))):
            texts = [turn["content"] for turn in row["messages"][1:]]
            asked = {"label": "", "question": texts[0], "answer": texts[1], "evidence": row["metadata"]["evidence"]}
            found.append({**asked, "source": row["metadata"]["source"], "writer": f"{' ' * 400}{path.stem}"})
    draw.shuffle(found)
    SHEET.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in found), "utf-8")


def table(path: Path) -> None:
    labels = defaultdict(list)
    for row in rows_of(path):
        labels[row["writer"].strip()].append(row["label"])
    print("writer | questions | answerable | one answer | right reference | worth asking | all four")
    for writer, given in labels.items():
        counts = [sum(label[at] == "1" for label in given) for at in range(4)]
        whole = sum(label == "1111" for label in given)
        print(writer, len(given), *counts, f"{whole} ({whole / len(given):.0%})", sep=" | ")


if __name__ == "__main__":
    command, *names = sys.argv[1:]
    {
        "sheet": lambda: sheet([Path(name) for name in names]),
        "table": lambda: table(Path(names[0]) if names else LABELLED),
    }[command]()
