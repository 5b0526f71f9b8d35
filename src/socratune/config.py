"""The configuration: every setting, typed, with its default. `resolve.py` says where a value comes from."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from socratune.errors import Fault, Shown, UserError

log = logging.getLogger(__name__)

DEMO_DATA = Path(__file__).parent / "demo_data"
DEMO = "demo"  # the name of the embedded model and of the embedded data set

# --- how a setting is declared -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flag:
    """Marks a setting that can be given on the command line.

    Attributes:
        name: of the flag; None is the field's own name with dashes.
        metavar: what stands for the value in the help; None shows its type.
        commas: a list is given as one value with commas. Without it, a list's flag is repeated.
    """

    name: str | None = None
    metavar: str | None = None
    commas: bool = False


@dataclass(frozen=True, slots=True)
class Free:
    """Marks a setting, or a whole section, that changes no result, so that it may differ when a run goes on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as its field declares it. `key` is its dotted name in YAML."""

    key: str
    field: FieldInfo
    free: bool

    @property
    def flag(self) -> Flag | None:
        """Its mark, where it has a flag."""
        return next((mark for mark in self.field.metadata if isinstance(mark, Flag)), None)

    @property
    def flag_name(self) -> str | None:
        """`--teacher-model`, or None."""
        return self.flag and (self.flag.name or "--" + self.key.rpartition(".")[2].replace("_", "-"))

    @property
    def meaning(self) -> str:
        """The field's docstring, on one line."""
        return " ".join((self.field.description or "").split())

    @property
    def help(self) -> str:
        """The first sentence of its meaning."""
        return re.split(r"(?<=[.?]) ", self.meaning, maxsplit=1)[0].replace("`", "")

    @property
    def expected(self) -> str:
        """What it takes, as a fault says it: `a whole number from 1 to 64`."""
        return _expected(self.field.annotation, self.field.metadata)


def settings_of(section: type[BaseModel], prefix: str = "", *, free: bool = False) -> Iterator[Setting]:
    """Every setting of a section and of the sections in it.

    Args:
        prefix: the section's own key with a dot behind it.
        free: the section is marked so.
    """
    for name, field in section.model_fields.items():
        key, kind = prefix + (field.alias or name), field.annotation
        marked = free or any(isinstance(mark, Free) for mark in field.metadata)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{key}.", free=marked)
        else:
            yield Setting(key, field, marked)


def _expected(kind: Any, marks: Sequence[Any], *, several: bool = False) -> str:
    """A declared type and its bounds in words; `several`: of the elements of a list."""
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        more = [one for mark in more for one in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        return _expected(inner, [*marks, *more], several=several)
    if get_origin(kind) is Literal:
        return _either([str(word) for word in get_args(kind)])
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        return f"a list of {_expected(inner, marks, several=True)}"
    if get_origin(kind) not in (None, dict):  # a union
        return _either([_expected(part, marks, several=several) for part in get_args(kind) if part is not NoneType])
    if kind in (int, float):
        whole = "whole " if kind is int else ""
        return (f"{whole}numbers" if several else f"a {whole}number") + _bounds(marks)
    if kind is bool:
        return "true or false"
    if kind is str:
        form = next((pattern for mark in marks if (pattern := getattr(mark, "pattern", None))), None)
        filled = any(getattr(mark, "min_length", None) for mark in marks)
        text = "texts" if several else "text"
        return f"{text} of the form {form}" if form else f"{text} that is not empty" if filled else text
    return "a mapping, as in 'key: value'"


def _either(ways: list[str]) -> str:
    ways = list(dict.fromkeys(ways))
    return " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))


def _bounds(marks: Sequence[Any]) -> str:
    least, above, most, below = (
        next((value for mark in marks if (value := getattr(mark, name, None)) is not None), None)
        for name in ("ge", "gt", "le", "lt")
    )
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    lower = f"of at least {least:g}" if least is not None else f"above {above:g}" if above is not None else ""
    upper = f"at most {most:g}" if most is not None else f"below {below:g}" if below is not None else ""
    found = " and ".join(filter(None, [lower, upper]))
    return f" {found}" if found else ""


def section_faults(
    error: ValidationError, kind: type[BaseModel], given: Mapping[str, Any], where: str, near: Callable[[str], str]
) -> list[Fault]:
    """Every fault of a section's values, one to a setting, in words of our own.

    Args:
        given: what was validated.
        where: names the source of the values.
        near: what to write in the place of an unknown key.
    """
    declared = {setting.key: setting.expected for setting in settings_of(kind)}
    faults: dict[str, Fault] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        name = ".".join(parts)
        place = f"{where}: {name}"
        if item["type"] == "missing":
            faults[name] = Fault(place, "a value", Shown("nothing"))
        elif item["type"] == "extra_forbidden":
            faults[name] = Fault(place, "a known key", Shown("an unknown one"), near(name))
        elif item["type"] == "value_error":
            faults[name] = Fault(place, item["msg"].removeprefix("Value error, "), item["input"])
        else:
            while name not in declared and len(parts) > 1:  # behind the key: a branch of a union, a place in a list
                parts.pop()
                name = ".".join(parts)
            expected = declared.get(name)
            if expected is None:  # a whole section
                name = ".".join(str(part) for part in item["loc"])
                expected = "a mapping of settings, as in 'key: value'"
            got: Any = given
            for part in name.split("."):
                got = got.get(part, item["input"]) if isinstance(got, Mapping) else item["input"]
            faults[name] = Fault(f"{where}: {name}", expected, Shown("nothing") if got is None else got)
    return list(faults.values())


class _Door(type(BaseModel)):
    """Of sections that are made by hand: what is wrong is a `UserError`, as everywhere."""

    if not TYPE_CHECKING:  # so that the arguments are checked as a model's

        def __call__(cls, *args: Any, **values: Any) -> Any:
            try:
                return super().__call__(*args, **values)
            except ValidationError as error:
                raise UserError(*section_faults(error, cls, values, cls.__name__, cls._near)) from None


_LARGEST = 2**63 - 1
"""Of whole numbers: what the libraries count with."""


class Section(BaseModel, metaclass=_Door):
    """A section knows its keys and refuses all others.

    Raises:
        UserError: a section is made with a value that is none for its setting.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        populate_by_name=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_switch_and_no_giant(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` is no number, although Python counts it as 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool) and not {bool, Any}.intersection(leaves(kind)):
                raise PydanticCustomError("switch", "true and false are no value here")
            if isinstance(one, int) and abs(one) > _LARGEST:
                raise PydanticCustomError("giant", "too large")
        return value

    @classmethod
    def _near(cls, name: str) -> str:
        known = [field.alias or key for key, field in cls.model_fields.items()]
        close = difflib.get_close_matches(name, known, n=1)
        return f"Did you mean {close[0]}?" if close else "All keys: docs/reference/config.md."


def leaves(kind: Any) -> Iterator[Any]:
    """The types and the words that a declared type is made of."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif get_origin(kind) is Annotated:
        yield from leaves(get_args(kind)[0])
    elif parts := get_args(kind):
        for part in parts:
            yield from leaves(part)
    elif kind is not NoneType:
        yield kind


# --- the settings, section by section ------------------------------------------------------------------------------


class WhereConfig(Section):
    """The machine: on which the model answers and is trained."""

    place: Annotated[Literal["auto", "local", "runpod", "sky"], Flag("--where")] = "auto"
    """Where it is trained; auto: here if it fits, else on a rented machine if --max-usd or a setting of one says that
    it may be rented; `socratune plan` gives the reason."""
    gpus: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], Flag(metavar="N|all")] = 1
    """Cards of this machine that train together."""
    max_local_hours: float = Field(default=12.0, gt=0)
    """Without a card: how long training here may take by the estimate before a machine is rented instead."""
    pod_name: Annotated[str, Flag()] = Field(default="socratune", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,40}$")
    """What the names of rented machines begin with."""
    preferred_gpus: list[str] = ["H100 PCIe", "H100 SXM"]
    """Types of card to rent, the best first; the next where one is sold out."""
    gpu_count: int = Field(default=1, ge=1, le=8)
    """Cards of a rented machine."""
    cloud: Literal["secure", "community"] = "secure"
    """RunPod's own data centres, or machines of others."""
    image: str = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
    """The container image of a pod; it has to bring an SSH server, Python and CUDA."""
    disk_gb: Annotated[int, Field(ge=10)] | None = None
    """Disk of a rented machine. None: by the size of the model."""
    max_hours: float = Field(default=12.0, gt=0)
    """A rented machine ends itself after so long, whatever happens; earlier where its budget is spent."""
    api_base: Annotated[str, Flag(metavar="URL")] = "https://api.runpod.io/v2"
    """RunPod's REST API."""
    student_server: Literal["auto", "vllm", "socratune"] = "auto"
    """What serves the student on a rented machine. auto: vLLM where the image has it, else `socratune serve`."""
    send_hf_token: bool = False
    """Give the rented machine `HF_TOKEN`, for a base that is gated. No other key ever travels."""
    spot: bool = False
    """Cheap machines that may be taken away; training goes on elsewhere (SkyPilot only)."""
    sky: dict[str, Any] = {}
    """Further `resources` of the SkyPilot task: cloud, region, instance_type, …"""


RETIRED_NAMES = {
    "use_flash_attention_2": "the attention kernel is chosen by the library; the value has no effect",
}
"""Names of the guide under `train` that mean something else today: accepted, left out, and said so."""


FOREIGN_NAMES = {
    "model": "base_model model_name model_name_or_path pretrained_model_name_or_path model_id model_path "
    "base_model_name base_model_name_or_path pretrained_model",
    "dataset": "datasets dataset_path dataset_name dataset_dir data data_path data_file data_files train_file "
    "train_data train_dataset training_data",
    "output": "output_dir out_dir save_dir output_path output_folder",
    "hub_id": "hub_model_id hub_repo_id repo_id push_to_hub hub_repo push_to_hub_model_id",
    "seed": "random_seed random_state data_seed manual_seed",
    "report_to": "wandb_project use_wandb wandb log_with tracker use_mlflow mlflow_tracking_uri use_tensorboard",
    "publish.private": "private hub_private_repo",
    "split.held_out": "eval_dataset eval_dataset_path test_file test_dataset test_datasets validation_file val_file "
    "eval_data validation_data",
    "split.held_out_share": "val_set_size val_size test_size eval_size validation_split val_split eval_split",
    "train.method": "finetuning_type stage training_type trainer_type rl",
    "train.learning_rate": "lr max_lr peak_lr learningrate learning_rate_multiplier",
    "train.num_train_epochs": "epochs epoch num_epochs n_epochs max_epochs num_train_epoch train_epochs nb_epochs",
    "train.num_train_epochs, as a training's length is counted in epochs": "max_steps num_steps train_steps",
    "train.per_device_train_batch_size": "batch_size micro_batch_size train_batch_size per_device_batch_size "
    "per_gpu_train_batch_size mini_batch_size bs batch",
    "train.gradient_accumulation_steps": "gradient_accumulation grad_accum grad_accumulation "
    "gradient_accumulation_step grad_accumulation_steps accumulate_grad_batches accumulation_steps",
    "train.r": "lora_r lora_rank rank lora_dim peft_r lora_r_value",
    "train.lora_alpha": "alpha lora_scaling peft_alpha",
    "train.lora_dropout": "dropout lora_dropout_p",
    "train.target_modules": "lora_target lora_targets lora_target_modules lora_modules target_module "
    "lora_target_linear lora_layers",
    "train.peft, as in train.peft={use_dora: true}": "peft_config lora_config use_dora peft_use_dora use_rslora "
    "peft_use_rslora modules_to_save lora_modules_to_save bias lora_bias init_lora_weights loftq_config rank_pattern "
    "alpha_pattern layers_to_transform layers_pattern exclude_modules additional_target fan_in_fan_out",
    "train.max_seq_length": "cutoff_len sequence_len sequence_length seq_length seq_len max_seq_len max_length "
    "block_size model_max_length context_length ctx_len",
    "train.warmup_ratio, a share of the steps": "warmup_steps warmup num_warmup_steps lr_warmup_steps",
    "train.weight_decay": "wd decay l2",
    "train.max_grad_norm": "grad_clip gradient_clip gradient_clipping clip_grad_norm max_gradient_norm "
    "gradient_clip_val",
    "train.load_in_4bit": "load_in_4_bit use_4bit quantization_bit quantization qlora bits bnb_4bit_quant_type adapter "
    "bnb_4bit_compute_dtype quantization_config",
    "train.load_in_4bit or train.fp8, as there are no 8-bit weights": "load_in_8bit use_8bit load_in_8_bit",
    "train.gradient_checkpointing": "use_gradient_checkpointing grad_checkpointing disable_gradient_checkpointing "
    "gradient_checkpointing_kwargs activation_checkpointing",
    "train.by_dev.patience": "early_stopping_patience early_stopping",
    "where.gpus": "num_gpus n_gpu n_gpus devices num_processes nproc_per_node world_size deepspeed fsdp "
    "tensor_parallel_size",
    "enhance.student_model": "student",
    "enhance.teacher_model": "teacher teacher_llm teacher_model_name_or_path",
    "enhance.judge_model": "judge judge_llm grader reward_model",
    "enhance.judge_api_base or enhance.teacher_api_base": "api_base base_url openai_api_base openai_base_url api_url",
    "enhance.attempts": "num_samples n_samples num_return_sequences num_generations best_of",
    "enhance.max_new_tokens": "max_tokens max_completion_tokens max_output_tokens max_completion_length",
    "A key stands in the environment; enhance.endpoints.judge.api_key_env names the variable.": "api_key "
    "openai_api_key anthropic_api_key hf_token hub_token token",
    "Leave it out: the number format is chosen by the machine.": "bf16 fp16 tf32 dtype torch_dtype bf16_full_eval "
    "mixed_precision precision upcast_layernorm",
    "Leave it out: it is AdamW, and the rate falls as a cosine.": "optim optimizer lr_scheduler lr_scheduler_type "
    "scheduler adam_beta1 adam_beta2 adam_epsilon",
    "Leave it out: checkpoints, curves and the best epoch are kept without a setting.": "logging_steps logging_dir "
    "logging_strategy save_steps save_strategy save_total_limit eval_steps eval_strategy evaluation_strategy "
    "evals_per_epoch saves_per_epoch load_best_model_at_end overwrite_output_dir resume_from_checkpoint "
    "metric_for_best_model plot_loss",
    "Leave it out: rows are packed, and never cut.": "packing sample_packing pad_to_sequence_len group_by_length "
    "pad_to_multiple_of eval_sample_packing neat_packing",
    "Leave it out: the library chooses the attention kernel.": "flash_attention flash_attn attn_implementation "
    "use_flash_attention xformers_attention sdp_attention",
    "Leave it out: the model's own chat template is used.": "chat_template template prompt_template prompt_style "
    "dataset_text_field conversation_template",
    "Leave it out: only answers are trained on.": "train_on_inputs mask_prompt completion_only_loss "
    "assistant_only_loss train_on_responses_only train_on_prompt",
}
"""What Hugging Face's TrainingArguments and PEFT, TRL, axolotl, Unsloth and LLaMA-Factory call a setting: its name
here, or a sentence, and the names there."""


class SplitConfig(Section):
    """What is trained on, what chooses, what proves. Decided by source, before anything is paid."""

    held_out: Annotated[str | None, Flag()] = None
    """Held-out rows of your own, in a file or on the Hub; without it they are split off the data set."""
    eval_file: Annotated[list[str], Flag(metavar="FILE")] = []
    """A further test, as a file or on the Hub: what it asks is not trained on. It is not asked here."""
    held_out_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the sources that is held out."""
    max_held_out_rows: int = Field(default=400, ge=0)
    """400 independent rows show differences of 7 points; the stage `split` says what the rows that were taken show."""
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the remaining sources that chooses the epoch."""
    max_dev_rows: int = Field(default=100, ge=0)
    """0: no dev rows, the last epoch is kept."""
    max_recall_rows: int = Field(default=400, ge=0)
    """Rows with `metadata.sibling_of`: other questions about what is trained, asked beside the held-out rows."""
    on_bad_row: Annotated[Literal["stop", "skip"], Flag()] = "stop"
    """What a bad row does; `skip`: bad rows go to `input.rejected.jsonl` with their reasons, and the run goes on."""


class EndpointConfig(Section):
    """How the model of one role is reached, besides its address."""

    api_key_env: str | None = None
    """Environment variable with the key. A server at an address of one's own gets no key without it."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """None: no limit."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """None: no limit."""
    batch: bool = False
    """Judge and teacher: gather the loop's calls into batches of the vendor's, at half price and within 24 hours."""


def _waits(given: EndpointConfig) -> EndpointConfig:
    if given.batch:
        raise ValueError("no batch, as only the judge and the teacher of the loop can wait for one")
    return given


class EndpointsConfig(Section):
    """Keys and limits by role."""

    student: EndpointConfig = EndpointConfig()
    teacher: EndpointConfig = EndpointConfig()
    judge: EndpointConfig = EndpointConfig()

    _student_waits = field_validator("student")(_waits)


class MixConfig(Section):
    """How often each type of question is asked for, as weights: 0 is never."""

    factual: float = Field(default=4, ge=0)
    """One fact: a name, a number, a place."""
    definition: float = Field(default=1, ge=0)
    """What something is."""
    comparison: float = Field(default=1, ge=0)
    """Which of two, and in what they differ."""
    cause: float = Field(default=1, ge=0)
    """Why."""
    procedure: float = Field(default=1, ge=0)
    """How, in which steps."""
    multi_hop: float = Field(default=1, ge=0, alias="multi-hop")
    """Needs two statements; of a graph, two edges."""
    reversal: float = Field(default=1, ge=0)
    """Asks for A where the text tells of A."""
    hypothetical: float = Field(default=1, ge=0)
    """What follows if."""
    unanswerable: float = Field(default=1, ge=0)
    """Fits the topic, but is not told: the right answer says so."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> MixConfig:
        if not any(self.model_dump().values()):
            raise ValueError("at least one weight above 0")
        return self


class WritersConfig(Section):
    """Keys and limits by role."""

    writer: EndpointConfig = EndpointConfig()
    checker: EndpointConfig = EndpointConfig()

    _both_wait = field_validator("writer", "checker")(_waits)


class ArangoConfig(Section):
    """What is read of an ArangoDB database; nothing given: all its collections."""

    collections: Annotated[list[str], Flag(metavar="A,B,…", commas=True)] = []
    """Names of collections."""
    graph: Annotated[str | None, Flag()] = None
    """A named graph: its vertices are documents, its edges links."""
    aql: Annotated[str | None, Flag(metavar="QUERY")] = None
    """A query that returns documents."""
    hops: Annotated[int, Flag()] = Field(default=1, ge=0, le=3)
    """How far neighbours are read along."""


class EnvConfig(Section):
    """Tasks that make their own questions and verify the answers: rows, test and judge in one flag."""

    tasks: Annotated[str | None, Flag("--env", metavar="reasoning_gym:NAME")] = None
    """`reasoning_gym:NAME[(option=value,…)][,NAME…]`, `verifiers:MODULE` (or a folder with `load_environment`), or
    `python:FILE.py` with the functions `questions`, `verify` and `template`. Takes the place of `dataset`."""
    size: Annotated[int, Flag("--env-size")] = Field(default=1000, ge=1)
    """Questions to train on, of each task. The test comes on top: up to `split.max_held_out_rows` in all."""
    seed: Annotated[int, Flag("--env-seed")] = Field(default=0, ge=0)
    """Of the questions; another seed asks others."""


class GenerateConfig(Section):
    """Questions and answers out of documents or a database."""

    source: Annotated[str | None, Flag()] = None
    """Have the rows written out of files (a path, a folder, a pattern like `docs/**/*.md`), out of
    `arangodb://HOST:8529/DB`, or `demo`."""
    arangodb: ArangoConfig = ArangoConfig()
    """What is read of a database."""
    writer_model: Annotated[str, Flag()] = "rules/extract"
    """Who writes: openai/…, anthropic/…, local/…, python:FILE:F. `rules/extract`: takes questions out of the sentences,
    mechanically."""
    checker_model: Annotated[str | None, Flag()] = None
    """A model that is asked, behind the mechanical checks, whether the passage bears the answer. None: nobody is."""
    mix: MixConfig = MixConfig()
    """Shares of the types."""
    questions_per_passage: Annotated[int, Flag()] = Field(default=6, ge=1, le=50)
    """Asked of the writer; a poor passage gives fewer."""
    siblings: int = Field(default=1, ge=0, le=5)
    """Further questions about the fact of each, in other words or the other way round: the recall test."""
    passage_tokens: Annotated[int, Flag()] = Field(default=400, ge=32)
    """The most a passage has, by the tokenizer of `model`; without one, by a count of characters."""
    overlap_tokens: int = Field(default=40, ge=0)
    """What a passage repeats of the one before it in the same section."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of the writer."""
    max_new_tokens: int = Field(default=4096, ge=64)
    """Of all questions to one passage."""
    max_file_mb: int = Field(default=50, ge=1)
    """A larger file is left out, with this reason."""
    concurrency: Annotated[int, Flag(), Free()] = Field(default=256, ge=1)
    """Passages in flight."""
    call_timeout_s: Annotated[float, Free()] = Field(default=600.0, gt=0)
    """Of one try of a call."""
    max_total_tokens: Annotated[int | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop before writer and checker have taken so many tokens."""
    writer_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Address of a server that speaks OpenAI's protocol; several share the load."""
    checker_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """As for the writer."""
    endpoints: Annotated[WritersConfig, Free()] = WritersConfig()
    """Keys and limits by role."""

    @model_validator(mode="after")
    def _overlap_is_small(self) -> GenerateConfig:
        if self.overlap_tokens * 2 > self.passage_tokens:
            raise ValueError("overlap_tokens of at most half of passage_tokens")
        return self


class StudentTeacherConfig(Section):
    """The loop: who attempts, who judges, who hints, how often."""

    student_model: Annotated[str | None, Flag()] = None
    """Another student than the very model that is trained: its name at --student-api-base, ollama/…, local/….
    `local/NAME`: another one in this process, graded before training."""
    student_engine: Annotated[Literal["local", "vllm"], Flag()] = "local"
    """`local`: in this process; `vllm`: `vllm serve` is started here, asked, and stopped."""
    vllm_args: list[str | int | float] = []
    """Further arguments of that `vllm serve`, also on a rented machine: `[--tensor-parallel-size, 2]`."""
    teacher_model: Annotated[str | None, Flag()] = None
    """Who hints: openai/…, anthropic/…, local/…, python:FILE:F. None: nobody, and only what the student gets right by
    itself is trained on. `rules/arithmetic`: takes products apart, mechanically. `rules/solution`, the
    default with `--env`: the first half of the worked solution that a row brings."""
    judge_model: Annotated[str, Flag()] = "rules/mechanical"
    """Who judges, named as the teacher is. `rules/mechanical`: exact text, choice, number; everything else is
    undecided. With `--env`: `rules/environment`, the task's own verifier."""
    judge_mode: Annotated[Literal["cascade", "mechanical", "llm"], Flag()] = "cascade"
    """`cascade`: rules first, the judge model for what they leave undecided; `llm`: the model alone."""
    attempts: Annotated[int, Flag()] = Field(default=4, ge=1, le=64)
    """Samples of a row before anyone is asked for a hint."""
    enough: int = Field(default=2, ge=1, le=64)
    """So many right samples of a row are enough; the rest is not drawn."""
    max_iterations: Annotated[int, Flag()] = Field(default=3, ge=1, le=20)
    """Rounds per row, the samples before any hint being the first: one more than the hints."""
    hint_attempts: Annotated[int, Flag()] = Field(default=2, ge=1, le=16)
    """Samples per hint; the first right one is enough. Above 1, multiple choice draws three at least and needs two."""
    thinking_format: Annotated[Literal["direct", "iterative", "clean"] | None, Flag()] = None
    """What of a success with a hint is trained on.

    `direct`: only the right reasoning. `clean`: a hinted success has to be found again without hint.
    `iterative`: attempt, "Aha!", corrected attempt. None: `clean` for a model that thinks first, else `direct`."""
    trace_pick: Literal["longest", "first", "judged"] = "longest"
    """Which of several right samples is trained on. The shortest is often a lucky guess. `judged`: the judge model
    says which shows its work best."""
    unsolved: Annotated[Literal["drop", "reference", "rewrite"], Flag()] = "drop"
    """What becomes of a row that stays unsolved: dropped, trained on its reference answer, or on the student's own
    wording of the reference."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """None: the model's own generation_config; where it has none, 0.7."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """None: as for the temperature; where the model has none, 0.8."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Of one answer. An answer cut off here is undecided, not wrong."""
    concurrency: Annotated[int, Flag(), Free()] = Field(default=256, ge=1)
    """Rows in flight, one call per row at a time; those that wait for a batch do not count."""
    call_timeout_s: Annotated[float, Flag(), Free()] = Field(default=600.0, gt=0)
    """Seconds, of one try of a call to a server."""
    max_total_tokens: Annotated[int | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop before judge and teacher (and a student behind a server) have taken so many tokens, in the whole run."""
    student_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Have the student answer at this address (OpenAI's protocol) instead of in this process."""
    teacher_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Address of a server that speaks OpenAI's protocol; several share the load."""
    judge_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """As for the teacher."""
    endpoints: Annotated[EndpointsConfig, Free()] = EndpointsConfig()
    """Keys and limits by role."""

    @classmethod
    def _near(cls, name: str) -> str:
        if name == "max_usd":
            return "The budget is the run's: socratune.run(config={'max_usd': …}), or {'budget': {'enhance': …}} there."
        return super()._near(name)


class CurateConfig(Section):
    """Which traces are trained on, and in what mix."""

    mask_wrong_attempts: bool = True
    """Only for `thinking_format: iterative`: no loss on the wrong attempts (6 points in the laboratory)."""

    max_hinted_share: float = Field(default=0.4, gt=0, le=1)
    """Rows that were solved with a hint, as a share of the training rows."""
    max_mastered_share: float = Field(default=0.25, gt=0, le=1)
    """Rows of which every sample was right: they keep what the model can do, and teach little."""
    replay_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the trained tokens that are the base model's own answers to neutral prompts, against forgetting. 0, or
    fewer than 200 training rows: none."""


class ByDevConfig(Section):
    """What the dev rows choose besides the epoch."""

    sweep_lr: Annotated[list[Annotated[float, Field(gt=0)]], Flag(metavar="X,Y,…", commas=True)] = []
    """Multiples of the learning rate, each trained; the best on the dev rows is kept."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many epochs without a better one. 0: never."""


class GrokkingConfig(Section):
    """Very long training with strong weight decay, in the hope of late generalisation."""

    enable_grokking: bool = False
    """Multiply the epochs and use the weight decay below."""
    grokking_multiplier: float = Field(default=30.0, ge=1)
    """On `num_train_epochs`."""
    grokking_weight_decay: float = Field(default=0.1, ge=0)
    """In the place of `weight_decay`. Decays the adapter, so towards the base model."""


class DistilConfig(Section):
    """`method: distil`: what the base sees when it looks at the student's own attempt, and at which attempts."""

    context: Literal["hint", "solution"] = "hint"
    """`hint`: the hint that brought the row to its right answer. `solution`: the reference answer; also for rows that
    stay unsolved."""
    attempts: Literal["wrong", "all"] = "wrong"
    """The student's wrong attempts, or its right ones too."""
    thinking: Annotated[bool, Flag("--force")] = False
    """Distil a model that thinks first all the same; published losses are up to 40 % (arXiv:2603.24472)."""


ON_POLICY = ("distil", "grpo")
"""Methods that judge what the student says now: with `rounds`, each goes on from the adapter of the round before."""


class GuideNames(Section):
    """Names the guide has under `train` for what lives elsewhere; `resolve` moves them."""

    model_name: str | None = None
    """The guide's place for `model`."""
    pod_name: str | None = None
    """The guide's place for `where.pod_name`."""
    preferred_gpus: list[str] | None = None
    """The guide's place for `where.preferred_gpus`."""


class EnhancedTrainingConfig(GuideNames):
    """The LoRA training. Names as in the guide and in PEFT."""

    method: Annotated[Literal["sft", "dpo", "weights", "star", "distil", "grpo"], Flag()] = "sft"
    """`sft`: the right answers; `dpo`: the right answer against the student's last wrong one to the same question.

    `weights`: the right answers, the more the less often the student is right alone. `star`: nobody hints; the student
    words an unsolved answer itself. `distil`: besides, the student learns to say to its wrong attempts what the base
    says that sees the hint. `grpo`: all samples, each by its verdict against the mean of its question."""
    max_seq_length: Annotated[int, Field(ge=16)] | Literal["auto"] = 2048
    """In tokens. A longer row is left out whole, never cut. auto: the 99th percentile of the rows."""
    r: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(default=32, ge=1)
    """The adapter counts alpha/r times. 16 instead of 32 cost the embedded model 23 points at learning rate 2e-4."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Above 0 turns off the fast path of Unsloth."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that are adapted."""
    peft: dict[str, Any] = {}
    """Further settings of PEFT's LoraConfig: use_rslora, use_dora, modules_to_save, …"""
    num_train_epochs: int = Field(default=2, ge=1)
    """At most; the epoch that is best on the dev rows is kept."""
    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Rows per micro-batch."""
    gradient_accumulation_steps: int = Field(default=4, ge=1)
    """Micro-batches per step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak. 1e-4 suits traces of the model's own; 2e-4 foreign text or fewer than 100 steps."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the rate rises; then it falls as a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled (AdamW)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are clipped."""
    backend: Annotated[Literal["auto", "hf", "unsloth"], Flag()] = "auto"
    """Who trains; auto: transformers and PEFT, Unsloth where the model fits no other way; the reason is said."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations to save memory. auto: only where they do not fit."""
    load_in_4bit: bool | Literal["auto"] = "auto"
    """4-bit base weights (bitsandbytes, CUDA). auto: only on a card on which 16 bits do not fit."""
    fp8: bool = False
    """Products with the frozen weights in 8 bits, on Ada, Hopper and later cards: a third faster, 2 more bytes a
    parameter. The adapter and the model that answers keep 16 bits."""
    allow_foreign_student: bool = False
    """Train on traces although another model than the base is known to have written them."""
    distil: DistilConfig = DistilConfig()
    """Of `method: distil`."""
    by_dev: ByDevConfig = ByDevConfig()
    """What the dev rows choose."""
    grokking: GrokkingConfig = GrokkingConfig()
    """Very long training."""

    @property
    def reads_traces(self) -> bool:
        """Whether it is trained on more than the right answers of `train.jsonl`."""
        return self.method not in ("sft", "star")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_retired_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name in RETIRED_NAMES.keys() & data.keys():
            log.warning("train.%s: %s", name, RETIRED_NAMES[name])
        return {name: value for name, value in data.items() if name not in RETIRED_NAMES}


class GateConfig(Section):
    """What an adapter has to show, besides the verdict `better` and whole files, to pass and to be published."""

    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """Accuracy it has to gain at least, as measured."""
    min_lower_bound: float = Field(default=0.0, ge=0, lt=1)
    """The lower end of the gain's 95 % interval has to lie above this."""
    max_held_out_loss: float = Field(default=0.02, ge=0, lt=1)
    """What a run that taught facts, and is gated on recalling them, may lose on held-out questions, as measured."""
    max_undecided_share: float = Field(default=0.2, ge=0, le=1)
    """Held-out questions that the judge leaves undecided, of base or adapter."""
    beat_majority: bool = True
    """It has to be proven better than whoever always gives the most frequent answer, where that is a tenth of all."""
    max_forgetting: float | None = Field(default=0.03, gt=0, lt=1)
    """Accuracy it may lose at most on questions it was not trained for: the upper end of the one-sided 95 % interval of
    the drop lies below this. None: measured and shown, but no condition."""


class ValidateConfig(Section):
    """The proof on held-out questions."""

    prompts: int = Field(default=5, ge=1)
    """Held-out questions shown with answer and verdict in the results."""
    prompts_file: Annotated[str | None, Flag("--prompts", metavar="FILE")] = None
    """A file with test prompts in the place of these: one a line, or JSONL with `prompt` and perhaps `expected`."""
    samples: int = Field(default=4, ge=1, le=64)
    """Answers per question of a model that thinks first, which is not asked greedily; it is compared by their means."""
    forgetting: str | None = None
    """A data set with questions that rules can judge and that must not be unlearnt, in the place of the 450 shipped
    ones. `demo`: what the embedded model knows."""
    lm_eval: Annotated[list[str], Flag(metavar="TASKS", commas=True)] = []
    """Tasks of lm-eval for base and adapter; shown, no condition. Needs `pip install 'socratune[lm-eval]'`."""
    bootstrap_draws: int = Field(default=10_000, ge=100)
    """Resamples behind the interval."""
    not_worse_margin: float = Field(default=0.02, ge=0, lt=1)
    """How much accuracy may be lost for the verdict `not_worse`."""
    gate: GateConfig = GateConfig()
    """What has to be shown to pass."""


class PublishConfig(Section):
    """Upload to the Hugging Face Hub."""

    private: Annotated[bool, Flag("--public")] = True
    """The Hub repository is closed; --public opens it to all. While true, one that is public is not written to."""
    with_dataset: Annotated[bool, Flag()] = False
    """Publish the enhanced data set too, as a data set of the same name."""
    base: Annotated[str | None, Flag(metavar="ORG/NAME")] = None
    """Hub id of the base, for others, where `model` is a folder or a GGUF file."""


RENT_USD = 50.0
"""What a rented machine may cost where nobody says."""


class BudgetConfig(Section):
    """What one part of the run may spend at most, in USD, within `max_usd`. None: a share of that; what earlier parts
    leave comes on top.
    """

    generate: float | None = Field(default=None, gt=0)
    """Writer and checker."""
    enhance: float | None = Field(default=None, gt=0)
    """Judge and teacher, and a student behind an API, in the loop and for the proof."""
    where: Annotated[float, Field(gt=0)] | Literal["unlimited"] | None = None
    """The rented machine, which ends itself when this is spent. None without `max_usd`: 50 USD. `unlimited` goes only
    without it."""


FORMER_DEFAULTS: dict[str, Any] = {"enhance.teacher_model": "rules/arithmetic"}
"""Defaults of earlier versions that are others now: a run that began with one goes on with it."""

MOVED = {f"{part}.max_usd": f"budget.{part}" for part in BudgetConfig.model_fields}
"""Keys of earlier versions, and what they are called now."""


PLAIN = "plain"
PLAIN_TEMPLATE = """{{ bos_token if bos_token is defined else '' }}{% for message in messages %}\
{{ message['role'] | capitalize }}: {{ message['content'] | trim }}\
{{ eos_token if message['role'] == 'assistant' else '' }}

{% endfor %}{{ 'Assistant:' if add_generation_prompt else '' }}"""
"""A chat template for a model that was trained on none: the turns in words, and the end of text behind an answer."""


def read_template(value: Any) -> Any:
    """The chat template that a setting means: `plain`, the name of a file, or, as a run keeps it, the template itself.

    Raises:
        ValueError: no such file, or no text in it.
    """
    if not isinstance(value, str) or "{" in value:
        return value
    if value == PLAIN:
        return PLAIN_TEMPLATE
    try:
        text = Path(value).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"a file with a chat template, or {PLAIN} ({getattr(error, 'strerror', 0) or error})"
        ) from None
    if "{" not in text:
        raise ValueError("a file with a chat template, in Jinja")
    return text


class RunConfig(Section):
    """A whole run."""

    model: Annotated[str, Flag()] = Field(min_length=1)
    """Base model: a folder, a Hub id, a GGUF file (`FILE.gguf`, `ORG/NAME:FILE.gguf`), `smollm2` or `demo`."""
    chat_template: Annotated[str | None, Flag(metavar="FILE")] = None
    """A file with a chat template, for a model that has none or in place of its own; `plain`: a simple one of ours."""
    dataset: Annotated[str, Flag()] = Field(min_length=1)
    """A file (JSONL, JSON, CSV, Parquet), a data set of the Hub (`org/name`), or `demo`. Left out beside
    `generate.source`: the rows are written first, into `qa.jsonl` of the run folder."""
    output: Annotated[str, Flag(), Free()] = Field(min_length=1)
    """The run folder; an existing one is gone on with."""
    hub_id: Annotated[str | None, Flag(metavar="ORG/NAME")] = None
    """The Hub repository in which what passed is published."""
    local_only: Annotated[bool, Flag(), Free()] = False
    """Refuse to begin where a setting would call another machine than this one; the Hub is not asked either."""
    seed: Annotated[int, Flag()] = Field(default=0, ge=0)
    """Of sampling, training and resampling."""
    views: Annotated[list[Literal["preference", "sdft"]], Flag(commas=True), Free()] = []
    """Further files out of the loop's traces, for other trainers: preference pairs; prompts with their hint."""
    report_to: Annotated[list[Literal["wandb", "mlflow", "trackio"]], Flag(commas=True), Free()] = []
    """Trackers that get the training's curves too, beside TensorBoard."""
    rounds: Annotated[int, Flag()] = Field(default=1, ge=1, le=20)
    """Loop and training so often at most, each time with the student that the round before has trained; dev chooses the
    round that is kept."""
    shard: Annotated[str | None, Flag(metavar="I/N")] = None
    """`I/N`: only every N-th row, beginning with the I-th; `socratune merge` puts the N run folders together."""
    engine: Annotated[Literal["here", "ray"], Flag(), Free()] = "here"
    """Where the loop runs: in this process, or in `workers` Ray actors."""
    workers: Annotated[int, Flag(), Free()] = Field(default=2, ge=1)
    """Actors of the engine `ray`; concurrency, rate limits and budget are divided among them."""
    max_usd: Annotated[float | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop before the whole run spends this, calls in flight and a rented machine included. Refused where a price is
    not known."""
    budget: Annotated[BudgetConfig, Free()] = BudgetConfig()
    env: EnvConfig = EnvConfig()
    generate: GenerateConfig = GenerateConfig()
    split: SplitConfig = SplitConfig()
    enhance: StudentTeacherConfig = StudentTeacherConfig()
    curate: CurateConfig = CurateConfig()
    train: EnhancedTrainingConfig = EnhancedTrainingConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    publish: PublishConfig = PublishConfig()
    where: Annotated[WhereConfig, Free()] = WhereConfig()

    @property
    def writes_rows(self) -> bool:
        """Whether the run writes its rows itself, into `qa.jsonl`: out of a source, or by an environment."""
        return self.generate.source is not None or self.env.tasks is not None

    _read_template = field_validator("chat_template", mode="before")(read_template)


@cache
def _free() -> frozenset[str]:
    return frozenset(setting.key for setting in settings_of(RunConfig) if setting.free)


def is_free(key: str) -> bool:
    """True for a setting that changes no result; of one that is a mapping (`where.sky`), also for its parts."""
    parts = key.split(".")
    return not _free().isdisjoint(".".join(parts[:end]) for end in range(1, len(parts) + 1))
