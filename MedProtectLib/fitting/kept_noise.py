"""Noise that is kept from visit to visit while a surrogate trains on it: on disk, since every case has its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.patches import PatchSource, Place

LEVELS = 127
NONE = -1


class KeptNoise:
    """The noise of every prepared case on its grid, int8 in units of bound / 127, zero before the first visit.

    A case has a file, which is mapped while a patch is read or written: memory does not grow with the cases. Nothing that a
    checkpoint refers to is overwritten: the first write to a case after a checkpoint goes to a copy, in a second file that
    takes turns with the first, and ``state_dict`` says which of the two holds. So a fit that was killed at any moment goes on
    from the noise of its checkpoint. Patches that overlap are written in their order.
    """

    def __init__(self, folder: Path, source: PatchSource, bound: float) -> None:
        self.folder, self.source, self.unit = folder, source, bound / LEVELS
        self.turns = np.full(len(source.files), NONE, np.int8)
        self._settled = self.turns.copy()
        self._shapes: dict[int, tuple[int, ...]] = {}

    def read(self, places: Sequence[Place]) -> Tensor:
        """The noise of patches, float32 (b, c, [k,] j, i), zero beyond their cases."""
        patches = np.zeros((len(places), self.source.channels, *self.source.patch), np.float32)
        for patch, place in zip(patches, places, strict=True):
            if self.turns[place.file] != NONE:
                patch[place.target] = self._mapped(place.file, "r")[place.source]
        return torch.from_numpy(patches * np.float32(self.unit))

    def write(self, places: Sequence[Place], noise: Tensor) -> None:
        """Keep the noise of patches; what is beyond their cases is dropped."""
        for patch, place in zip(self._in_units(noise).numpy(), places, strict=True):
            self._begin(place.file)
            self._mapped(place.file, "r+")[place.source] = patch[place.target]

    def stored(self, noise: Tensor) -> Tensor:
        """Noise as it is read after it was written."""
        return self._in_units(noise).to(noise) * self.unit

    def settle(self) -> None:
        """A checkpoint refers to what is written now."""
        self._settled = self.turns.copy()

    def state_dict(self) -> dict[str, Tensor]:
        """Which of a case's two files holds its noise, int8 (case,), -1 for neither."""
        return {"turns": torch.from_numpy(self.turns.copy())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go back to the noise of a checkpoint.

        Raises:
            MedProtectError: its files are gone, or are those of fewer processes.
        """
        self.turns = state["turns"].numpy().copy()
        self.settle()
        for number in np.flatnonzero(self.turns != NONE).tolist():
            if not self._path(number).is_file():
                raise MedProtectError(
                    f"{self._path(number)}: this part of the checkpoint is missing. Resume with as many processes as before, or remove "
                    "the work folder and start again."
                )

    def _in_units(self, noise: Tensor) -> Tensor:
        return (noise / self.unit).round().clamp(-LEVELS, LEVELS).to(torch.int8)

    def _begin(self, number: int) -> None:
        """Make a file that may be written to."""
        if self.turns[number] == NONE:
            self.turns[number] = 0
            self.folder.mkdir(parents=True, exist_ok=True)
            self._mapped(number, "w+")
        elif self.turns[number] == self._settled[number]:
            before = self._path(number)
            self.turns[number] = 1 - self.turns[number]
            shutil.copyfile(before, self._path(number))

    def _mapped(self, number: int, mode: Literal["r", "r+", "w+"]) -> np.memmap:
        if number not in self._shapes:
            self._shapes[number] = (self.source.channels, *np.load(self.source.files[number], mmap_mode="r").shape[1:])
        return np.memmap(self._path(number), np.int8, mode, shape=self._shapes[number])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}_{self.turns[number]}.int8"
