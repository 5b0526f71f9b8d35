"""Which models think, and how a student draws its answers."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from socratune.config import DEMO_DATA
from socratune.errors import UserError
from socratune.llm.base import Sampling, choose_sampling, is_thinking, served_sampling

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BEGIN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
SWITCHED_OFF = (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ONLY_IF_ASKED = "{% if enable_thinking is defined and enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n"
CUTS_THOUGHTS = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}" + BEGIN + "{% endif %}"
TRL = importlib.util.find_spec("trl")


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        (TURNS + BEGIN + "{% endif %}", False),
        (TURNS + BEGIN + SWITCHED_OFF, True),
        (TURNS + BEGIN + "<think>\n{% endif %}", True),
        (TURNS + BEGIN + ONLY_IF_ASKED + "{% endif %}{% endif %}", False),
        (CUTS_THOUGHTS, True),
        ("Think hard. " + TURNS + BEGIN + "{% endif %}", False),
    ],
)
def test_a_template_tells_whether_its_model_thinks(template: str, thinks: bool) -> None:
    assert is_thinking(template) is thinks


@pytest.mark.skipif(TRL is None, reason="the package trl, which brings real templates, is not installed")
@pytest.mark.parametrize(
    ("name", "thinks"),
    [
        ("qwen3", True), ("qwen3_5_think", True), ("qwen3_6", True), ("deepseek_r1_distill", True), ("glm4moe", True),
        ("qwen2_5", False), ("qwen3_instruct_2507", False), ("qwen3_5_nothink", False), ("llama3_2", False),
        ("gemma3", False), ("gemma4", False), ("phi3_5", False),
    ],
)  # fmt: skip
def test_templates_of_real_models(name: str, thinks: bool) -> None:
    assert TRL is not None and TRL.origin is not None
    template = Path(TRL.origin).parent / "chat_templates" / f"{name}.jinja"
    assert is_thinking(template.read_text("utf-8")) is thinks


def chosen(own: dict[str, Any], *, thinking: bool = False, **asked: Any) -> Sampling:
    return choose_sampling(own, thinking=thinking, **{"temperature": None, "top_p": None, "max_new_tokens": 9, **asked})


def test_what_was_asked_for_then_the_models_own_then_a_default() -> None:
    own = {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "top_k": 20}
    assert chosen(own) == Sampling(0.3, 0.5, 20, 9)
    assert chosen(own, temperature=0.9, top_p=1.0) == Sampling(0.9, 1.0, 20, 9)
    assert chosen(own, temperature=0.0).temperature == 0.0
    assert chosen({}) == Sampling(0.7, 0.8, 0, 9)
    assert chosen({"do_sample": False, "temperature": 0.6}) == Sampling(0.0, 1.0, 0, 9)
    assert chosen({"do_sample": None, "temperature": 0.6, "top_p": 0.95}) == Sampling(0.6, 0.95, 0, 9)
    assert chosen({"do_sample": True}) == Sampling(1.0, 1.0, 0, 9)


def test_a_thinking_model_is_never_read_greedily() -> None:
    assert chosen({}, thinking=True) == Sampling(0.6, 0.95, 0, 9)
    assert chosen({"do_sample": False}, thinking=True) == Sampling(0.6, 0.95, 0, 9)
    assert chosen({"do_sample": True, "temperature": 0.8}, thinking=True).temperature == 0.8
    with pytest.raises(UserError, match="this model thinks"):
        chosen({}, thinking=True, temperature=0.0)


def test_a_served_model_is_asked_as_its_files_say(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(DEMO_DATA / "base" / name, tmp_path)
    asked = {"temperature": None, "top_p": None, "max_new_tokens": 9}
    assert served_sampling(str(tmp_path), **asked) == Sampling(0.7, 0.8, 0, 9)  # neither settings nor a template
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.4, "top_p": 0.6}')
    assert served_sampling(str(tmp_path), **asked) == Sampling(0.4, 0.6, 0, 9)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    templates = [{"name": "tool_use", "template": TURNS}, {"name": "default", "template": TURNS + BEGIN + SWITCHED_OFF}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": templates}))
    assert served_sampling(str(tmp_path), **asked) == Sampling(0.6, 0.95, 0, 9)
    (tmp_path / "chat_template.jinja").write_text(TURNS + BEGIN + "{% endif %}")  # a file of its own counts more
    assert served_sampling(str(tmp_path), **asked) == Sampling(0.7, 0.8, 0, 9)
    assert served_sampling("demo", **asked) == Sampling(0.0, 1.0, 0, 9)
