from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import Field

from socratune import EnhancedTrainingConfig, GrokkingConfig, StudentTeacherConfig
from socratune.cli.app import main
from socratune.cli.flags import flagged, option, read
from socratune.config import FOREIGN_NAMES, Flag, Free, RunConfig, Section, Setting, settings_of
from socratune.errors import UserError
from socratune.resolve import (
    dump,
    flatten,
    known_keys,
    nearest_key,
    read_config_file,
    resolve_settings,
    to_yaml,
    unflatten,
)

NEEDED = {"model": "m", "dataset": "d", "output": "o"}


def test_three_values_are_enough_and_each_value_has_an_origin() -> None:
    resolved = resolve_settings({**NEEDED, "train": {"r": 8}})
    assert resolved.config.train.r == 8
    assert resolved.origins["train.r"] == "given"
    assert resolved.origins["train.lora_alpha"] == "default"
    assert set(resolved.origins) == set(flatten(dump(resolved.config)))


def test_the_embedded_model_brings_its_own_settings() -> None:
    resolved = resolve_settings({**NEEDED, "model": "demo", "train": {"num_train_epochs": 9}})
    assert resolved.origins["train.learning_rate"] == "demo profile"
    assert resolved.origins["train.num_train_epochs"] == "given"
    assert resolved.config.train.num_train_epochs == 9


def test_the_written_yaml_reads_back_as_the_same_configuration() -> None:
    resolved = resolve_settings({**NEEDED, "hub_id": "me/x: y # z", "train": {"target_modules": ["q_proj", "v_proj"]}})
    again = resolve_settings(yaml.safe_load(to_yaml(resolved)))
    assert dump(again.config) == dump(resolved.config)


def test_all_faults_at_once_with_the_nearest_key() -> None:
    given = {"model": "m", "output": "o", "train": {"learnin_rate": 1, "r": 0}, "enhanc": {"x": 1}, "seed": "x"}
    with pytest.raises(UserError) as caught:
        resolve_settings(given)
    text = str(caught.value)
    for said in (
        "dataset: expected a value",
        "train.r: expected a whole number of at least 1, got 0",
        "train.learnin_rate: expected a known key, got an unknown one. Did you mean train.learning_rate?",
        "enhanc: expected a known key, got an unknown one. Did you mean enhance?",
        "seed: expected a whole number of at least 0, got 'x'",
    ):
        assert said in text
    assert len(caught.value.faults) == 5


PYDANTIC = re.compile(
    r"input should|valid (integer|number|string|boolean|list|dictionary)|unable to parse|not permitted|error for|"
    r"pydantic|(greater|less) than|string should|instance of|ensure this|value error|fractional part|Traceback",
    re.I,
)
WRONG: list[Any] = [
    "abc", "", -1, 0, 1.5, 1e400, float("nan"), -1e300, 10**30, "9" * 5000, [], ["abc"], [[1]], [-1], [True], [None],
    {"x": 1}, {"x": {"y": []}}, {}, None, True, False, "true", "1e3", "null",
]  # fmt: skip
"""Each is no value for most of the settings."""


@pytest.mark.parametrize("setting", list(settings_of(RunConfig)), ids=lambda setting: setting.key)
def test_a_wrong_value_is_said_in_our_own_words(setting: Setting) -> None:
    refused = 0
    for value in WRONG:
        try:
            resolve_settings(unflatten({**NEEDED, setting.key: value}))
        except UserError as error:
            refused += 1
            text = str(error)
            assert not PYDANTIC.search(text), text
            assert "expected" in text and error.exit_code == 2
            assert setting.key.split(".")[-1] in text, f"the fault does not name its setting: {text}"
    assert refused >= 3 or setting.key in ("train.peft", "where.sky")


@pytest.mark.parametrize("name", sorted({key.rpartition(".")[0] for key in known_keys() if "." in key}))
@pytest.mark.parametrize("value", [5, "x", [1], True, None])
def test_a_section_that_is_none_is_said_in_our_own_words(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{re.escape(name)}: expected a mapping of settings") as caught:
        resolve_settings(unflatten({**NEEDED, name: value}))
    assert not PYDANTIC.search(str(caught.value))


def test_what_a_setting_takes_is_said_by_its_type_and_bounds() -> None:
    said = {setting.key: setting.expected for setting in settings_of(RunConfig)}
    assert said["enhance.attempts"] == "a whole number from 1 to 64"
    assert said["max_usd"] == "a number above 0"
    assert said["split.held_out_share"] == "a number of at least 0 and below 1"
    assert said["where.place"] == "auto, local, runpod or sky"
    assert said["where.gpus"] == "a whole number of at least 1 or all"
    assert said["train.by_dev.sweep_lr"] == "a list of numbers above 0"
    assert said["split.eval_file"] == "a list of texts"
    assert said["budget.where"] == "a number above 0 or unlimited"
    assert said["publish.private"] == "true or false"


def test_a_section_made_in_python_refuses_as_the_command_does() -> None:
    for make, said in (
        (lambda: StudentTeacherConfig(max_usd=5), "StudentTeacherConfig: max_usd: expected a known key"),  # type: ignore[call-arg]
        (lambda: StudentTeacherConfig(attempts=0), "attempts: expected a whole number from 1 to 64, got 0"),
        (lambda: StudentTeacherConfig(attempst=1), "Did you mean attempts?"),  # type: ignore[call-arg]
        (lambda: EnhancedTrainingConfig(r="x"), "r: expected a whole number of at least 1, got 'x'"),  # type: ignore[arg-type]
        (lambda: GrokkingConfig(grokking_multiplier=True), "expected a number of at least 1, got True"),
    ):
        with pytest.raises(UserError) as caught:
            make()
        assert said in str(caught.value) and not PYDANTIC.search(str(caught.value))
    with pytest.raises(UserError, match=r"The budget is the run's: socratune\.run\(config="):
        StudentTeacherConfig(max_usd=5)  # type: ignore[call-arg]


def test_the_guides_classes_and_names(caplog: pytest.LogCaptureFixture) -> None:
    loop = StudentTeacherConfig(
        teacher_model="anthropic/max", judge_model="gpt-4o-mini", max_iterations=3, thinking_format="iterative"
    )
    guide = {
        "model_name": "m", "max_seq_length": 2048, "r": 16, "lora_alpha": 16, "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "num_train_epochs": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
        "learning_rate": 2e-4, "gradient_checkpointing": True, "load_in_4bit": True,
        "use_flash_attention_2": True, "pod_name": "unsloth-llama-70b", "preferred_gpus": ["H100 PCIe", "H100 SXM"],
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        training = EnhancedTrainingConfig(**guide)
    assert "use_flash_attention_2" in caplog.text and "pod_name" not in caplog.text
    grokking = GrokkingConfig(enable_grokking=True, grokking_multiplier=30.0, grokking_weight_decay=0.1)
    given = {"dataset": "d", "output": "o", "enhance": loop, "train": training}
    given["train"] = {**flatten({"t": training}), "grokking": grokking}
    resolved = resolve_settings({"dataset": "d", "output": "o", "enhance": loop, "train": training})
    assert resolved.config.model == "m"
    assert resolved.config.train.lora_dropout == 0.05
    assert resolved.config.where.pod_name == "unsloth-llama-70b"
    assert resolved.config.where.preferred_gpus == ["H100 PCIe", "H100 SXM"]
    assert resolved.origins["where.pod_name"] == "given" and resolved.config.train.pod_name is None
    assert resolved.config.enhance.thinking_format == "iterative"
    assert resolve_settings({**NEEDED, "train": {"grokking": grokking}}).config.train.grokking.enable_grokking


@pytest.mark.parametrize("content", [b"a: [", b"- 1", b"\xff", b"just text"])
def test_a_bad_config_file_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.yaml"):
        read_config_file(path)
    with pytest.raises(UserError, match="No such file"):
        read_config_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.parent.glob("examples/*.yaml")), ids=lambda p: p.name)
def test_every_shipped_yaml_is_valid(path: Path) -> None:
    given = read_config_file(path)
    needed = {name: value for name, value in NEEDED.items() if name != "dataset" or "env" not in given}
    resolve_settings({**needed, **given}, where=str(path))


def test_ranks_by_layer_come_through_the_configuration_file_as_they_are(tmp_path: Path) -> None:
    ranks = {"model.layers.0.self_attn.q_proj": 4, "k_proj": 8}
    given = {"model": "demo", "dataset": "demo", "output": "x", "train": {"peft": {"rank_pattern": ranks}}}
    resolved = resolve_settings(given)
    assert resolved.config.train.peft == {"rank_pattern": ranks}
    (tmp_path / "config.yaml").write_text(to_yaml(resolved), "utf-8")
    again = resolve_settings(read_config_file(tmp_path / "config.yaml"))
    assert again.config == resolved.config


class Odd(Section):
    """A section that no run has."""

    shade: Annotated[Literal["dark", "light"], Flag()] = "dark"
    """Which `shade` it has. Nobody sees it."""
    how_many: Annotated[Annotated[int, Field(ge=1)] | Literal["all"], Flag("--many")] = 3
    """How many there are."""
    shut: Annotated[bool, Flag("--open")] = True
    """Whether it is shut."""
    parts: Annotated[list[str], Flag(metavar="PART")] = Field(default=[])
    """Its parts."""
    sizes: Annotated[list[float], Flag(commas=True), Free()] = Field(default=[])
    """Its sizes."""
    hidden: int = 1
    """Has no flag."""


class OddRun(Section):
    """A run that has it."""

    odd: Odd = Odd()


def shown(setting: Setting) -> tuple[str, str | None, str]:
    """Flag, metavar and help."""
    info = get_args(option(setting))[1]
    return info.default, info.metavar, info.help


def test_a_field_with_a_mark_is_a_flag_with_the_fields_type_help_and_default() -> None:
    settings = {setting.key: setting for setting in flagged(OddRun, ["odd"])}
    assert [shown(setting) for setting in settings.values()] == [
        ("--shade", "dark|light", "Which shade it has. [default: dark]"),
        ("--many", "<int>|all", "How many there are. [default: 3]"),
        ("--open", None, "Whether it is shut."),
        ("--parts", "PART", "Its parts. Repeatable."),
        ("--sizes", "<float>", "Its sizes."),
    ]
    many, sizes = settings["odd.how_many"], settings["odd.sizes"]
    assert [read(many, text) for text in ("2", "all", "x", None)] == [2, "all", "x", None]
    assert read(sizes, "1, 2.5") == [1.0, 2.5] and read(settings["odd.parts"], ["a,b"]) == ["a,b"]
    assert read(settings["odd.shut"], True) is False and read(settings["odd.shut"], False) is None
    assert [setting.key for setting in settings_of(OddRun) if setting.free] == ["odd.sizes"]


HANDED_OVER = [
    setting
    for setting in settings_of(RunConfig)
    if setting.flag and setting.key.partition(".")[0] not in ("validate", "publish", "where")
]


@pytest.mark.parametrize("setting", HANDED_OVER, ids=lambda setting: setting.key)
def test_every_flag_hands_over_its_setting(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    from socratune.cli import commands

    given: dict[str, Any] = {}

    def taken(flags: dict[str, Any], *_: Any, **__: Any) -> int:
        given.update(flags)
        return 0

    command = "generate" if setting.key.startswith("generate.") else "run"
    monkeypatch.setattr(commands, f"{command}_command", taken)
    name, metavar, _ = shown(setting)
    if metavar is None:  # a switch
        assert main([command, name]) == 0 and given == {setting.key: not setting.field.default}
        return
    text = {"<int>": "7", "<float>": "0.5", "X,Y,…": "0.5,2"}.get(metavar, metavar.replace(",", "|").split("|")[0])
    assert main([command, name, text]) == 0
    read_as = {"7": 7, "0.5": 0.5, "0.5,2": [0.5, 2.0]}.get(text, text)
    is_list = get_origin(setting.field.annotation) is list
    assert given == {setting.key: [read_as] if is_list and not isinstance(read_as, list) else read_as}


def test_no_two_settings_of_a_command_share_a_flag() -> None:
    names = [setting.flag_name for setting in flagged(RunConfig, ["", "split", "enhance", "train", "where"])]
    assert len(set(names)) == len(names)


def test_every_setting_says_what_it_means() -> None:
    assert known_keys() == [setting.key for setting in settings_of(RunConfig)]
    assert all(setting.help and "`" not in setting.help for setting in settings_of(RunConfig))


def test_the_limits_of_earlier_versions_are_shares_of_the_budget(tmp_path: Path) -> None:
    old = {"enhance": {"max_usd": 5.0}, "generate": {"max_usd": None}, "where": {"max_usd": 20.0}}
    resolved = resolve_settings({**NEEDED, **old})
    assert dump(resolved.config.budget) == {"generate": None, "enhance": 5.0, "where": 20.0}
    assert resolved.origins["budget.enhance"] == "given" and resolved.config.max_usd is None
    assert resolve_settings({**NEEDED, "where": {"max_usd": None}}).config.budget.where == "unlimited"
    # the default of then, in every config.yaml of then, is no amount that anyone asked for beside a smaller budget
    assert resolve_settings({**NEEDED, "where": {"max_usd": 50.0}, "max_usd": 5.0}).config.budget.where is None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**NEEDED, **old}))
    assert read_config_file(tmp_path / "config.yaml")["budget"] == {"enhance": 5.0, "where": 20.0}
    with pytest.raises(UserError, match=r"enhance\.max_usd: expected the same as budget\.enhance"):
        resolve_settings({**NEEDED, **old, "budget": {"enhance": 6.0}})
    with pytest.raises(ValueError, match=r"The budget is the run's"):
        StudentTeacherConfig(max_usd=5)  # pyright: ignore[reportCallIssue]


BROUGHT = {
    "train.lr": "train.learning_rate", "learning_rate": "train.learning_rate", "epochs": "train.num_train_epochs",
    "train.epochs": "train.num_train_epochs", "num_epochs": "train.num_train_epochs", "base_model": "model",
    "model_name_or_path": "model", "micro_batch_size": "train.per_device_train_batch_size",
    "train.batch_size": "train.per_device_train_batch_size", "lora_r": "train.r", "train.lora_rank": "train.r",
    "gradient_accumulation": "train.gradient_accumulation_steps", "lora_target_modules": "train.target_modules",
    "cutoff_len": "train.max_seq_length", "sequence_len": "train.max_seq_length", "output_dir": "output",
    "train.warmup_steps": "train.warmup_ratio", "load_in_8bit": "train.load_in_4bit", "dataset_path": "dataset",
    "hub_model_id": "hub_id", "train.use_rslora": "train.peft", "val_set_size": "split.held_out_share",
    "lora_target": "train.target_modules", "train.neat_packing": "rows are packed", "bf16": "number format",
    "train.LR": "train.learning_rate", "train.lora-r": "train.r", "train.seed": "seed",
}  # fmt: skip


@pytest.mark.parametrize(("name", "meant"), BROUGHT.items())
def test_the_names_of_other_trainers_are_known(name: str, meant: str) -> None:
    found = nearest_key(name)
    assert found.startswith(("Did you mean " + meant, "Leave it out: ")) and meant in found


@pytest.mark.parametrize("name", ["train.zz", "enhance.qqq", "frobnicate", "train.kind_of_model", "x", "validate.lost"])
def test_no_unknown_key_is_answered_with_all_there_are(name: str) -> None:
    found = nearest_key(name)
    assert sum(key in found.replace(",", " ").split() for key in known_keys()) <= 8
    assert "docs/reference/config.md" in found


def test_every_name_of_another_trainer_means_one_thing_that_is_there() -> None:
    names = [name for names in FOREIGN_NAMES.values() for name in names.split()]
    assert len(names) == len(set(names)) and not [name for name in names if name != name.casefold()]
    for meant in FOREIGN_NAMES:
        keys = [] if meant.endswith(".") else meant.partition(",")[0].split(" or ")
        assert set(keys) <= set(known_keys()), meant
