"""The proof in two halves: answers where the model is, verdicts here."""

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

from socratune import inference
from socratune.config import DEMO_DATA, RunConfig
from socratune.evaluation import exam
from socratune.evaluation.forgetting import no_judge
from socratune.llm.locate import Base
from socratune.runs.folder import RunDir
from socratune.runs.journal import Journal
from socratune.stages import validate

FILES = ("exam.jsonl", "exam.json")


def proven(run: Path, config: RunConfig) -> dict[str, Any]:
    """The entry `validation` of the stage alone, without what is measured in seconds."""
    with closing(Journal(run / "journal.sqlite")) as journal:
        work = validate.validate_adapter(
            RunDir(run), config.validate_, Base(config.model, config.train.load_in_4bit, config.seed),
            asking=config.enhance, knowledge_rows=0, spent={}, journal=journal, key="validate.test",
            tick=lambda *at: None,
        )  # fmt: skip
        found = asyncio.run(work).figures["validation"]
    assert found["tests"]["performance"]["tokens_per_second"] > 0
    del found["tests"]["performance"]
    return found


def send(run: Path, config: RunConfig, to: Path) -> Path:
    """What has to travel, and the adapter, where the model is."""
    shutil.copytree(run / "adapter", to / "adapter")
    for name, file in exam.exam_files(RunDir(run), config.validate_).items():
        shutil.copy(file, to / name)
    return to


def fetch(there: Path, here: Path) -> None:
    for name in FILES:
        shutil.copy(there / name, here / name)


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> Path:
    """Adapter, 40 held-out and 12 recall rows."""
    run = tmp_path / "run"
    shutil.copytree(finished_run / "adapter", run / "adapter")
    lines = (finished_run / "held_out.jsonl").read_text().splitlines(keepends=True)
    (run / "held_out.jsonl").write_text("".join(lines[:40]))
    (run / "recall.jsonl").write_text("".join(lines[40:52]))
    return run


def settings(tmp_path: Path, model: Path | str, **proof: Any) -> RunConfig:
    general = write_rows(tmp_path / "general.jsonl", demo_rows("probe", 120))
    proof = {"forgetting": str(general), "gate": {"max_forgetting": 0.1}, **proof}
    return RunConfig.model_validate(
        {"model": str(model), "dataset": "demo", "output": str(tmp_path / "run"), "enhance": {"max_new_tokens": 96},
         "validate": proof}
    )  # fmt: skip


@pytest.mark.parametrize("thinks", [False, True], ids=["plain", "thinks"])
def test_both_halves_are_the_whole(folder: Path, tmp_path: Path, thinks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With questions and prompts of the user's, whose files are not where the model is."""
    base = Path(shutil.copytree(DEMO_DATA / "base", tmp_path / "base"))
    for place in (base, folder / "adapter"):
        template = place / "chat_template.jinja"
        template.write_text(("{#- <think> -#}" if thinks else "") + template.read_text())
    prompts = tmp_path / "mine.txt"
    prompts.write_text("What is 13 * 15?\nSay sun.\n")
    config = settings(tmp_path, base, samples=3, prompts_file=str(prompts))
    there = send(folder, config, tmp_path / "there")
    whole = proven(Path(shutil.copytree(folder, tmp_path / "whole")), config)
    assert whole["tests"]["base_comparison"]["samples"] == (3 if thinks else 1)

    mine = [prompts, tmp_path / "general.jsonl"]
    for file in mine:
        file.rename(file.with_suffix(".away"))
    exam.take_exam_only(RunDir(there), config, lambda *at: None)
    for file in mine:
        file.with_suffix(".away").rename(file)
    fetch(there, folder)

    def no_model(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(inference, "load_model", no_model)
    monkeypatch.setattr("socratune.inference.load.load_model", no_model)
    assert proven(folder, config) == whole
    assert (folder / "held_out_answers.jsonl").read_text() == (tmp_path / "whole/held_out_answers.jsonl").read_text()
    lines = [json.loads(line) for line in (folder / "exam.jsonl").read_text().splitlines()]
    count = (40 + 12) * 2 * (3 if thinks else 1) + 120 * 2 + 2
    assert len({(line["paper"], line["side"], line["id"], line["sample"]) for line in lines}) == len(lines) == count


def altered_adapter(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    save_file({name: value * 1.001 for name, value in load_file(path).items()}, path)


def another_question(run: Path) -> None:
    path = run / "held_out.jsonl"
    path.write_text(path.read_text().replace("What is", "How much is", 1))


def altered_answer(run: Path) -> None:
    path = run / "exam.jsonl"
    path.write_text(path.read_text().replace(" = ", " = 1", 1))


def another_base(run: Path) -> None:
    path = run / "exam.json"
    told = json.loads(path.read_text())
    told["base"]["weights"] = "0" * 16
    path.write_text(json.dumps(told))


@pytest.mark.slow
def test_answers_of_something_else_are_not_used(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = settings(tmp_path, "demo")
    there = send(folder, config, tmp_path / "there")
    exam.take_exam_only(RunDir(there), config, lambda *at: None)
    fetch(there, folder)

    def found(run: Path, config: RunConfig = config) -> exam._Record | None:
        base = Base(config.model, config.train.load_in_4bit, config.seed)
        papers = {paper.name: paper for paper in exam.exam_papers(RunDir(run), config.validate_, no_judge)}
        how = exam.answering_manner(base, config.validate_, config.enhance)
        return exam.recorded_answers(RunDir(run), papers, how, base, config.validate_)

    assert found(folder) and not caplog.records
    cases: list[tuple[Callable[[Path], Any], str]] = [
        (altered_adapter, "taken by another adapter"),
        (another_question, "2 answers are missing"),
        (altered_answer, "its answers were altered"),
        (another_base, "has other weights"),
        (lambda run: (run / "exam.json").write_text("{}"), "base and adapter are asked anew"),
    ]
    for at, (alter, said) in enumerate(cases):
        run = Path(shutil.copytree(folder, tmp_path / str(at)))
        alter(run)
        assert found(run) is None and said in caplog.messages[-1]
    longer = config.model_copy(update={"enhance": config.enhance.model_copy(update={"max_new_tokens": 95})})
    assert found(folder, longer) is None and "asked otherwise" in caplog.messages[-1]
    (folder / "exam.json").unlink()
    before = len(caplog.messages)
    assert found(folder) is None and len(caplog.messages) == before


def test_the_command_needs_no_judge_and_no_key(
    copied_run: Path, tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    run, before = RunDir(copied_run), results_of(copied_run)["validation"]
    config = yaml.safe_load(run.config.read_text())
    there = send(copied_run, RunConfig.model_validate(config), tmp_path / "there")
    config["enhance"] |= {"judge_model": "openai/gpt-4o-mini"}
    (there / "config.yaml").write_text(yaml.safe_dump(config))
    done = socratune("validate", there, "--answers-only", env={"OPENAI_API_KEY": ""})
    assert done.returncode == 0, done.stderr
    assert "exam.jsonl" in done.stdout and not (there / "pipeline_results.json").exists()
    fetch(there, copied_run)
    done = socratune("validate", copied_run, "--restart")
    assert done.returncode == 0 and "asked anew" not in done.stderr, done.stderr
    after = results_of(copied_run)["validation"]
    told = json.loads((there / "exam.json").read_text())["measured"]
    assert after["tests"].pop("performance") == told["performance"] != before["tests"].pop("performance")
    assert after == before
    shutil.rmtree(there / "adapter")
    missing = socratune("validate", there, "--answers-only")
    assert missing.returncode == 2 and "socratune train" in missing.stderr
