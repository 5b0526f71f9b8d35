"""What must hold of any input, target by target: `TARGETS[name](case)` raises where it does not.

A case is plain JSON, so that one that was found can be kept (`tests/samples/fuzz/NAME.jsonl`) and tried again without
Hypothesis. Bytes stand in it as text with one character for each (Latin-1). Only a `SocratuneError` may come out of a
call that gets something of the user's or of a server's; anything else would end in exit code 70.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, get_args

from socratune.cli.app import main
from socratune.cli.given import merged_settings
from socratune.data.columns import is_argilla
from socratune.data.options import OPTIONS
from socratune.data.qa_files import DataSet
from socratune.errors import Fault, SocratuneError, UserError
from socratune.evaluation import compare_logs, compared_rows, open_log
from socratune.evaluation.stats import Comparison
from socratune.judging import final_answer
from socratune.judging.rules import _formulas, judge_by_rules
from socratune.llm.base import Sampling
from socratune.llm.http import HttpModel
from socratune.llm.ledger import MeteredModel
from socratune.llm.prompts import parse_grounded, parse_hint, parse_pick, parse_questions, parse_verdict
from socratune.preflight import check_run
from socratune.publishing import compared_markdown, write_comparison
from socratune.resolve import deep_merge, dump, read_config_file, resolve_settings, to_yaml
from socratune.rows import QARow, Verdict
from socratune.runs import Journal, json_encode
from socratune.teaching.echoes import echo
from socratune.teaching.hints import leak

Case = Any

LIMITS_S = {"judge": 0.25}
"""CPU seconds of one case. The judge's own promise is a fifth of it; the rest is for a machine with other work."""
USUAL_LIMIT_S, BLOCKED_S = 2.0, 60.0


class Broken(AssertionError):
    """What must hold does not."""


class TooSlow(BaseException):
    """A case passed its limit. No `except Exception` on the way may take it for something else."""


def try_case(name: str, case: Case) -> float:
    """The CPU seconds that a case took.

    Raises:
        Broken: it took too many.
        Exception: whatever is wrong.
    """
    limit_s = LIMITS_S.get(name, USUAL_LIMIT_S)
    began = time.process_time()
    try:
        with _alarmed(limit_s):
            TARGETS[name](case)
    except TooSlow as slow:
        raise Broken(f"more than {limit_s:g} s of CPU, or {BLOCKED_S:g} s in all") from slow
    return time.process_time() - began


@contextmanager
def _alarmed(limit_s: float) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise TooSlow

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, limit_s), signal.SIGALRM: (signal.ITIMER_REAL, BLOCKED_S)}
    before = {kind: signal.signal(kind, stop) for kind in timers}
    try:
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds, 0.1)
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def hold(condition: object, text: str) -> None:
    if not condition:
        raise Broken(text)


def hold_faults(faults: list[Fault]) -> None:
    """A fault is one line that can be printed and kept."""
    for fault in faults:
        text = str(fault)
        hold(text.strip() and "Traceback" not in text, f"a fault that says nothing: {text!r}")
        text.encode("utf-8")


def file_of(case: Case, folder: Path) -> Path:
    """The case's file, written: its `records` in the format of its `name`, or its `data` as they are."""
    path = folder / case["name"]
    if "data" in case:
        data = case["data"].encode("latin-1")
    elif ".json" in path.suffixes:
        data = json.dumps(case["records"]).encode()
    elif {".csv", ".tsv"} & set(path.suffixes):
        data = _table(case["records"], "\t" if ".tsv" in path.suffixes else ",")
    else:
        data = "".join(json.dumps(record) + "\n" for record in case["records"]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" and "data" not in case else data)
    return path


def _table(records: list[Any], delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    rows = [record for record in records if isinstance(record, dict)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(names)
    writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
    return stream.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


# --- rows ----------------------------------------------------------------------------------------------------------


def rows(case: Case) -> None:
    """Every record is a row or is refused with its reason; a row can be kept, and holds its options."""
    with tempfile.TemporaryDirectory() as place:
        path = file_of(case, Path(place))
        found = DataSet(path)
        hold_faults(found.damage + found.reading.faults)
        bad = list(found.bad_rows()) if not found.damage else []
        refused = found.reading.bad_rows + found.reading.left_out.total()
        hold(found.damage or len(bad) == refused, "a bad row without a reason")
        good = [] if found.damage else list(found.rows())
        for row in good:
            _hold_row(row)
        if ".jsonl" in path.suffixes and not found.damage and "records" in case:
            hold(len(good) + len(bad) == len(case["records"]), f"{len(case['records'])} lines, {len(good) + len(bad)}")
            if not bad:
                for row, record in zip(good, case["records"], strict=True):
                    _hold_options(row, record)


def _hold_row(row: QARow) -> None:
    data = json.loads(json_encode(row.to_json()))
    kept = QARow.from_json(data)
    hold((kept.id, kept.messages) == (row.id, row.messages), "a row that cannot be kept")
    json.dumps(data, ensure_ascii=False).encode("utf-8")
    roles = [message["role"] for message in row.messages]
    hold(roles[-2:] == ["user", "assistant"], f"the roles: {roles}")
    hold(all(message["content"].strip() for message in row.messages), "an empty turn")
    hold(row.id, "a row without an id")


def _hold_options(row: QARow, record: dict[str, Any]) -> None:
    """No question without its options."""
    if "messages" in record or "conversations" in record or "conversation" in record or is_argilla(record):
        return
    for name in OPTIONS:
        texts = record.get(name)
        if isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts):
            hold(all(_ink(text) in _ink(row.question) for text in texts), "a question without its options")


def _ink(text: str) -> str:
    """What of a text can be seen: blanks and control characters may go."""
    return "".join(letter for letter in text if letter.isprintable() and not letter.isspace())


# --- settings ------------------------------------------------------------------------------------------------------


@cache
def _few_rows() -> Path:
    """A data set that is read in no time."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-rows-")) / "rows.jsonl"
    rows = (json.dumps({"question": f"What is {n} * {n}?", "answer": str(n * n)}) + "\n" for n in range(30))
    path.write_text("".join(rows), "utf-8")
    return path


def settings(case: Case) -> None:
    """What is wrong is a user's error; what is right says the same once it has been written and read again."""
    with tempfile.TemporaryDirectory() as place:
        file = None
        if "yaml" in case:
            file = Path(place) / "config.yaml"
            file.write_bytes(case["yaml"].encode("utf-8", "surrogatepass"))
        try:
            merged, faults = merged_settings({}, file and str(file), case.get("set", []))
            hold_faults(faults)
            base = {"model": "demo", "dataset": str(_few_rows()), "output": f"{place}/run"}
            resolved = check_run(deep_merge(base, merged), where="fuzz")
        except SocratuneError as error:
            hold_faults(list(error.faults) if isinstance(error, UserError) else [])
            return
        again = Path(place) / "again.yaml"
        again.write_text(to_yaml(resolved), "utf-8")
        read = resolve_settings(read_config_file(again), where="again")
        hold(dump(read.config) == dump(resolved.config), "config.yaml says something else")


# --- judge ---------------------------------------------------------------------------------------------------------


def judge(case: Case) -> None:
    """Any answer gets a verdict, in time, and the reference itself is not wrong."""
    question, reference = case["question"], case["reference"]
    response = case["unit"] * case["times"] + case.get("end", "") if "unit" in case else case["response"]
    for said in (response, reference):
        judgement = judge_by_rules(question, reference, said)
        hold(judgement.verdict in get_args(Verdict) and judgement.judged_by, f"the verdict: {judgement}")
    hold(judgement.verdict != "incorrect" or not final_answer(reference), f"the reference itself: {judgement}")
    _formulas(question, reference, response)


# --- replies -------------------------------------------------------------------------------------------------------


def replies(case: Case) -> None:
    """Any reply of a judge, a teacher, a checker or a writer is read or is none."""
    reply = case["reply"]
    verdict = parse_verdict(reply, case.get("response", ""))
    hold(verdict is None or (isinstance(verdict[0], bool) and isinstance(verdict[1], str)), f"the verdict: {verdict}")
    pick = parse_pick(reply, 3)
    hold(pick is None or pick in range(3), f"the pick: {pick}")
    hold(parse_grounded(reply) in (None, True, False), "no verdict on the grounding")
    questions = parse_questions(reply)
    hold(all(isinstance(one, dict) and "question" in one for one in questions), "no questions")
    hint = parse_hint(reply)
    hold(hint is None or (hint.strip() == hint and hint in reply), f"the hint: {hint!r}")
    if "words" in case and reply.casefold() not in ("hint", "aha"):
        hold(hint == " ".join(reply.split()), f"a hint that lost letters: {hint!r}")


# --- hints ---------------------------------------------------------------------------------------------------------


def hints(case: Case) -> None:
    """Any hint is checked for the answer, any answer for the hint; the answer said outright is a leak."""
    question, reference, hint = case["question"], case["reference"], case["hint"]
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reference}]
    row = QARow("r", turns, {})
    found = leak(hint, row)
    hold(found is None or (isinstance(found, str) and found), f"the leak {found!r}")
    for told in (False, True):
        heard = echo(case["response"], question, hint=hint, passage=case.get("passage"), told=told)
        hold(heard is None or isinstance(heard, str), f"the echo {heard!r}")
    if case.get("secret"):
        hold(leak(f"The answer is {reference}.", row), "the answer said outright is no leak")


# --- chat templates ------------------------------------------------------------------------------------------------


@cache
def _model_folder() -> Path:
    """A copy of the embedded model whose template can be another."""
    from socratune.llm.locate import model_location

    folder = Path(tempfile.mkdtemp(prefix="fuzz-model-"))
    for file in Path(model_location("demo")).iterdir():
        shutil.copy(file, folder)
    return folder


def command(*words: str | Path) -> str:
    """What a command prints, which ends as a command may end."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main([str(word) for word in words])
    text = said.getvalue()
    hold(code in (0, 1, 2, 3) and "Traceback" not in text, f"exit code {code}: {text[-2000:]}")
    return text


def chat(case: Case) -> None:
    """Any chat template shows a row or is refused."""
    folder = _model_folder()
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = case["template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.jsonl"
        path.write_text(json.dumps({"messages": case["messages"]}) + "\n", "utf-8")
        said = command("inspect", path, "--model", folder)
        if "labels right" in said:
            hold(_ink(case["messages"][-1]["content"]) in _ink(said), "right, and without its answer")


# --- wire ----------------------------------------------------------------------------------------------------------


class Network:
    """A server that says what it is told to, the loop in which it is asked, and a journal for what is paid."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.reply = b""
        self.asked = 0
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.journal = Journal(Path(tempfile.mkdtemp(prefix="fuzz-journal-")) / "journal.sqlite")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            writer.write(self.reply)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            pass
        finally:
            writer.close()

    async def ask(self, kind: Any) -> Any:
        """The completion that a client makes of the reply."""
        base = f"http://127.0.0.1:{self.port}" + ("/v1" if kind == "openai" else "")
        model = HttpModel(
            kind=kind, model="m", api_bases=[base], api_key=None, call_timeout_s=2, max_retries=0, token_ids=True
        )
        self.asked += 1
        try:
            messages = [{"role": "user", "content": "?"}]
            metered = MeteredModel(model, self.journal, "fuzz.judge")
            return await metered.generate(messages, Sampling(max_new_tokens=20, seed=self.asked))
        finally:
            await model.close()


@cache
def _network() -> Network:
    return Network()


def wire(case: Case) -> None:
    """Any reply of a server is an answer that can be kept, or an error of that call."""
    network = _network()
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    data = body.encode("latin-1", "replace")
    if "head" in case:
        network.reply = case["head"].encode("latin-1") + data
    else:
        lines = [f"HTTP/1.1 {case['status']} X", f"Content-Length: {len(data)}", *case.get("headers", [])]
        network.reply = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + data
    try:
        answer = network.loop.run_until_complete(network.ask(case["kind"]))
    except SocratuneError as error:
        hold("journal" not in str(error), f"what a server says stops the run: {error}")
        return
    answer.text.encode("utf-8")
    hold(answer.stop in ("end", "length"), f"the stop: {answer.stop!r}")
    for tokens in (answer.prompt_tokens, answer.completion_tokens):
        hold(type(tokens) is int and 0 <= tokens < 10**9, f"so many tokens: {tokens!r}")
    ids = answer.token_ids or ()
    hold(all(type(token) is int and token >= 0 for token in ids), f"the token ids: {ids!r}")


# --- logs of other tools -------------------------------------------------------------------------------------------


def logs(case: Case) -> None:
    """Two logs are refused with a reason, or compared: a verdict, finite figures, texts that can be printed."""
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for side in ("a", "b"):
            (Path(place) / side).mkdir()
            paths.append(file_of(case[side], Path(place) / side))
        try:
            a, b = (open_log(str(path)) for path in paths)
            compared = compare_logs(a, b)
        except UserError as error:
            hold_faults(list(error.faults))
            return
        hold(compared.result["verdict"] in get_args(Comparison), "another verdict")
        json.dumps(compared.result, allow_nan=False, ensure_ascii=False).encode("utf-8")
        page_rows = compared_rows(compared)
        hold(compared_markdown(compared.result, page_rows).encode("utf-8"), "no Markdown")
        write_comparison(Path(place) / "page.html", compared.result, page_rows)


TARGETS: dict[str, Callable[[Case], None]] = {
    "rows": rows,
    "settings": settings,
    "judge": judge,
    "replies": replies,
    "hints": hints,
    "chat": chat,
    "wire": wire,
    "logs": logs,
}
