"""A profile: a fitted method on disk. Tensors as safetensors, everything else as JSON in the header, nothing executable."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.outputs import write_private
from MedProtectLib.version import __version__
from MedProtectLib.window import MODALITIES

SCHEMA = 1
HEADER = "medprotect"
SHIPPED = Path(__file__).parent / "profiles"
SUFFIX = ".medprotect"
LARGEST_BOUND = 32 / 255
LARGEST_HALF_WIDTH = 100


@dataclass(frozen=True)
class Profile:
    """Everything that makes a site's perturbations: keep it as a secret, whoever has it can compute them.

    ``window`` is None when every case finds its own by the rule of its ``modality``. ``public`` marks a profile that
    anybody can have, such as those shipped with MedProtect. ``training`` says what it was fitted on and how.
    """

    method: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray] = field(repr=False)
    bound: float
    seed: int
    modality: str | None = None
    window: tuple[float, float] | None = None
    public: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        return int(self.settings["dimension"])

    def to_bytes(self) -> bytes:
        """The file's content. Same profile, same bytes."""
        from safetensors.numpy import save

        tensors = {name: np.asarray(self.tensors[name], order="C") for name in sorted(self.tensors)}
        header = {key: value for key, value in asdict(self).items() if key != "tensors"}
        header |= {"schema": SCHEMA, "version": __version__}
        header["sha256"] = _digest(header, tensors)
        return save(tensors, metadata={HEADER: json.dumps(header, sort_keys=True)})

    def sha256(self) -> str:
        """SHA-256 of the file's content."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the file, readable by its owner only; it appears whole or not at all."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, self.to_bytes())
        except OSError as error:
            raise MedProtectError(
                f"{path}: the profile could not be written ({error.strerror}). Choose another place with --output."
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile.

        Raises:
            MedProtectError: not a profile, from a newer version, or changed since it was written.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise MedProtectError(f"{path}: no such profile. Fit one with 'medprotect fit'.")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safe_open handle is no dict)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
            raise MedProtectError(f"{path}: not a MedProtect profile, or damaged. Fit it again or get a fresh copy.") from error
        return cls._checked(header, tensors, path)

    @classmethod
    def _checked(cls, header: Any, tensors: dict[str, np.ndarray], path: Path) -> Profile:
        schema = header.get("schema") if isinstance(header, dict) else None
        if not isinstance(schema, int):
            raise MedProtectError(f"{path}: not a MedProtect profile: its header has no schema version.")
        if schema > SCHEMA:
            raise MedProtectError(
                f"{path}: written by a newer MedProtect (profile schema {schema}, this one reads up to {SCHEMA}). Update MedProtect."
            )
        if header.pop("sha256", None) != _digest(header, tensors):
            raise MedProtectError(f"{path}: the profile was changed after it was written (its checksum does not fit). Get a fresh copy.")
        refusal = f"{path}: the profile's header is incomplete or has entries that this version does not know."
        try:
            window = header.pop("window")
            fields = {key: value for key, value in header.items() if key not in ("schema", "version")}
            profile = cls(tensors=tensors, window=None if window is None else (float(window[0]), float(window[1])), **fields)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise MedProtectError(refusal) from error
        if not (_is_well_formed(profile) and _fits_its_tensors(profile)):
            raise MedProtectError(refusal)
        return profile


def shipped_profile(method: str, dimension: int) -> Path | None:
    """The public profile that comes with MedProtect for a method in 2D or 3D, None when there is none."""
    path = SHIPPED / f"{method}_{dimension}d{SUFFIX}"
    return path if path.is_file() else None


def _is_well_formed(profile: Profile) -> bool:
    """Whether every field has the type and the range that it must have; anybody may have written the file."""
    settings, window = profile.settings, profile.window
    return (
        isinstance(profile.method, str)
        and isinstance(settings, dict)
        and type(settings.get("dimension")) is int
        and settings["dimension"] in (2, 3)
        and type(settings.get("half_width", 0)) is int
        and 0 <= settings.get("half_width", 0) <= LARGEST_HALF_WIDTH
        and type(profile.bound) in (int, float)
        and 0 < profile.bound <= LARGEST_BOUND * (1 + 1e-9)
        and type(profile.seed) is int
        and 0 <= profile.seed < 2**63
        and (profile.modality is None or profile.modality in MODALITIES)
        and (window is None or -math.inf < window[0] < window[1] < math.inf)
        and type(profile.public) is bool
        and isinstance(profile.training, dict)
    )


def _fits_its_tensors(profile: Profile) -> bool:
    """Whether the tensors hold numbers only, and as many as the networks of the settings would take at least."""
    widths = profile.settings.get("channels", [])
    stored = sum(tensor.size for tensor in profile.tensors.values())
    return (
        all(np.isfinite(tensor).all() for tensor in profile.tensors.values() if tensor.dtype.kind in "fc")
        and isinstance(widths, list)
        and all(type(width) is int and width > 0 for width in widths)
        and sum(a * b for a, b in pairwise(widths)) <= stored
    )


def _digest(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header's JSON and every tensor's name, type, shape and bytes: shows damage, proves no authorship."""
    total = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
