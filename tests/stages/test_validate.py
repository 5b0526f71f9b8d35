"""The proof as a whole: what it writes, what it refuses and why, whatever the user asks it besides."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import demo_rows, socratune, write_rows

from socratune.config import DEMO_DATA, GateConfig, StudentTeacherConfig, ValidateConfig
from socratune.evaluation.gate import verdict_on
from socratune.llm.locate import Base
from socratune.resolve import read_config_file
from socratune.rows import QARow
from socratune.runs.folder import RunDir, StageResult, write_jsonl
from socratune.runs.journal import Journal
from socratune.stages import validate

Results = Callable[[Path], Any]


def proof_of(run: Path, results_of: Results) -> dict[str, Any]:
    return results_of(run)["validation"]


def test_the_proof_is_written_down(copied_run: Path, results_of: Results) -> None:
    """With all questions that the embedded model knows, which are asked unless others are given."""
    config = yaml.safe_load((copied_run / "config.yaml").read_text())
    del config["validate"]["forgetting"]
    config["validate"]["gate"] |= {"max_forgetting": 0.1}  # six epochs on 176 rows cost it some sums
    (copied_run / "config.yaml").write_text(yaml.safe_dump(config))
    done = socratune("validate", copied_run, "--restart")
    assert done.returncode == 0, done.stderr
    proof = proof_of(copied_run, results_of)
    gate = GateConfig(**read_config_file(copied_run / "config.yaml")["validate"]["gate"])
    taught = results_of(copied_run)["stages"]["curate"]["outcomes"].get("solved_with_evidence", 0)
    assert verdict_on(proof["tests"], gate, knowledge_rows=taught).to_json() == proof  # by what is stored alone
    comparison = proof["tests"]["base_comparison"]
    assert proof["status"] == "passed" and comparison["passed"] and comparison["test"] == "mcnemar"
    rows = [json.loads(line) for line in (copied_run / "held_out_answers.jsonl").read_text().splitlines()]
    asked = [json.loads(line) for line in (copied_run / "held_out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    for who in ("base", "adapter"):
        right = sum(row[who]["verdict"] == "correct" for row in rows)
        assert comparison[f"{who}_accuracy"] == pytest.approx(right / len(rows))
    assert comparison["examples"]["wins"][0]["adapter"] in {row["adapter"]["response"] for row in rows}
    forgetting = proof["tests"]["forgetting"]
    assert forgetting["n"] == 432 and forgetting["solved"]["n"] >= 420  # of the embedded model's own facts and sums
    assert 0 < proof["tests"]["meters"]["mean_kl_nats"] < 0.1
    speed = proof["tests"]["performance"]
    assert 0 < speed["time_to_first_token_s"] < 5
    assert speed["prefill_tokens_per_second"] > speed["decode_tokens_per_second"] > 0


def scaled(factor: float) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = run / "adapter" / "adapter_model.safetensors"
        save_file(
            {name: value * factor if "lora_B" in name else value for name, value in load_file(path).items()}, path
        )

    return spoil


def for_another_base(run: Path) -> None:
    """An adapter of the same family and rank for a wider model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(DEMO_DATA / "base")
    config.update({"intermediate_size": config.intermediate_size * 2})
    lora = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_config(config), lora).save_pretrained(str(run / "adapter"))


@pytest.mark.parametrize(
    ("spoil", "verdict", "said"),
    [
        (scaled(-4.0), "worse", "On held-out questions the adapter is worse than its base: -"),
        (scaled(1e-6), "not_worse", "not proven better than its base: not worse, +0.0%"),
        (for_another_base, None, "another base than demo: model.layers.0.mlp.down_proj has"),
    ],
    ids=["worse than its base", "without effect", "of another base"],
)
def test_what_proves_nothing_is_refused_with_its_reason(
    copied_run: Path, spoil: Callable[[Path], None], verdict: str | None, said: str, results_of: Results
) -> None:
    spoil(copied_run)
    done = socratune("validate", copied_run)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    proof = proof_of(copied_run, results_of)
    assert said in proof["reasons"][0]
    assert proof["tests"].get("base_comparison", {}).get("verdict") == verdict
    assert proof["reason"] in done.stdout
    assert socratune("publish", copied_run, "--hub-id", "me/adapter").returncode == 1


def test_the_gate_is_what_the_user_says(copied_run: Path, results_of: Results) -> None:
    config = yaml.safe_load((copied_run / "config.yaml").read_text())
    config["validate"]["gate"] |= {"min_gain": 0.9}
    (copied_run / "config.yaml").write_text(yaml.safe_dump(config))
    done = socratune("validate", copied_run, "--restart")
    assert done.returncode == 1, done.stderr
    (reason,) = proof_of(copied_run, results_of)["reasons"]
    assert "min_gain asks for +90.0%" in reason


def test_prompts_of_ones_own_are_judged_one_by_one(copied_run: Path, tmp_path: Path, results_of: Results) -> None:
    given = [{"prompt": "What is 13 * 15?", "expected": 195}, {"prompt": "What is 13 * 15?", "expected": 7},
             {"prompt": "What is the capital of Peru?"}]  # fmt: skip
    prompts = write_rows(tmp_path / "prompts.jsonl", given)
    done = socratune("validate", copied_run, "--prompts", prompts)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = proof_of(copied_run, results_of)["tests"]["prompt_responses"]
    assert [(one["verdict"], one["passed"]) for one in shown] == [
        ("correct", True), ("incorrect", False), ("not_judged", None),
    ]  # fmt: skip
    assert "Lima" in shown[2]["response"]
    assert "not judged What is the capital of Peru? → " in done.stdout
    again = socratune("validate", copied_run, "--prompts", prompts)
    assert "(done before)" in next(line for line in again.stdout.splitlines() if line.startswith("validate"))
    prompts.unlink()
    assert "validate  all checks passed" in socratune("validate", copied_run).stdout  # what was proven stays proven
    missing = socratune("validate", copied_run, "--prompts", tmp_path / "none")
    assert missing.returncode == 2 and "--prompts" in missing.stderr


def test_tasks_of_lm_eval_need_lm_eval(copied_run: Path, results_of: Results) -> None:
    try:
        import lm_eval  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        done = socratune("validate", copied_run, "--lm-eval", "mmlu")
        assert done.returncode == 2
        assert "pip install 'socratune[lm-eval]'" in done.stderr
        return
    data = write_rows(
        copied_run / "sums.jsonl", [{"q": f"What is {a} + 21?", "a": f"{a} + 21 = {a + 21}."} for a in (12, 44)]
    )
    task = {
        "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 30},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (copied_run / "sums.yaml").write_text(yaml.safe_dump(task))
    done = socratune("validate", copied_run, "--lm-eval", copied_run / "sums.yaml")
    assert done.returncode == 0, done.stderr
    figures = proof_of(copied_run, results_of)["tests"]["lm_eval"]["sums"]
    assert figures["base"]["exact_match,none"] == figures["adapter"]["exact_match,none"] == 1


def proven(run: Path, *, model: str = "demo", knowledge_rows: int = 0, **settings: Any) -> StageResult:
    """The stage alone, on a folder with held-out rows and an adapter."""
    with closing(Journal(run / "journal.sqlite")) as journal:
        work = validate.validate_adapter(
            RunDir(run),
            ValidateConfig(**settings),
            Base(model, False, 0),
            asking=StudentTeacherConfig(max_new_tokens=96),
            knowledge_rows=knowledge_rows,
            spent={},
            journal=journal,
            key="validate.test",
            tick=lambda *at: None,
        )
        return asyncio.run(work)


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> Path:
    """Adapter and 40 held-out rows, nothing else."""
    run = tmp_path / "run"
    shutil.copytree(finished_run / "adapter", run / "adapter")
    lines = (finished_run / "held_out.jsonl").read_text().splitlines(keepends=True)
    (run / "held_out.jsonl").write_text("".join(lines[:40]))
    return run


def few_questions(tmp_path: Path, count: int) -> str:
    return str(write_rows(tmp_path / "general.jsonl", demo_rows("probe", count)))


def test_facts_that_were_taught_are_asked_for_again(folder: Path, tmp_path: Path) -> None:
    """Held-out questions where nothing can be gained, recall questions where much is: only teaching facts passes."""
    held_out = (folder / "held_out.jsonl").rename(folder / "recall.jsonl")
    known = [QARow(f"k{at}", row["messages"], {}, f"k{at}").to_json() for at, row in enumerate(demo_rows("probe", 40))]
    write_jsonl(folder / "held_out.jsonl", known)
    settings = {"forgetting": few_questions(tmp_path, 120), "gate": {"max_forgetting": 0.1}}
    skill = proven(folder, **settings).figures["validation"]
    assert skill["status"] == "failed" and skill["tests"]["recall"]["verdict"] == "better"
    knowledge = proven(folder, knowledge_rows=25, **settings).figures["validation"]
    assert knowledge["status"] == "passed", knowledge.get("reason")
    assert len((folder / "recall_answers.jsonl").read_text().splitlines()) == 40
    held_out.unlink()
    unproven = proven(folder, knowledge_rows=25, **settings).figures["validation"]
    assert unproven["status"] == "failed"
    assert any("not claimed" in text for text in unproven["warnings"])


def test_a_model_that_thinks_first_is_compared_by_drawn_answers(folder: Path, tmp_path: Path) -> None:
    """The embedded model behind a template with think tags is asked as a thinking model is: not greedily."""
    base = Path(shutil.copytree(DEMO_DATA / "base", tmp_path / "thinks"))
    for place in (base, folder / "adapter"):
        template = place / "chat_template.jinja"
        template.write_text("{#- <think> -#}" + template.read_text())
    settings = {"forgetting": few_questions(tmp_path, 120), "gate": {"max_forgetting": None}, "samples": 3}
    comparison = proven(folder, model=str(base), **settings).figures["validation"]["tests"]["base_comparison"]
    assert comparison["samples"] == 3 and comparison["test"] == "sign_flip"
    assert comparison["adapter_accuracy"] > comparison["base_accuracy"]
    assert comparison["adapter_accuracy"] * 120 % 1 == pytest.approx(0, abs=1e-6)


def test_too_few_general_questions_prove_nothing(folder: Path, tmp_path: Path) -> None:
    result = proven(folder, forgetting=few_questions(tmp_path, 30))
    assert result.failure and "the base solves only 30 of 30 questions" in result.failure
    assert "validate.gate.max_forgetting" in result.failure


def test_a_tiny_base_fails_the_shipped_questions_and_it_is_said(folder: Path) -> None:
    """What was shipped for real models proves nothing about one that cannot follow instructions."""
    result = proven(folder)
    assert result.failure and "of 450 questions" in result.failure
    assert result.figures["validation"]["tests"]["meters"]["prompts"] >= 200
