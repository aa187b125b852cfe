"""What our own benchmarks found out about the methods, for `medprotect methods`; no entry where nothing was measured.

Seconds: protecting the bundled CT (liver, 3D, 122 x 101 x 30) in memory, one thread of a 2-core machine that other work shared,
    python Testing/Benchmarks/methods_speed.py --cases --threads 1 --repeats 3    (sep: --repeats 1)
Scores: a victim with standard training (no augmentation, no defence), one seed, so that differences of a few points are chance,
    python Testing/Benchmarks/methods_effect.py classification breastmnist.npz --bound 8/255 --methods em salm tap sep lsp ar
    (200 steps of fitting, 300 of the victim; ar again with --set rms=0.018, lsp and ar also on pneumoniamnist.npz)
    python Testing/Benchmarks/methods_effect.py segmentation msd_hippocampus --dimension 3 --bound 4/255 --methods voxshield umed
    --cases 16 --test-cases 8 --fit-steps 150 --victim-steps 120
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """A victim's score on clean test images after training on clean, randomly perturbed and protected ones."""

    regime: str
    clean: float
    random: float
    protected: float

    @property
    def below_random(self) -> bool:
        """Whether the victim is lower than after random noise by more than chance explains (two standard errors)."""
        return self.protected < self.random - MARGIN


MARGIN = 0.09
SECONDS_PER_CASE = {"umed": 2.1, "voxshield": 0.9, "em": 14.5, "salm": 15.0, "tap": 50.7, "sep": 76.4, "lsp": 0.1, "ar": 0.3}

_BREAST = "BreastMNIST, balanced accuracy, 8/255, standard training"
_CLEAN, _RANDOM = 0.778, 0.759
_SHORT = "hippocampus, 3D, mean DSC, 4/255, standard training, fitted for 150 steps only"
EFFECTS = {
    "umed": Effect(_SHORT, 0.783, 0.774, 0.786),
    "voxshield": Effect(_SHORT, 0.783, 0.774, 0.772),
    "em": Effect(_BREAST, _CLEAN, _RANDOM, 0.542),
    "salm": Effect(_BREAST, _CLEAN, _RANDOM, 0.680),
    "tap": Effect(_BREAST, _CLEAN, _RANDOM, 0.582),
    "sep": Effect(_BREAST, _CLEAN, _RANDOM, 0.655),
    "lsp": Effect(f"{_BREAST}; PneumoniaMNIST 0.81 against 0.74", _CLEAN, _RANDOM, 0.700),
    "ar": Effect(f"{_BREAST}; 0.71 with --set rms=0.018; PneumoniaMNIST 0.77 against 0.74", _CLEAN, _RANDOM, 0.760),
}
