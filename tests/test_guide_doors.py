"""What the guide prints works in a clone, as it is printed: commands from the root, imports, scripts, TensorBoard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import LIMIT_S, demo_rows, few_general_questions, write_rows
from model_server import Answer, ModelServer

from socratune.config import DEMO_DATA
from socratune.teaching.hints import breakdown_hint, parse_product

ROOT = Path(__file__).parent.parent
PIPELINE = ["-m", "src.unsloth.pipeline.complete_training_pipeline"]
KEYS = {"ANTHROPIC_API_KEY": "sk-of-a-test", "OPENAI_API_KEY": "sk-of-a-test"}


def shell(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of the guide, in the root of the clone, with `python` being this one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if name not in KEYS}
    return subprocess.run(
        list(map(str, words)), cwd=ROOT, env={**kept, "PATH": path, **env}, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip


def python(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return shell(sys.executable, *words, **env)


GUIDE_CODE = """
from src.unsloth.data.thinking_enhancer import StudentTeacherConfig

config = StudentTeacherConfig(
    # student_model automatically set to training model
    teacher_model="anthropic/max",  # Claude provides hints
    judge_model="gpt-4o-mini",      # Verifies correctness
    max_iterations=3,               # Up to 3 attempts
    thinking_format="iterative"     # Shows clear iterations
)

from src.unsloth.core.enhanced_config import EnhancedTrainingConfig

config = EnhancedTrainingConfig(
    model_name="unsloth/Phi-3.5-mini-instruct",
    max_seq_length=2048,

    # LoRA settings
    r=16,
    lora_alpha=16,
    lora_dropout=0.05,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj",
                   "gate_proj", "up_proj", "down_proj"],

    # Training
    num_train_epochs=3,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=4,
    learning_rate=2e-4,

    # Memory optimization
    gradient_checkpointing=True,
    load_in_4bit=True
)
EnhancedTrainingConfig(
    pod_name="unsloth-llama-70b", preferred_gpus=["H100 PCIe", "H100 SXM"], use_flash_attention_2=True
)

from src.unsloth.core.grokking_config import GrokkingConfig

grokking = GrokkingConfig(
    enable_grokking=True,
    grokking_multiplier=30.0,  # 30x more epochs
    grokking_weight_decay=0.1  # Higher weight decay
)
import sys
import socratune
assert type(config) is socratune.EnhancedTrainingConfig and type(grokking) is socratune.GrokkingConfig
assert config.gradient_checkpointing is True and config.r == 16 and config.target_modules[-1] == "down_proj"
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_the_imports_of_the_guide_take_its_arguments_and_name_the_modern_form_once() -> None:
    done = python("-c", GUIDE_CODE)
    assert done.returncode == 0, done.stderr
    forms = [line for line in done.stderr.splitlines() if line.startswith("Modern form: ")]
    names = ("StudentTeacherConfig", "EnhancedTrainingConfig", "GrokkingConfig")
    assert forms == [f"Modern form: from socratune import {name}" for name in names]


@pytest.mark.slow
def test_without_keys_the_pipeline_says_what_is_missing_and_what_to_type_instead(tmp_path: Path) -> None:
    output = tmp_path / "outputs" / "mine"
    flags = ["--model", "demo", "--dataset", "demo", "--output", output]
    done = python(*PIPELINE, *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    plain = f"socratune run --model demo --dataset demo --output {output}"
    assert f"Modern form: {plain} --teacher-model anthropic/max --judge-model gpt-4o-mini\n" in done.stderr
    assert "export ANTHROPIC_API_KEY=" in done.stderr and "export OPENAI_API_KEY=" in done.stderr
    assert f"{plain} --teacher-model ollama/NAME --judge-model ollama/NAME\n" in done.stderr
    assert done.stderr.endswith(f"  {plain}\n")
    assert list(tmp_path.iterdir()) == []  # what cannot begin leaves nothing behind
    own = ["--teacher-model", "rules/arithmetic", "--set", "enhance.judge_model=rules/mechanical", "--dry-run"]
    done = python(*PIPELINE, *flags, *own)
    assert done.returncode == 0 and "anthropic" not in done.stderr


def behave(body: dict[str, Any], number: int) -> Answer:
    """The guide's judge and teacher."""
    case = json.loads(body["messages"][-1]["content"])
    if body["model"] == "gpt-4o-mini":
        right = case["reference_answer"].rsplit(" ", 1)[1] in case["response"].rsplit(" ", 1)[1]
        return Answer(json.dumps({"correct": right, "reason": "compared"}))
    assert body["model"] == "claude-opus-4-5"
    factors = parse_product(case["question"])
    hint = breakdown_hint(*factors) if factors else None
    assert hint is not None
    return Answer(hint)


@pytest.mark.slow
def test_the_script_of_the_guide_trains_with_its_models_and_its_tensorboard_shows_the_curves(tmp_path: Path) -> None:
    output = tmp_path / "outputs" / "my_training"
    with ModelServer(behave) as server:
        done = shell(
            "./train_model.sh",
            "--teacher-api-base", server.url, "--judge-api-base", server.openai_base, "--judge-mode", "llm",
            "--held-out", write_rows(tmp_path / "held_out.jsonl", demo_rows("held_out", 80)),
            "--set", "train.num_train_epochs=6", *few_general_questions(tmp_path),
            MODEL="demo", DATASET=str(write_rows(tmp_path / "qa.jsonl", demo_rows("train", 200))),
            OUTPUT=str(output), HUB_ID="", **KEYS,
        )  # fmt: skip
        asked = {(request.path, request.body["model"]) for request in server.seen}
        assert {request.headers.get("Authorization") for request in server.seen} == {None}  # no key to another host
    assert done.returncode == 0, done.stdout + done.stderr
    assert asked == {("/v1/messages", "claude-opus-4-5"), ("/v1/chat/completions", "gpt-4o-mini")}
    assert done.stdout.splitlines()[-1] == '"passed"'
    for name in ("enhanced_dataset.jsonl", "checkpoints", "adapter", "tensorboard", "pipeline_results.json"):
        assert (output / name).exists()
    if shutil.which("jq"):
        status = shell("sh", "-c", "cat $OUTPUT/pipeline_results.json | jq .status", OUTPUT=str(output))
        assert status.stdout == '"passed"\n'
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    curves = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "outputs" / "tensorboard"))
    curves.Reload()
    assert "train/loss" in curves.Runs()["my_training"]["tensors"]


@pytest.mark.slow
def test_the_script_ends_as_its_pipeline_does(tmp_path: Path) -> None:
    done = shell("./train_model.sh", MODEL="demo", DATASET=str(tmp_path / "none.jsonl"), OUTPUT=str(tmp_path / "run"))
    assert done.returncode == 2 and "none.jsonl" in done.stderr and "myorg/phi-3.5-enhanced-v1" in done.stderr


@pytest.mark.slow
def test_the_generator_of_the_guide_reads_a_database(tmp_path: Path) -> None:
    arango: Any = pytest.importorskip(
        "arango", reason="python-arango is not installed (pip install 'socratune[arango]')"
    )
    import arango_server as double

    entities = json.loads((DEMO_DATA / "graph.json").read_text("utf-8"))["entities"]
    with double.ArangoServer() as server:
        client = arango.ArangoClient(server.url)
        client.db("_system", double.USER, double.PASSWORD).create_database("your_db")
        things = [{"_key": one["key"], "title": one["title"], "text": one["text"]} for one in entities]
        client.db("your_db", double.USER, double.PASSWORD).create_collection("things").insert_many(things)
        client.close()
        output = tmp_path / "qa_unsloth_20241223.jsonl"
        done = python(
            "generate_qa_data.py", "--database", "your_db", "--output", output,
            ARANGO_URL=server.url, ARANGO_USER=double.USER, ARANGO_PASSWORD=double.PASSWORD,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Modern form: socratune generate --database your_db --output {output}\n" in done.stderr
    for line in output.read_text("utf-8").splitlines():
        row = json.loads(line)
        assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
        assert row["metadata"]["source"].startswith("things/")


@pytest.mark.slow
def test_the_examples_run_on_the_embedded_model(finished_run: Path, tmp_path: Path) -> None:
    examples = Path("src", "unsloth", "examples")
    done = python(examples / "enhance_rows.py")
    assert done.returncode == 0, done.stderr
    assert "teacher: Try breaking it down: " in done.stdout and "(correct)" in done.stdout
    done = python(examples / "train_adapter.py", tmp_path / "run")
    assert done.returncode == 0 and "status: passed" in done.stdout, done.stderr
    done = python(examples / "use_adapter.py", finished_run, "What is 47 * 83?")
    assert done.returncode == 0 and "3901" in done.stdout, done.stderr
    assert {path.name for path in (ROOT / examples).glob("*.py")} == {
        "enhance_rows.py", "train_adapter.py", "use_adapter.py",
    }  # fmt: skip


def real_unsloth(folder: Path) -> Path:
    """A folder with a package of that name in it."""
    (folder / "unsloth").mkdir(parents=True)
    (folder / "unsloth" / "__init__.py").write_text("REAL = True\n", "utf-8")
    return folder


def isolated(code: str, *path: Path) -> str:
    """What code prints that sees the standard library and these folders, their `.pth` files included, nothing else."""
    start = "import site, sys\nfor folder in sys.argv[1:]: site.addsitedir(folder)\n"
    command = [sys.executable, "-I", "-S", "-c", start + code, *map(str, path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


def test_the_real_unsloth_is_found_also_behind_the_folder_of_the_doors(tmp_path: Path) -> None:
    assert isolated("import unsloth; print(unsloth.REAL)", ROOT / "src", real_unsloth(tmp_path)) == "True"
    assert not list((ROOT / "src" / "unsloth").rglob("__init__.py"))  # which would make it a package that hides another


@pytest.mark.slow
def test_an_editable_install_shows_no_package_of_that_name(tmp_path: Path) -> None:
    from build import ProjectBuilder
    from build.env import DefaultIsolatedEnv

    with DefaultIsolatedEnv() as outside:
        builder = ProjectBuilder.from_isolated_env(outside, ROOT)
        outside.install(builder.build_system_requires)
        outside.install(builder.get_requires_for_build("editable"))
        wheel = zipfile.ZipFile(builder.build("editable", tmp_path))
        (editables,) = Path(outside.path).rglob("site-packages/editables")
        shutil.copytree(editables, tmp_path / "site" / "editables")  # pip installs it, too: the wheel requires it
    with wheel:
        wheel.extractall(tmp_path / "site")
    found = "from importlib.util import find_spec; print(find_spec('socratune').origin, find_spec('unsloth'))"
    home = ROOT / "src" / "socratune" / "__init__.py"
    assert isolated(found, tmp_path / "site") == f"{home} None"
    real = real_unsloth(tmp_path / "real")
    assert isolated("import unsloth; print(unsloth.__file__)", tmp_path / "site", real).startswith(str(real))
