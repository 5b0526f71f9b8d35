"""Several runs: the list of `socratune ui DIR`, each run's pages behind it, comparisons on demand, and the bundle."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from conftest import socratune
from pages import answer, browser, make_run, opened, served, trace, write_results

from socratune.errors import UserError
from socratune.publishing import bundle
from socratune.publishing.bundle import write_bundle
from socratune.publishing.run_list import listed, runs_below
from socratune.runs.folder import RunDir
from socratune.runs.review import review_decisions

HOSTILE = "x <img src=x onerror=alert(1)> \u202e"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def proven(folder: Path, right: int, *, count: int = 40, question: str = "Q{n}?", **results: Any) -> RunDir:
    """A run whose adapter is right on so many of `count` held-out questions, of which its base knows none."""
    answers = [answer(f"q{n}", adapter="correct" if n < right else "incorrect", question=question.format(n=n))
               for n in range(count)]  # fmt: skip
    share = right / count
    compared = {"base_accuracy": 0.0, "adapter_accuracy": share, "difference": share, "ci95": [share - 0.1, share],
                "n": count, "verdict": "better", "wins": right, "losses": 0, "p": 0.001}  # fmt: skip
    tests = {"base_comparison": compared, "file_integrity": {"passed": True, "problems": [], "sha256": {}}}
    stages = {
        "enhance": {"status": "done", "seconds": 1.0, "done": 1, "total": 1,
                    "spent": {"enhance.teacher": {"tokens": 9, "usd": 0.25}}},
        "train": {"status": "done", "seconds": 1.0, "rows_out": 7},
        "validate": {"status": "done", "seconds": 1.0},
    }  # fmt: skip
    told = {"status": "passed", "stages": stages, "validation": {"status": "passed", "tests": tests}}
    return make_run(folder, [trace("t1", "A question of training?")], answers, **{**told, **results})


def outputs(root: Path) -> Path:
    """Runs in every state that a folder may show."""
    proven(root / "first", 20, updated="2026-01-01T00:00:00Z")
    proven(root / "second", 30, updated="2026-01-02T00:00:00Z")
    proven(root / "arm" / "seed-0", 10, question="Other {n}?", updated="2026-01-03T00:00:00Z")
    working = {"enhance": {"status": "running", "seconds": 1.0, "done": 3, "total": 9}}
    make_run(root / "working", status="running", stages=working)
    make_run(root / "killed", status="running", stages=working)
    make_run(root / "damaged").results.write_text('{"stages": [', "utf-8")
    make_run(root / "other").results.write_text('{"stages": {}, "validation": 3, "status": "passed"}', "utf-8")
    make_run(root / "no-config").config.unlink()
    figures = {"base_comparison": {"ci95": [0.1], "verdict": "better", "n": "x"}}
    make_run(root / "figures", status="passed", validation={"status": "passed", "tests": figures})
    make_run(root / HOSTILE)
    (root / "first" / "rounds" / "1").mkdir(parents=True)
    (root / "first" / "rounds" / "1" / "config.yaml").write_text("model: demo\n", "utf-8")
    (root / "notes").mkdir()
    (root / ".hidden").mkdir()
    (root / ".hidden" / "config.yaml").write_text("model: demo\n", "utf-8")
    return root


@pytest.fixture(scope="module")
def served_outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = outputs(tmp_path_factory.mktemp("many") / "outputs")
    with served(RunDir(root)) as url:
        yield root, url


def ask(url: str, path: str, *, host: str = "", body: Any = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    headers = {"Host": host} if host else {}
    sent = None if body is None else json.dumps(body)
    connection.request("POST" if sent else "GET", path, sent, headers | {"Content-Type": "application/json"})
    reply = connection.getresponse()
    found = reply.status, reply.read().decode()
    connection.close()
    return found


def told(page: str) -> dict[str, Any]:
    """What a page of the list was given."""
    found = re.search(r'id="runs-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_every_run_is_shown_as_what_it_is(tmp_path: Path) -> None:
    root = outputs(tmp_path)
    with RunDir(root / "working").locked():
        runs = {name: listed(RunDir(root / name)) for name in runs_below(root)}
    assert set(runs) == {
        "first",
        "second",
        "arm/seed-0",
        "working",
        "killed",
        "damaged",
        "other",
        "no-config",
        "figures",
        HOSTILE,
    }
    first = runs["first"]
    assert (first["headline"], first["adapter_accuracy"], first["ci95"]) == (
        ["Better than its base", "good"],
        0.5,
        [0.4, 0.5],
    )
    assert (first["rows"], first["usd"], first["updated"], first["comparable"]) == (
        7,
        0.25,
        "2026-01-01T00:00:00Z",
        True,
    )
    assert (runs["working"]["headline"][0], runs["working"]["why"]) == ("Running", "enhance, 3 of 9")
    assert runs["killed"]["headline"][0] == "Interrupted"
    assert {runs[name]["headline"][0] for name in ("damaged", "other", "no-config", "figures")} == {"Broken folder"}
    assert runs["no-config"]["why"].startswith("config.yaml: ") and "pipeline_results.json" in runs["damaged"]["why"]


def test_the_cost_is_unknown_where_a_part_of_it_is(tmp_path: Path) -> None:
    run = proven(tmp_path / "run", 5)
    results = json.loads(run.results.read_text("utf-8"))
    write_results(run, {**results, "rented": {"machine": "a pod", "usd": 1.5}})
    assert listed(run)["usd"] == 1.75
    results["stages"]["enhance"]["spent"]["enhance.judge"] = {"tokens": 5, "usd": None}
    write_results(run, results)
    assert listed(run)["usd"] is None


@pytest.mark.slow
def test_a_name_that_is_no_text_breaks_neither_list_nor_bundle(tmp_path: Path) -> None:
    name = os.fsdecode(b"run \xff")
    proven(tmp_path / "outputs" / name, 5)
    with served(RunDir(tmp_path / "outputs")) as url:
        status, page = ask(url, "/")
        assert status == 200 and told(page)["runs"][0]["href"] == "run/run%20%FF/"
    write_bundle(tmp_path / "site", [str(tmp_path / "outputs")])
    assert [path.name for path in (tmp_path / "site" / "runs").iterdir()] == ["run.html"]


@pytest.mark.slow
def test_each_run_has_its_pages_and_a_new_one_appears(served_outputs: tuple[Path, str]) -> None:
    root, url = served_outputs
    listing = told(ask(url, "/")[1])
    hrefs = {run["name"]: run["href"] for run in listing["runs"]}
    assert listing["title"] == "outputs" and hrefs["arm/seed-0"] == "run/arm/seed-0/"
    for name in ("first", "arm/seed-0", HOSTILE):
        status, state = ask(url, f"/{hrefs[name]}api/state")
        assert (status, json.loads(state)["run"], json.loads(state)["home"]) == (200, name.rsplit("/", 1)[-1], "/")
    assert json.loads(ask(url, "/run/first/api/rows/traces")[1])["total"] == 1
    assert ask(url, "/run/first/api/review", body={"id": "t1", "decision": "reject", "text": None})[0] == 200
    assert review_decisions(RunDir(root / "first"))["t1"].decision == "reject"
    assert not (root / "second" / "review.jsonl").exists()
    make_run(root / "new")
    assert "new" in {run["name"] for run in told(ask(url, "/")[1])["runs"]}


@pytest.mark.slow
def test_nothing_outside_the_list_is_served_and_nobody_else_is_answered(served_outputs: tuple[Path, str]) -> None:
    root, url = served_outputs
    make_run(root.parent / "outside")
    names = ("../outside", "%2e%2e/outside", "first/../../outside", "notes", ".hidden", "first/rounds/1", "\x00", "arm")
    for name in names:
        assert ask(url, f"/run/{quote(name, safe='/%')}/")[0] == 404, name
        assert ask(url, f"/run/{quote(name, safe='/%')}/api/state")[0] == 404, name
        assert ask(url, f"/compare?a=first&b={quote(name)}")[0] == 400, name
    for path in ("/", "/run/first/", "/run/first/api/state", "/compare?a=first&b=second"):
        assert ask(url, path, host="evil.example")[0] == 403
        assert ask(url, path)[0] == 200


@pytest.mark.slow
def test_two_runs_are_compared_on_demand(served_outputs: tuple[Path, str]) -> None:
    _, url = served_outputs
    status, page = ask(url, "/compare?a=first&b=second")
    assert status == 200 and '"headline":"B is better"' in page and '"name":"second"' in page
    assert "connect-src 'none'" in page
    status, page = ask(url, "/compare?a=first&b=arm/seed-0")
    assert status == 400 and "cannot be compared" in told(page)["notice"]
    assert "no longer exists" in told(ask(url, "/compare?a=first")[1])["notice"]


@pytest.mark.slow
def test_the_list_sorts_filters_and_leads_to_run_and_comparison(
    served_outputs: tuple[Path, str], chromium: Any
) -> None:
    _, url = served_outputs
    with opened(chromium, url) as page:
        names = page.locator("#body tr th a")
        assert page.locator("img").count() == 0 and "<img src=x" in page.inner_text("#body")
        page.click("[data-column='Difference']")
        assert names.all_text_contents()[:3] == ["second", "first", "arm/seed-0"]
        page.click("[data-column='Difference']")
        assert names.all_text_contents()[:3] == ["arm/seed-0", "first", "second"]
        page.select_option("#status", "Broken folder")
        assert sorted(names.all_text_contents()) == ["damaged", "figures", "no-config", "other"]
        page.select_option("#status", "")
        page.fill("#search", "SECOND")
        assert names.all_text_contents() == ["second"]
        page.fill("#search", "")
        assert page.is_disabled("#compare")
        page.check("input[aria-label='compare second']")
        page.check("input[aria-label='compare first']")
        page.click("#compare")
        page.wait_for_selector("text=B is worse")
        page.click("text=All runs")
        page.click("#body a:text-is('first')")
        page.wait_for_selector("text=Better than its base")
        page.click("text=All runs")
        page.wait_for_selector("#body")


@pytest.mark.slow
def test_a_bundle_is_a_site_that_needs_no_server(tmp_path: Path, chromium: Any) -> None:
    root = outputs(tmp_path / "outputs")
    done = write_bundle(tmp_path / "site", [str(root), str(root / "first")])
    assert (done.runs, done.pairs, done.pairs_left) == (10, 1, 0)
    front = (tmp_path / "site" / "README.md").read_text("utf-8").split("---\n")[1]
    assert yaml.safe_load(front) | {"sdk": "static", "app_file": "index.html"} == yaml.safe_load(front)
    with opened(chromium, (tmp_path / "site" / "index.html").as_uri()) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        assert page.locator("#body tr").count() == 10
        page.check("input[aria-label='compare second']")
        page.check("input[aria-label='compare arm/seed-0']")
        assert page.is_disabled("#compare") and "share no question" in page.inner_text("#count")
        page.uncheck("input[aria-label='compare arm/seed-0']")
        page.check("input[aria-label='compare first']")
        page.click("#compare")  # the older one is A, in whichever order they were ticked
        page.wait_for_selector("text=B is better")
        page.click("text=All runs")
        page.click("#body a:text-is('arm/seed-0')")
        page.wait_for_selector("text=Better than its base")
        assert page.text_content("#run-name") == "arm/seed-0" and page.locator("#next").count() == 0
        page.click("text=All runs")
        page.wait_for_selector("#body a")
    assert asked and all(url.startswith(tmp_path.as_uri()) for url in asked)


def test_a_bundle_tells_no_path_and_without_rows_no_question(tmp_path: Path) -> None:
    root = tmp_path / "clients" / "acme"
    run = proven(root / "one", 20, question="A secret {n}?")
    run.config.write_text("model: /home/anna/models/tiny\ndataset: /home/anna/acme.jsonl\n", "utf-8")
    results = json.loads(run.results.read_text("utf-8"))
    results |= {
        "dataset": "/home/anna/acme.jsonl",
        "sent_to": {"teacher": {"hosts": ["anna.acme.corp"], "model": None}},
    }
    results["validation"]["tests"]["base_comparison"]["majority"] = {"reference": "A secret of all", "accuracy": 0.5}
    write_results(run, results)
    proven(root / "two", 30, question="A secret {n}?")
    for rows in (True, False):
        write_bundle(tmp_path / "site", [str(root)], rows=rows)
        pages = {str(path.relative_to(tmp_path / "site")): path.read_text("utf-8")
                 for path in (tmp_path / "site").rglob("*.*")}  # fmt: skip
        assert set(pages) == {"index.html", "README.md", "runs/one.html", "runs/two.html", "compare/one--two.html"}
        for name, page in pages.items():
            assert not re.search(r"anna|clients|" + re.escape(str(tmp_path)), page), name
        said = {name for name, page in pages.items() if re.search("A secret|A question of training", page)}
        assert said == ({"runs/one.html", "runs/two.html", "compare/one--two.html"} if rows else set())


@pytest.mark.slow
def test_pages_without_rows_show_figures_and_no_empty_list(tmp_path: Path, chromium: Any) -> None:
    write_bundle(tmp_path / "site", [str(outputs(tmp_path / "outputs"))], rows=False)
    with opened(chromium, (tmp_path / "site" / "runs" / "first.html").as_uri()) as page:
        assert "Better than its base" in page.inner_text("h1") and not page.is_visible("#panes")
        assert page.inner_text("#count").startswith("0 of 1 row. Not in this page: 1 first try")
        page.click("text=All runs")
        page.check("input[aria-label='compare first']")
        page.check("input[aria-label='compare second']")
        page.click("#compare")
        page.wait_for_selector("text=B is better")
        assert page.locator(".explorer").count() == 0 and page.is_visible("text=The difference")


def test_a_bundle_replaces_an_earlier_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        proven(tmp_path / "outputs" / f"run {number}", 10 + number, updated=f"2026-01-0{number + 1}T00:00:00Z")
    monkeypatch.setattr(bundle, "MOST_PAIRS", 2)
    done = write_bundle(tmp_path / "site", [str(tmp_path / "outputs")])
    assert (done.pairs, done.pairs_left) == (2, 4)
    assert {path.name for path in (tmp_path / "site" / "compare").iterdir()} == {
        "run-1--run-3.html",
        "run-2--run-3.html",
    }
    write_bundle(tmp_path / "site", [str(tmp_path / "outputs" / "run 0")])
    assert [path.name for path in (tmp_path / "site" / "runs").iterdir()] == ["run-0.html"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(UserError, match="an earlier bundle"):
        write_bundle(tmp_path / "mine", [str(tmp_path / "outputs")])
    assert (tmp_path / "mine" / "thesis.txt").read_text("utf-8") == "mine"


def test_a_pair_that_cannot_be_compared_takes_no_page_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [proven(tmp_path / f"run {at}", 10 + at, updated=f"2026-01-0{at + 1}T00:00:00Z") for at in range(3)]
    question = json.loads(runs[2].rows("held_out_answers").read_text("utf-8").splitlines()[0])["question"]
    runs[2].rows("held_out_answers").write_text(json.dumps({"id": "x", "question": question}) + "\n", "utf-8")
    monkeypatch.setattr(bundle, "MOST_PAIRS", 1)
    (tmp_path / "real").mkdir()
    (tmp_path / "site").symlink_to(tmp_path / "real")
    done = write_bundle(tmp_path / "site", [str(run.root) for run in runs])
    assert (done.pairs, done.pairs_left) == (1, 0) and (tmp_path / "site").is_symlink()
    assert (tmp_path / "real" / "compare" / "run-0--run-1.html").is_file()


@pytest.mark.slow
def test_the_command_says_what_it_wrote_and_what_is_missing(tmp_path: Path) -> None:
    root = outputs(tmp_path / "outputs")
    done = socratune("report", "--bundle", str(tmp_path / "site"), str(root), "--without-rows")
    assert done.returncode == 0 and "10 runs, 1 comparison (figures alone)" in done.stdout
    done = socratune("report", str(root / "first"), str(root / "second"))
    assert done.stdout.count("report.html") == 2
    for given, said in (
        (["--bundle", str(tmp_path / "site"), str(root / "notes")], "the folder of a run"),
        (["--without-rows", str(root / "first")], "--bundle DIR beside it"),
    ):
        done = socratune("report", *given)
        assert (done.returncode, said in done.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    assert socratune("ui", str(tmp_path / "empty")).returncode == 2
