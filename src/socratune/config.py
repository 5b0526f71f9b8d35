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
    """Marks a setting, or a whole section, that changes no result, so that its value may differ when a run is
    resumed.
    """


@dataclass(frozen=True, slots=True)
class Setting:
    """Describes one setting as its field declares it. `key` is its dotted name in YAML."""

    key: str
    field: FieldInfo
    free: bool

    @property
    def flag(self) -> Flag | None:
        """Returns the setting's `Flag`, or None if it has no flag."""
        return next((mark for mark in self.field.metadata if isinstance(mark, Flag)), None)

    @property
    def flag_name(self) -> str | None:
        """Returns the name of the flag, such as `--teacher-model`, or None if there is none."""
        return self.flag and (self.flag.name or "--" + self.key.rpartition(".")[2].replace("_", "-"))

    @property
    def meaning(self) -> str:
        """Returns the field's docstring on one line."""
        return " ".join((self.field.description or "").split())

    @property
    def help(self) -> str:
        """Returns the first sentence of the setting's meaning."""
        return re.split(r"(?<=[.?]) ", self.meaning, maxsplit=1)[0].replace("`", "")

    @property
    def expected(self) -> str:
        """Returns what the setting accepts, as an error message states it: `a whole number from 1 to 64`."""
        return _expected(self.field.annotation, self.field.metadata)


def settings_of(section: type[BaseModel], prefix: str = "", *, free: bool = False) -> Iterator[Setting]:
    """Returns every setting of a section and of the sections inside it.

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
    """Describes a declared type and its bounds in words. With `several`, it describes the elements of a list."""
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
    """Returns every error in the values of a section, at most one per setting, in our own wording.

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
    """Turns pydantic's error into a `UserError` when a section is created by hand."""

    if not TYPE_CHECKING:  # so that the arguments are checked as a model's

        def __call__(cls, *args: Any, **values: Any) -> Any:
            try:
                return super().__call__(*args, **values)
            except ValidationError as error:
                raise UserError(*section_faults(error, cls, values, cls.__name__, cls._near)) from None


_LARGEST = 2**63 - 1
"""Bounds of whole numbers: the range that the libraries can handle."""


class Section(BaseModel, metaclass=_Door):
    """Base class of all sections. It knows its keys and refuses all others.

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
        """Refuses `true` where a number is expected, although Python counts it as 1."""
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
    """Returns the types and the literal values that make up a declared type."""
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
    """The machine on which the model answers and is trained."""

    place: Annotated[Literal["auto", "local", "runpod", "sky"], Flag("--where")] = "auto"
    """Where the adapter is trained; auto: on this machine if it fits, otherwise on a rented one if --max-usd or a
    setting of such a machine permits renting. `socratune plan` gives the reason."""
    gpus: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], Flag(metavar="N|all")] = 1
    """Number of GPUs of this machine that train together."""
    max_local_hours: float = Field(default=12.0, gt=0)
    """On a machine without a GPU: the longest training, by the estimate, that still runs here instead of on a rented
    machine."""
    pod_name: Annotated[str, Flag()] = Field(default="socratune", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,40}$")
    """Prefix of the names of rented machines."""
    preferred_gpus: list[str] = ["H100 PCIe", "H100 SXM"]
    """GPU types to rent, in order of preference. The next one is tried if a type is sold out."""
    gpu_count: int = Field(default=1, ge=1, le=8)
    """Number of GPUs of a rented machine."""
    cloud: Literal["secure", "community"] = "secure"
    """Rent from RunPod's own data centres (secure) or from other hosts (community)."""
    image: str = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
    """The container image of a pod. It must contain an SSH server, Python and CUDA."""
    disk_gb: Annotated[int, Field(ge=10)] | None = None
    """Disk size of a rented machine. None: chosen by the size of the model."""
    max_hours: float = Field(default=12.0, gt=0)
    """A rented machine shuts itself down after this time in any case, or earlier if its budget is spent."""
    api_base: Annotated[str, Flag(metavar="URL")] = "https://api.runpod.io/v2"
    """RunPod's REST API."""
    student_server: Literal["auto", "vllm", "socratune"] = "auto"
    """The server that runs the student on a rented machine. auto: vLLM if the image contains it, otherwise
    `socratune serve`."""
    send_hf_token: bool = False
    """Pass `HF_TOKEN` to the rented machine, for a gated base model. No other key is ever sent."""
    spot: bool = False
    """Rent spot machines, which are cheap but may be taken away. Training then continues on another one (SkyPilot
    only)."""
    sky: dict[str, Any] = {}
    """Further `resources` of the SkyPilot task: cloud, region, instance_type, …"""


RETIRED_NAMES = {
    "use_flash_attention_2": "the attention kernel is chosen by the library; the value has no effect",
}
"""Names that the guide has under `train` and that mean something else today. They are accepted and ignored with a
notice."""


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
"""Maps the names of settings in Hugging Face's TrainingArguments, PEFT, TRL, axolotl, Unsloth and LLaMA-Factory to
the names here, or to a sentence."""


class SplitConfig(Section):
    """Which rows train, which choose the epoch and which prove. The split is by source and happens before anything
    is paid for.
    """

    held_out: Annotated[str | None, Flag()] = None
    """Your own held-out rows, in a file or on the Hub. Without them, rows are split off the data set."""
    eval_file: Annotated[list[str], Flag(metavar="FILE")] = []
    """Another test, as a file or on the Hub. Its questions are kept out of the training, but are not asked in the
    proof."""
    held_out_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the sources that is held out."""
    max_held_out_rows: int = Field(default=400, ge=0)
    """The most held-out rows. 400 independent rows detect differences of 7 points; the stage `split` reports what
    the chosen rows can detect."""
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the remaining sources that chooses the epoch."""
    max_dev_rows: int = Field(default=100, ge=0)
    """The most dev rows. 0: no dev rows, and the last epoch is kept."""
    max_recall_rows: int = Field(default=400, ge=0)
    """The most rows with `metadata.sibling_of`, which ask about trained facts in other words. They are asked in
    addition to the held-out rows."""
    on_bad_row: Annotated[Literal["stop", "skip"], Flag()] = "stop"
    """What happens to an invalid row; `skip`: it is written to `input.rejected.jsonl` with its reasons, and the run
    continues."""


class EndpointConfig(Section):
    """How the model of one role is reached, apart from its address."""

    api_key_env: str | None = None
    """Environment variable that holds the key. Without it, a server at your own address receives no key."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """The most calls per minute. None: no limit."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """The most tokens per minute. None: no limit."""
    batch: bool = False
    """For judge and teacher: send the loop's calls through the vendor's batch API, at half price and within 24
    hours."""


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
    """How often each type of question is requested, as weights. 0: never."""

    factual: float = Field(default=4, ge=0)
    """One fact: a name, a number, a place."""
    definition: float = Field(default=1, ge=0)
    """What something is."""
    comparison: float = Field(default=1, ge=0)
    """Comparison: which of two things, or how they differ."""
    cause: float = Field(default=1, ge=0)
    """The reason for something."""
    procedure: float = Field(default=1, ge=0)
    """How something is done, and in which steps."""
    multi_hop: float = Field(default=1, ge=0, alias="multi-hop")
    """Needs two statements, or two edges of a graph."""
    reversal: float = Field(default=1, ge=0)
    """Asks the reverse of a statement: for A, given what the text says about A."""
    hypothetical: float = Field(default=1, ge=0)
    """What would follow if something were the case."""
    unanswerable: float = Field(default=1, ge=0)
    """Fits the topic, but the text does not answer it. The right answer says so."""

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
    """What is read from an ArangoDB database. If nothing is set, all its collections are read."""

    collections: Annotated[list[str], Flag(metavar="A,B,…", commas=True)] = []
    """Names of the collections to read."""
    graph: Annotated[str | None, Flag()] = None
    """A named graph: its vertices are documents, its edges links."""
    aql: Annotated[str | None, Flag(metavar="QUERY")] = None
    """A query that returns documents."""
    hops: Annotated[int, Flag()] = Field(default=1, ge=0, le=3)
    """How many edges are followed to read neighbouring documents."""


class EnvConfig(Section):
    """Tasks that generate their own questions and verify the answers: rows, test and judge in one flag."""

    tasks: Annotated[str | None, Flag("--env", metavar="reasoning_gym:NAME")] = None
    """`reasoning_gym:NAME[(option=value,…)][,NAME…]`, `verifiers:MODULE` (or a folder with `load_environment`), or
    `python:FILE.py` with the functions `questions`, `verify` and `template`. Replaces `dataset`."""
    size: Annotated[int, Flag("--env-size")] = Field(default=1000, ge=1)
    """Number of training questions of each task. The test questions are added to these: up to
    `split.max_held_out_rows` in all."""
    seed: Annotated[int, Flag("--env-seed")] = Field(default=0, ge=0)
    """Seed of the questions. Another seed gives other questions."""


class GenerateConfig(Section):
    """Questions and answers written from documents or a database."""

    source: Annotated[str | None, Flag()] = None
    """Write the rows from files (a path, a folder, or a pattern like `docs/**/*.md`), from
    `arangodb://HOST:8529/DB`, or from `demo`."""
    arangodb: ArangoConfig = ArangoConfig()
    """What is read from a database."""
    writer_model: Annotated[str, Flag()] = "rules/extract"
    """The model that writes the questions: openai/…, anthropic/…, local/…, python:FILE:F. `rules/extract` derives
    questions from the sentences by rules, without a model."""
    checker_model: Annotated[str | None, Flag()] = None
    """A model that checks, after the mechanical checks, whether the passage supports the answer. None: no model
    checks."""
    mix: MixConfig = MixConfig()
    """Shares of the question types."""
    questions_per_passage: Annotated[int, Flag()] = Field(default=6, ge=1, le=50)
    """Number of questions requested per passage. A passage with little content gives fewer."""
    siblings: int = Field(default=1, ge=0, le=5)
    """Number of further questions about the fact of each question, reworded or reversed. They form the recall test."""
    passage_tokens: Annotated[int, Flag()] = Field(default=400, ge=32)
    """The longest passage in tokens of `model`, or of an approximate count of characters if no model is set."""
    overlap_tokens: int = Field(default=40, ge=0)
    """Number of tokens that a passage repeats from the previous one in the same section."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature of the writer."""
    max_new_tokens: int = Field(default=4096, ge=64)
    """The longest answer of the writer, covering all questions about one passage."""
    max_file_mb: int = Field(default=50, ge=1)
    """The largest file that is read. A larger one is left out and the reason is recorded."""
    concurrency: Annotated[int, Flag(), Free()] = Field(default=256, ge=1)
    """Number of passages processed at the same time."""
    call_timeout_s: Annotated[float, Free()] = Field(default=600.0, gt=0)
    """Timeout of one attempt of a call."""
    max_total_tokens: Annotated[int | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop once writer and checker have used this many tokens."""
    writer_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Address of a server that speaks OpenAI's protocol. Several addresses share the load."""
    checker_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Same as for the writer."""
    endpoints: Annotated[WritersConfig, Free()] = WritersConfig()
    """Keys and limits by role."""

    @model_validator(mode="after")
    def _overlap_is_small(self) -> GenerateConfig:
        if self.overlap_tokens * 2 > self.passage_tokens:
            raise ValueError("overlap_tokens of at most half of passage_tokens")
        return self


class StudentTeacherConfig(Section):
    """The student-teacher loop: who attempts, who judges, who gives hints, and how often."""

    student_model: Annotated[str | None, Flag()] = None
    """A student other than the model that is trained: its name at --student-api-base, ollama/…, local/….
    `local/NAME` runs another model in this process; its answers are graded before training."""
    student_engine: Annotated[Literal["local", "vllm"], Flag()] = "local"
    """Where the student runs; `local`: in this process; `vllm`: a `vllm serve` that is started here, used and
    stopped."""
    vllm_args: list[str | int | float] = []
    """Further arguments of that `vllm serve`, on a rented machine too: `[--tensor-parallel-size, 2]`."""
    teacher_model: Annotated[str | None, Flag()] = None
    """The model that gives hints: openai/…, anthropic/…, local/…, python:FILE:F. None: no hints, so only what the
    student solves alone is trained on. `rules/arithmetic` breaks products into steps by rules. `rules/solution`,
    the default with `--env`, gives the first half of the worked solution in the row."""
    judge_model: Annotated[str, Flag()] = "rules/mechanical"
    """The model that judges, named like the teacher. `rules/mechanical` compares exact text, choices and numbers;
    everything else stays undecided. With `--env`, `rules/environment` uses the task's own verifier."""
    judge_mode: Annotated[Literal["cascade", "mechanical", "llm"], Flag()] = "cascade"
    """`cascade`: rules first, then the judge model for what they leave undecided; `llm`: the model alone."""
    attempts: Annotated[int, Flag()] = Field(default=4, ge=1, le=64)
    """Number of samples per row before a hint is requested."""
    enough: int = Field(default=2, ge=1, le=64)
    """Number of right samples that are enough for a row. No more are drawn after that."""
    max_iterations: Annotated[int, Flag()] = Field(default=3, ge=1, le=20)
    """Rounds per row. The first one is the samples before any hint, so there is one round more than hints."""
    hint_attempts: Annotated[int, Flag()] = Field(default=2, ge=1, le=16)
    """Samples per hint; the first right one is enough. Above 1, a multiple-choice row draws at least three and needs
    two right ones."""
    thinking_format: Annotated[Literal["direct", "iterative", "clean"] | None, Flag()] = None
    """Which part of a success with a hint is trained on.

    `direct`: only the right reasoning. `clean`: a hinted success has to be found again without hint.
    `iterative`: attempt, "Aha!", corrected attempt. None: `clean` for a model that thinks first, else `direct`.
    """
    trace_pick: Literal["longest", "first", "judged"] = "longest"
    """Which of several right samples is trained on. The shortest is often a lucky guess. `judged`: the judge model
    chooses the one that shows its work best."""
    unsolved: Annotated[Literal["drop", "reference", "rewrite"], Flag()] = "drop"
    """What happens to a row that stays unsolved: it is dropped, trained on its reference answer, or trained on the
    student's own wording of the reference."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature of the student; None: the value in the model's generation_config, or 0.7 if it has none."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling of the student; None: the value in the model's generation_config, or 0.8 if it has none."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """The longest answer in tokens. An answer that is cut off here counts as undecided, not as wrong."""
    concurrency: Annotated[int, Flag(), Free()] = Field(default=256, ge=1)
    """Number of rows processed at the same time, with one call per row. Rows that wait for a batch do not count."""
    call_timeout_s: Annotated[float, Flag(), Free()] = Field(default=600.0, gt=0)
    """Timeout in seconds of one attempt of a call to a server."""
    max_total_tokens: Annotated[int | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop once judge and teacher (and a student behind a server) have used this many tokens in the whole run."""
    student_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Use the student at this address (OpenAI's protocol) instead of one in this process."""
    teacher_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Address of a server that speaks OpenAI's protocol. Several addresses share the load."""
    judge_api_base: Annotated[list[str], Flag(metavar="URL"), Free()] = []
    """Same as for the teacher."""
    endpoints: Annotated[EndpointsConfig, Free()] = EndpointsConfig()
    """Keys and limits by role."""

    @classmethod
    def _near(cls, name: str) -> str:
        if name == "max_usd":
            return "The budget is the run's: socratune.run(config={'max_usd': …}), or {'budget': {'enhance': …}} there."
        return super()._near(name)


class CurateConfig(Section):
    """Which traces are trained on, and in what proportions."""

    mask_wrong_attempts: bool = True
    """Only for `thinking_format: iterative`: exclude the wrong attempts from the loss (worth 6 points in the
    laboratory)."""

    max_hinted_share: float = Field(default=0.4, gt=0, le=1)
    """The largest share of training rows that were solved with a hint."""
    max_mastered_share: float = Field(default=0.25, gt=0, le=1)
    """The largest share of rows whose samples were all right. They preserve what the model can do, but teach little."""
    replay_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the trained tokens that are the base model's own answers to neutral prompts, to prevent forgetting.
    None are added with 0, or with fewer than 200 training rows."""


class ByDevConfig(Section):
    """What the dev rows choose in addition to the epoch."""

    sweep_lr: Annotated[list[Annotated[float, Field(gt=0)]], Flag(metavar="X,Y,…", commas=True)] = []
    """Multiples of the learning rate. Each is trained, and the best one on the dev rows is kept."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without improvement. 0: never."""


class GrokkingConfig(Section):
    """Very long training with strong weight decay, to seek late generalisation."""

    enable_grokking: bool = False
    """Multiply the epochs and use the weight decay below."""
    grokking_multiplier: float = Field(default=30.0, ge=1)
    """Factor by which `num_train_epochs` is multiplied."""
    grokking_weight_decay: float = Field(default=0.1, ge=0)
    """Replaces `weight_decay`. It shrinks the adapter and so pulls the model towards its base."""


class DistilConfig(Section):
    """`method: distil`: what the base model sees besides the student's own attempt, and which attempts are used."""

    context: Literal["hint", "solution"] = "hint"
    """`hint`: the hint that led the row to its right answer. `solution`: the reference answer, also for rows that
    stay unsolved."""
    attempts: Literal["wrong", "all"] = "wrong"
    """Which of the student's attempts are used: the wrong ones, or all of them."""
    thinking: Annotated[bool, Flag("--force")] = False
    """Allow distilling a model that thinks before it answers. Published losses reach 40 % (arXiv:2603.24472)."""


ON_POLICY = ("distil", "grpo")
"""Methods that judge the student's current answers. With `rounds`, each round continues from the previous adapter."""


class GuideNames(Section):
    """Names that the guide has under `train` for settings that live elsewhere. `resolve` moves them."""

    model_name: str | None = None
    """The guide's place for `model`."""
    pod_name: str | None = None
    """The guide's place for `where.pod_name`."""
    preferred_gpus: list[str] | None = None
    """The guide's place for `where.preferred_gpus`."""


class EnhancedTrainingConfig(GuideNames):
    """The LoRA training. The names are those of the guide and of PEFT."""

    method: Annotated[Literal["sft", "dpo", "weights", "star", "distil", "grpo"], Flag()] = "sft"
    """`sft`: the right answers; `dpo`: the right answer against the student's last wrong one to the same question.

    `weights`: the right answers, the more the less often the student is right alone. `star`: nobody hints; the student
    words an unsolved answer itself. `distil`: besides, the student learns to say to its wrong attempts what the base
    says that sees the hint. `grpo`: all samples, each by its verdict against the mean of its question."""
    max_seq_length: Annotated[int, Field(ge=16)] | Literal["auto"] = 2048
    """The longest row in tokens. A longer row is left out whole, never cut. auto: the 99th percentile of the rows."""
    r: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(default=32, ge=1)
    """The adapter is scaled by alpha/r. 16 instead of 32 cost the embedded model 23 points at learning rate 2e-4."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the adapter. A value above 0 turns off the fast path of Unsloth."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that receive an adapter."""
    peft: dict[str, Any] = {}
    """Further settings of PEFT's LoraConfig: use_rslora, use_dora, modules_to_save, …"""
    num_train_epochs: int = Field(default=2, ge=1)
    """The most epochs. The epoch that is best on the dev rows is kept."""
    per_device_train_batch_size: int = Field(default=4, ge=1)
    """Rows per micro-batch."""
    gradient_accumulation_steps: int = Field(default=4, ge=1)
    """Micro-batches per optimizer step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate. 1e-4 suits traces that the model wrote itself; 2e-4 suits foreign text or fewer than 100
    steps."""
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises. Afterwards it decays as a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient. A larger gradient is clipped."""
    backend: Annotated[Literal["auto", "hf", "unsloth"], Flag()] = "auto"
    """The training backend; auto: transformers and PEFT, or Unsloth if the model fits in no other way. The reason is
    reported."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations to save memory. auto: only if they do not fit."""
    load_in_4bit: bool | Literal["auto"] = "auto"
    """4-bit base weights (bitsandbytes, CUDA). auto: only on a GPU on which 16 bits do not fit."""
    fp8: bool = False
    """Multiply by the frozen weights in 8 bits, on Ada, Hopper and later GPUs: training is a third faster and needs
    2 more bytes per parameter. The adapter and the model that answers keep 16 bits."""
    allow_foreign_student: bool = False
    """Train on traces even if a model other than the base is known to have written them."""
    distil: DistilConfig = DistilConfig()
    """Settings of `method: distil`."""
    by_dev: ByDevConfig = ByDevConfig()
    """What the dev rows choose."""
    grokking: GrokkingConfig = GrokkingConfig()
    """Very long training."""

    @property
    def reads_traces(self) -> bool:
        """Returns True if training uses more than the right answers in `train.jsonl`."""
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
    """What an adapter must show in order to pass and to be published, besides the verdict `better` and intact files."""

    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """The smallest gain in accuracy, as measured."""
    min_lower_bound: float = Field(default=0.0, ge=0, lt=1)
    """The lower end of the gain's 95 % interval must be above this."""
    max_held_out_loss: float = Field(default=0.02, ge=0, lt=1)
    """The largest loss on held-out questions, as measured, of a run that taught facts and is gated on recalling
    them."""
    max_undecided_share: float = Field(default=0.2, ge=0, le=1)
    """The largest share of held-out questions that the judge may leave undecided, for base or adapter."""
    beat_majority: bool = True
    """Require proof that the adapter beats always giving the most frequent answer, if that answer makes up a tenth
    of all."""
    max_forgetting: float | None = Field(default=0.03, gt=0, lt=1)
    """The largest loss of accuracy on questions that the adapter was not trained for. The upper end of the one-sided
    95 % interval of the drop must be below this. None: the drop is measured and shown, but is no condition."""


class ValidateConfig(Section):
    """The proof on held-out questions."""

    prompts: int = Field(default=5, ge=1)
    """Number of held-out questions that the results show with answer and verdict."""
    prompts_file: Annotated[str | None, Flag("--prompts", metavar="FILE")] = None
    """A file of test prompts that replaces these questions: one per line, or JSONL with `prompt` and an optional
    `expected`."""
    samples: int = Field(default=4, ge=1, le=64)
    """Answers per question of a model that thinks before it answers. Such a model is sampled, and the means are
    compared."""
    forgetting: str | None = None
    """A data set of questions that rules can judge and that the adapter must not unlearn. It replaces the 450
    built-in ones. `demo`: what the embedded model knows."""
    lm_eval: Annotated[list[str], Flag(metavar="TASKS", commas=True)] = []
    """lm-eval tasks for base and adapter. Their results are shown, but are no condition. Needs `pip install
    'socratune[lm-eval]'`."""
    bootstrap_draws: int = Field(default=10_000, ge=100)
    """Number of bootstrap resamples behind the interval."""
    not_worse_margin: float = Field(default=0.02, ge=0, lt=1)
    """The loss of accuracy that the verdict `not_worse` allows."""
    gate: GateConfig = GateConfig()
    """The conditions for passing."""


class PublishConfig(Section):
    """Upload to the Hugging Face Hub."""

    private: Annotated[bool, Flag("--public")] = True
    """Create the Hub repository as private; --public makes it public. While this is true, nothing is uploaded to an
    existing public repository."""
    with_dataset: Annotated[bool, Flag()] = False
    """Publish the enhanced data set too, as a data set of the same name."""
    base: Annotated[str | None, Flag(metavar="ORG/NAME")] = None
    """Hub id of the base model for other users, if `model` is a folder or a GGUF file."""


RENT_USD = 50.0
"""The spending limit of a rented machine if no setting gives one."""


class BudgetConfig(Section):
    """The most that each part of the run may spend, in USD, within `max_usd`. None: a share of that. What earlier
    parts leave over is added.
    """

    generate: float | None = Field(default=None, gt=0)
    """Budget of writer and checker."""
    enhance: float | None = Field(default=None, gt=0)
    """Budget of judge and teacher, and of a student behind an API, in the loop and in the proof."""
    where: Annotated[float, Field(gt=0)] | Literal["unlimited"] | None = None
    """Budget of the rented machine, which shuts itself down when this is spent. None without `max_usd`: 50 USD.
    `unlimited` is allowed only without `max_usd`."""


FORMER_DEFAULTS: dict[str, Any] = {"enhance.teacher_model": "rules/arithmetic"}
"""Defaults of earlier versions that have changed since. A run that began with one keeps it."""

MOVED = {f"{part}.max_usd": f"budget.{part}" for part in BudgetConfig.model_fields}
"""Keys of earlier versions and their present names."""


PLAIN = "plain"
PLAIN_TEMPLATE = """{{ bos_token if bos_token is defined else '' }}{% for message in messages %}\
{{ message['role'] | capitalize }}: {{ message['content'] | trim }}\
{{ eos_token if message['role'] == 'assistant' else '' }}

{% endfor %}{{ 'Assistant:' if add_generation_prompt else '' }}"""
"""A chat template for a model that was trained with none: it labels the turns in words and ends an answer with the
end of text."""


def read_template(value: Any) -> Any:
    """Returns the chat template that a setting means: `plain`, the name of a file, or the template itself, as a run
    stores it.

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
    """The configuration of a whole run."""

    model: Annotated[str, Flag()] = Field(min_length=1)
    """Base model: a folder, a Hub id, a GGUF file (`FILE.gguf`, `ORG/NAME:FILE.gguf`), `smollm2` or `demo`."""
    chat_template: Annotated[str | None, Flag(metavar="FILE")] = None
    """A file with a chat template, for a model that has none or to replace its own; `plain`: a simple built-in one."""
    dataset: Annotated[str, Flag()] = Field(min_length=1)
    """A file (JSONL, JSON, CSV, Parquet), a data set on the Hub (`org/name`), or `demo`. If it is missing and
    `generate.source` is set, the rows are written first, into `qa.jsonl` of the run folder."""
    output: Annotated[str, Flag(), Free()] = Field(min_length=1)
    """The run folder; an existing run is resumed."""
    hub_id: Annotated[str | None, Flag(metavar="ORG/NAME")] = None
    """The Hub repository to which an adapter that passed is published."""
    local_only: Annotated[bool, Flag(), Free()] = False
    """Refuse to start if a setting would contact another machine, the Hub included."""
    seed: Annotated[int, Flag()] = Field(default=0, ge=0)
    """Seed of sampling, training and resampling."""
    views: Annotated[list[Literal["preference", "sdft"]], Flag(commas=True), Free()] = []
    """Further files made from the loop's traces for other trainers: preference pairs, or prompts with their hint."""
    report_to: Annotated[list[Literal["wandb", "mlflow", "trackio"]], Flag(commas=True), Free()] = []
    """Trackers that receive the training curves in addition to TensorBoard."""
    rounds: Annotated[int, Flag()] = Field(default=1, ge=1, le=20)
    """The most rounds of loop and training, each with the student that the previous round trained. The dev rows
    choose the round that is kept."""
    shard: Annotated[str | None, Flag(metavar="I/N")] = None
    """`I/N`: only every N-th row, beginning with the I-th; `socratune merge` combines the N run folders."""
    engine: Annotated[Literal["here", "ray"], Flag(), Free()] = "here"
    """Where the loop runs: in this process, or in `workers` Ray actors."""
    workers: Annotated[int, Flag(), Free()] = Field(default=2, ge=1)
    """Number of actors of the engine `ray`. They share concurrency, rate limits and budget."""
    max_usd: Annotated[float | None, Flag(), Free()] = Field(default=None, gt=0)
    """Stop before the whole run spends more than this, including calls in flight and a rented machine. The run is
    refused if a price is unknown."""
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
        """Returns True if the run writes its own rows into `qa.jsonl`, from a source or an environment."""
        return self.generate.source is not None or self.env.tasks is not None

    _read_template = field_validator("chat_template", mode="before")(read_template)


@cache
def _free() -> frozenset[str]:
    return frozenset(setting.key for setting in settings_of(RunConfig) if setting.free)


def is_free(key: str) -> bool:
    """Returns True for a setting that changes no result, and for the parts of one that is a mapping (`where.sky`)."""
    parts = key.split(".")
    return not _free().isdisjoint(".".join(parts[:end]) for end in range(1, len(parts) + 1))
