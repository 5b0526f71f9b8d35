"""Prints public docstrings of the package, picked by a seed, so that two states can be read side by side.

python dev/docstrings.py --seed 1 --count 20 [--rev main] [--under training]
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def docstrings(rev: str | None, under: str) -> dict[str, str]:
    """Returns the docstring of each public module, class and function, by its place; of a commit, or as it is here."""
    listing = ["git", "ls-tree", "-r", "--name-only", rev] if rev else ["git", "ls-files"]
    files = subprocess.run(
        [*listing, f"src/socratune/{under}"], cwd=ROOT, text=True, check=True, stdout=-1
    ).stdout.split()
    texts = {}
    for file in (name for name in files if name.endswith(".py")):
        show = ["git", "show", f"{rev}:{file}"] if rev else ["cat", file]
        tree = ast.parse(subprocess.run(show, cwd=ROOT, text=True, check=True, stdout=-1).stdout)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = getattr(node, "name", "")
                if not name.startswith("_") and (text := ast.get_docstring(node)):
                    texts[f"{file.removeprefix('src/socratune/')}:{name}"] = text
    return texts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rev", help="a commit; without it, the files as they are")
    parser.add_argument("--under", default="", help="a package")
    arguments = parser.parse_args()
    texts = docstrings(arguments.rev, arguments.under)
    for place in random.Random(arguments.seed).sample(sorted(texts), arguments.count):
        print(f"{place}\n    " + texts[place].split("\n\n")[0].replace("\n", "\n    "))
