"""Checks licences and known vulnerabilities of an environment's packages, and exits with 1 if either check fails.

    python scripts/audit.py PYTHON        # run by `make audit`, in an environment that has pip-audit and pip-licenses

A package that the vulnerability service does not answer for fails the check: a silent gap would read as a clean result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

ALLOWED = {
    *("MIT", "MIT License", "MIT-CMU", "MIT AND PSF-2.0"),
    *("BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License", "BSD 2-CLAUSE LICENSE"),
    *("Apache-2.0", "Apache Software License", "Apache 2.0 License", "Apache-2.0 OR BSD-2-Clause"),
    *("ISC License (ISCL)", "PSF-2.0", "Python Software Foundation License", "Apache-2.0 AND CNRI-Python"),
    *("MPL-2.0", "MPL-2.0 AND MIT", "MPL-2.0 AND (Apache-2.0 OR MIT)", "Mozilla Public License 2.0 (MPL 2.0)"),
    "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "BSD-3-Clause, Apache-2.0, dependency licenses",
    "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND MIT",
}
READ = {"zss": "BSD-3-Clause"}
"""Licences that a person read in the package's own licence file, because its metadata names none."""


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def forbidden_licences(python: str) -> list[str]:
    """Prints a table of the licences and returns `package version: licence` of every package outside the allow list."""
    command = (sys.executable, "-m", "piplicenses", "--python", python, "--from=mixed", "--format=json")
    packages: dict[str, list[str]] = defaultdict(list)
    forbidden = []
    for package in json.loads(output_of(*command)):
        name = package["Name"]
        licence = READ.get(name, package["License"].strip())
        packages[licence].append(name)
        if not set(licence.split("; ")) <= ALLOWED:
            forbidden.append(f"{name} {package['Version']}: {licence}")
    print(f"Licences of {sum(map(len, packages.values()))} packages:")
    for licence, names in sorted(packages.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"{len(names):>5}  {licence}" + (f"  ({', '.join(sorted(names))})" if len(names) < 4 else ""))
    return forbidden


def vulnerable(python: str) -> int:
    """Runs pip-audit on the installed versions and returns its exit code; a skipped package makes that 1."""
    frozen = output_of(python, "-m", "pip", "--disable-pip-version-check", "freeze", "--exclude-editable")
    # 2.13.0+cpu is 2.13.0 in the vulnerability service; what pip installed from a file has no entry there at all.
    pins = [line.partition("+")[0] for line in frozen.splitlines() if "==" in line]
    with TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("\n".join(pins) + "\n", "utf-8")
        command = (sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip")
        return subprocess.run([*command, "--requirement", str(requirements)], check=False).returncode


def main(python: str) -> int:
    forbidden = forbidden_licences(python)
    for line in forbidden:
        print(f"Not in the allow list of scripts/audit.py: {line}", file=sys.stderr)
    unsafe = vulnerable(python)
    if unsafe:
        text = "pip-audit found a vulnerability or could not check every package; its lines above say which."
        print(text, file=sys.stderr)
    return 1 if forbidden or unsafe else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
