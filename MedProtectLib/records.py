"""The two records of a protected case: one to share, which says what was done, one to keep, which could undo it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedProtectLib.engine import engine
from MedProtectLib.protection import Protection
from MedProtectLib.statistics import Statistics
from MedProtectLib.version import __version__

RECORD_SCHEMA = 1
LIMITS = (
    "Protection is not de-identification: names, dates and faces in an image or its header stay as they were.",
    "It is not a guarantee against every way of training; denoising, adversarial training or pretrained networks may weaken it.",
    "A protected image is not meant for diagnosis; keep the original for that.",
    "These numbers say how little the image changed. Whether a model fails on it is a question for an audit on your own data.",
)


def shareable_record(protection: Protection, statistics: Statistics, hashes: Mapping[str, Any]) -> dict[str, Any]:
    """What may go out with the image: nothing in it gives the perturbation, the seed or the profile away."""
    whole_image = protection.regions.background is not None
    return {
        "schema": RECORD_SCHEMA,
        "medprotect": __version__,
        "method": protection.profile.method,
        "components": list(protection.components),
        "regions": {
            "touched": "the whole image" if whole_image else "interior and contour band of the labelled segments",
            "whole_image": whole_image,
            "half_width_voxels": protection.profile.settings.get("half_width"),
            "slice_by_slice": protection.profile.dimension == 2,
        },
        "bound": protection.bound,
        "target_psnr": protection.target_psnr,
        "public_profile": protection.profile.public,
        **hashes,
        "statistics": statistics.as_record(),
        "engine": engine(),
        "limits": list(LIMITS),
    }


def private_record(protection: Protection, hashes: Mapping[str, Any], segments: Sequence[str]) -> dict[str, Any]:
    """What repeats the run, for the owner of the data alone."""
    profile = protection.profile
    return {
        "schema": RECORD_SCHEMA,
        "medprotect": __version__,
        **hashes,
        "segments": list(segments),
        "seed": protection.seed,
        "bound": protection.bound,
        "target_psnr": protection.target_psnr,
        "window": one_or_all([{"low": w.low, "high": w.high, "unit": w.unit, "rule": w.rule} for w in protection.windows]),
        "level_step_stored": one_or_all(protection.steps),
        "profile": {"sha256": profile.sha256(), "method": profile.method, "public": profile.public, "settings": dict(profile.settings)},
        "notices": list(protection.notices),
        "warnings": list(protection.warnings),
        "engine": engine(),
    }


def one_or_all(values: Sequence[Any]) -> Any:
    """The value of an image of one part, the list of those of several."""
    return values[0] if len(values) == 1 else list(values)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON with sorted keys."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
