"""Prints public docstrings of the package, picked by a seed; with --rev, the same ones as they were in a commit.

python dev/docstrings.py --seed 1 --count 20 [--rev main] [--under training]
"""

import argparse
import ast
import random
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--seed", type=int, default=1)
PARSER.add_argument("--count", type=int, default=20)
PARSER.add_argument("--rev", help="a commit; without it, the files as they are")
PARSER.add_argument("--under", default="", help="a package")


def docstrings(source: str) -> dict[str, str]:
    """Returns the docstring of each public module, class and function by its name; the module's is empty."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    named = [
        (getattr(node, "name", ""), ast.get_docstring(node))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds)
    ]
    return {name: text for name, text in named if text and not name.startswith("_")}


if __name__ == "__main__":
    args = PARSER.parse_args()
    here = {path: docstrings(path.read_text("utf-8")) for path in (ROOT / "src/socratune" / args.under).rglob("*.py")}
    places = sorted((path, name) for path, texts in here.items() for name in texts)
    for path, name in random.Random(args.seed).sample(places, args.count):
        file = path.relative_to(ROOT).as_posix()
        show = ["git", "-C", str(ROOT), "show", f"{args.rev}:{file}"]
        texts = docstrings(subprocess.check_output(show, text=True)) if args.rev else here[path]
        print(f"{file}:{name}\n    " + texts.get(name, "(none)").split("\n\n")[0].replace("\n", "\n    "))
