"""Channel groups, as nnU-Net has them: one image whose channels are files of their own.

A group is named by the path that its files share without their number: ``case.nii.gz`` stands for ``case_0000.nii.gz``,
``case_0001.nii.gz`` and so on. A file of just that name comes first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.io.names import extension_of, stem_of
from MedProtectLib.io.source import Source
from MedProtectLib.volume import ChannelType, Volume

CHANNEL_STEM = re.compile(r"(.+)_(\d{4})")
EXACT_IN_FLOAT = 4  # bytes of the longest integer that a 64-bit float holds exactly


def channel_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files of the channel group that ``path`` names, in channel order; () where it names none, or a file.

    Raises:
        MedProtectError: the numbers of the files do not go from 0000 on without a gap.
    """
    path = Path(path)
    try:
        if path.exists() or not path.with_name(channel_name(path, 0)).is_file():
            return ()
    except (OSError, ValueError):  # no file can have this name
        return ()
    stem = stem_of(path)
    named = re.compile(re.escape(stem) + r"_\d{4}" + re.escape(path.name[len(stem) :]))
    found = sorted(file.name for file in path.parent.iterdir() if named.fullmatch(file.name))
    for number, name in enumerate(found):
        if name != channel_name(path, number):
            raise MedProtectError(f"{path.with_name(channel_name(path, number))}: this channel is missing, but {name} is there.")
    return tuple(path.with_name(name) for name in found) if len(found) > 1 else ()


def group_of(files: Sequence[Path]) -> Path:
    """The path that names these files: that of a single one, or of the channel group that they are.

    Raises:
        UsageError: several files that are not all channels of one group.
    """
    first = files[0]
    channel = CHANNEL_STEM.fullmatch(stem_of(first))
    group = first if len(files) == 1 or channel is None else first.with_name(channel[1] + first.name[len(stem_of(first)) :])
    if len(files) > 1 and tuple(files) != channel_files(group):
        listed = ", ".join(file.name for file in files)
        raise UsageError(f"{listed}: several images must be all channels of one case, in order: case_0000.nii.gz, case_0001.nii.gz, ...")
    return group


def channel_name(path: Path, number: int) -> str:
    """The file name of a channel of the group that ``path`` names."""
    stem = stem_of(path)
    return f"{stem}_{number:04d}{path.name[len(stem) :]}"


@dataclass(frozen=True, kw_only=True)
class ChannelSource(Source):
    """The files of a group, each with its own source."""

    channels: tuple[Source, ...]

    def targets(self, path: Path) -> tuple[Path, ...]:
        return tuple(
            target for number, channel in enumerate(self.channels) for target in channel.targets(path.with_name(channel_name(path, number)))
        )

    def write(self, array: np.ndarray, path: Path) -> None:
        written: list[Path] = []
        try:
            for number, channel in enumerate(self.channels):
                target = path.with_name(channel_name(path, number))
                written += channel.targets(target)
                channel.write(array[..., number].astype(channel.dtype, copy=False), target)
        except BaseException:
            for file in written:
                file.unlink(missing_ok=True)
            raise


def together(path: Path, volumes: Sequence[Volume]) -> Volume:
    """The volumes of a group as one image (k, j, i, c), in the smallest type that holds the values of all exactly.

    Raises:
        MedProtectError: they do not lie on one grid, one of them has channels itself, or no type holds the values of all.
    """
    first = volumes[0]
    for volume in volumes:
        file = path.with_name(volume.name)
        if not volume.geometry.same_grid(first.geometry):
            raise MedProtectError(f"{file}: not on the grid of {first.name}. Resample the channels to one grid first.")
        if volume.array.ndim != 3:
            raise MedProtectError(f"{file}: it has channels itself and cannot be one of {path.name}.")
    types = [volume.array.dtype for volume in volumes]
    common = np.result_type(*types)
    if common.kind == "f" and any(kind.kind in "iu" and kind.itemsize > EXACT_IN_FLOAT for kind in types):
        raise MedProtectError(f"{path}: no type holds the values of {', '.join(map(str, types))} exactly. Store the channels in one type.")
    array = np.empty((*first.array.shape, len(volumes)), common)
    for number, volume in enumerate(volumes):
        array[..., number] = volume.array
    return Volume(
        array,
        first.geometry,
        path.name,
        channel_types=tuple(ChannelType.of(volume) for volume in volumes),
        source=ChannelSource(
            files=tuple(file for volume in volumes for file in volume.source.files),
            extension=extension_of(path),
            shape=array.shape,
            dtype=array.dtype,
            channels=tuple(volume.source for volume in volumes),
        ),
    )
