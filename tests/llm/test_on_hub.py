"""GGUF files of a Hub on loopback, by the real client, which reads HF_ENDPOINT when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import socratune
from gguf_files import write_gguf
from hub_server import Hub, Repo, loopback_hub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", packed=True).read_bytes()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback_hub() as found:
        yield found


def in_env(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1",
        "SOCRATUNE_CACHE": str(home / "cache"), **more,
    }  # fmt: skip


FAULTS = """
import json, sys
from socratune.llm.locate import is_here, model_fault
print(json.dumps({name: [is_here(name), str(model_fault(name)), is_here(name)] for name in sys.argv[1:]}))
"""


def faults_of(*names: str, env: dict[str, str]) -> dict[str, tuple[bool, str, bool]]:
    """Of each name whether it is here, what is wrong with it, and whether it is here then."""
    command, environment = [sys.executable, "-c", FAULTS, *names], {**os.environ, **env}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_repository_with_one_gguf_file_is_a_model_and_needs_no_network_afterwards(
    hub: Hub, tiny: bytes, tmp_path: Path
) -> None:
    name = "org/tiny-GGUF"
    hub.repos[f"model/{name}"] = Repo(False, {"README.md": b"", "tiny.Q8_0.gguf": tiny})
    assert faults_of(name, env=in_env(hub, tmp_path)) == {name: [False, "None", True]}
    asked = len(hub.calls)
    again = socratune("plan", "--model", name, "--json", env=in_env(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert again.returncode == 0 and "its config.json" in again.stdout, again.stderr
    assert "Unpacking" not in again.stderr and len(hub.calls) == asked


def test_of_several_one_is_named_behind_a_colon(hub: Hub, tiny: bytes, tmp_path: Path) -> None:
    files = {"tiny.Q4_K_M.gguf": b"GGUF", "tiny.Q8_0.gguf": tiny, "mmproj-tiny.gguf": b"GGUF"}
    repo = "org/tiny-GGUF"
    hub.repos[f"model/{repo}"] = Repo(False, files)
    bad = {repo: f"as in {repo}:tiny.Q4_K_M.gguf. There: tiny.Q4_K_M.gguf, tiny.Q8_0.gguf", f"{repo}:Q5_K": "called so",
           "org/none:a.gguf": "none of that name", f"{repo}:Q": "2 of them"}  # fmt: skip
    good = [f"{repo}:tiny.Q8_0.gguf", f"{repo}:q8_0"]
    found = faults_of(*bad, *good, env=in_env(hub, tmp_path))
    for name, said in bad.items():
        here, fault, still = found[name]
        assert said in fault and not (here or still), fault
    assert [found[name] for name in good] == [[False, "None", True]] * 2


def test_a_repository_with_other_weights_is_taken_by_them(hub: Hub, tiny: bytes, tmp_path: Path) -> None:
    hub.repos["model/org/both"] = Repo(False, {"a.gguf": tiny, "b.gguf": tiny, "model.safetensors": b"x"})
    assert faults_of("org/both", env=in_env(hub, tmp_path)) == {"org/both": [False, "None", False]}
    assert not hub.count("GET /org/both/resolve")
