"""How fast, and in how much memory, does a database come? The real driver against the double of the tests.

    python benchmarks/arango.py [--documents N] [--edges N]

The double is a process of its own, so its work is not in the reader's memory; it does share the cores. Figures: wall
seconds of a whole command, its start included, and the largest resident set of its process (`ru_maxrss`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOOR_S, FLOOR_MB = 10.0, 300.0
READER = """
import resource, sys
from pathlib import Path
from socratune.documents.arango import drain
drained = drain(sys.argv[1], into=Path(sys.argv[2]))
print(drained.document_count, drained.link_count, drained.pages, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=25_000)
    parser.add_argument("--edges", type=int, default=25_000)
    args = parser.parse_args()
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "ARANGO_USER": "root", "ARANGO_PASSWORD": "secret", "PYTHONPATH": path}
    environment.pop("ARANGO_TOKEN", None)
    server = [sys.executable, str(ROOT / "tests" / "arango_server.py"), str(args.documents), str(args.edges)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as double,
    ):
        assert double.stdin and double.stdout
        place = double.stdout.readline().strip().replace("http", "arangodb", 1) + "/bench"
        started = time.monotonic()
        command = [sys.executable, "-c", READER, place, folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        wall_s = time.monotonic() - started
        double.stdin.close()
    documents, links, pages, kilobytes = map(int, done.stdout.split())
    megabytes = kilobytes / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    good = (documents, links) == (args.documents, args.edges) and wall_s < FLOOR_S and megabytes < FLOOR_MB
    print(f"{documents} documents, {links} links in {pages} pages: {wall_s:.2f} s (floor {FLOOR_S:.0f}), ", end="")
    print(f"{megabytes:.0f} MB (floor {FLOOR_MB:.0f}): {'good' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
