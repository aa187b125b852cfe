"""Augmentation of training patches by MONAI transforms on {"image": (c, [k,] j, i), "target": (1, [k,] j, i)}.

``nnunet_like`` has the probabilities and ranges that nnU-Net v2 trains with (Isensee et al., Nat Methods 2021, supplement 4;
nnunetv2 2.8.1, class nnUNetTrainer): rotation and scaling 0.2 each (180 degrees in 2D, 30 in 3D; 0.7 to 1.4), noise 0.1 (deviation to
0.1), blur 0.2 and half of the channels (sigma 0.5 to 1), brightness and contrast 0.15 each (0.75 to 1.25), low resolution 0.25
and half of the channels (zoom 0.5 to 1), gamma 0.1 inverted and 0.3 (0.7 to 1.5, mean and deviation kept), mirroring 0.5 an axis.
With one channel, "half of the channels" halves the probability. nnU-Net draws gamma below and above 1 equally often, MONAI evenly.

``heavy`` rotates and scales every single patch, so that nothing reaches the victim without interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCoarseDropoutd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandRotated,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    RandZoomd,
)

BOTH, IMAGE = ("image", "target"), ("image",)
SCALES = (0.7, 1.4)
NOISE_DEVIATION, BLUR, BRIGHTNESS, GAMMA, LOW_RESOLUTION = 0.1, (0.5, 1.0), (-0.25, 0.25), (0.7, 1.5), (0.5, 1.0)
HEAVY_ANGLE = math.pi / 6
HEAVY_INTENSITY = 0.2

Augmentation = Callable[[int], Compose]


def _linear(dimension: int) -> str:
    return "bilinear" if dimension == 2 else "trilinear"


def _mirroring(dimension: int) -> list[Any]:
    return [RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(dimension)]


def _blur(probability: float) -> RandGaussianSmoothd:
    return RandGaussianSmoothd(IMAGE, sigma_x=BLUR, sigma_y=BLUR, sigma_z=BLUR, prob=probability)


def _low_resolution(dimension: int, probability: float) -> RandSimulateLowResolutiond:
    return RandSimulateLowResolutiond(IMAGE, prob=probability, upsample_mode=_linear(dimension), zoom_range=LOW_RESOLUTION)


def nnunet_like(dimension: int) -> Compose:
    """The augmentation that nnU-Net trains with."""
    angle = math.pi if dimension == 2 else math.pi / 6
    return Compose(
        [
            RandRotated(BOTH, range_x=angle, range_y=angle, range_z=angle, prob=0.2, mode=("bilinear", "nearest"), padding_mode="zeros"),
            RandZoomd(
                BOTH, prob=0.2, min_zoom=SCALES[0], max_zoom=SCALES[1], mode=(_linear(dimension), "nearest"), padding_mode="constant"
            ),
            RandGaussianNoised(IMAGE, prob=0.1, std=NOISE_DEVIATION, sample_std=True),
            _blur(0.2 / 2),
            RandScaleIntensityd(IMAGE, factors=BRIGHTNESS, prob=0.15),
            RandScaleIntensityFixedMeand(IMAGE, factors=BRIGHTNESS, fixed_mean=True, preserve_range=True, prob=0.15),
            _low_resolution(dimension, 0.25 / 2),
            RandAdjustContrastd(IMAGE, prob=0.1, gamma=GAMMA, invert_image=True, retain_stats=True),
            RandAdjustContrastd(IMAGE, prob=0.3, gamma=GAMMA, retain_stats=True),
            *_mirroring(dimension),
        ]
    )


def _always_affine(dimension: int) -> RandAffined:
    return RandAffined(
        BOTH,
        prob=1.0,
        rotate_range=[HEAVY_ANGLE] * (1 if dimension == 2 else 3),
        scale_range=[(SCALES[0] - 1, SCALES[1] - 1)] * dimension,
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )


def heavy(dimension: int) -> Compose:
    """Rotation by up to 30 degrees and scaling of every patch, mirroring, and mild noise, blur and low resolution."""
    return Compose(
        [
            _always_affine(dimension),
            *_mirroring(dimension),
            RandGaussianNoised(IMAGE, prob=HEAVY_INTENSITY, std=NOISE_DEVIATION, sample_std=True),
            _blur(HEAVY_INTENSITY),
            _low_resolution(dimension, HEAVY_INTENSITY),
        ]
    )


def cutout(dimension: int) -> Compose:
    """One box of half the patch's edge is put to the image's mean (0 after the z-score) and to background. DeVries and Taylor, 2017."""
    return Compose([_HalfCutout(BOTH, holes=1, spatial_size=1, fill_value=0.0, prob=1.0)])


class _HalfCutout(RandCoarseDropoutd):
    """A hole of half the patch's edge, whatever its size. MONAI's own would blank the patches that it is given."""

    def __call__(self, data: Any, lazy: bool | None = None) -> Any:
        self.dropper.spatial_size = [edge // 2 for edge in data["image"].shape[1:]]
        return super().__call__({key: patch.clone() for key, patch in data.items()})


def ueraser_like(dimension: int) -> Compose:
    """A strong draw for loss-maximising augmentation: geometry, smooth brightness fields and bent histograms."""
    return Compose(
        [
            _always_affine(dimension),
            *_mirroring(dimension),
            RandBiasFieldd(IMAGE, prob=0.5, coeff_range=(0.0, 0.3)),
            RandHistogramShiftd(IMAGE, prob=0.5, num_control_points=(5, 10)),
            RandScaleIntensityFixedMeand(IMAGE, factors=(-0.5, 0.5), fixed_mean=True, preserve_range=False, prob=0.5),
        ]
    )
