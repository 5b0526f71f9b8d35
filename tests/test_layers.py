"""The floors of the house: a module imports from a lower floor or from its own package; and nothing grows monstrous."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "socratune"
MODULES = sorted(SOURCE.rglob("*.py"))

FLOORS = {
    "errors": 0, "sections": 0,
    "rows": 1, "privacy": 1, "documents": 1, "config": 1, "packing": 1, "memory": 1, "fastjson": 1, "answers": 1,
    "quantities": 1, "numberwords": 1, "cards": 1, "everyday": 1,
    "duplicates": 2, "power": 2, "words": 2, "keeper": 2,
    "resolve": 2, "rundir": 2, "journal": 2, "prompts": 2, "stats": 2, "grokking": 2, "modelref": 2, "ledger": 2,
    "mathcheck": 2, "numeric": 2, "choices": 2, "echoes": 2, "llm.base": 2, "language": 2, "llm.arithmetic": 2,
    "timing": 2, "machine": 2,
    "llm": 3, "sources": 3, "judge": 3, "hints": 3, "sharding": 3, "chat": 3, "rowmap": 3, "sampling": 3, "serving": 3,
    "replay": 3, "review": 3, "licences": 3, "decoding": 3, "picking": 3, "grok_demo": 3,
    "answering": 4, "backends": 4, "loop": 4, "scoring": 4, "audit": 4, "labels": 4, "student": 4, "identity": 4,
    "litellm_model": 4, "forgetting_checks": 4, "browsing": 4, "card": 4, "modelfile": 4, "comparison": 4, "gate": 3,
    "performance": 4, "questions": 4, "lab": 4, "trackers": 2, "lm_tasks": 4,
    "sizes": 3, "decision": 3, "passages": 3, "writing": 3, "extract": 4, "hops": 4, "grounding": 4,
    "roles": 5, "local_models": 5, "leaks": 5, "audit_sheet": 5, "report": 5, "parity": 5, "forgetting": 5,
    "integrity": 5, "workload": 5, "webserver": 1, "loopback": 1, "plan": 6, "remote": 3, "elsewhere": 6.5,
    "stages": 6, "engine_ray": 6, "bookkeeping": 6, "inspection": 6, "doctor": 6,
    "pipeline": 7, "preflight": 7,
    "merge": 8, "rounds": 8, "ui": 8, "serve": 8, "ablation": 8, "generation": 8, "estimating": 7.5,
    "cli": 9, "api": 9,
    "__main__": 10, "": 10,
}  # fmt: skip

LONGEST_FUNCTION, LONGEST_MODULE, MOST_PARAMETERS, MOST_FIELDS = 60, 450, 10, 22
MANY_PARAMETERS = {"cli.app": "a command has as many parameters as flags", "api": "the whole command in one call"}


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    name = name_of(path)
    for imported in imports(ast.parse(path.read_text("utf-8"))):
        if imported == "" and name != "":  # `from socratune import __version__`
            continue
        in_package = "." in name or path.name == "__init__.py"
        same_package = in_package and imported.split(".")[0] == name.split(".")[0]
        assert same_package or floor(imported) < floor(name), (
            f"{name} imports {imported}, which is not on a lower floor"
        )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_grows_monstrous(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name}: {length} lines"
            parameters = len(node.args.args) + len(node.args.kwonlyargs)
            assert parameters <= MOST_PARAMETERS or name_of(path) in MANY_PARAMETERS, f"{node.name}: {parameters}"
        elif isinstance(node, ast.ClassDef) and name_of(path) in ("config", "sections"):
            fields = sum(isinstance(part, ast.AnnAssign) for part in node.body)
            assert fields <= MOST_FIELDS, f"{node.name}: {fields} fields"


def test_only_one_file_imports_unsloth() -> None:
    users = [name_of(path) for path in MODULES if "import unsloth" in path.read_text("utf-8")]
    assert len(users) <= 1, users
