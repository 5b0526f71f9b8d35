"""Defines how one try of a call can fail although the call has not."""

from __future__ import annotations


class Failure(Exception):
    """Reports a try that may succeed next time.

    Attributes:
        what: what happened, for people.
        wait_s: what the server asks to wait; None where it does not.
        unreachable: no connection came about.
        throttled: the server is well and wants fewer calls.
        unusable: the server is well, and what it says is no answer: the fault of this call, and of no other.
        paid: tokens of prompt and answer that the server counts for it; None where it is not billed.
    """

    def __init__(
        self,
        what: str,
        *,
        wait_s: float | None = None,
        unreachable: bool = False,
        throttled: bool = False,
        unusable: bool = False,
        paid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.wait_s, self.paid = what, wait_s, paid
        self.unreachable, self.throttled, self.unusable = unreachable, throttled, unusable


class NoRoom(Exception):
    """Reports that the server has room for an answer of only `room` tokens."""

    def __init__(self, room: int) -> None:
        super().__init__(room)
        self.room = room
