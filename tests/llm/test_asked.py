"""Which models are asked behind an address, and at which hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import demo_rows, socratune, write_rows

from socratune.llm.asked import asked_models, is_this_machine, note_asked, shown_host
from socratune.resolve import resolve_settings


def config(**sections: Any) -> Any:
    return resolve_settings({"model": "demo", "dataset": "demo", "output": "o", **sections}).config


def test_nothing_but_what_is_named_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-of-somebody")
    assert [*asked_models(config())] == []
    assert [*asked_models(config(enhance={"judge_model": "python:a.py:f", "teacher_model": "local/demo"}))] == []
    judge = {"judge_model": "gpt-4o-mini", "judge_mode": "mechanical"}
    assert [*asked_models(config(enhance=judge))] == []  # which rules replace
    assert [*asked_models(config(generate={"writer_model": "openai/x"}))] == []  # without a source nobody writes
    loop = {"judge_model": "gpt-4o-mini", "teacher_model": "q", "teacher_api_base": ["http://a:1/v1", "http://b:1/v1"]}
    found = [(one.role, one.setting, one.model, one.hosts) for one in asked_models(config(enhance=loop))]
    assert found == [
        ("teacher", "enhance.teacher_api_base", "q", ("a", "b")),
        ("judge", "enhance.judge_model", "openai/gpt-4o-mini", ("api.openai.com",)),
    ]


def test_what_was_sent_where_is_kept_over_a_change_of_address() -> None:
    sent: dict[str, Any] = {}
    loop = {"judge_model": "q", "judge_api_base": ["http://a:1/v1"]}
    note_asked(sent, config(enhance=loop), ["enhance.student"])
    assert sent == {}  # nobody was asked yet
    note_asked(sent, config(enhance=loop), ["enhance.judge", "enhance.student"])
    note_asked(sent, config(enhance={**loop, "judge_api_base": ["http://b:1/v1"]}), ["enhance.judge", "validate.judge"])
    fields = "question, reference answer and the student's answers"
    assert sent == {
        "enhance.judge": {"model": "q", "hosts": ["a", "b"], "fields": fields},
        "validate.judge": {"model": "q", "hosts": ["b"], "fields": fields},
    }


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.0.1", "::1", "0.0.0.0"])
def test_this_machine(host: str) -> None:
    assert is_this_machine(host) and shown_host(host) == "this machine"


@pytest.mark.parametrize(
    "host", ["localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.1", "gpu1", "api.openai.com", "::2"]
)
def test_another_machine(host: str) -> None:
    assert not is_this_machine(host)


def test_a_card_names_no_host_of_a_network_of_ones_own() -> None:
    own = "a server of one's own network"
    assert [shown_host(name) for name in ("gpu1", "10.1.2.3", "fd00::1", "box.corp", "x.internal")] == [own] * 5
    assert [shown_host(name) for name in ("api.openai.com", "8.8.8.8")] == ["api.openai.com", "8.8.8.8"]


@pytest.mark.slow
def test_an_address_that_cannot_be_read_is_a_users_error(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", demo_rows("train", 30))
    flags = ["--model", "demo", "--dataset", data, "--output", tmp_path / "run", "--max-usd", "3"]
    done = socratune("enhance", *flags, "--judge-model", "foo", "--judge-api-base", "http://[::1")
    assert done.returncode == 2 and "got 'http://[::1'" in done.stderr
