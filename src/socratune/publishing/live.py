"""Serves the report as a Starlette app on loopback: state, rows page by page, single rows, and decisions.

Only pages of this very server are answered (`webserver.meant_for_us`).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from socratune.errors import Fault, Shown, SocratuneError, UserError
from socratune.publishing.browsing import Filter, Index, answers_of, traces_of
from socratune.publishing.compared_page import comparison_page
from socratune.publishing.filling import shortened
from socratune.publishing.report import live_page, overview
from socratune.publishing.run_list import compared_runs, is_run, listed, run_named, runs_below, runs_page
from socratune.publishing.webserver import (
    LOOPBACK_HOSTS,
    Hosts,
    address,
    listening,
    meant_for_us,
    serve_until_stopped,
)
from socratune.runs import (
    Results,
    RunDir,
    existing_run,
    json_decode,
    json_encode,
    record_decision,
    review_decisions,
    review_fault,
)

LISTS = ("traces", "answers")
_MOST_ROWS = 200
"""Per answer."""
LIST_TEXT = 300
"""Characters of each text that a list needs."""
_MOST_BODY = 4_000_000
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}


class Live:
    """The contents of a run folder, read again when its files change."""

    def __init__(self, run: RunDir, home: str = "") -> None:
        self.run = run
        self.home = home
        self.lock = Lock()
        self._stamps: dict[str, Any] = {}
        self._known: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._versions: Counter[str] = Counter()
        self._growing_until = 0.0

    def index(self, what: str) -> Index:
        """Returns the current rows of `traces` or `answers`."""
        run = self.run
        if what == "answers":
            return self._fresh("answers", _stamp(run.rows("held_out_answers")), lambda: answers_of(run))
        stage = Results(run).stage("enhance")
        stamp = (stage.get("key"), *_stamp(run.enhanced, run.rejected("train"), run.hint_measures))
        if not run.enhanced.exists():
            stamp = (*stamp, *self._journal_stamp())
        found = self._fresh("traces", stamp, lambda: traces_of(run, {}, stage.get("key")))
        found.marks.reviews = self._fresh("reviews", _stamp(run.review), lambda: review_decisions(run))
        return found

    def matching(self, what: str, wanted: Filter) -> tuple[Index, Any]:
        """Returns the current rows of a list, and the positions of the matching ones in the order of the list."""
        index = self.index(what)
        version = (self._versions[what], _stamp(self.run.review) if wanted.mark == "reviewed" else None)
        return index, self._fresh(f"matching {what}", (version, wanted), lambda: index.matching(wanted))

    def state(self) -> tuple[str, bytes]:
        """Returns a tag that changes with the overview, and the overview as JSON."""
        run = self.run
        traces, answers = self.index("traces"), self.index("answers")
        events = sorted(run.tensorboard.rglob("events.*"))
        versions = (self._versions["traces"], self._versions["answers"])
        stamp = (_stamp(run.results, run.config, run.review, *events), versions)
        tag = f'"{abs(hash(stamp)):x}"'
        return tag, self._fresh(
            "state", stamp, lambda: json_encode(overview(run, traces, answers) | {"home": self.home})
        )

    def _journal_stamp(self) -> tuple[Any, ...]:
        """Changes as the loop finishes rows, but so rarely that reading takes a tenth of the time."""
        now = time.monotonic()
        if now < self._growing_until:
            return self._stamps["traces"][-1:]
        self._growing_until = now + 10 * self._seconds.get("traces", 0.0)
        return (_stamp(Path(f"{self.run.journal}-wal"), self.run.journal),)

    def _fresh(self, name: str, stamp: Any, make: Any) -> Any:
        if name not in self._known or self._stamps[name] != stamp:
            started = time.monotonic()
            self._known[name] = make()
            self._versions[name] += 1
            self._seconds[name] = time.monotonic() - started
            self._stamps[name] = stamp
        return self._known[name]


def _stamp(*paths: Path) -> tuple[tuple[int, int] | None, ...]:
    """Returns a value that changes when one of the files does."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def report_server(run: RunDir, home: str = "") -> ASGIApp:
    """Returns the app with the pages of a run folder, for loopback only.

    Args:
        home: where the list of all runs is; empty where there is none.
    """
    live, page = Live(run, home), live_page()

    def state(request: Request) -> Response:
        with live.lock:
            tag, body = live.state()
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return _json(body, {"ETag": tag})

    def rows(what: str, request: Request) -> Response:
        given = request.query_params
        wanted = Filter(*(given.get(name, "") for name in ("kind", "mark", "verdict", "text")))
        try:
            offset, limit = int(given.get("offset", 0)), int(given.get("limit", _MOST_ROWS))
        except ValueError:
            return PlainTextResponse("Expected whole numbers for offset and limit.", 400)
        with live.lock:
            index, found = live.matching(what, wanted)
            some = found[max(0, offset) :][: max(0, min(limit, _MOST_ROWS))]
            shown = [shortened(row, LIST_TEXT) for row in index.rows(some)]
            return _json(json_encode({"rows": shown, "total": len(found), "kinds": index.counts()}))

    def row(what: str, request: Request) -> Response:
        with live.lock:
            index = live.index(what)
            at = index.ids.get(request.query_params.get("id", ""))
            if at is None:
                return PlainTextResponse("no such row", 404)
            return _json(json_encode(next(index.rows([at]))))

    async def review(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(_review, live, request.headers.get("content-type", ""), body)

    routes = [
        Route("/", lambda _: HTMLResponse(page, headers=HEADERS)),
        Route("/api/state", state),
        *(Route(f"/api/rows/{what}", partial(rows, what)) for what in LISTS),
        *(Route(f"/api/row/{what}", partial(row, what)) for what in LISTS),
        Route("/api/review", review, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={SocratuneError: _failed})
    return meant_for_us(short_bodies_only(app), Hosts(LOOPBACK_HOSTS[0]), PlainTextResponse)


def runs_server(root: Path) -> ASGIApp:
    """Returns the app that lists the runs below a folder, serves each below `/run/NAME/` and compares any two.

    The folder is read anew for every list.
    """

    @lru_cache(16)
    def pages(name: str) -> ASGIApp:
        return report_server(RunDir(root / name), home="/")

    def the_list(notice: str = "") -> Response:
        names = runs_below(root)
        runs = [
            listed(RunDir(root / name)) | {"name": name, "href": f"run/{quote(os.fsencode(name))}/"} for name in names
        ]
        page = "".join(runs_page(root.resolve().name, runs, notice=notice))
        return HTMLResponse(page, 400 if notice else 200, headers=HEADERS)

    def compare(request: Request) -> Response:
        names = [request.query_params.get(side, "") for side in ("a", "b")]
        first, second = (run_named(root, name) for name in names)
        if first is None or second is None:
            return the_list("One of these two runs no longer exists.")
        try:
            result, rows = compared_runs(first, second, names)
        except UserError as error:
            return the_list(f"{' and '.join(names)} cannot be compared. {error}")
        return HTMLResponse("".join(comparison_page(result, rows, home="/")), headers=HEADERS)

    routes = [Route("/", lambda _: the_list()), Route("/compare", compare)]
    own = Starlette(routes=routes, exception_handlers={SocratuneError: _failed})

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        rest = scope.get("path", "").partition("/run/")
        parts = rest[2].split("/") if rest[0] == "" else []
        names = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if name := next((name for name in names if run_named(root, name)), None):
            await pages(name)({**scope, "root_path": f"/run/{name}"}, receive, send)
        else:
            await own(scope, receive, send)

    return meant_for_us(by_path, Hosts(LOOPBACK_HOSTS[0]), PlainTextResponse)


def _review(live: Live, content_type: str, body: bytes) -> Response:
    """Stores a decision about an existing trace."""
    if content_type.partition(";")[0].strip() != "application/json":
        return PlainTextResponse("expected application/json", 415)
    try:
        given = json_decode(body)
        row_id, decision, text = given["id"], given["decision"], given.get("text")
    except (ValueError, LookupError, TypeError, AttributeError):
        return PlainTextResponse('Expected an object {"id", "decision", "text"}.', 400)
    if reason := review_fault(row_id, decision, text):
        return PlainTextResponse(f"{reason}.", 400)
    with live.lock:
        if row_id not in live.index("traces").ids:
            return PlainTextResponse("no such row", 404)
        kept = record_decision(live.run, row_id, decision, text)
        return _json(json_encode(asdict(kept)))


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers={**HEADERS, **(headers or {})})


def _failed(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 500)


def short_bodies_only(inner: ASGIApp) -> ASGIApp:
    """Refuses a request that is too long before reading it."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", []))
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MOST_BODY:
            refusal = PlainTextResponse(f"Expected a body of at most {_MOST_BODY} bytes with a Content-Length.", 413)
            await refusal(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return guard


# --- `socratune ui` ------------------------------------------------------------------------------------------------

_OUTPUTS = Path("outputs")


def newest_run(folder: Path = _OUTPUTS) -> RunDir:
    """Returns the run folder in `folder` that changed last.

    Raises:
        UserError: there is none.
    """
    found = [path.parent for path in folder.glob("*/config.yaml")]
    if not found:
        got = Shown(f"no run folder in {folder}/")
        raise UserError(Fault("socratune ui", "the folder of a run", got, "Name a run: socratune ui RUN."))
    return max(
        map(RunDir, found), key=lambda run: (run.results if run.results.exists() else run.config).stat().st_mtime
    )


def serve_report(folder: str | None, port: int, say: Callable[[str], None]) -> None:
    """Serves the pages of a run, or of all runs below a folder, on 127.0.0.1 until Ctrl-C. Port 0 takes a free port.

    Raises:
        UserError: no such run, or the port is taken.
    """
    if folder is not None and not is_run(Path(folder)) and runs_below(Path(folder)):
        root, app = Path(folder), runs_server(Path(folder))
    else:
        run = existing_run(folder) if folder is not None else newest_run()
        root, app = run.root, report_server(run)
    place = listening(LOOPBACK_HOSTS[0], port)
    say(f"{root}: {address(place)}/  (press Ctrl-C to stop)")
    serve_until_stopped(app, place)
