"""`socratune chat`: a conversation with a model, or with a run's base and adapter side by side."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from socratune.cli.console import guarded

if TYPE_CHECKING:
    from socratune.publishing import Served

HELP = "A question, or /system TEXT, /new (forget what was said), /quit."


def chat(
    given: dict[str, Any],
    what: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model.")],
    question: Annotated[
        str | None,
        typer.Argument(help="The question; without it, standard input or, on a terminal, a conversation."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show the base model's answers beside the adapter's.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System prompt.  [default: the one used in training]")
    ] = None,
) -> None:
    """Chat with the adapter of a run folder, or with a model. Decoding is greedy unless it is a thinking model."""

    def work() -> int:
        from socratune.publishing import serving_models
        from socratune.runs import existing_run

        if Path(what).is_dir() and not [*Path(what).glob("config.json"), *Path(what).glob("*.gguf")]:
            existing_run(what)  # a folder that is no model is meant as one of a run
        with serving_models(what, given.get("chat_template")) as served:
            talk = Talk(_chosen(served, what, compare), _system_of(what, system))
            typed = None if question is not None or sys.stdin.isatty() else sys.stdin.read().strip()
            if (asked := question or typed) is not None:
                talk.ask(asked)
            else:
                _converse(talk)
        return 0

    raise typer.Exit(guarded(work))


def _system_of(what: str, given: str | None) -> str | None:
    from socratune.runs import RunDir, system_turn

    run = RunDir(what)
    return given if given is not None or not run.config.is_file() else system_turn(run)


def _chosen(served: Sequence[Served], what: str, compare: bool) -> list[Served]:
    """Returns who answers: the adapter, or the model; with `compare`, the base first.

    Raises:
        UserError: there is nothing to compare, or a run without an adapter.
    """
    from socratune.errors import Fault, Shown, UserError
    from socratune.runs import RunDir

    if RunDir(what).config.is_file() and served[-1].name != "adapter":
        raise UserError(Fault(what, "a LoRA adapter", Shown("none"), f"Train it first: socratune train {what}."))
    if compare and len(served) < 2:
        raise UserError(Fault("--compare", "a run with a base beside its adapter", Shown(what)))
    return [*served] if compare else [served[-1]]


class Talk:
    """Keeps the conversation with each model that answers, and shows the answers as they arrive."""

    def __init__(self, served: Sequence[Served], system: str | None) -> None:
        from rich.console import Console

        self.served = served
        self.console = Console(highlight=False)
        self.system = system
        self.forget()

    def forget(self) -> None:
        """Starts a new conversation with only the system turn."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        self._said = [list(first) for _ in self.served]

    def ask(self, question: str) -> None:
        """Asks every model and shows the answers while they are written; side by side on a terminal.

        Raises:
            UserError: the chat template does not take these turns.
        """
        for said in self._said:
            said.append({"role": "user", "content": question})
        if len(self.served) == 1:
            shown = _Typed(self.served[0])
            answers = asyncio.run(self._answers([shown.told]))
            print(shown.rest(answers[0]), flush=True)
        elif self.console.is_terminal:
            answers = self._side_by_side()
        else:
            answers = asyncio.run(self._answers([None] * len(self.served)))
            for name, answer in zip(("base", "adapter"), answers, strict=True):
                self.console.print(f"{name}:", style="bold", end=" ")
                self.console.print(answer, markup=False, soft_wrap=True)
        for said, answer in zip(self._said, answers, strict=True):
            said.append({"role": "assistant", "content": answer})

    async def _answers(self, told: Sequence[Callable[[int], None] | None]) -> list[str]:
        async def answer(at: int) -> str:
            one = self.served[at]
            sampling = one.student.exam_sampling(one.max_new_tokens)
            return (await one.student.generate(self._said[at], sampling, told[at])).text

        return await asyncio.gather(*map(answer, range(len(self.served))))

    def _side_by_side(self) -> list[str]:
        from rich.live import Live
        from rich.table import Table

        ids: list[list[int]] = [[] for _ in self.served]

        def page() -> Table:
            table = Table("base", "adapter", expand=True)
            decoded = (one.student.tokenizer.decode(said) for one, said in zip(self.served, ids, strict=True))
            table.add_row(*(text.replace("[", r"\[") for text in decoded))
            return table

        with Live(get_renderable=page, console=self.console, refresh_per_second=8):
            return asyncio.run(self._answers([said.append for said in ids]))


class _Typed:
    """Shows an answer while it is being written."""

    def __init__(self, served: Served) -> None:
        self._decode = served.student.tokenizer.decode
        self._ids: list[int] = []
        self._shown = ""

    def told(self, token: int) -> None:
        """Shows the text that is certain with this token. A character of several tokens appears with its last one."""
        self._ids.append(token)
        text = self._decode(self._ids).lstrip()
        if not text.endswith("\ufffd") and text.startswith(self._shown):
            print(text[len(self._shown) :], end="", flush=True)
            self._shown = text

    def rest(self, answer: str) -> str:
        """Returns the part of the whole answer that was not shown yet."""
        return answer[len(self._shown) :]


def _converse(talk: Talk) -> None:
    """Asks for questions until the input ends."""
    with suppress(ImportError):
        import readline  # noqa: F401  # arrows and history in input()
    print(HELP)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/new":
            talk.forget()
        elif line == "/system" or line.startswith("/system "):
            talk.system = line.removeprefix("/system").strip() or None
            talk.forget()
        elif line.startswith("/"):
            print(HELP)
        elif line:
            talk.ask(line)
