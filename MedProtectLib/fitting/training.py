"""What a method is given to be fitted: options, purpose, and the prepared cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.methods.base import CLASSIFICATION, Purpose
from MedProtectLib.progress import Report
from MedProtectLib.protector import DEFAULT_BOUND

if TYPE_CHECKING:
    import torch

    from MedProtectLib.fitting.patches import PatchSource

DEFAULT_STEPS, CASE_STEPS = 600, 30
PATCH = {2: (96, 96), 3: (32, 48, 48)}
BATCH = {2: 8, 3: 2}
LARGEST_IMAGE = {2: (224, 224), 3: (48, 48, 48)}
IMAGES = {2: 16, 3: 4}


@dataclass(frozen=True)
class FitOptions:
    """What a fit is asked for; see :func:`~MedProtectLib.fitting.fit.fit`. ``scope`` None is the method's first."""

    method: str = "umed"
    dimension: int = 3
    bound: float = DEFAULT_BOUND
    steps: int = DEFAULT_STEPS
    seed: int = 0
    half_width: int = 3
    modality: str | None = None
    window: tuple[float, float] | None = None
    segments: tuple[str, ...] = ()
    scope: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    public: bool = False
    note: str = ""


@dataclass(frozen=True)
class Training:
    """``folder`` holds the prepared cases of a method that learns; ``identity`` names the run in its checkpoint.

    ``on_cpu`` keeps a fit off the GPU, so that it gives the same profile on every machine.
    """

    options: FitOptions
    purpose: Purpose
    folder: Path
    identity: str
    report: Report
    on_cpu: bool = False

    @property
    def device(self) -> torch.device:
        """Where the networks are trained."""
        import torch

        from MedProtectLib.device import process_device

        return torch.device("cpu") if self.on_cpu else process_device()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def source(self) -> PatchSource:
        """Patches around the regions, or whole images for classification (cropped or padded to a common size)."""
        from MedProtectLib.fitting.patches import PatchSource

        dimension = self.purpose.dimension
        if self.purpose.task == CLASSIFICATION:
            return PatchSource(self.folder, dimension, LARGEST_IMAGE[dimension], IMAGES[dimension], self.options.seed, at_most=True)
        return PatchSource(self.folder, dimension, PATCH[dimension], BATCH[dimension], self.options.seed)
