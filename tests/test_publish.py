"""Publication through the real `huggingface_hub` client to a Hub on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import socratune
from hub import TOKEN, loopback_hub


def test_what_passed_is_published_privately_and_comes_back_whole(
    copied_run: Path, tmp_path: Path, results_of: Callable[[Path], Any]
) -> None:
    with loopback_hub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        done = socratune("publish", copied_run, "--hub-id", "me/adapter", env=environment)
        assert done.returncode == 0, done.stderr
        files = hub.repos["me/adapter"]
        assert hub.private["me/adapter"]
        weights = (copied_run / "adapter" / "adapter_model.safetensors").read_bytes()
        assert files["adapter_model.safetensors"] == weights
        card = files["README.md"].decode()
        comparison = results_of(copied_run)["validation"]["tests"]["base_comparison"]
        assert f"{comparison['adapter_accuracy']:.1%}" in card and "PeftModel.from_pretrained" in card
        assert "adapter_name" not in card
        assert not [name for name, data in files.items() if b"/tmp" in data or b"site-packages" in data]
        assert results_of(copied_run)["stages"]["publish"]["status"] == "done"
        puts = len([call for call in hub.calls if call.startswith("PUT")])
        assert socratune("publish", copied_run, "--hub-id", "me/adapter", env=environment).returncode == 0
        assert len([call for call in hub.calls if call.startswith("PUT")]) == puts == 1
        script = "import sys, huggingface_hub as h; h.snapshot_download('me/adapter', local_dir=sys.argv[1])"
        command = [sys.executable, "-c", script, str(tmp_path / "back")]
        environment["HOME"] = environment["HF_HOME"] = str(tmp_path)
        got = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert got.returncode == 0, got.stderr
        assert (tmp_path / "back" / "adapter_model.safetensors").read_bytes() == weights


def test_a_wrong_token_is_said_and_can_be_repeated(copied_run: Path, results_of: Callable[[Path], Any]) -> None:
    with loopback_hub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_canary_wrong"}
        done = socratune("publish", copied_run, "--hub-id", "me/adapter", env=environment)
        assert done.returncode == 3, done.stdout
        assert "Check HF_TOKEN" in done.stderr and "Traceback" not in done.stderr
        assert "hf_canary_wrong" not in done.stderr + (copied_run / "run.log").read_text()
        assert results_of(copied_run)["validation"]["status"] == "passed"
        environment["HF_TOKEN"] = TOKEN
        assert socratune("publish", copied_run, "--hub-id", "me/adapter", env=environment).returncode == 0


def test_an_adapter_changed_after_validation_is_not_published(copied_run: Path) -> None:
    from socratune.errors import StageFailed
    from socratune.rundir import RunDir
    from socratune.stages.publish import check_gate

    results = json.loads((copied_run / "pipeline_results.json").read_text())
    check_gate(RunDir(copied_run), results)
    path = copied_run / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    try:
        check_gate(RunDir(copied_run), results)
    except StageFailed as error:
        assert "not the file that was validated" in str(error)
    else:
        raise AssertionError("a changed adapter went through the gate")
