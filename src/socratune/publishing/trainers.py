"""Writes the settings of a training for other trainers: the files with which each is started.

trl           trl.yaml           trl sft --config trl.yaml
axolotl       axolotl.yaml       axolotl train axolotl.yaml
llamafactory  llamafactory.yaml  llamafactory-cli train llamafactory.yaml
ms-swift      swift.yaml         swift sft swift.yaml
unsloth       train.py           python train.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pprint import pformat
from typing import Any, Literal

import yaml

from socratune.config import EnhancedTrainingConfig
from socratune.errors import Fault, Shown
from socratune.publishing.annotators import ANNOTATORS
from socratune.training import UNSLOTH_LINEAR, length_and_decay, warmup_steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training, independent of the trainer.

    Attributes:
        model: what transformers loads: a folder, or a Hub id.
        rows: that are trained on.
        longest: tokens of the longest row allowed.
        kept: the epoch that Socratune kept; None where it has not trained yet.
    """

    model: str
    config: EnhancedTrainingConfig
    rows: int
    longest: int
    seed: int
    kept: int | None = None

    @property
    def epochs(self) -> int:
        """Returns how often each row is trained on, at most."""
        return length_and_decay(self.config)[0]

    @property
    def warmup(self) -> int:
        """Returns the number of steps in which the rate rises."""
        per_step = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        return warmup_steps(-(-self.rows // per_step) * self.epochs, self.config.warmup_ratio)

    @property
    def four_bit(self) -> bool:
        """Returns True if the base is loaded in 4 bits; `auto` depends on the GPU and means 16 bits here."""
        return self.config.load_in_4bit is True

    @property
    def checkpointing(self) -> bool:
        """Returns True if activations are recomputed; `auto` means yes, which always fits."""
        return self.config.gradient_checkpointing is not False

    def common(self) -> dict[str, Any]:
        """Returns the settings that transformers' TrainingArguments share with the trainers built on them."""
        config = self.config
        return {
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": config.per_device_train_batch_size,
            "gradient_accumulation_steps": config.gradient_accumulation_steps,
            "learning_rate": config.learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": self.warmup,
            "weight_decay": length_and_decay(config)[1],
            "max_grad_norm": config.max_grad_norm,
            "optim": "adamw_torch",
            "gradient_checkpointing": self.checkpointing,
            "bf16": True,
            "seed": self.seed,
            "logging_steps": 1,
            "save_strategy": "epoch",
            "report_to": "none",
            "output_dir": "output",
        }

    def lora(self, rank: str = "lora_rank") -> dict[str, Any]:
        """Returns the size of the adapter. `rank` is the trainer's name for its rank."""
        return {rank: self.config.r, "lora_alpha": self.config.lora_alpha, "lora_dropout": self.config.lora_dropout}


RowsAs = Literal["tokens", "arrow", "messages"]
SPOKEN_OF = ("use_rslora", "use_dora", "modules_to_save")
"""Settings of `train.peft` that all of them have."""
_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
_SHAREGPT: dict[str, Any] = {"formatting": "sharegpt", "tags": {**_TAGS, "system_tag": "system"}}


@dataclass(frozen=True, slots=True)
class Trainer:
    """A trainer of another project.

    Attributes:
        rows_as: `tokens`: train.jsonl of ids and labels, the very ones Socratune trains on; `arrow`: the same as a data
            set on disk, in `tokens/`; `messages`: it takes texts alone and writes the turns by templates of its own.
        files: name → text of what it is started with.
        command: that starts it, in the folder.
        preference: a pair of answers as its preference training reads it.
        differs: what it does otherwise, for people.
    """

    rows_as: RowsAs
    files: Callable[[Recipe], dict[str, str]]
    command: str
    preference: Callable[[dict[str, Any]], dict[str, Any]]
    differs: str = ""


def trainer_faults(name: str, config: EnhancedTrainingConfig) -> list[Fault]:
    """Returns why a training cannot be written for the trainer `name`; empty if it can."""
    if name not in TRAINERS:
        return [Fault("--for", f"one of {', '.join((*TRAINERS, *ANNOTATORS))}", name)]
    faults = []
    if config.method != "sft":
        fix = "Give --set train.method=sft --set train.learning_rate=1e-4; the pairs are in preference.jsonl."
        faults.append(
            Fault("train.method", f"sft, the only method whose settings can be written for {name}", config.method, fix)
        )
    for setting in config.peft.keys() - set(SPOKEN_OF):
        got = Shown("a setting that cannot be written for another trainer")
        fix = f"Add it to the files by hand, and export with --set train.peft='{{}}'. Known: {', '.join(SPOKEN_OF)}."
        faults.append(Fault(f"train.peft.{setting}", "only settings that every trainer has", got, fix))
    return faults


def _yaml(recipe: Recipe, trainer: str, values: dict[str, Any]) -> str:
    kept = f" (epoch {recipe.kept} here)" if recipe.kept else ""
    said = [
        f"Written by `socratune export-data`. In this folder: {TRAINERS[trainer].command}",
        "Unlike in Socratune, the rate rises a step later and ends at zero, not at a fiftieth of its peak, and",
        f"the last epoch is the result, not the epoch that is best on the dev rows{kept}.",
        *TRAINERS[trainer].differs.splitlines(),
    ]
    return "".join(f"# {line}\n" for line in said) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _targets(recipe: Recipe) -> list[str] | None:
    """Returns the names of the adapted layers, or None for all linear layers."""
    targets = recipe.config.target_modules
    return None if isinstance(targets, str) else targets


def _trl(recipe: Recipe) -> dict[str, str]:
    peft = recipe.config.peft
    values = {
        "model_name_or_path": recipe.model,
        "dtype": "bfloat16",
        "load_in_4bit": recipe.four_bit,
        "datasets": [{"path": "json", "data_files": "train.jsonl", "split": "train"}],
        "max_length": None,
        "packing": False,
        "use_peft": True,
        **recipe.lora("lora_r"),
        "lora_target_modules": _targets(recipe) or ["all-linear"],
        **{name if name[:4] == "use_" else f"lora_{name}": value for name, value in peft.items()},
        **recipe.common(),
    }
    return {"trl.yaml": _yaml(recipe, "trl", values)}


_AXOLOTL = {"per_device_train_batch_size": "micro_batch_size", "num_train_epochs": "num_epochs",
            "lr_scheduler_type": "lr_scheduler", "optim": "optimizer"}  # fmt: skip
_NOT_AXOLOTL = ("save_strategy", "report_to")


def _axolotl(recipe: Recipe) -> dict[str, str]:
    peft, targets = recipe.config.peft, _targets(recipe)
    values = {
        "base_model": recipe.model,
        "load_in_4bit": recipe.four_bit,
        "adapter": "qlora" if recipe.four_bit else "lora",
        **recipe.lora("lora_r"),
        **({"lora_target_linear": True} if targets is None else {"lora_target_modules": targets}),
        **{f"peft_{name}" if name[:4] == "use_" else f"lora_{name}": value for name, value in peft.items()},
        "datasets": [{"path": "train.jsonl", "ds_type": "json", "type": None}],
        "dataset_prepared_path": "prepared",
        "val_set_size": 0,
        "sequence_len": recipe.longest,
        "sample_packing": False,
        "train_on_inputs": False,
        **{_AXOLOTL.get(name, name): value for name, value in recipe.common().items() if name not in _NOT_AXOLOTL},
        "bf16": "auto",
        "saves_per_epoch": 1,
    }
    return {"axolotl.yaml": _yaml(recipe, "axolotl", values)}


def _llamafactory(recipe: Recipe) -> dict[str, str]:
    peft = dict(recipe.config.peft)
    if saved := peft.pop("modules_to_save", None):
        peft["additional_target"] = ",".join(saved)
    values = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": recipe.model,
        **({"quantization_bit": 4, "quantization_method": "bnb"} if recipe.four_bit else {}),
        "finetuning_type": "lora",
        **recipe.lora(),
        "lora_target": ",".join(_targets(recipe) or ["all"]),
        **peft,
        "tokenized_path": "tokens",
        "template": "empty",
        "dataset_dir": ".",
        "dataset": "socratune",
        "mask_history": True,
        "cutoff_len": recipe.longest,
        "packing": False,
        **{name: value for name, value in recipe.common().items() if name != "gradient_checkpointing"},
        "disable_gradient_checkpointing": not recipe.checkpointing,
    }
    pairs = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    known = {
        "socratune": {"file_name": "messages.jsonl", **_SHAREGPT, "columns": {"messages": "messages"}},
        "socratune_preference": {"file_name": "preference.jsonl", "ranking": True, **_SHAREGPT, "columns": pairs},
    }
    return {
        "llamafactory.yaml": _yaml(recipe, "llamafactory", values),
        "dataset_info.json": json.dumps(known, indent=2) + "\n",
    }


def _swift(recipe: Recipe) -> dict[str, str]:
    values = {
        "model": recipe.model,
        "use_hf": True,
        "tuner_type": "lora",
        "torch_dtype": "bfloat16",
        **({"quant_method": "bnb", "quant_bits": 4} if recipe.four_bit else {}),
        **recipe.lora(),
        "target_modules": _targets(recipe) or ["all-linear"],
        **recipe.config.peft,
        "dataset": ["train.jsonl"],
        "split_dataset_ratio": 0,
        "loss_scale": "default",
        "max_length": recipe.longest,
        "truncation_strategy": "delete",
        "packing": False,
        **recipe.common(),
    }
    return {"swift.yaml": _yaml(recipe, "ms-swift", values)}


_SCRIPT = '''"""Written by `socratune export-data`: the same rows, labels and settings. Start it in this folder."""

from unsloth import FastLanguageModel  # first: it changes what follows

from datasets import load_dataset
from transformers import DataCollatorForSeq2Seq
from trl import SFTConfig, SFTTrainer

model, tokenizer = FastLanguageModel.from_pretrained(**{model})
model = FastLanguageModel.get_peft_model(model, **{adapter})

# ids and labels, -100 where there is no loss: no template, no mask to be found again by its words
rows = load_dataset("json", data_files="train.jsonl", split="train")
# The rate rises a step later than Socratune's and ends at zero; the last epoch is the result, not the best on dev rows.
arguments = SFTConfig(**{arguments})
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
    args=arguments,
)

if __name__ == "__main__":
    trainer.train()
    model.save_pretrained("output/adapter")
    tokenizer.save_pretrained("output/adapter")
'''


def _unsloth(recipe: Recipe) -> dict[str, str]:
    model = {
        "model_name": recipe.model,
        "max_seq_length": recipe.longest,
        "dtype": None,
        "load_in_4bit": recipe.four_bit,
    }
    adapter = {
        **recipe.lora("r"),
        "target_modules": _targets(recipe) or UNSLOTH_LINEAR,
        "bias": "none",
        "use_gradient_checkpointing": "unsloth" if recipe.checkpointing else False,
        "random_state": recipe.seed,
        **recipe.config.peft,
    }
    left_out = ("gradient_checkpointing", "bf16")  # Unsloth decides both by the card
    arguments = {name: value for name, value in recipe.common().items() if name not in left_out}
    arguments |= {"max_length": recipe.longest, "packing": False}
    parts = {"model": model, "adapter": adapter, "arguments": arguments}
    return {
        "train.py": _SCRIPT.format(
            **{name: pformat(value, sort_dicts=False, width=110) for name, value in parts.items()}
        )
    }


def _single(pair: dict[str, Any]) -> dict[str, Any]:
    """Returns the turns, and the preferred and the rejected answer as one message each."""
    chosen, rejected = pair["chosen"][0], pair["rejected"][0]
    return {"messages": pair["prompt"], "chosen": chosen, "rejected": rejected}


def _rejected_words(pair: dict[str, Any]) -> dict[str, Any]:
    """Returns the conversation with the preferred answer, and the text of the rejected one."""
    return {"messages": [*pair["prompt"], *pair["chosen"]], "rejected_response": pair["rejected"][0]["content"]}


_READY_TOKENS = """\
`template: empty` counts for nothing in this training: the rows are tokens already. Where the adapter is asked or
exported, give LLaMA-Factory's name for this model's template. `dataset` is read only without `tokens/`, and then whole
answers are trained: what carries no loss within one cannot be said in messages."""
_OWN_TEMPLATES = """\
ms-swift writes the turns by its own template of this model (another: `template`; a folder needs its `model_type`, too),
so its tokens may differ, and the line break behind an answer is trained. Passages without loss are messages of their
own with `loss: false`, which it joins; not with `template_backend: jinja`."""

TRAINERS = {
    "trl": Trainer("tokens", _trl, "trl sft --config trl.yaml", dict),
    "axolotl": Trainer("tokens", _axolotl, "axolotl train axolotl.yaml", _single),
    "llamafactory": Trainer("arrow", _llamafactory, "llamafactory-cli train llamafactory.yaml", _single, _READY_TOKENS),
    "ms-swift": Trainer("messages", _swift, "swift sft swift.yaml", _rejected_words, _OWN_TEMPLATES),
    "unsloth": Trainer("tokens", _unsloth, "python train.py", dict),
}
"""By the name that `--for` takes."""
