"""The experiments' own tests, which `make test-experiments` runs: they prove nothing about the package."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # whatever asked the Hub would fail at once

EXPERIMENTS = Path(__file__).parent.parent
sys.path[:0] = [str(EXPERIMENTS / "lab"), str(EXPERIMENTS)]
