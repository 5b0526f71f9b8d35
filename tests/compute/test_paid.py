"""What a run says before its first call to a model that is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, write_rows

from socratune.compute import paid_notice
from socratune.preflight import check_run
from socratune.resolve import resolve_settings
from socratune.runs import STAGES

GUIDE = {"teacher_model": "anthropic/max", "judge_model": "gpt-4o-mini"}


def notice(folder: Path, *stages: str, **given: Any) -> str:
    data = write_rows(folder / "rows.jsonl", demo_rows("train", 30))
    rows = {} if "generate" in given else {"dataset": str(data)}
    settings: dict[str, Any] = {"model": "demo", "output": str(folder / "run"), **rows, **given}
    settings["split"] = {"held_out": str(write_rows(folder / "held_out.jsonl", demo_rows("held_out", 10)))}
    return paid_notice(resolve_settings(settings).config, stages or STAGES)


def test_a_vendor_is_named_with_fields_rows_price_and_terms(tmp_path: Path) -> None:
    first, teacher, judge, last = notice(tmp_path, enhance=GUIDE).splitlines()
    assert first == "This run sends data to models that are paid for:"
    assert teacher.strip().startswith(
        "teacher anthropic/claude-opus-4-5 at api.anthropic.com: question, reference answer"
    )
    assert "wrong answers of up to 40 rows; 5 USD per million tokens read, 25 written" in teacher
    assert "as of 2026-11: https://support.claude.com/" in teacher
    assert "judge openai/gpt-4o-mini at api.openai.com" in judge and "https://openai.com/policies/" in judge
    assert last.strip().startswith("About 0.") and "--local-only refuses such calls" in last


@pytest.mark.parametrize(
    "loop",
    [
        {},
        {"teacher_model": "ollama/llama3", "judge_model": "local/demo"},
        {"judge_model": "q", "judge_api_base": ["http://gpu1:8000/v1"]},
        {"judge_model": "gpt-4o-mini", "judge_mode": "mechanical"},
    ],
)
def test_a_model_that_costs_nothing_is_not_named(tmp_path: Path, loop: dict[str, Any]) -> None:
    assert notice(tmp_path, enhance=loop) == ""


def test_only_the_stages_to_come_count(tmp_path: Path) -> None:
    assert notice(tmp_path, "split", "curate", enhance=GUIDE) == ""
    assert "teacher" not in notice(tmp_path, "validate", enhance=GUIDE)
    written = notice(tmp_path, generate={"source": "demo", "writer_model": "groq/mine"})
    assert "writer groq/mine at api.groq.com: passages of the source; price not known" in written
    assert "see its terms on training" in written


def test_a_gateway_behind_a_key_is_named_with_its_host(tmp_path: Path) -> None:
    loop = {"judge_model": "q", "judge_api_base": ["https://gate.acme.com/v1"]}
    told = notice(tmp_path, enhance={**loop, "endpoints": {"judge": {"api_key_env": "TEAM_KEY"}}})
    assert "judge q at gate.acme.com" in told and "price not known" in told


def test_a_model_that_was_asked_before_is_not_named_again_and_another_one_is(tmp_path: Path) -> None:
    sent = {"enhance.judge": {"model": "openai/gpt-4o-mini", "hosts": ["api.openai.com"]}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pipeline_results.json").write_text(json.dumps({"stages": {}, "sent_to": sent}))
    told = notice(tmp_path, enhance=GUIDE)
    assert "anthropic" in told and "gpt-4o-mini" not in told
    assert "judge openai/gpt-5 at" in notice(tmp_path, enhance={"judge_model": "openai/gpt-5"})


def test_a_run_says_it_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    given = {"model": "demo", "dataset": str(data), "output": str(tmp_path / "run")}
    check_run(given, where="test")
    assert "paid for" not in caplog.text  # a key alone sends nothing
    check_run({**given, "enhance": {"judge_model": "gpt-4o-mini"}}, where="test")
    assert "api.openai.com" in caplog.text
