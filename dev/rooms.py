"""The rooms of the house, its import circles and its arrows up: `python dev/rooms.py [--src CHECKOUT] [--json]`.

room      A package directly under `src/socratune`, or a file that lies there.
import    `import socratune.a` or `from socratune.a import b`, also inside a function. The module that is meant is
          `socratune.a.b` where that is one, else `socratune.a`. What a package's `__init__.py` names in a string that
          is the dotted name of a module counts as its (lazy) import. The package's root (`from socratune import
          __version__`, or a public name) is a door and no module: nothing is counted as importing it.
circle    A set of two or more modules (or rooms) in which each reaches each other one by imports. They are counted four
          times: by the imports that run when a program does; with those of `if __name__ == "__main__":`, with those of
          `if TYPE_CHECKING:`, and with both.
arrow up  An import whose floor is not lower than the importer's, between two rooms. The floors are the dict `FLOORS` in
          `tests/test_layers.py` of the checkout: a module's own, else its room's. The four ways of counting again.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = "socratune"
WAYS = {
    "when a program runs": frozenset({"run"}),
    "with entry points": frozenset({"run", "entry"}),
    "with types": frozenset({"run", "types"}),
    "with both": frozenset({"run", "entry", "types"}),
}

Graph = Mapping[str, set[str]]


class Import(NamedTuple):
    """One module imports another; `kind` is `run`, `entry` or `types`."""

    importer: str
    imported: str
    kind: str
    line: int


def modules_of(source: Path) -> dict[str, Path]:
    """Every module by its dotted name without the package's; the package itself is the empty name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports_of(name: str, path: Path, known: Iterable[str]) -> Iterator[Import]:
    """What a module imports of the package, the package itself left out."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = _kinds(tree)
    for node in ast.walk(tree):
        for imported in _named(node, name, path.name == "__init__.py"):
            target = _longest(imported, known)
            if target and target != name:
                yield Import(name, target, kinds.get(id(node), "run"), getattr(node, "lineno", 0))


def _kinds(tree: ast.Module) -> dict[int, str]:
    """The nodes that only a type checker, or only a program of its own, comes upon."""
    kinds = {}
    for block in ast.walk(tree):
        if isinstance(block, ast.If):
            test = ast.unparse(block.test)
            kind = "types" if "TYPE_CHECKING" in test else "entry" if "__name__" in test else None
            if kind:
                kinds |= {id(node): kind for part in block.body for node in ast.walk(part)}
    return kinds


def _named(node: ast.AST, importer: str, is_face: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                yield alias.name.removeprefix(PACKAGE).lstrip(".")
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, importer, is_face)
        if base is not None:
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
    elif is_face and isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
        if text.startswith(f"{PACKAGE}.") and all(part.isidentifier() for part in text.split(".")):
            yield text.removeprefix(f"{PACKAGE}.")


def _base(node: ast.ImportFrom, importer: str, is_face: bool) -> str | None:
    """The module that is imported from, None where it is not ours."""
    if node.level == 0:
        ours = node.module is not None and node.module.split(".")[0] == PACKAGE
        return (node.module or "").removeprefix(PACKAGE).lstrip(".") if ours else None
    above = importer.split(".") if importer else []
    kept = above[: len(above) - node.level + is_face]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _longest(name: str, known: Iterable[str]) -> str:
    parts = name.split(".")
    return next((part for end in range(len(parts), 0, -1) if (part := ".".join(parts[:end])) in known), "")


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


# --- circles and floors --------------------------------------------------------------------------------------------


def graph_of(imports: Iterable[Import], *, rooms: bool = False) -> Graph:
    graph: dict[str, set[str]] = defaultdict(set)
    for one in imports:
        pair = (one.importer, one.imported) if not rooms else (room_of(one.importer), room_of(one.imported))
        if pair[0] and pair[0] != pair[1]:
            graph[pair[0]].add(pair[1])
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected sets of more than one, the largest first."""
    reached = {node: _reached(graph, node) for node in graph}
    found = {frozenset(other for other in some if node in reached.get(other, ())) for node, some in reached.items()}
    return sorted((sorted(one) for one in found if len(one) > 1), key=lambda one: (-len(one), one))


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for node in graph.get(waiting.pop(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def floors_of(checkout: Path) -> dict[str, float]:
    """`FLOORS` of the checkout's layer test; empty where it has none."""
    path = checkout / "tests" / "test_layers.py"
    tree = ast.parse(path.read_text("utf-8")) if path.exists() else ast.Module([], [])
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "FLOORS":
            value = node.value  # pyright: ignore[reportAttributeAccessIssue]
            return ast.literal_eval(value)
    return {}


def upward(imports: Iterable[Import], floors: Mapping[str, float]) -> list[Import]:
    """The imports between rooms that do not go to a lower floor; a module without a floor is on none."""

    def floor(module: str) -> float | None:
        return floors.get(module, floors.get(room_of(module)))

    found = []
    for one in imports:
        above, below = floor(one.importer), floor(one.imported)
        apart = room_of(one.importer) != room_of(one.imported)
        if apart and (above is None or below is None or below >= above):
            found.append(one)
    return found


# --- what is said --------------------------------------------------------------------------------------------------


def survey(checkout: Path) -> dict[str, object]:
    """Rooms, circles and arrows up of a checkout, as JSON values."""
    source = checkout / "src" / PACKAGE
    modules, floors = modules_of(source), floors_of(checkout)
    imports = [one for name, path in modules.items() for one in imports_of(name, path, modules)]
    sizes: dict[str, list[int]] = defaultdict(list)
    for name, path in modules.items():
        sizes[room_of(name)].append(len(path.read_text("utf-8").splitlines()))
    packages = {room_of(name) for name in modules if "." in name}
    counted: dict[str, object] = {}
    for way, kinds in WAYS.items():
        some = [one for one in imports if one.kind in kinds]
        counted[way] = {
            "module_circles": circles(graph_of(some)),
            "room_circles": circles(graph_of(some, rooms=True)),
            "arrows_up": [f"{one.importer}:{one.line} -> {one.imported}" for one in upward(some, floors)],
        }
    return {
        "modules": len(modules),
        "lines": sum(map(sum, sizes.values())),
        "rooms": [
            {
                "name": room or "__init__",
                "package": room in packages,
                "files": len(sizes[room]),
                "lines": sum(sizes[room]),
                "floor": floors.get(room),
            }
            for room in sorted(sizes, key=lambda room: (room not in packages, room))
        ],
        "imports": counted,
    }


def show(found: dict[str, object]) -> Iterator[str]:
    """The survey for people."""
    rooms: list[dict[str, object]] = found["rooms"]  # pyright: ignore[reportAssignmentType]
    packages = sum(bool(room["package"]) for room in rooms)
    yield f"{packages} packages and {len(rooms) - packages} files in the root; {found['modules']} files, "
    yield f"{found['lines']:,} lines\n\n{'room':24}{'floor':>6}{'files':>7}{'lines':>8}\n"
    for room in rooms:
        name = f"{room['name']}{'/' if room['package'] else '.py'}"
        floor = "-" if room["floor"] is None else f"{room['floor']:g}"
        yield f"{name:24}{floor:>6}{room['files']:>7}{room['lines']:>8}\n"
    yield f"\n{'imports':24}{'circles of modules':>20}{'of rooms':>20}{'arrows up':>12}\n"
    counted: dict[str, dict[str, list]] = found["imports"]  # pyright: ignore[reportAssignmentType]
    for way, some in counted.items():
        sizes = [_sizes(some["module_circles"]), _sizes(some["room_circles"])]
        yield f"{way:24}{sizes[0]:>20}{sizes[1]:>20}{len(some['arrows_up']):>12}\n"
    told: list[str] = []
    for way, some in counted.items():
        lines = [f"circle of modules: {' '.join(one)}" for one in some["module_circles"]]
        lines += [f"circle of rooms: {' '.join(one)}" for one in some["room_circles"]]
        lines += [f"up: {one}" for one in some["arrows_up"]]
        new = [line for line in lines if line not in told]
        told += new
        if new:
            yield "".join(f"{line}\n" for line in ("", f"{way}:", *(f"  {line}" for line in new)))


def _sizes(found: list[list[str]]) -> str:
    return f"{len(found)} (of {', '.join(str(len(one)) for one in found)})" if found else "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=Path(__file__).parent.parent, help="a checkout; default: this one")
    parser.add_argument("--json", action="store_true", help="all of it as JSON")
    asked = parser.parse_args()
    found = survey(asked.src)
    print(json.dumps(found, indent=2) if asked.json else "".join(show(found)), end="\n" if asked.json else "")


if __name__ == "__main__":
    main()
