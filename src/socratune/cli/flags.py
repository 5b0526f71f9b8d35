"""The flags of the commands. Those that are settings come from the settings' own declarations in `config.py`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from pydantic import BaseModel

    from socratune.config import Setting

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML file with all other settings.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. train.r=32. Repeatable.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan (memory, time, cost, place) and write nothing.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Try 20 rows, estimate what all rows would take, and stop.")]
Start = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")]
Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")]
Restart = Annotated[str | None, typer.Option(metavar="STAGE", help="Redo this stage and all later ones.")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")]

GROUPED_FROM = 13
"""A command with fewer flags for settings than this lists all its flags together."""
_KINDS = {int: "<int>", float: "<float>", str: "<str>"}


def takes(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command take these settings as flags. Its parameter `given` holds those that were given, by dotted key.

    The flags themselves are made when the command is called, so that `socratune --help` needs no configuration.

    Args:
        keys: of settings; of a section, for all settings in it that have a flag; "" for those in no section.
    """

    def mark(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        others = [one for name, one in own.parameters.items() if name != "given"]
        command.__signature__ = own.replace(parameters=others)  # type: ignore[attr-defined]
        command.settings = keys  # type: ignore[attr-defined]
        return command

    return mark


LISTED = {
    "Begin": ("init", "demo", "plan", "doctor", "explain"),
    "Data": ("generate", "enhance", "merge", "inspect"),
    "Train and prove": ("run", "train", "validate", "verify", "compare", "ablate", "audit-judge"),
    "Look and use": ("report", "ui", "chat", "serve", "export", "export-data", "publish"),
    "Rented machines": ("pods",),
}
"""The commands by what they are for, as the help lists them."""
_FIRST_CLAUSE = re.compile(r"[:;?]\s|\.(\s|$)")


class Commands(TyperGroup):
    """The group of all commands. Its help lists them by stage, each with the first clause of its own help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of commands."""
        stages = {**LISTED, "More": [name for name in self.list_commands(ctx) if name not in sum(LISTED.values(), ())]}
        for title, names in stages.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, _FIRST_CLAUSE.split(one.help or "", 1)[0]) for name, one in commands if one is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _says(level: str) -> Callable[[bool], None]:
    def choose(given: bool) -> None:
        if given:
            from socratune.cli.console import speak

            speak(level)

    return choose


Quiet = Annotated[
    bool,
    typer.Option(
        "-q", "--quiet", callback=_says("WARNING"), expose_value=False, help="Show only problems and the result."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", callback=_says("DEBUG"), expose_value=False, help="Show everything that run.log records."
    ),
]


def _loudness() -> list[Any]:
    """Returns the flags that every command has besides its own."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)

    @alone.command()
    def _either(quiet: Quiet = False, verbose: Verbose = False) -> None: ...

    return typer.main.get_command(alone).params


class Command(TyperCommand):
    """A command whose help shows its settings by section, and that can be told to say less or more."""

    _told = False

    def get_params(self, ctx: Any) -> Any:
        """Returns the parameters, including the flags that `takes` has named."""
        params = self._own_params(ctx)
        if not self._told:
            self.params = [*self.params, *_loudness()]
            self._told, params = True, super().get_params(ctx)
        return params

    def _own_params(self, ctx: Any) -> Any:
        if keys := getattr(self.callback, "settings", None):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(_with_flags(inspect.unwrap(self.callback), keys))  # type: ignore[arg-type]
            whole = typer.main.get_command(alone)
            self.params, self.callback = whole.params, whole.callback
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Returns the arguments. A flag that is a setting here, or another trainer's name for one, is refused with what
        to write.
        """
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # Typer brings Click's NoSuchOption along as its own, or takes Click's, by version
            name = getattr(error, "option_name", None)
            unknown = name if type(error).__name__ == "NoSuchOption" else None
            if isinstance(unknown, str) and (meant := self._meant_by(unknown)):
                error.message, error.possibilities = f"No such option: {name}. {meant}", []  # type: ignore[attr-defined]
            raise

    def _meant_by(self, flag: str) -> str:
        from socratune.config import RunConfig, settings_of
        from socratune.resolve import nearest_key

        found = nearest_key(flag.lstrip("-"))
        if not found.startswith("Did you mean "):
            return "" if "docs/reference" in found else found
        key, _, why = found.removeprefix("Did you mean ").removesuffix("?").partition(",")
        known = {option for param in self.params for option in param.opts}
        flags = {setting.key: setting.flag_name for setting in settings_of(RunConfig) if setting.flag_name in known}
        here = [flags.get(one) or f"--set {one}=…" for one in key.split(" or ")]
        return f"Did you mean {' or '.join(here)}{',' if why else ''}{why}?"

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, the flags of each section of the configuration, then the command's own flags."""
        titles: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                titles.setdefault(getattr(param, "rich_help_panel", None) or usual, []).append(record)
        titles["Options"] = titles.pop("Options")
        for title, records in titles.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _with_flags(command: Callable[..., None], keys: Sequence[str]) -> Callable[..., None]:
    """Returns the command as a function with a parameter for each flag in the place of `given`."""
    from socratune.config import RunConfig

    settings = {_name(setting): setting for setting in flagged(RunConfig, keys)}
    grouped = len(settings) >= GROUPED_FROM

    def called(**values: Any) -> None:
        given = {setting.key: read(setting, values.pop(name)) for name, setting in settings.items()}
        command(given={key: value for key, value in given.items() if value is not None}, **values)

    own = inspect.signature(command)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option(setting, grouped))
        for name, setting in settings.items()
        for default in [False if setting.field.annotation is bool else None]
    ]
    others = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.parameters.values()]
    called.__signature__ = own.replace(parameters=[*others, *flags])  # type: ignore[attr-defined]
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    return called


def flagged(config: type[BaseModel], keys: Sequence[str]) -> Iterator[Setting]:
    """Returns the settings with a flag that `keys` names, in the order of `keys`, then of their declarations."""
    from socratune.config import settings_of

    every = [setting for setting in settings_of(config) if setting.flag]
    for key in keys:
        yield from (
            setting
            for setting in every
            if key in (setting.key, setting.key.rpartition(".")[0]) or (key and setting.key.startswith(f"{key}."))
        )


def _name(setting: Setting) -> str:
    return setting.key.replace(".", "__")


def option(setting: Setting, grouped: bool = False) -> Any:
    """Returns the flag of a setting as an annotation for typer."""
    flag, kind, section = setting.flag, setting.field.annotation, setting.key.rpartition(".")[0]
    assert flag is not None and setting.flag_name is not None
    panel = f"Settings of {section.split('.')[0] or 'the run'}" if grouped else None
    if kind is bool:
        return Annotated[bool, typer.Option(setting.flag_name, help=setting.help, rich_help_panel=panel)]
    default = setting.field.default
    number = isinstance(default, int | float)
    shown = f" [default: {default:g}]" if number else f" [default: {default}]" if isinstance(default, str) else ""
    repeated = get_origin(kind) is list and not flag.commas
    shown += " Repeatable." if repeated else ""
    return Annotated[
        list[str] | None if repeated else str | None,
        typer.Option(
            setting.flag_name,
            metavar=flag.metavar or _metavar(kind),
            help=setting.help + shown,
            rich_help_panel=panel,
        ),
    ]


def _metavar(kind: Any) -> str:
    from socratune.config import leaves

    joint = "," if get_origin(kind) is list else "|"
    return joint.join(part if isinstance(part, str) else _KINDS.get(part, "<str>") for part in leaves(kind))


def read(setting: Setting, text: Any) -> Any:
    """Returns the value of a flag in the setting's own type. `resolve` reports all wrong values together.

    A switch (of a setting that is true or false) sets what is not the default.
    """
    kind = setting.field.annotation
    if text is None or text == []:
        return None
    if kind is bool:
        return not setting.field.default if text else None
    flag = setting.flag
    if flag is not None and flag.commas:
        return [_number(kind, part.strip()) for part in text.split(",")]
    return text if get_origin(kind) is list else _number(kind, text)


def _number(kind: Any, text: str) -> Any:
    from socratune.config import leaves

    for number in (int, float):
        if number in leaves(kind):
            try:
                return number(text)
            except ValueError:
                continue
    return text
