"""What the bytes of a result may depend on besides the input, the profile and the options."""

from __future__ import annotations

import os
import platform

import numpy as np


def engine() -> dict[str, str]:
    """Versions and kind of machine, for the record."""
    import torch

    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": platform.machine(),
        "processor_features": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32",
        "python": platform.python_version(),
        "system": os.name,
    }
