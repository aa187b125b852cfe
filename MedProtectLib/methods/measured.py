"""What our own benchmarks found out about the methods, for `medprotect methods`; no entry where nothing was measured.

Seconds: protecting the bundled CT (liver, 3D, 122 x 101 x 30) in memory, two threads of an idle 2-core machine,
    python Testing/Benchmarks/methods_speed.py --cases
Effects: the victims of tier 1 of the audit with standard training at 8/255, from the rows in Documentation/audit that are not void,
    python Testing/Benchmarks/measured_effects.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

EFFECTS_FILE = "measured_effects.json"
KEPT_AT_MOST = 0.5
SECONDS_PER_CASE = {
    "umed": 0.21,
    "voxshield": 0.09,
    "em": 3.4,
    "salm": 1.9,
    "tap": 8.4,
    "sep": 10.3,
    "lsp": 0.02,
    "ar": 0.05,
    "weave": 0.02,
}
ALSO_NOT_WITHSTOOD = {
    "weave": (
        "pictures shrunk from 256 x 256 to 128 x 128",
        "nnU-Net's rotation, zoom and blur",
        "Gaussian blur of sigma 2",
        "JPEG of quality 10",
        "an attacker with the labels who knows it",
    ),
}


@dataclass(frozen=True)
class Effect:
    """A victim's score on clean test images after training on clean, randomly perturbed and protected ones, mean over ``seeds``.

    ``chance``: what a victim scores that has learned nothing. ``interval``: half the width of the 95 % interval of
    ``protected - random`` over seeds and test cases; None where it is not known.
    """

    data: str
    score: str
    psnr_db: float
    chance: float
    clean: float
    random: float
    protected: float
    interval: float | None
    seeds: int

    @property
    def below_random(self) -> bool:
        """Whether the victim is lower than after random noise by more than chance explains."""
        return self.interval is not None and self.protected + self.interval < self.random

    @property
    def kept(self) -> float:
        """The part of its clean score above chance that the victim keeps."""
        return min(1.0, max(0.0, (self.protected - self.chance) / (self.clean - self.chance)))


@cache
def effects() -> dict[str, tuple[Effect, ...]]:
    """What was measured, by method."""
    found = json.loads((files("MedProtectLib.methods") / EFFECTS_FILE).read_text(encoding="utf-8"))
    return {name: tuple(Effect(**each) for each in of_method) for name, of_method in found.items()}


def not_withstood(name: str) -> tuple[str, ...]:
    """Trainings in which a victim kept more than ``KEPT_AT_MOST`` of its clean score, and what else is known to undo a method."""
    kept = (f"standard training on {e.data} (victim keeps {e.kept:.0%})" for e in effects().get(name, ()) if e.kept > KEPT_AT_MOST)
    return (*kept, *ALSO_NOT_WITHSTOOD.get(name, ()))
