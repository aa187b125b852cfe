"""Where the data of the tests and benchmarks lie."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "Resources" / "SampleData"
SHARED = Path(os.environ.get("MEDPROTECT_SHARED_DATA", ROOT.parent / "shared" / "data"))
