"""The budget of a run: kept across its stages and across being stopped, and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_server import Answer, ModelServer
from test_generate import answering, own_documents

from socratune.cli.app import main
from socratune.errors import UserError
from socratune.llm.ledger import BudgetSpent
from socratune.pilot import estimate_run
from socratune.pipeline import run_pipeline
from socratune.preflight import check_run
from socratune.resolve import read_config_file

PAID, TOKENS = "openai/gpt-4", (200, 400)
USD_A_CALL = 200 * 30e-6 + 400 * 60e-6


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-canary")


def behave(body: dict[str, Any], number: int) -> Answer:
    """A writer of questions; a judge that finds every answer wrong; a teacher with one hint."""
    case = json.loads(body["messages"][-1]["content"])
    if "passage" in case:
        return replace(answering(body, number), tokens=TOKENS)
    if "response" in case:
        return Answer(json.dumps({"correct": False, "reason": "no"}), tokens=TOKENS)
    return Answer("Hint: Think of the station.", tokens=TOKENS)


def given(tmp_path: Path, server: ModelServer, **settings: Any) -> dict[str, Any]:
    docs = tmp_path / "docs" if (tmp_path / "docs").exists() else own_documents(tmp_path / "docs")
    paid = {"api_key_env": "MY_KEY"}
    return {
        "model": "demo", "output": str(tmp_path / "run"),
        "generate": {"source": str(docs), "writer_model": PAID, "writer_api_base": [server.openai_base],
                     "endpoints": {"writer": paid},  "max_new_tokens": 512, "concurrency": 2},
        "split": {"held_out_share": 0.1, "dev_share": 0},
        "enhance": {"judge_model": PAID, "judge_api_base": [server.openai_base], "judge_mode": "llm",
                    "endpoints": {"judge": paid}, "attempts": 8, "max_new_tokens": 16, "concurrency": 2},
        **settings,
    }  # fmt: skip


def enhanced(config: dict[str, Any]) -> dict[str, Any]:
    resolved = check_run(config, where="test")
    return run_pipeline(resolved, until="enhance", tell=lambda event, stage, entry: None)


@pytest.mark.slow
def test_the_budget_holds_across_stages_and_across_being_stopped(tmp_path: Path) -> None:
    results = tmp_path / "run" / "pipeline_results.json"
    with ModelServer(behave) as server:
        with pytest.raises(BudgetSpent, match=r"for writer and checker: .* Raise the limit to continue: --max-usd USD"):
            enhanced(given(tmp_path, server, max_usd=0.6))
        assert 0 < len(server.seen) * USD_A_CALL <= 0.2  # a third
        raised = given(tmp_path, server, max_usd=1.2, budget={"enhance": 0.5})
        with pytest.raises(BudgetSpent, match="for judge and teacher"):
            enhanced(raised)
        stopped = len(server.seen)
        with pytest.raises(BudgetSpent):
            enhanced(raised)
        assert len(server.seen) == stopped  # what was spent before counts
        found = json.loads(results.read_text())["budget"]
        assert sum(part["spent_usd"] for part in found["parts"].values()) == pytest.approx(stopped * USD_A_CALL)
        generate, enhance = found["parts"].values()
        assert generate["spent_usd"] < generate["share_usd"] == pytest.approx(0.7)
        assert 0 < enhance["spent_usd"] <= enhance["share_usd"] == 0.5  # a cap, whatever the writer has left
        assert stopped * USD_A_CALL <= found["max_usd"] == 1.2
        assert enhanced({**raised, "max_usd": 9.0, "budget": {}})["stages"]["enhance"]["done"] == 17


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_with_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ModelServer(behave) as server:
        config = given(tmp_path, server)
        with pytest.raises(BudgetSpent):
            enhanced({**config, "budget": {"enhance": 0.1}})
        path = tmp_path / "run" / "config.yaml"
        written = read_config_file(path)
        del written["max_usd"], written["budget"]  # as an earlier version wrote it
        written["enhance"]["max_usd"], written["generate"]["max_usd"], written["where"]["max_usd"] = 0.1, None, 50.0
        path.write_text(yaml.safe_dump(written))
        before = len(server.seen)
        assert main(["train", str(tmp_path / "run")]) == 3
        assert len(server.seen) == before
        said = capsys.readouterr()
        assert "limit of 0.1 USD for judge and teacher" in said.err


@pytest.mark.slow
def test_what_an_estimate_pays_is_shown_and_counts_once(tmp_path: Path) -> None:
    with ModelServer(behave) as server:
        config = given(tmp_path, server, max_usd=9.0)
        estimated = estimate_run(check_run(config, where="test"), tell=lambda event, stage, entry: None)
        assert spent_usd(estimated) == pytest.approx(len(server.seen) * USD_A_CALL) != 0
        assert spent_usd(enhanced(config)) == pytest.approx(len(server.seen) * USD_A_CALL)


def spent_usd(results: dict[str, Any]) -> float:
    return sum(part["spent_usd"] for part in results["budget"]["parts"].values())


def test_amounts_above_the_budget_are_refused(tmp_path: Path) -> None:
    config = {"model": "demo", "dataset": "demo", "output": str(tmp_path / "run"), "max_usd": 5.0}
    with pytest.raises(UserError, match=r"budget: expected amounts of at most max_usd together, 5 USD, got enhance 6"):
        check_run({**config, "budget": {"enhance": 6.0}}, where="test")


@pytest.mark.slow
def test_a_plan_shows_the_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "demo", "--dataset", "demo", "--max-usd", "9", "--set", f"enhance.teacher_model={PAID}"]
    assert main(["plan", *flags, "--gpu", "H100:80", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["budget"]
    assert found == {"max_usd": 9.0, "parts": {"enhance": {"share_usd": 9.0, "spent_usd": 0.0}}}
    assert main(["plan", *flags, "--gpu", "H100:80"]) == 0
    assert "budget 9 USD, spent: judge and teacher 0 of 9" in capsys.readouterr().out
