"""Every regime by name. A new one is a small function and one line here; names joined by + are used together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from monai.transforms import Compose

from MedProtectLib.audit import attackers, augmentation, defences, lattice
from MedProtectLib.audit.augmentation import Augmentation
from MedProtectLib.audit.batches import Purifier
from MedProtectLib.audit.regimes import Knowledge, Regime
from MedProtectLib.errors import UsageError

JOINT = "+"


def _always(function: Callable[..., Any], **fixed: Any) -> tuple[Callable[[Knowledge], Purifier], ...]:
    purify = partial(function, **fixed)
    return (lambda knowledge: purify,)


AUGMENTATIONS = {
    "none": Regime(),
    "augmented": Regime(augment=augmentation.nnunet_like),
    "heavy": Regime(augment=augmentation.heavy),
}
DEFENCES = {
    "jpeg75": Regime(purify=_always(defences.jpeg, quality=75)),
    "jpeg50": Regime(purify=_always(defences.jpeg, quality=50)),
    "jpeg10": Regime(purify=_always(defences.jpeg, quality=10)),
    "gaussian1": Regime(purify=_always(defences.gaussian, sigma=1.0)),
    "gaussian2": Regime(purify=_always(defences.gaussian, sigma=2.0)),
    "median3": Regime(purify=_always(defences.median, size=3)),
    "bilateral": Regime(purify=_always(defences.bilateral)),
    "bits4": Regime(purify=_always(defences.bit_depth, bits=4)),
    "half_size": Regime(purify=_always(defences.half_size)),
    "denoiser": Regime(purify=(defences.denoiser,), requires=(defences.public_like,)),
    "cutout": Regime(augment=augmentation.cutout),
    "mixup": Regime(strategy=defences.mixup),
    "adversarial2": Regime(strategy=defences.adversarial(2 / 255)),
    "adversarial4": Regime(strategy=defences.adversarial(4 / 255)),
    "ueraser": Regime(strategy=defences.ueraser),
    "warm_start": Regime(start=defences.warm_start, requires=(defences.public_like,)),
}
ATTACKERS = {
    "blur_regions": Regime(attack=(attackers.blur_regions,)),
    "inpaint_regions": Regime(attack=(attackers.inpaint_regions,)),
    "inpaint_contour": Regime(attack=(attackers.inpaint_contour,)),
    "subtract_public": Regime(attack=(attackers.subtract_public,), requires=(attackers.public_profile,)),
    "subtract_weave": Regime(attack=(lattice.subtract_weave,)),
    "snap_levels": Regime(attack=(attackers.snap_levels,)),
    "learn_from_pairs": Regime(attack=(attackers.learn_from_pairs,)),
}
REGIMES = AUGMENTATIONS | DEFENCES | ATTACKERS


def regime_of(name: str) -> Regime:
    """The regime of a name such as 'augmented', 'jpeg10' or 'jpeg10+augmented'.

    Raises:
        UsageError: an unknown part, or two parts that both decide how a step finds its loss or where the weights begin.
    """
    parts = []
    for part in name.split(JOINT):
        if part not in REGIMES:
            raise UsageError(f"unknown regime '{part}'. Known: {', '.join(REGIMES)}; joined by {JOINT} they are used together.")
        parts.append(REGIMES[part])
    strategies, starts = [p.strategy for p in parts if p.strategy], [p.start for p in parts if p.start]
    if len(strategies) > 1 or len(starts) > 1:
        raise UsageError(f"regime '{name}': two of its parts cannot be used together.")
    augmentations = [p.augment for p in parts if p.augment]
    return Regime(
        name=name,
        purify=tuple(build for p in parts for build in p.purify),
        attack=tuple(build for p in parts for build in p.attack),
        augment=_composed(augmentations) if augmentations else None,
        strategy=strategies[0] if strategies else None,
        start=starts[0] if starts else None,
        requires=tuple(dict.fromkeys(require for p in parts for require in p.requires)),
    )


def _composed(augmentations: list[Augmentation]) -> Augmentation:
    return lambda dimension: Compose([build(dimension) for build in augmentations])
