"""Exports of an adapter, and the check that they answer as it does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEMO_DATA, demo_rows, socratune, write_rows

from socratune.config import RunConfig
from socratune.errors import OutsideError, StageFailed, UserError
from socratune.publishing import export as exporting
from socratune.publishing.export_parity import bfloat16_step, parity
from socratune.publishing.modelfile import go_template, modelfile
from socratune.resolve import read_config_file, resolve_settings
from socratune.rows import QARow
from socratune.runs.folder import RunDir


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an adapter that nobody trained: random, and large enough to change many answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    from socratune.inference.load import load_model

    folder = tmp_path_factory.mktemp("made") / "run"
    model, tokenizer = load_model("demo")
    torch.manual_seed(0)
    adapter = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    adapter.save_pretrained(str(folder / "adapter"))
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    loud = {n: torch.randn_like(w) * (0.1 if "lora_B" in n else 0.2) for n, w in weights.items()}
    save_file(loud, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter" / "README.md").unlink()
    tokenizer.save_pretrained(folder / "adapter")
    (folder / "config.yaml").write_text("model: demo\ndataset: demo\noutput: x\n")
    rows = demo_rows("held_out", 40)
    write_rows(folder / "held_out.jsonl", [{"id": str(n), "metadata": {}, **row} for n, row in enumerate(rows)])
    examples = [{"id": "1", "prompt": rows[0]["messages"][:-1], "pieces": [], "outcome": "solved_first_try"}]
    write_rows(folder / "train.jsonl", examples)
    return folder


@pytest.fixture
def config(made_run: Path) -> RunConfig:
    return resolve_settings(read_config_file(made_run / "config.yaml")).config


def rows_of(folder: Path, count: int) -> list[QARow]:
    lines = (folder / "held_out.jsonl").read_text().splitlines()[:count]
    return [QARow.from_json(json.loads(line)) for line in lines]


@pytest.mark.slow
def test_merged_loads_like_any_model_and_answers_as_the_adapter(
    made_run: Path, config: RunConfig, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out" / "merged"
    said = exporting.export_adapter(RunDir(made_run), config, "merged", out=str(out), prompts=24)
    figures = json.loads((out / "parity.json").read_text())
    assert figures["passed"] and figures["prompts"] == 24 and f"{figures['equal']} of 24" in said
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and not (out / "adapter_config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(made_run / "adapter").chat_template
    published = [path for path in out.iterdir() if path.suffix in (".json", ".jinja")]
    assert not [path for path in published if str(made_run.parent) in path.read_text()]
    assert not [path for path in out.parent.iterdir() if path.name != "merged"]  # nothing left of the making
    exporting.export_adapter(RunDir(made_run), config, "merged", out=str(out), prompts=4)  # replaces it
    assert json.loads((out / "parity.json").read_text())["prompts"] == 4


@pytest.mark.slow
def test_an_export_without_the_adapter_is_refused_and_not_left_behind(
    made_run: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgets_the_adapter(job: exporting.ExportJob, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        AutoModelForCausalLM.from_pretrained(DEMO_DATA / "base").save_pretrained(folder)
        AutoTokenizer.from_pretrained(DEMO_DATA / "base").save_pretrained(folder)

    monkeypatch.setattr(exporting, "_merge", forgets_the_adapter)
    out = tmp_path / "out"
    with pytest.raises(StageFailed, match="Not exported") as failed:
        exporting.export_adapter(RunDir(made_run), config, "merged", out=str(out), prompts=16)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.parity.json"]
    figures = json.loads((tmp_path / "out.parity.json").read_text())
    assert not figures["passed"] and figures["agreement"] < 0.9
    worst = figures["divergences"][0]
    assert not worst["near_tie"] and worst["logit_gap"] > 0 and worst["adapter"] != worst["export"]
    assert f"first at token {worst['at']} of {worst['id']}" in str(failed.value)


@pytest.mark.slow
def test_a_template_that_was_lost_on_the_way_shows_in_the_answers(made_run: Path) -> None:
    from socratune.inference.load import load_model

    def with_another_template() -> tuple[Any, Any]:
        model, tokenizer = load_model("demo", adapter=made_run / "adapter")
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        return model, tokenizer

    def right() -> tuple[Any, Any]:
        return load_model("demo", adapter=made_run / "adapter")

    rows = rows_of(made_run, 8)
    assert parity(rows, right, right, max_new_tokens=24, min_agreement=1.0)["equal"] == 8
    assert not parity(rows, right, with_another_template, max_new_tokens=24, min_agreement=0.9)["passed"]


def test_the_step_of_bfloat16_is_torchs() -> None:
    import torch

    for value in (0.013, 1.0, 1.9, 2.0, 21.7, -21.7, 300.0):
        here = torch.tensor(abs(value), dtype=torch.bfloat16)
        following = torch.tensor(here.view(torch.int16).item() + 1, dtype=torch.int16).view(torch.bfloat16)
        assert bfloat16_step(float(here)) == float(following) - float(here)
    assert bfloat16_step(0.0) == 0.0


@pytest.mark.parametrize(
    ("to", "flags", "said"),
    [
        ("onnx", {}, "merged, gguf, ollama, vllm"),
        ("gguf", {}, "git clone https://github.com/ggml-org/llama.cpp"),
        ("gguf", {"llama_cpp": "/nowhere"}, "no such file in /nowhere"),
        ("merged", {"out": "/proc/x/y"}, "a folder can be made"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_loaded(
    made_run: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, to: str, flags: dict[str, Any], said: str
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setattr(exporting, "_merge", lambda *_: pytest.fail("it began to merge"))
    with pytest.raises(UserError, match=re.escape(said)):
        exporting.export_adapter(RunDir(made_run), config, to, **flags)


def test_a_folder_with_something_else_is_left_alone(made_run: Path, config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        exporting.export_adapter(RunDir(made_run), config, "merged", out=str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_an_adapter_that_is_not_whole_is_refused_and_a_changed_one_is_said(
    made_run: Path, config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir(shutil.copytree(made_run, tmp_path / "run"))
    proof = {"status": "passed", "tests": {"file_integrity": {"sha256": {"adapter_config.json": "another"}}}}
    run.results.write_text(json.dumps({"stages": {}, "validation": proof}))
    exporting.export_adapter(run, config, "vllm")
    assert "changed after it was validated" in caplog.text
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for to in exporting.FORMATS:
        if to != "gguf":
            with pytest.raises(StageFailed, match="cannot be read"):
                exporting.export_adapter(run, config, to)
    with pytest.raises(UserError, match="no such folder"):
        exporting.export_adapter(run, config.model_copy(update={"model": "/nowhere/tiny"}), "vllm")
    done = socratune("chat", run.root, "What is 2 * 3?")
    assert done.returncode == 2 and "a LoRA adapter for demo" in done.stderr and "Traceback" not in done.stderr


CONVERTER_STUB = """
import argparse, pathlib, struct
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype", choices=["f32", "f16", "bf16", "q8_0", "auto"])
asked = parser.parse_args()
assert (asked.model / "model.safetensors").is_file() and (asked.model / "tokenizer.json").is_file()
if {fails}:
    raise SystemExit("NotImplementedError: BPE pre-tokenizer was not recognized")
def text(value):
    return struct.pack("<Q", len(value)) + value.encode()

head = struct.pack("<IQQ", 3, 0, 2)  # version, tensors, entries; an entry is a name, its type (8: text) and its value
kind, name = text("general.architecture") + struct.pack("<I", 8), text("general.name") + struct.pack("<I", 8)
asked.outfile.write_bytes(b"GGUF" + head + kind + text("nobody-reads-this") + name + text(asked.outtype))
"""


def converter(folder: Path, *, fails: bool) -> str:
    folder.mkdir(exist_ok=True)
    (folder / exporting.CONVERTER).write_text(CONVERTER_STUB.format(fails=fails))
    return str(folder)


@pytest.mark.slow
def test_gguf_is_made_by_llama_cpps_converter(made_run: Path, config: RunConfig, tmp_path: Path) -> None:
    """By a script with the real one's arguments, which shows that the call is right and not what llama.cpp makes of it;
    its file is of a kind that transformers does not read.
    """
    out, tools = tmp_path / "gguf", tmp_path / "llama.cpp"
    with pytest.raises(OutsideError, match="pre-tokenizer was not recognized"):
        given = converter(tools, fails=True)
        exporting.export_adapter(RunDir(made_run), config, "gguf", out=str(out), llama_cpp=given, prompts=4)
    assert not out.exists()
    given = converter(tools, fails=False)
    said = exporting.export_adapter(RunDir(made_run), config, "gguf", out=str(out), llama_cpp=given, prompts=4)
    assert sorted(path.name for path in out.iterdir()) == ["model.gguf", "parity.json"]
    assert (out / "model.gguf").read_bytes().endswith(b"bf16")
    assert "GGUF" in json.loads((out / "parity.json").read_text())["not_run"] and "Not run here" in said


@pytest.mark.slow
def test_ollama_gets_the_template_the_stop_and_the_system_turn(
    made_run: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    out = tmp_path / "ollama"
    said = exporting.export_adapter(RunDir(made_run), config, "ollama", out=str(out), prompts=4)
    text = (out / "Modelfile").read_text()
    assert "\nFROM ./model\n" in text and (out / "model" / "model.safetensors").is_file()
    assert 'PARAMETER stop "<|im_end|>"' in text and 'SYSTEM """You are a helpful assistant."""' in text
    assert "ADAPTER" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "was not run here" in said
    given = converter(tmp_path / "llama.cpp", fails=False)
    exporting.export_adapter(RunDir(made_run), config, "ollama", out=str(out), llama_cpp=given, prompts=4)
    assert "\nFROM ./model.gguf\n" in (out / "Modelfile").read_text() and not (out / "model").exists()


def as_go_renders(template: str, turns: list[dict[str, str]]) -> str:
    """A conversation by the few words of Go's language that our templates use."""
    body, end = re.fullmatch(
        r"\{\{ range \.Messages \}\}(.*)\{\{ end \}\}\{\{ end \}\}(.*)", template, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    branches = re.split(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}', body)[1:]
    by_role = dict(zip(branches[::2], branches[1::2], strict=True))

    def written(text: str, content: str = "") -> str:
        pieces = re.findall(r'\{\{ (?:(\.Content)|("(?:[^"\\]|\\.)*")) \}\}', text)
        assert "".join(f"{{{{ {a or b} }}}}" for a, b in pieces) == text
        return "".join(content if name else json.loads(literal) for name, literal in pieces)

    return "".join(written(by_role[turn["role"]], turn["content"]) for turn in turns) + written(end)


def test_the_go_template_writes_what_the_tokenizer_writes(tokenizer: Any) -> None:
    template = go_template(tokenizer)
    assert template is not None
    for turns in (
        [{"role": "user", "content": 'Say "x"\n{{ .Content }}'}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1?"},
            {"role": "assistant", "content": "1."},
            {"role": "user", "content": "2?"},
        ],
    ):
        own = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert as_go_renders(template, turns) == own


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3", "phi3", "gemma", "gptoss", "deepseek_r1_distill"])
def test_templates_of_real_models_are_taken_over_exactly_or_not_at_all(name: str) -> None:
    pytest.importorskip("trl", reason="the package trl, which brings the templates, is not installed")
    from test_templates import tokenizer_of

    found = tokenizer_of(name)
    template = go_template(found)
    assert (template is not None) == (name in ("llama3", "qwen3", "phi3", "deepseek_r1_distill")), template
    turns = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "1."},
        {"role": "user", "content": "2?"},
    ]
    if template is not None:
        own = found.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert as_go_renders(template, turns) == own.removeprefix(found.bos_token or "")
    text = modelfile(found, "./model", system=None, sampling={"temperature": 0.6, "top_k": None})
    assert ("No TEMPLATE" in text) == (template is None)
    assert "PARAMETER temperature 0.6\n" in text and "top_k" not in text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "--enable-lora --lora-modules adapter=OUT/adapter --max-lora-rank 8"),
        ({"rank_pattern": {"q_proj": 40}}, "--max-lora-rank 64"),
        ({"use_dora": True}, "vllm serve OUT/model"),
    ],
)
def test_vllm_gets_a_line_it_takes(
    made_run: Path,
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    line: str,
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(made_run, run)
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if "use_dora" in change:  # what it is merged into does not matter here
        monkeypatch.setattr(exporting, "_merge", lambda job, folder: None)
        monkeypatch.setattr(
            exporting, "_check", lambda job, folder: job.checked.update(equal=1, prompts=1, near_ties=0, divergences=[])
        )
    out = tmp_path / "out"
    said = exporting.export_adapter(RunDir(run), config, "vllm", out=str(out))
    assert line.replace("OUT", str(out)) in said and line.replace("OUT", str(out)) in (out / "serve.sh").read_text()
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    program.chmod(0o755)
    asked = ["sh", str(out / "serve.sh"), "--port", "8001", "--chat-template", "my file"]
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    given = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert given[0] == "serve" and given[-4:] == asked[2:]


@pytest.mark.slow
def test_the_command_on_a_trained_run(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    done = socratune("export", copied_run, "--to", "merged", "--prompts", "16")
    assert done.returncode == 0, done.stderr
    assert "of 16 greedy answers" in done.stdout and "Traceback" not in done.stderr
    figures = json.loads((copied_run / "export" / "merged" / "parity.json").read_text())
    assert figures["agreement"] >= 0.9
    script = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
torch.set_num_threads(1)  # a tiny model on a busy machine waits for its second thread
turns = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is 85 * 99?"}]
inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=96, do_sample=False)[0]))
"""
    command = [sys.executable, "-c", script, str(copied_run / "export" / "merged")]
    assert "8415" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = socratune("export", copied_run, "--to", "gguf", env={"LLAMA_CPP": ""})
    assert done.returncode == 2 and "convert_hf_to_gguf.py" in done.stderr
