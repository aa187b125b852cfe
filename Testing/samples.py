"""Where the data of the tests and benchmarks lie, and what the fixture ``run`` is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "Resources" / "SampleData"
SHARED = Path(os.environ.get("MEDPROTECT_SHARED_DATA", ROOT.parent / "shared" / "data"))

Run = Callable[..., tuple[int, str, str]]
