"""One row that cannot be judged is undecided and costs the others nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from socratune.errors import SocratuneError, is_interrupt
from socratune.rows import Judgement, QARow

log = logging.getLogger(__name__)

Judge = Callable[[QARow, str], Coroutine[Any, Any, Judgement]]
"""`await judge(row, response)`."""


def undecided_on_error(judge: Judge) -> Judge:
    """The judge, with *undecided* where it fails on an answer: an answer may hold anything, and a run may be long.

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
    """What a judge says of an answer that it failed on."""
    reason = f"the judge failed on this answer: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    log.warning("Undecided: %s", reason)
    return Judgement("undecided", "error", reason)
