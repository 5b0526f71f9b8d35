"""Writes tests/samples/logs: real logs of lm-eval and inspect_ai, of a small model on small tasks, without a network.

    python -m venv /tmp/foreign && /tmp/foreign/bin/pip install 'lm-eval[hf]==0.4.13' inspect_ai==0.3.285
    /tmp/foreign/bin/python dev/foreign_logs.py FOLDER_OF_SMOLLM2 [--out tests/samples/logs] [--questions 10]

A is the model with the question alone, B with three solved examples before it. lm-eval asks sums (two filters) and
facts (multiple choice, with a metric of which less is better); inspect_ai asks every sum twice (two epochs, a scorer
with two values), as `.eval` and as JSON. Left out are what describes a machine in lm-eval's results, and the events in
the JSON, which nobody reads here and which are nine tenths of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAME = "SmolLM2-135M-Instruct"
KEPT = ("results", "configs", "higher_is_better", "n-shot", "n-samples", "lm_eval_version", "model_name")
FACTS = (
    ("capital of France", "Paris", "Rome Lyon Nice"), ("opposite of hot", "cold", "warm blue loud"),
    ("colour of the sky on a clear day", "blue", "green red brown"),
    ("number of days in a week", "seven", "five nine ten"),
    ("animal that barks", "dog", "cat cow hen"), ("frozen form of water", "ice", "steam sand wood"),
)  # fmt: skip
SUMS_TASK = """task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n", "Question:"], do_sample: false, max_gen_toks: 16}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "^ ?(-?[0-9]+)\\\\.?$"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, group_select: -1, regex_pattern: "(-?[0-9]+)"}, {function: take_first}]
"""
FACTS_TASK = """task: facts
dataset_path: json
dataset_kwargs: {data_files: {test: facts.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}, {metric: brier_score, aggregation: brier_score, higher_is_better: false}]
"""


def sums(count: int) -> list[dict[str, str]]:
    """Questions, some of one source."""
    draw = random.Random(7)
    pairs = [(draw.randint(2, 60), draw.randint(2, 60)) for _ in range(count)]
    return [{"question": f"What is {a} + {b}?", "answer": str(a + b), "source": f"tens_{a // 10}"} for a, b in pairs]


def facts() -> list[dict[str, Any]]:
    """Multiple choice, each fact in two wordings."""
    draw, rows = random.Random(7), []
    for fact, answer, wrong in FACTS:
        for wording in ("What is the {}?", "Name the {}."):
            choices = [answer, *wrong.split()]
            draw.shuffle(choices)
            rows.append(
                {"question": wording.format(fact), "choices": choices, "label": choices.index(answer), "fact": fact}
            )
    return rows


def run_lm_eval(work: Path, out: Path) -> None:
    """Both tasks without and with three examples."""
    for name, shots in (("a", 0), ("b", 3)):
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={NAME},dtype=float32",
            "--tasks", "sums,facts", "--include_path", ".", "--num_fewshot", str(shots), "--log_samples",
            "--output_path", f"lm-{name}", "--device", "cpu", "--batch_size", "4",
        ]  # fmt: skip
        subprocess.run(command, cwd=work, check=True)
        folder = out / f"lm-eval-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / f"lm-{name}" / NAME, folder)
        for file in folder.glob("results_*.json"):
            whole = json.loads(file.read_text("utf-8"))
            file.write_text(json.dumps({key: whole[key] for key in KEPT if key in whole}, indent=1) + "\n", "utf-8")


def run_inspect(rows: list[dict[str, str]], out: Path) -> None:
    """The sums in two epochs, without and with three examples; B also as JSON with one epoch."""
    from inspect_ai import Task, eval as evaluate
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import Score, Target, match, mean, scorer
    from inspect_ai.solver import TaskState, generate, system_message

    @scorer(metrics={"words": [mean()], "brief": [mean()]})
    def form() -> Any:
        async def score(state: TaskState, target: Target) -> Score:
            count = len(state.output.completion.split())
            return Score(value={"words": count, "brief": "C" if count < 6 else "I"})

        return score

    solved = "Answer with the number alone. What is 3 + 4? 7. What is 20 + 31? 51. What is 12 + 9? 21."
    samples = [
        Sample(id=f"sum-{at}", input=row["question"], target=row["answer"], metadata={"source": row["source"]})
        for at, row in enumerate(rows)
    ]
    asked = get_model(f"hf/{NAME}", device="cpu")
    for name, solvers, epochs, form_of in (
        ("a", [generate()], 2, "eval"), ("b", [system_message(solved), generate()], 2, "eval"),
        ("b-json", [system_message(solved), generate()], 1, "json"),
    ):  # fmt: skip
        config = GenerateConfig(max_tokens=16, temperature=0.7, seed=1, max_connections=1)
        task = Task(dataset=MemoryDataset(samples, name="sums"), solver=solvers, scorer=[match(numeric=True), form()],
                    name="sums", config=config)  # fmt: skip
        with TemporaryDirectory() as logs:
            evaluate(task, model=asked, epochs=epochs, log_dir=logs, log_format=form_of, display="none")  # type: ignore[arg-type]
            (written,) = Path(logs).iterdir()
            to = out / f"inspect-{name.removesuffix('-json')}.{form_of}"
            shutil.copy(written, to)
            if form_of == "json":
                whole = json.loads(to.read_text("utf-8"))
                for sample in whole["samples"]:
                    del sample["events"], sample["events_data"]
                to.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")


def main() -> None:
    """Parse, write the tasks, run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "samples" / "logs")
    parser.add_argument("--questions", type=int, default=10)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows = sums(given.questions)
    with TemporaryDirectory() as place:
        work = Path(place)
        (work / NAME).symlink_to(given.model.resolve())
        for name, text in (("sums", SUMS_TASK), ("facts", FACTS_TASK)):
            (work / f"{name}.yaml").write_text(text, "utf-8")
        for name, found in (("sums", rows), ("facts", facts())):
            (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
        run_lm_eval(work, out)
        os.chdir(work)  # so that the model's name is its folder
        run_inspect(rows, out)


if __name__ == "__main__":
    main()
