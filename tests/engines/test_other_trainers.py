"""What `socratune export-data` writes, read by the other trainers' own code for their settings and their rows.

They want each other's versions of everything, so their packages lie in a folder of their own without what they require
there, and a process of its own imports them (`make test-engines`). No model is trained here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from socratune.config import EnhancedTrainingConfig
from socratune.inference.template import IGNORE, render
from socratune.resolve import resolve_settings
from socratune.rows import Example, Piece
from socratune.runs.folder import RunDir, write_json, write_jsonl
from socratune.stages.export_rows import export_training

TRAINERS = Path(sys.prefix) / "trainers"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TRAINERS / "axolotl").is_dir(), reason="axolotl is not installed (make test-engines)"),
]

QUESTION = {"role": "user", "content": "What is 15 * 13?"}
ROWS = [
    Example("plain", [QUESTION], (Piece("15 * 10 = 150, and 15 * 3 = 45, so 195."),), "x"),
    Example("masked", [QUESTION], (Piece("180.", trained=False), Piece("\nAha! Split 13.\n"), Piece("195.")), "x"),
]
CONFIG = EnhancedTrainingConfig(r=8, lora_alpha=24, learning_rate=3e-3, num_train_epochs=5, max_seq_length=128)

AXOLOTL = """
import json, yaml
from axolotl.utils.schemas.config import AxolotlInputConfig
from datasets import load_dataset
config = AxolotlInputConfig(**yaml.safe_load(open("axolotl.yaml")))
rows = load_dataset("json", data_files=config.datasets[0].path, split="train")
assert config.datasets[0].type is None  # with these three columns it takes rows as they are
assert set(rows.features) == {"input_ids", "attention_mask", "labels"}
read = [config.lora_r, config.lora_alpha, config.learning_rate, config.num_epochs]
print(json.dumps({"settings": read, "labels": rows["labels"][:]}))
"""
LLAMAFACTORY = """
import json, sys, types, transformers, peft
sys.modules["torchaudio"] = types.ModuleType("torchaudio")  # which it imports to read sounds
sys.argv = ["train", "llamafactory.yaml", "bf16=false", "use_cpu=true"]
from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args, read_args
from transformers import AutoTokenizer
model, data, training, tuning, _ = get_train_args(read_args())
tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
template = get_template_and_fix_tokenizer(tokenizer, data)
rows = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer, processor=None)["train_dataset"]
batch = SFTDataCollatorWith4DAttentionMask(template=template, tokenizer=tokenizer)(list(rows))
kept = [labels[mask.bool()].tolist() for labels, mask in zip(batch["labels"], batch["attention_mask"])]
read = [tuning.lora_rank, tuning.lora_alpha, training.learning_rate, training.num_train_epochs]
print(json.dumps({"settings": read, "labels": kept}))
"""
MS_SWIFT = """
import json
from swift.cli.main import parse_yaml_args
given = ["swift.yaml"]
parse_yaml_args(given)
given += ["--bf16", "false", "--torch_dtype", "float32", "--model_type", "llama", "--template", "chatml"]
from swift.arguments import SftArguments
from swift.pipelines.train.sft import SwiftSft
from swift.utils import parse_args
args, rest = parse_args(SftArguments, given)
assert not rest
args.dataset_shuffle = False
rows = list(SwiftSft(args)._prepare_dataset()[0])
rows.sort(key=lambda row: len(row["input_ids"]))
read = [args.lora_rank, args.lora_alpha, args.learning_rate, args.num_train_epochs]
print(json.dumps({"settings": read, "labels": [list(row["labels"]) for row in rows]}))
"""


def read_by(trainer: str, script: str, folder: Path) -> dict[str, Any]:
    """What a trainer's own code makes of an export."""
    run = RunDir(folder / "run")
    run.root.mkdir()
    write_jsonl(run.rows("train"), (row.to_json() for row in ROWS))
    write_jsonl(run.enhanced, [])
    write_json(run.root / "pipeline_results.json", {"status": "incomplete", "stages": {}})
    given = CONFIG.model_dump(exclude_unset=True)
    config = resolve_settings({"model": "demo", "dataset": "demo", "output": str(run.root), "train": given}).config
    export_training(run, config, trainer)
    environment = {**os.environ, "PYTHONPATH": str(TRAINERS), "DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_HOME": str(folder / "hf"), "MODELSCOPE_CACHE": str(folder / "ms"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=run.root / "export" / trainer, env=environment, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


SETTINGS = [CONFIG.r, CONFIG.lora_alpha, CONFIG.learning_rate, CONFIG.num_train_epochs]


@pytest.mark.parametrize(("trainer", "script"), [("axolotl", AXOLOTL), ("llamafactory", LLAMAFACTORY)])
def test_its_own_code_reads_our_settings_and_our_labels(
    trainer: str, script: str, tokenizer: Any, tmp_path: Path
) -> None:
    found = read_by(trainer, script, tmp_path)
    assert found["settings"] == SETTINGS
    assert found["labels"] == [render(tokenizer, row).labels for row in ROWS]


def test_ms_swift_trains_the_passages_that_we_train(tokenizer: Any, tmp_path: Path) -> None:
    """With the template of the embedded model by ms-swift's name for it; it trains the line break behind, too."""
    found = read_by("ms-swift", MS_SWIFT, tmp_path)
    assert found["settings"] == SETTINGS

    def words(labels: list[int]) -> str:
        return tokenizer.decode([label for label in labels if label != IGNORE]).strip()

    expected = sorted((render(tokenizer, row) for row in ROWS), key=lambda row: len(row.ids))
    assert [words(labels) for labels in found["labels"]] == [words(row.labels) for row in expected]
    assert not any("180" in words(labels) for labels in found["labels"])
