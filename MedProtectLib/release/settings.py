"""What a release is made with: written once into the private root, read by every process, and the same at every resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.roots import Roots
from MedProtectLib.untrusted import read_json

if TYPE_CHECKING:
    from MedProtectLib.protector import Protector

SCHEMA = 1
COPY, QUARANTINE, FAIL = "copy", "quarantine", "fail"


@dataclass(frozen=True)
class Settings:
    """``dataset``, ``output``, ``private`` and ``previous`` (the two roots of an earlier version) are absolute paths.

    ``profile`` is a file, ``whole_image`` says whether its method may change more than the regions. ``unlabelled`` says what
    becomes of cases without labels; ``vault`` whether they can be restored; ``reports`` whether every case gets a report page
    besides its picture; ``withdrawn`` are cases that do not go out.
    """

    name: str
    dataset: str
    layout: str
    output: str
    private: str
    profile: str
    profile_sha256: str
    whole_image: bool = False
    bound: float | None = None
    target_psnr: float | None = None
    modality: str | None = None
    window: tuple[float, float] | None = None
    seed: int | None = None
    segments: tuple[str, ...] = ()
    unlabelled: str = QUARANTINE
    vault: bool = True
    reports: bool = True
    withdrawn: tuple[str, ...] = ()
    previous: tuple[str, str] | None = None

    @property
    def roots(self) -> Roots:
        return Roots(Path(self.output), Path(self.private))

    @property
    def root(self) -> Path:
        """The folder that the sources of the cases are relative to."""
        dataset = Path(self.dataset)
        return dataset if dataset.is_dir() else dataset.parent

    @property
    def earlier(self) -> Roots | None:
        """The roots of the previous version."""
        return None if self.previous is None else Roots(*map(Path, self.previous))

    def parameters(self) -> dict[str, Any]:
        """What the bytes of a protected case depend on besides its own files."""
        named = ("profile_sha256", "bound", "target_psnr", "modality", "window", "seed", "segments")
        content = asdict(self)
        return {key: content[key] for key in named}

    def parameters_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.parameters(), sort_keys=True).encode()).hexdigest()

    def protector(self) -> Protector:
        """The protector of every case.

        Raises:
            MedProtectError: the profile is not the one that the release began with.
        """
        from MedProtectLib.profile import Profile
        from MedProtectLib.protector import Protector

        profile = Profile.load(self.profile)
        if profile.sha256() != self.profile_sha256:
            raise MedProtectError(f"{self.profile}: this is not the profile that the release began with. Give that one.")
        options = {key: getattr(self, key) for key in ("bound", "target_psnr", "modality", "window", "seed")}
        return Protector(profile=profile, **options)

    def to_bytes(self) -> bytes:
        return (json.dumps({"schema": SCHEMA, "settings": asdict(self)}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a manifest.

        Raises:
            MedProtectError: there is none, it is damaged, or a newer version wrote it.
        """
        content = read_json(path, "not the manifest of a release, or damaged.")
        if not isinstance(content.get("schema"), int) or content["schema"] > SCHEMA:
            raise MedProtectError(f"{path}: not the manifest of a release, or one of a newer MedProtect. Update MedProtect.")
        try:
            return cls(**{key: _tuple(value) for key, value in content["settings"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise MedProtectError(
                f"{path}: the manifest of the release is incomplete or has entries that this version does not know."
            ) from error

    def differences(self, earlier: Settings) -> list[str]:
        """What must be the same when a release goes on, and is not."""
        now, before = self.parameters(), earlier.parameters()
        for key in ("name", "layout", "unlabelled", "vault", "reports", "withdrawn"):
            now[key], before[key] = getattr(self, key), getattr(earlier, key)
        now["previous"], before["previous"] = self.previous is not None, earlier.previous is not None
        return [key for key in now if now[key] != before[key]]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def key_of_case(settings: Settings, inputs: Mapping[str, str]) -> str:
    """The identity of what a case is made of: the SHA-256 of its inputs and the parameters."""
    content = {"parameters": settings.parameters_sha256(), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
