"""socratune ui: the page live, for this machine only, and decisions that stay."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import socratune
from pages import answer, browser, make_large_run, make_run, opened, served, trace, write_results

from socratune.runs.folder import RunDir
from socratune.runs.journal import Journal
from socratune.runs.review import review_decisions


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def ask(
    url: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, raw: bytes | None = None
) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON or text, headers) of a request; a POST where there is a body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if sent else {}
    connection.request("POST" if sent else "GET", path, body=sent, headers={**kind, **(headers or {})})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    is_json = reply.getheader("content-type", "").startswith("application/json")
    return reply.status, json.loads(text) if is_json else text, dict(reply.getheaders())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDir, str]]:
    """A run with 500 traces, and its server."""
    rows = [trace(f"t{n}", f"Question {n}?") for n in range(499)] + [trace("u", outcome="unsolved", question="Open?")]
    run = make_run(tmp_path_factory.mktemp("many"), rows, [answer("x", "correct", "incorrect")])
    with served(run) as url:
        yield run, url


def test_any_number_of_rows_page_by_page(many: tuple[RunDir, str]) -> None:
    _, url = many
    status, found, _ = ask(url, "/api/rows/traces?offset=0&limit=1000")
    assert (status, found["total"], len(found["rows"]), found["rows"][0]["id"]) == (200, 500, 200, "u")
    assert found["kinds"] == {"unsolved": 1, "first_try": 499}
    last = ask(url, "/api/rows/traces?offset=499&limit=10")[1]["rows"]
    assert [row["id"] for row in last] == ["t498"]
    assert ask(url, "/api/rows/traces?text=question+49&kind=first_try")[1]["total"] == 10
    assert ask(url, "/api/rows/traces?offset=900")[1]["rows"] == []
    assert ask(url, "/api/rows/answers")[1]["rows"][0]["kind"] == "lost"
    assert ask(url, "/api/row/traces?id=t7")[1]["question"] == "Question 7?"
    for path in ("/api/row/traces?id=none", "/api/rows/other", "/etc/passwd", "/../config.yaml"):
        assert ask(url, path)[0] == 404
    assert ask(url, "/api/rows/traces?offset=x")[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_other_pages_are_refused(many: tuple[RunDir, str], headers: dict[str, str]) -> None:
    run, url = many
    assert ask(url, "/api/state", headers=headers)[0] == 403
    assert ask(url, "/api/review", {"id": "t1", "decision": "reject", "text": None}, headers=headers)[0] == 403
    assert not run.review.exists()


def test_it_listens_on_loopback_and_answers_its_own_page(many: tuple[RunDir, str]) -> None:
    _, url = many
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host == "127.0.0.1" and port
    for name in ("127.0.0.1", "localhost", "[::1]"):
        own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert ask(url, "/", headers=own)[0] == 200
    own_addresses = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in own_addresses - {"127.0.0.1", "127.0.1.1"}:
        with socket.socket() as other, pytest.raises((ConnectionError, AssertionError)):
            other.connect((address, port))
    _, page, headers = ask(url, "/")
    assert "connect-src 'self'" in page and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "t1", "decision": "burn", "text": None}, 400),
        ({"id": "t1", "decision": "edit", "text": "  "}, 400),
        ({"id": "t1", "decision": "edit", "text": 3}, 400),
        ({"id": "t1", "decision": "edit", "text": "12 \ud83d"}, 400),
        ({"id": "t1", "decision": ["edit"], "text": "x"}, 400),
        ({"id": ["t1"], "decision": "reject", "text": None}, 400),
        ({"id": {}, "decision": "reject", "text": None}, 400),
        ({"id": None, "decision": "reject", "text": None}, 400),
        ({"id": "t1", "decision": "accept", "text": [1]}, 400),
        ("reject", 400),
        ({"id": "none", "decision": "reject", "text": None}, 404),
        ({"decision": "reject"}, 400),
        ([], 400),
    ],
)
def test_what_is_no_decision_is_not_kept(many: tuple[RunDir, str], body: Any, status: int) -> None:
    run, url = many
    assert ask(url, "/api/review", body)[0] == status
    assert ask(url, "/api/review", raw=b"id=t1&decision=reject", headers={"Content-Type": "text/plain"})[0] == 415
    assert not run.review.exists()


def test_an_unchanged_state_costs_nothing(many: tuple[RunDir, str]) -> None:
    run, url = many
    _, state, headers = ask(url, "/api/state")
    assert state["lists"]["traces"]["total"] == 500
    assert ask(url, "/api/state", headers={"If-None-Match": headers["etag"]})[0] == 304
    write_results(run, {**json.loads(run.results.read_text("utf-8")), "status": "stopped"})
    status, state, _ = ask(url, "/api/state", headers={"If-None-Match": headers["etag"]})
    assert (status, state["results"]["status"]) == (200, "stopped")


@pytest.mark.slow
def test_a_wrong_folder_and_a_taken_port_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    wrong = socratune("ui", tmp_path / "none")
    assert wrong.returncode == 2 and "no such folder" in wrong.stderr
    none = socratune("ui", cwd=tmp_path)
    assert none.returncode == 2 and "socratune ui RUN" in none.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = socratune("ui", run.root, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2 and "expected a free port" in done.stderr


@pytest.mark.slow
def test_traces_show_while_the_loop_works(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.enhanced.unlink()
    stages = {"enhance": {"status": "running", "seconds": 1.0, "done": 2, "total": 9, "key": "k"}}
    write_results(run, {"status": "running", "stages": stages})

    async def put(journal: Journal, *numbers: int) -> None:
        for number in numbers:
            await journal.put_row("enhance.k", number, f"t{number}", trace(f"t{number}"))

    journal = Journal(run.journal)
    try:
        with run.locked():
            asyncio.run(put(journal, 4, 1))
            with served(run) as url:
                found = ask(url, "/api/rows/traces")[1]
                assert [row["id"] for row in found["rows"]] == ["t1", "t4"]
                asyncio.run(put(journal, 7))
                while len(found["rows"]) < 3:
                    found = ask(url, "/api/rows/traces")[1]
                assert ask(url, "/api/review", {"id": "t7", "decision": "reject", "text": None})[0] == 200
                assert ask(url, "/api/rows/traces?mark=reviewed")[1]["total"] == 1
    finally:
        journal.close()
    assert set(review_decisions(run)) == {"t7"}


@pytest.mark.slow
def test_a_damaged_journal_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.enhanced.unlink()
    write_results(run, {"status": "running", "stages": {"enhance": {"status": "running", "key": "k"}}})
    run.journal.write_text("no database", "utf-8")
    with served(run) as url:
        status, said, _ = ask(url, "/api/rows/traces")
    assert status == 500 and "The file is corrupt. Move it aside" in said


@pytest.mark.slow
def test_the_page_follows_a_run_that_works(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path)
    run.enhanced.unlink()
    stages: dict[str, Any] = {"enhance": {"status": "running", "seconds": 10.0, "done": 100, "total": 400}}
    write_results(run, {"status": "running", "stages": stages})
    with run.locked(), served(run) as url, opened(chromium, url) as page:
        assert page.inner_text("h1") == "Running"
        assert page.inner_text("#progress-text") == "enhance: 100 of 400, 10 s; about 30 s left"
        assert "not written a trace yet" in page.inner_text("#count")
        stages["enhance"] |= {"done": 300}
        write_results(run, {"status": "running", "stages": stages})
        page.locator("#progress-text", has_text="enhance: 300 of 400").wait_for()
        finished = make_run(tmp_path / "finished", [trace("a", "A question that came?")])
        run.enhanced.write_bytes(finished.enhanced.read_bytes())
        stages["enhance"] |= {"status": "done", "done": 400}
        write_results(run, {"status": "failed", "stages": stages, "error": "No trainable row is left."})
        page.locator("h1", has_text="Failed").wait_for()
        page.locator("#rows", has_text="A question that came?").wait_for()
        assert "No trainable row is left." in page.inner_text(".lead")


@pytest.mark.slow
def test_a_review_survives_a_restart(tmp_path: Path, chromium: Any) -> None:
    rows = [trace("a", "First?"), trace("b", "Second?"), trace("u", "Open?", outcome="unsolved")]
    run = make_run(tmp_path, rows)
    hostile = "Edited: <b>6</b>\u2028</script>"
    with run.locked(), served(run) as url, opened(chromium, url) as page:
        page.locator("#rows button", has_text="Open?").click()
        assert page.locator("[data-review=accept]").is_disabled()
        page.keyboard.press("e")
        page.fill("#edit-text", hostile)
        page.get_by_role("button", name="Save").click()
        page.wait_for_selector("#rows button:has-text('reviewed: edit')")
        page.locator("#rows button", has_text="First?").click()
        page.locator("#detail .question .text", has_text="First?").wait_for()
        page.keyboard.press("a")
        page.wait_for_selector("#rows button:has-text('reviewed: accept')")
        page.keyboard.press("j")
        page.locator("#detail .question .text", has_text="Second?").wait_for()
        page.keyboard.press("r")
        page.wait_for_selector("#rows button:has-text('reviewed: reject')")
        page.keyboard.press("u")
        page.wait_for_selector("#rows button:has-text('reviewed: reject')", state="detached")
    with served(run) as url, opened(chromium, url) as page:
        page.select_option("#mark", "reviewed")
        page.locator("#count", has_text="2 of 3").wait_for()
        page.locator("#rows button", has_text="Open?").click()
        assert "Edited" in page.inner_text(".review")
        assert "</script>" in page.inner_text("#detail .pair")
    kept = review_decisions(run)
    assert {name: (one.decision, one.text) for name, one in kept.items()} == {
        "u": ("edit", hostile),
        "a": ("accept", "2 * 3 = 6."),
    }


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_served(tmp_path: Path, chromium: Any) -> None:
    text = "Twice three is six, and six is what was asked. " * 20
    run = make_large_run(tmp_path, 100_000, "Question {n}?", text)
    with served(run) as url:
        took = []
        for path in ("/api/state", "/api/rows/traces?offset=99900&limit=100", "/api/rows/traces?text=question+9999"):
            started = time.monotonic()
            status, _, _ = ask(url, path)
            took.append(time.monotonic() - started)
            assert status == 200
        print(f"100,000 rows: index {took[0]:.1f} s, last page {took[1]:.2f} s, search {took[2]:.1f} s")
        with opened(chromium, url) as page:
            page.evaluate("document.querySelector('#rows').scrollTop = 1e9")
            page.wait_for_selector("#rows button:has-text('Question 99999?')")
