"""A case of the scene as files for the command line. Runs in any thread: it touches no node."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from slicer.i18n import tr as _

from MedProtectLib.errors import MedProtectError
from MedProtectLib.volume import LabelMap, Volume
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.nodes import SceneCase
from MedProtectSlicer.settings import written

LONGEST_NAME = 120  # bytes of UTF-8


@dataclass(frozen=True)
class Staged:
    """An image for the command line: a file, or a folder of DICOM files with the name of the series where it holds several.

    ``modality``, ``padding``, the first and the last such value, and ``photograph``, whether it is an 8-bit picture, are known where
    the file cannot say them: voxels in another format, or those of a DICOM series that were changed in the scene.
    """

    path: Path
    series: str | None = None
    modality: str | None = None
    padding: tuple[float, float] | None = None
    photograph: bool = False

    def arguments(self) -> list[str]:
        """How the command line is told of the image, but for its modality, which may have been chosen otherwise."""
        series = [] if self.series is None else ["--series", self.series]
        padding = [] if self.padding is None else ["--padding", *map(written, self.padding)]
        return [str(self.path), *series, *padding, *(["--photograph"] if self.photograph else [])]


def stagedImage(case: SceneCase, folder: Path) -> Staged:
    """The image as it was loaded if that still holds the same, else as a new file in ``folder``."""
    series, _stored = _intactSeries(case, folder)
    return series or singleFile(case, folder)


def imageIn(case: SceneCase, folder: Path, fileFormat: ExportFormat) -> Staged:
    """The image in the format in which it is to be exported.

    Raises:
        MedProtectError: it was not loaded from such files, or has been changed since.
    """
    from MedProtectLib.io import extension_of

    name = case.volume.name
    if fileFormat is ExportFormat.DICOM or (fileFormat is ExportFormat.ORIGINAL and case.series and case.file is None):
        if not case.series:
            raise MedProtectError(_("'{name}' was not loaded from DICOM. Choose another format.").format(name=name))
        staged = stagedSeries(case, folder)
        if _sameAs(case, staged) is None:
            raise MedProtectError(
                _("'{name}' is not what its DICOM files hold: it was changed after loading. Choose another format.").format(name=name)
            )
        return staged
    stored = fileVolume(case)
    if stored is not None and case.file is not None and fileFormat.value in (None, extension_of(case.file)):
        return Staged(case.file)
    if fileFormat is ExportFormat.ORIGINAL:
        raise MedProtectError(
            _("'{name}' was changed after loading, or comes from no file that can be written back. Choose another format.").format(
                name=name
            )
        )
    return newImage(case, folder, fileFormat.value, stored)


def singleFile(case: SceneCase, folder: Path) -> Staged:
    """The image as one file: that from which it was loaded if it still holds the same, else a new one in ``folder``."""
    if case.file is not None and fileVolume(case) is not None:
        return Staged(case.file)
    return newImage(case, folder, ".nrrd")


def newImage(case: SceneCase, folder: Path, extension: str, stored: Volume | None = None) -> Staged:
    """The voxels and the grid of the node as a new file, named after the node. ``stored``: the volume of its own file, if that is it."""
    from MedProtectLib.io import write_volume
    from MedProtectLib.levels import declared_padding

    _checkFinite(case.volume)
    path = folder / f"{fileName(case.volume.name)}{extension}"
    said = stored or _described(case)
    write_volume(replace(case.volume, alpha=said.alpha), path)
    return Staged(path, modality=said.modality, padding=declared_padding(said), photograph=said.photograph)


def stagedSeries(case: SceneCase, folder: Path) -> Staged:
    """The DICOM files where they lie if they are there as a series of their own, else copies in ``folder``.

    Raises:
        MedProtectError: a file is gone.
    """
    from MedProtectLib.io.dicom import find_series

    for file in case.series:
        if not file.is_file():
            raise MedProtectError(_("{file}: the DICOM file is gone. Import the series again.").format(file=file))
    home = case.series[0].parent
    if all(file.parent == home for file in case.series):
        found = find_series(home)
        mine = [series for series in found if set(series.files) == set(case.series)]
        if mine and mine[0].alone:
            return Staged(case.series[0])
        if mine and len(found) == 1:
            return Staged(home)
        if mine and [series.uid for series in found].count(mine[0].uid) == 1:
            return Staged(home, mine[0].uid)
    copies = folder / "dicom" / fileName(case.volume.name)
    copies.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(case.series, start=1):
        shutil.copyfile(file, copies / f"{number:04d}.dcm")
    return Staged(copies)


def stagedLabels(case: SceneCase, folder: Path) -> Path:
    """The chosen segments as a segmentation file in ``folder``."""
    from MedProtectLib.io.segmentation import write_segmentation

    path = folder / f"{fileName(case.labels.name)}.seg.nrrd"
    write_segmentation(case.labels, path)
    return path


def fileVolume(case: SceneCase) -> Volume | None:
    """The volume as its file holds it; None if there is no file, or it does not hold what the node shows."""
    if case.file is None:
        return None
    try:
        return _sameAs(case, Staged(case.file))
    except MedProtectError:
        return None


def inMemory(case: SceneCase, quickly: bool = False) -> tuple[Volume, LabelMap]:
    """The case as the command line would read it from its files, without writing any that stay.

    ``quickly`` spares reading the files where they can add nothing to what the node holds (:func:`_isAsStored`).
    """
    from tempfile import TemporaryDirectory

    _checkFinite(case.volume)
    if quickly and _isAsStored(case):
        return _described(case), case.labels
    with TemporaryDirectory(prefix="MedProtect-") as folder:
        _series, stored = _intactSeries(case, Path(folder))
    stored = stored or fileVolume(case)
    volume = _described(case) if stored is None else replace(stored, name=case.volume.name)
    return volume, case.labels


def _checkFinite(volume: Volume) -> None:
    """Raises MedProtectError for voxels that are no numbers, under the name that the person knows."""
    if volume.array.dtype.kind == "f" and (bad := np.count_nonzero(~np.isfinite(volume.array))):
        raise MedProtectError(
            _("'{name}': {count} voxels are infinite or not a number. Replace them first, for example by 0.").format(
                name=volume.name, count=bad
            )
        )


def wholeImage(path: Path) -> Path:
    """What the command line calls an image: the folder of a DICOM slice, and any other file itself."""
    from MedProtectLib.io.names import is_dicom

    if not is_dicom(path):
        return path
    from MedProtectLib.io import read_volume

    return path if read_volume(path).source.extension else path.parent


def fileName(name: str) -> str:
    """A node's name as a file name that every system takes, short enough for what is added to it, and that makes no ``.seg.nrrd``."""
    safe = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .").encode()[:LONGEST_NAME].decode(errors="ignore")
    return re.sub(r"(?i)\.(seg)$", r"_\1", safe.strip(" .")) or "volume"


def _intactSeries(case: SceneCase, folder: Path) -> tuple[Staged | None, Volume | None]:
    """The DICOM series that still holds what the node shows, and its volume; nothing where Slicer could read it and we cannot."""
    if not case.series:
        return None, None
    try:
        staged = stagedSeries(case, folder)
        stored = _sameAs(case, staged)
    except MedProtectError:
        return None, None
    return (None, None) if stored is None else (staged, stored)


def _sameAs(case: SceneCase, staged: Staged) -> Volume | None:
    """The volume as some files hold it; None where they do not hold what the node shows.

    Raises:
        MedProtectError: the files cannot be read.
    """
    from MedProtectLib.io import read_volume

    stored = read_volume(staged.path, staged.series)
    shown = case.volume
    if stored.array.shape != shown.array.shape:
        return None
    if stored.geometry.dimension == 3 and not stored.geometry.same_grid(shown.geometry):
        return None
    if (stored.slope, stored.intercept) == (1.0, 0.0):
        return stored if np.array_equal(stored.array, shown.array) else None
    return stored if np.allclose(stored.in_units(stored.array), shown.array, rtol=1e-5, atol=abs(stored.slope) * 1e-2) else None


def _isAsStored(case: SceneCase) -> bool:
    """Whether a node holds what its files store, up to an offset: a volume of whole numbers has neither a scale nor the rules for
    pictures. A DICOM series may have a scale all the same, MetaImage says the modality, channels may be images of their own.
    """
    from MedProtectLib.io.names import extension_of
    from MedProtectLib.io.volumes import READERS

    if case.volume.array.dtype.kind not in "iu" or case.volume.array.ndim != 3 or case.volume.geometry.dimension != 3:
        return False
    if case.file is not None and READERS[extension_of(case.file)] not in ("nrrd", "nifti"):
        return False
    first = _firstOf(case.series)
    return first is None or first.slope == 1.0


def _firstOf(series: tuple[Path, ...]) -> Volume | None:
    """The first file of a DICOM series, which tells what the others repeat; None where there is none."""
    if not series:
        return None
    from MedProtectLib.io.dicom import read_series
    from MedProtectLib.io.dicom.series import inventory

    found = inventory(series[:1]).series
    return read_series(found[0]) if found else None


def _described(case: SceneCase) -> Volume:
    """The node's voxels with what their DICOM series says of all: modality, padding, and whether they are an 8-bit picture."""
    one = _firstOf(case.series)
    if one is None:
        return case.volume

    def shown(stored: float | None) -> float | None:
        return None if stored is None else float(one.in_units(np.array(stored)))

    return replace(
        case.volume,
        modality=one.modality,
        photograph=one.photograph and case.volume.array.dtype == np.uint8,
        padding_value=shown(one.padding_value),
        padding_limit=shown(one.padding_limit),
    )
