"""Keeps a run going when one answer cannot be judged: that answer is undecided."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from socratune.errors import SocratuneError, is_interrupt
from socratune.rows import Judgement, QARow

log = logging.getLogger(__name__)

Judge = Callable[[QARow, str], Coroutine[Any, Any, Judgement]]
"""The signature of a judge: `await judge(row, response)`."""


def undecided_on_error(judge: Judge) -> Judge:
    """Returns the judge with *undecided* as its verdict if it fails on an answer: answers may hold anything.

    What concerns more than the one answer goes through: errors that we raise on purpose, the disk, an interrupt.
    """

    @functools.wraps(judge)
    async def safely(row: QARow, response: str) -> Judgement:
        try:
            return await judge(row, response)
        except (SocratuneError, OSError):
            raise
        except Exception as error:
            if is_interrupt(error):
                raise
            return no_verdict(error)

    return safely


def no_verdict(error: Exception) -> Judgement:
    """Logs the error of a judge and returns the verdict *undecided*."""
    reason = f"the judge failed on this answer: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    log.warning("Undecided: %s", reason)
    return Judgement("undecided", "error", reason)
