"""The guide's first step, `python generate_qa_data.py --database NAME --output FILE.jsonl`: `socratune generate`.

`ARANGO_URL`, `ARANGO_USER` and `ARANGO_PASSWORD` say where the database is and who reads it.
"""

import shlex
import sys

from socratune.cli import main

if __name__ == "__main__":
    words = ["generate", *sys.argv[1:]]
    print(f"Modern form: {shlex.join(['socratune', *words])}", file=sys.stderr)
    sys.exit(main(words))
