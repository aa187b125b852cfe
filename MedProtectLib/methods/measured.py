"""What our own benchmarks found out about the methods, for `medprotect methods`; no entry where nothing was measured.

Seconds: protecting the bundled CT (liver, 3D, 122 x 101 x 30) in memory, two threads of an idle 2-core machine,
    python Testing/Benchmarks/methods_speed.py --cases
Scores: a victim with standard training (no augmentation, no defence). A single seed moves them by up to 0.14 (tap 0.58, 0.69 and 0.60;
    ar with --set rms=0.018 0.81, 0.67 and 0.70), so that differences of a few points are chance, in means of three seeds too.
    python Testing/Benchmarks/methods_effect.py classification breastmnist.npz --bound 8/255 --methods em salm tap sep lsp ar
    --seeds 0 1 2    (200 steps of fitting, 300 of the victim; ar again with --set rms=0.018; sep: --seeds 0 1)
    umed, voxshield, lsp, ar, weave and what is not withstood: Documentation/audit and Research.md,
    python Testing/Benchmarks/audit_tiers.py 1 --bound 8/255 --target-psnr 50.1
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """A victim's score on clean test images after training on clean, randomly perturbed and protected ones, mean over the seeds."""

    regime: str
    clean: float
    random: float
    protected: float
    seeds: int = 1

    @property
    def below_random(self) -> bool:
        """Whether the victim is lower than after random noise by more than chance explains (two standard errors of one score)."""
        return self.protected < self.random - MARGIN


MARGIN = 0.09
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

_BREAST = "BreastMNIST, balanced accuracy, 8/255, standard training"
_CLEAN, _RANDOM = 0.782, 0.746
_HIPPOCAMPUS = "hippocampus, 3D, mean DSC, 50.1 dB, standard training"
_BUSI = "busi, 256 x 256, mean DSC, 50.1 dB, standard training"
EFFECTS = {
    "umed": Effect(_BUSI, 0.519, 0.427, 0.511, 3),
    "voxshield": Effect(_HIPPOCAMPUS, 0.841, 0.841, 0.842, 3),
    "em": Effect(_BREAST, _CLEAN, _RANDOM, 0.620, 3),
    "salm": Effect(_BREAST, _CLEAN, _RANDOM, 0.738, 3),
    "tap": Effect(_BREAST, _CLEAN, _RANDOM, 0.625, 3),
    "sep": Effect(_BREAST, 0.789, 0.738, 0.631, 2),
    "lsp": Effect(_BUSI, 0.519, 0.427, 0.266, 3),
    "ar": Effect(_BUSI, 0.519, 0.427, 0.169, 3),
    "weave": Effect(_BUSI, 0.519, 0.427, 0.056, 3),
}

_SMALL_3D = ("standard training on hippocampus, 3D, 50.1 dB", "standard training on lidc_nodules, 3D, 50.1 dB")
NOT_WITHSTOOD: dict[str, tuple[str, ...]] = {
    "umed": ("standard training on busi, 50.1 dB", *_SMALL_3D),
    "voxshield": _SMALL_3D,
    "lsp": _SMALL_3D,
    "ar": _SMALL_3D[:1],
    "weave": (
        *_SMALL_3D,
        "nnU-Net's rotation, zoom and blur",
        "Gaussian blur of sigma 2",
        "JPEG of quality 10",
        "an attacker with the labels who knows it",
    ),
}
