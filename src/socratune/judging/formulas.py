"""Runs math-verify (the extra `[math]`) in a child process that can be killed, because algebra may never end.

A thread or a future cannot be stopped, and math-verify's own timeouts need the main thread and do not interrupt a long
integer power. So the child runs the pairs one by one, each with a budget of the processor's time that a signal ends. A
pair that passes its deadline by the clock all the same costs the child its life.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

_START_TIMEOUT_S = 60.0  # importing sympy takes 3 s, and far more on a loaded machine
_PAIR_CPU_S = 0.5
"""CPU time that sympy may use for one pair. The wall-clock deadline covers what no signal interrupts."""
_WARMING = [
    ("x^2+2x+1", "(x+1)^2"),
    (r"\sin(2x)", r"2\log x"),
    ("y=2x", "y=x"),
    (r"\{(1,0)\}", r"\{(0,1)\}"),
    ("x<3", "3>x"),
]
_MEMORY_BYTES = 4 << 30


class MathChecker:
    """Checks whether two formulas are equal. It starts nothing before the first check and works from any thread."""

    def __init__(self, timeout_s: float = 3.0) -> None:
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._installed: bool | None = None

    @property
    def installed(self) -> bool:
        """Returns True if math-verify is installed. The answer is looked up once, without an import."""
        if self._installed is None:
            self._installed = importlib.util.find_spec("math_verify") is not None
        return self._installed

    def check(self, reference: str, response: str) -> bool | None:
        """Returns True if the formulas are equal, False if their values differ, and None if that cannot be decided.

        None stands for: math-verify is not installed, one side is no formula, the two are of different kinds, or the
        deadline passed.
        """
        if not self.installed:
            return None
        with self._lock:
            try:
                child = self._started()
                assert child.stdin is not None
                child.stdin.write(json.dumps([reference, response]).encode() + b"\n")
                child.stdin.flush()
                reply = _line(child, self.timeout_s)
            except OSError:  # the child died of its memory limit, or was killed from outside
                reply = None
            if reply is None:
                self._kill()
                return None
            return json.loads(reply)

    async def check_async(self, reference: str, response: str) -> bool | None:
        """Runs `check` without blocking the event loop. Pairs queue up, and the deadline counts from a pair's turn."""
        if not self.installed:
            return None
        with self._lock:
            if self._worker is None:
                # of its own: a queue of pairs must not fill the loop's default executor
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="mathcheck")
            worker = self._worker
        return await asyncio.get_running_loop().run_in_executor(worker, self.check, reference, response)

    def close(self) -> None:
        """Ends the child. A later `check` starts another."""
        with self._lock:
            self._kill()
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        # by its path and with -P, so that neither the working directory nor this package shadows a library's module
        command = [sys.executable, "-P", __file__]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        atexit.unregister(self.close)
        atexit.register(self.close)
        self._child = child
        if _line(child, _START_TIMEOUT_S) is None:
            self._installed = False  # it cannot be imported, and will not be able to for the next pair either
            raise BrokenPipeError
        return child

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # closing flushes into a pipe that nobody reads
                    pipe.close()


def _line(child: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """Returns the child's next line, or None if it is late. Each pair gets one line, so nothing else can be waiting."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], timeout_s)
    return (child.stdout.readline() or None) if ready else None


_HUGE = re.compile(r"\^\s*[{(]?-?\d{4}|\d[})]*\s*\^\s*[{(]*\d+[})]*\s*\^|\d{3}\s*!|!!")
"""Numbers that nobody can write out (`9^{9^9}`, `2^{100000}`): sympy would try."""
_PLAIN_FUNCTIONS = re.compile(r"(?<!\\)\b(sqrt|sin|cos|tan|log|ln|exp|pi)\b")


def as_latex(text: str) -> str:
    """Returns a formula as LaTeX, or "" for words, numbers with units and anything else that is no formula."""
    text = re.sub(r"^\\[\[(]|\\[\])]$", "", text.strip().strip("$").rstrip(". ").strip("$").strip())
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    if not text or len(text) > 300 or not all(_PLAIN_FUNCTIONS.fullmatch(word) for word in words):
        return ""
    if _HUGE.search(text):
        return ""
    if not re.search(r"[\d\\√π∞^+*/=-]", text) or "\\text" in text or "\\pm" in text or "±" in text:
        return ""
    text = re.sub(r"√\s*\(?(\w+)\)?", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<!\\)\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\(([^()]*)\)|\*\*\(?(\w+)\)?", lambda m: "^{" + (m.group(1) or m.group(2)) + "}", text)
    text = _PLAIN_FUNCTIONS.sub(r"\\\1", text).replace("*", r" \cdot ").replace("π", r"\pi ").replace("∞", r"\infty ")
    return "" if re.search(r"[^\x00-\x7f]", text) else text


# --- in the child --------------------------------------------------------------------------------------------------


class _TooLong(BaseException):
    """Ends a pair that takes too long. It is no `Exception`, because sympy would catch that."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _TooLong


def _serve() -> None:
    from math_verify import LatexExtractionConfig, parse, verify

    signal.signal(signal.SIGPROF, _stop)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    config = [LatexExtractionConfig()]

    def formula(text: str) -> list[Any]:
        return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=0, raise_on_error=True)

    def judged(reference: str, response: str) -> bool | None:
        right, stated = formula(reference), formula(response)
        if not right or not stated:
            return None
        if verify(right, stated, timeout_seconds=0, raise_on_error=True):
            return True
        return False if _clearly_different(right[0], stated[0], 0.01 if "." in reference + response else 1e-6) else None

    for pair in _WARMING:  # what a kind of formula takes at first is most of a second
        with contextlib.suppress(Exception):
            judged(*pair)
    print("true", file=out, flush=True)
    for line in sys.stdin:
        _limit()
        verdict = None
        with contextlib.suppress(Exception, _TooLong):  # whatever sympy raises, it says nothing about the answer
            signal.setitimer(signal.ITIMER_PROF, _PAIR_CPU_S)
            verdict = judged(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(verdict), file=out, flush=True)


def _limit() -> None:
    """Limits the child's CPU time and memory, so that a child whose parent died in the middle of a pair ends soon."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 30, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _clearly_different(right: Any, stated: Any, tolerance: float) -> bool:
    """Returns True for two formulas in the same variables with other values, or two finite sets with other members.

    math-verify's False also means "I could not show it", so it is not taken for "incorrect" on its own.
    A decimal may be a rounded value of the other side: there the tolerance is wide.
    """
    import sympy

    if isinstance(right, sympy.FiniteSet) and isinstance(stated, sympy.FiniteSet):
        members = [*right.args, *stated.args]
        if not all(member.is_number for member in members):
            return False
        near = [any(_near(root, other, tolerance) for other in stated.args) for root in right.args]
        back = [any(_near(root, other, tolerance) for other in right.args) for root in stated.args]
        return not (all(near) and all(back))
    if not isinstance(right, sympy.Expr) or not isinstance(stated, sympy.Expr):
        return False
    names = sorted(right.free_symbols, key=str)
    if names != sorted(stated.free_symbols, key=str):
        return False
    points: list[Any] = [
        {name: sympy.Rational(7 * k + 3, k + 5) for k, name in enumerate(names, start)} for start in (1, 4)
    ]
    return all(not _near(right.subs(point), stated.subs(point), tolerance) for point in points)


def _near(left: Any, right: Any, tolerance: float) -> bool:
    """Returns True if two numbers agree within the relative tolerance, or cannot be evaluated."""
    try:
        first, second = complex(left.evalf(20)), complex(right.evalf(20))
    except (TypeError, ValueError, OverflowError):
        return True
    return not abs(first - second) > tolerance * max(1e-9, abs(first), abs(second))  # `not >`: true for nan as well


if __name__ == "__main__":
    _serve()
