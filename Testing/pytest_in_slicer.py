"""Run all tests, those of the module too, with Slicer's Python: ``Slicer --testing --python-script Testing/pytest_in_slicer.py``."""

from pathlib import Path

import pytest
import slicer

slicer.util.exit(int(pytest.main(["-c", str(Path(__file__).parents[1] / "pyproject.toml"), str(Path(__file__).parent / "Python")])))
