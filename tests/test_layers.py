"""The floors of the house: a module imports from a lower floor or from its own package; and nothing grows monstrous."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

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
    "data": 3.5, "modelref": 3.5, "environments": 3.5,
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
LINES = {
    "": 3750,
    "judging": 2200,
    "runs": 1700,
    "llm": 5360,
    "inference": 3640,
    "data": 3000,
    "environments": 850,
    "teaching": 1800,
    "documents": 3350,
    "training": 3000,
    "evaluation": 4810,
    "publishing": 4350,
    "stages": 2525,
    "compute": 3950,
    "ways": 1610,
    "cli": 3030,
}
"""Of a package, the root being "". A feature raises its package's figure in its own commit, with the reason there."""
LONGEST_FUNCTION, LONGEST_MODULE, MOST_PARAMETERS, MOST_FIELDS = 60, 450, 10, 24
MANY_PARAMETERS = {
    "api": "the whole command in one call",
    "inference.decoding.kernel": "a GPU takes numbers one by one",
}
DOORS = {"modelref", "__main__", ""}
"""What published cards, scripts and `import socratune` come in by."""
EXAMPLES = sorted((SOURCE.parent.parent / "examples").glob("*.py"))
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


def test_the_root_stays_small_and_no_package_outgrows_its_lines() -> None:
    assert len([path for path in MODULES if path.parent == SOURCE]) <= MOST_ROOT_FILES
    lines: dict[str, int] = dict.fromkeys(LINES, 0)
    for path in MODULES:
        lines["" if path.parent == SOURCE else path.relative_to(SOURCE).parts[0]] += len(read(path)[0].splitlines())
    over = {package: count for package, count in lines.items() if count > LINES[package]}
    assert not over


PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
NAMESPACES = {"inference": {"ranks"}}
"""Modules that a face shows whole, as their functions read best behind their name: `ranks.size()`."""


def face(package: str) -> set[str]:
    """The names that others may use."""
    return set(importlib.import_module(f"socratune.{package}").__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_for_and_what_others_may_use(package: str) -> None:
    module = importlib.import_module(f"socratune.{package}")
    assert module.__doc__ and module.__doc__.endswith(".") and len(module.__doc__.splitlines()) == 1
    modules = {path.stem for path in (SOURCE / package).iterdir()}
    assert not (face(package) & modules) - NAMESPACES.get(package, set()), "a name that is a module's, too"
    for name in face(package):
        assert not name.startswith("_") and hasattr(module, name)


def test_other_packages_import_from_the_face_alone() -> None:
    offenders, used = [], {package: set[str]() for package in PACKAGES}
    for path in MODULES + EXAMPLES:
        here = "" if path in EXAMPLES else name_of(path).split(".")[0]
        for node in ast.walk(read(path)[1]):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("socratune."):
                package, _, inner = node.module.removeprefix("socratune.").partition(".")
                if package in PACKAGES and package != here:
                    names = {alias.name for alias in node.names}
                    used[package] |= names
                    if (inner or names - face(package)) and (path in EXAMPLES or name_of(path) not in DOORS):
                        offenders.append(f"{path.name} imports {', '.join(sorted(names))} of {node.module}")
    assert not offenders, "\n".join(offenders)
    unused = {f"{package}.{name}" for package in PACKAGES for name in face(package) - used[package]}
    assert not unused, f"a face shows what nobody takes: {sorted(unused)}"


def test_public_names_are_unique() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        if name_of(path) == "cli.app":  # its functions are called like their commands
            continue
        for name in defined(read(path)[1]):
            homes.setdefault(name, []).append(name_of(path))
    shared = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert not shared
    roots = {path.stem for path in MODULES if path.parent == SOURCE}
    assert not roots & homes.keys(), "a file of the root and a function share a name"


def defined(tree: ast.Module) -> Iterator[str]:
    """The public names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            names = [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []
        yield from (name for name in names if not name.startswith("_") and name != "log")


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
