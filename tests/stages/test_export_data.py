"""What a run would train on, handed to another trainer: the same tokens, the same masks, the same settings."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import socratune

from socratune.config import DEMO_DATA, RunConfig
from socratune.errors import UserError
from socratune.inference.template import IGNORE, render
from socratune.publishing.trainers import TRAINERS
from socratune.resolve import resolve_settings
from socratune.rows import Attempt, Example, Piece, QARow, Trace
from socratune.runs.folder import RunDir, write_json, write_jsonl
from socratune.stages.export_rows import export_training

QUESTION = {"role": "user", "content": "What is 15 * 13?"}
MULTI_TURN = [QUESTION, {"role": "assistant", "content": "180."}, {"role": "user", "content": "Again?"}]
ROWS = [
    Example("plain", [QUESTION], (Piece("15 * 10 = 150, and 15 * 3 = 45, so 195."),), "solved_first_try"),
    Example("masked", [QUESTION], (Piece("180.", trained=False), Piece("\nAha! Split 13.\n"), Piece("195."))
            , "solved_with_hint"),
    Example("turns", MULTI_TURN, (Piece("195."),), "solved_first_try"),
]  # fmt: skip
TRACES = [
    Trace(QARow("masked", [QUESTION, {"role": "assistant", "content": "195"}], {}), "solved_with_hint",
          (Attempt(1, "180.", "incorrect", "number", hint="Split 13."),
           Attempt(2, "195.", "correct", "number", given="hint")), "direct", {}, chosen=2),
]  # fmt: skip
TRAINING = {"r": 8, "lora_alpha": 24, "learning_rate": 3e-3, "num_train_epochs": 5, "warmup_ratio": 0.4}
BATCH = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def curated(folder: Path, rows: list[Example] = ROWS, **train: Any) -> tuple[RunDir, RunConfig]:
    """A run folder with curated rows."""
    run = RunDir(folder / "run")
    run.root.mkdir()
    write_jsonl(run.rows("train"), (row.to_json() for row in rows))
    write_jsonl(run.enhanced, (trace.to_json("195") for trace in TRACES))
    settings = {"model": "demo", "dataset": "demo", "output": str(run.root), "train": {**TRAINING, **BATCH, **train}}
    run.config.write_text(yaml.safe_dump(settings))
    write_json(run.root / "pipeline_results.json", {"status": "incomplete", "stages": {}})
    return run, resolve_settings(settings).config


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("to", ["trl", "axolotl", "unsloth", "llamafactory"])
def test_the_rows_are_the_very_tokens_and_labels_of_our_training(to: str, tmp_path: Path, tokenizer: Any) -> None:
    run, config = curated(tmp_path)
    said = export_training(run, config, to)
    place = run.root / "export" / to
    if to == "llamafactory":
        from datasets import Dataset

        found = Dataset.load_from_disk(str(place / "tokens")).to_list()
    else:
        found = lines(place / "train.jsonl")
    mine = [render(tokenizer, row) for row in ROWS]
    assert [row["input_ids"] for row in found] == [row.ids for row in mine]
    assert [row["labels"] for row in found] == [row.labels for row in mine]
    assert all(row.keys() == {"input_ids", "attention_mask", "labels"} for row in found)
    assert "1 answers hold passages without loss" in said and str(place) in said


def test_ms_swift_is_told_the_masks_message_by_message(tmp_path: Path) -> None:
    run, config = curated(tmp_path)
    export_training(run, config, "ms-swift")
    plain, masked, turns = (row["messages"] for row in lines(run.root / "export/ms-swift/train.jsonl"))
    assert [turn.get("loss") for turn in plain] == [None, True]
    assert [(turn["content"], turn["loss"]) for turn in masked[1:]] == [
        ("180.", False), ("\nAha! Split 13.\n", True), ("195.", True),
    ]  # fmt: skip
    assert [turn.get("loss") for turn in turns] == [None, False, None, True]


def test_the_same_rows_in_words_and_the_pairs_and_hints(tmp_path: Path) -> None:
    run, config = curated(tmp_path)
    for to in TRAINERS:
        export_training(run, config, to)
        place = run.root / "export" / to
        assert [row["id"] for row in lines(place / "messages.jsonl")] == ["plain", "masked", "turns"]
        assert lines(place / "messages.jsonl")[1]["messages"][-1]["content"] == "180.\nAha! Split 13.\n195."
        (pair,) = lines(place / "preference.jsonl")
        assert "180." in json.dumps(pair) and "195." in json.dumps(pair)
        assert (place / "sdft.jsonl").exists() == (to == "trl")
    assert lines(run.root / "export/ms-swift/preference.jsonl")[0]["rejected_response"] == "180."
    assert lines(run.root / "export/axolotl/preference.jsonl")[0]["rejected"]["content"] == "180."
    assert lines(run.root / "export/trl/sdft.jsonl")[0]["privileged_context"] == "Split 13."


def settings_in(place: Path, to: str) -> dict[str, Any]:
    """Every setting in a trainer's file, by name."""
    if to != "unsloth":
        (file,) = place.glob("*.yaml")
        return yaml.safe_load(file.read_text("utf-8"))
    tree = ast.parse((place / "train.py").read_text("utf-8"))
    given = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and isinstance(node.value, ast.Dict)]
    return {name: value for node in given for name, value in ast.literal_eval(node.value).items()}


NAMES = {
    "r": ("r", "lora_r", "lora_rank"),
    "lora_alpha": ("lora_alpha",),
    "learning_rate": ("learning_rate",),
    "num_train_epochs": ("num_train_epochs", "num_epochs"),
    "per_device_train_batch_size": ("per_device_train_batch_size", "micro_batch_size"),
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
}


@pytest.mark.parametrize("to", TRAINERS)
def test_every_trainer_is_told_the_same_settings(to: str, tmp_path: Path) -> None:
    run, config = curated(tmp_path, peft={"use_rslora": True, "modules_to_save": ["lm_head"]}, lora_dropout=0.125)
    export_training(run, config, to, out=str(tmp_path / "there"))
    found = settings_in(tmp_path / "there", to)
    for ours, names in NAMES.items():
        (value,) = (found[name] for name in names if name in found)
        assert value == {**TRAINING, **BATCH}[ours], ours
    assert found["lora_dropout"] == 0.125 and found["warmup_steps"] == 4  # of ten steps
    assert any(found.get(name) is True for name in ("use_rslora", "peft_use_rslora"))
    assert "lm_head" in str(found)
    assert str(DEMO_DATA / "base") in str(found)


def test_what_cannot_be_told_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    run, config = curated(tmp_path)

    def refused(to: str = "trl", **train: Any) -> str:
        given = config.model_copy(update={"train": config.train.model_copy(update=train)})
        with pytest.raises(UserError) as error:
            export_training(run, given, to)
        assert not (run.root / "export").exists()
        return str(error.value)

    assert "trl, axolotl, llamafactory, ms-swift, unsloth" in refused("torchtune")
    assert "train.method=sft" in refused(method="dpo")
    assert "train.peft.layer_replication" in refused(peft={"layer_replication": [[0, 1]]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(UserError, match="something else"):
        export_training(run, config, "trl", out=str(tmp_path / "mine"))
    run.rows("train").unlink()
    assert "--until curate" in refused()


def test_rows_of_the_base_itself_are_handed_on_and_too_long_ones_are_not(tmp_path: Path) -> None:
    run, config = curated(
        tmp_path, [*ROWS, Example("long", [QUESTION], (Piece("so " * 400),), "x")], max_seq_length=128
    )
    replay = Example("replay-1", [{"role": "user", "content": "Hello?"}], (Piece("Hello."),), "replay")
    write_jsonl(run.rows("replay"), [replay.to_json()])
    export_training(run, config, "trl")
    place = run.root / "export/trl"
    assert [row["id"] for row in lines(place / "messages.jsonl")] == ["plain", "masked", "turns", "replay-1"]
    rows = lines(place / "train.jsonl")
    assert len(rows) == 4 and all(len(row["input_ids"]) <= 128 for row in rows)
    assert all(IGNORE in row["labels"] for row in rows)


def test_the_command_says_what_it_wrote_and_how_it_is_used(tmp_path: Path) -> None:
    run, _ = curated(tmp_path)
    done = socratune("export-data", run.root, "--for", "axolotl", "--set", "train.r=32")
    assert done.returncode == 0, done.stderr
    assert "3 rows" in done.stdout and "axolotl train axolotl.yaml" in done.stdout
    assert settings_in(run.root / "export/axolotl", "axolotl")["lora_r"] == 32
    again = socratune("export-data", run.root, "--for", "axolotl")
    assert again.returncode == 0 and settings_in(run.root / "export/axolotl", "axolotl")["lora_r"] == 8
    wrong = socratune("export-data", run.root, "--for", "trl", "--out", run.root)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
