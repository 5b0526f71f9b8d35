"""The floors of the house: a module imports from a lower floor or from its own package; and nothing grows monstrous."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "socratune"
MODULES = sorted(SOURCE.rglob("*.py"))

FLOORS = {
    "": 14, "__main__": 14.5, "cli": 14,  # parse, call one public function, print
    "api": 13,
    "ways": 12.5, "rounds": 12, "merge": 12, "pilot": 12,  # runs over runs
    "pipeline": 11,
    "preflight": 10,
    "compute": 9.5,
    "stages": 9,
    "publishing": 8,
    "evaluation": 7,
    "training": 6,
    "documents": 5,
    "teaching": 4,
    "data": 3.5, "modelref": 3.5,
    "inference": 3.3,
    "llm": 3,
    "runs": 2,
    "resolve": 1.5,
    "judging": 1,
    "config": 0.5,
    "errors": 0, "rows": 0,
}  # fmt: skip
"""A package or a file of the root imports from lower floors only; what shares a floor shares nothing else."""

MOST_ROOT_FILES = 13
LONGEST_FUNCTION, LONGEST_MODULE, MOST_PARAMETERS, MOST_FIELDS = 60, 450, 10, 22
MANY_PARAMETERS = {"api": "the whole command in one call"}
LONG_MODULES = {"config": "every setting, each declared once with its help"}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor(name: str) -> int:
    return FLOORS[name] if name in FLOORS else FLOORS[name.split(".", maxsplit=1)[0]]


def imports(tree: ast.Module) -> Iterator[str]:
    type_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    entry_points = {
        id(node)
        for block in tree.body
        if isinstance(block, ast.If) and "__name__" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in type_only | entry_points:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("socratune"):
            base = node.module.removeprefix("socratune").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if (SOURCE / f"{inner.replace('.', '/')}.py").exists() or inner in FLOORS else base
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("socratune").lstrip(".") for a in node.names if "socratune" in a.name)


@cache
def read(path: Path) -> tuple[str, ast.Module]:
    """The text of a module and its syntax tree."""
    text = path.read_text("utf-8")
    return text, ast.parse(text)


def test_imports_go_down() -> None:
    upward: list[str] = []
    for path in MODULES:
        name = name_of(path)
        for imported in imports(read(path)[1]):
            if imported == "" and name != "":  # `from socratune import __version__`
                continue
            in_package = "." in name or path.name == "__init__.py"
            same_package = in_package and imported.split(".")[0] == name.split(".")[0]
            if not same_package and floor(imported) >= floor(name):
                upward.append(f"{name} imports {imported}, which is not on a lower floor")
    assert not upward, "\n".join(upward)


def test_the_root_stays_small() -> None:
    assert len([path for path in MODULES if path.parent == SOURCE]) <= MOST_ROOT_FILES


def too_large(path: Path) -> Iterator[str]:
    """What of a module is longer or wider than allowed."""
    name, (text, tree) = name_of(path), read(path)
    if (lines := len(text.splitlines())) > LONGEST_MODULE and name not in LONG_MODULES:
        yield f"{name}: {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{name}.{node.name}: {length} lines"
            parameters = len(node.args.args) + len(node.args.kwonlyargs)
            if parameters > MOST_PARAMETERS and name not in MANY_PARAMETERS:
                yield f"{name}.{node.name}: {parameters} parameters"
        elif isinstance(node, ast.ClassDef) and name == "config":
            fields = sum(isinstance(part, ast.AnnAssign) for part in node.body)
            if fields > MOST_FIELDS:
                yield f"{name}.{node.name}: {fields} fields"


def test_nothing_grows_monstrous() -> None:
    found = [fault for path in MODULES for fault in too_large(path)]
    assert not found, "\n".join(found)


def test_only_one_file_imports_unsloth() -> None:
    users = [name_of(path) for path in MODULES if "import unsloth" in read(path)[0]]
    assert len(users) <= 1, users
