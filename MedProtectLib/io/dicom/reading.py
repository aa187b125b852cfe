"""An image series, a slice file of one, or an object that is an image of its own, as one volume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.grid import stack
from MedProtectLib.io.dicom.header import Header, careful, read_dataset, sop_class, sop_instance
from MedProtectLib.io.dicom.pixels import PixelFormat, check_claims, is_lossy, pixel_format, read_cells
from MedProtectLib.io.dicom.planes import Plane, planes_of
from MedProtectLib.io.dicom.series import LABEL_KINDS, MODALITIES, Inventory, Series, choose, inventory, scan
from MedProtectLib.io.dicom.source import DicomSource, Instance, in_files
from MedProtectLib.io.hashing import sha256_file
from MedProtectLib.io.names import DICOM_EXTENSIONS, is_dicom
from MedProtectLib.volume import Volume

PICTURES = (None, "US", "XR")
SLICES = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
DICOM = ".dcm"
T = TypeVar("T")
logger = logging.getLogger(__name__)


def read(path: Path, series: str | None = None) -> Volume:
    """The image series in a folder, the one of them that ``series`` names, or the image to which a file belongs.

    Raises:
        MedProtectError: no image or several; anything that makes it no volume of one grid or that cannot be written back.
    """
    return read_series(series_at(path, series), path.resolve().name if path.is_dir() else path.name, path)


def series_at(path: Path, series: str | None = None) -> Series:
    """The image series that :func:`read` reads.

    Raises:
        MedProtectError: no image or several, or files that may be slices and cannot be read.
    """
    if path.is_dir():
        found = scan(path)
        _check_readable(found)
        chosen = choose(found.series, series, path)
        _check_complete(chosen, found, path)
        return chosen
    header = Header(path, read_dataset(path, pixels=False))
    if kind := LABEL_KINDS.get(sop_class(header)):
        raise MedProtectError(f"{path}: a {kind} object holds labels, not an image. Give it as --labels.")
    found = inventory([path])
    if not found.series:
        what = "damaged DICOM header; get a fresh copy" if found.damaged else "a DICOM object without an image"
        raise MedProtectError(f"{path}: {what}.")
    if not found.series[0].alone or sop_class(header) in SLICES:
        found = inventory(sorted(p for p in path.parent.iterdir() if p.is_file()))
    belongs = next(one for one in found.series if path in one.files)
    _check_complete(belongs, found, path.parent)
    return choose((belongs,), series, path.parent)


def read_series(series: Series, name: str | None = None, where: Path | None = None) -> Volume:
    """The image that some files are together, with its stored values (k, j, i) or (k, j, i, c), called ``name``.

    ``where`` is the folder or file that errors about the series as a whole name; where it is a file that is the whole image, a
    derived image is a file too.

    Raises:
        MedProtectError: as for :func:`read`.
    """
    where = where or series.files[0].parent
    files = _without_copies(series)
    headers = [Header(path, read_dataset(path, pixels=False)) for path in files]
    form = _same(headers, {header.path: pixel_format(header) for header in headers}, "pixel formats")
    _same(headers, {header.path: header.text("FrameOfReferenceUID") for header in headers}, "frames of reference")
    padding = _same(headers, {header.path: _padding(header, form) for header in headers}, "padding values")
    planes = [plane for header in headers for plane in _planes(header, form)]
    with careful(where):
        ordered, geometry = stack(planes, form.rows, form.columns, where)
    instances = tuple(
        Instance(path, files[path][0], files[path][1], slices) for path, slices in in_files([(p.path, p.frame) for p in ordered])
    )
    first = headers[0]
    if not series.protected and any(map(is_lossy, headers)):
        logger.warning("%s: it went through lossy compression before; what is written from it is not compressed.", where)
    modality = MODALITIES.get(first.text("Modality"))
    array = _pixels(instances, form, len(planes), padding)
    source = DicomSource(
        files=tuple(one.path for one in instances),
        extension=DICOM if series.alone and where in files else "",
        shape=array.shape,
        dtype=array.dtype,
        form=form,
        instances=instances,
        series_uid=series.uid,
        frame_of_reference=first.text("FrameOfReferenceUID"),
        protected=series.protected,
    )
    return Volume(
        array,
        geometry,
        name or where.name,
        slope=ordered[0].slope,
        intercept=ordered[0].intercept,
        modality=modality,
        photograph=form.stored == 8 and modality in PICTURES and (ordered[0].slope, ordered[0].intercept) == (1.0, 0.0),
        padding_value=None if padding is None else padding[0],
        padding_limit=None if padding is None else padding[1],
        source=source,
    )


def _check_readable(found: Inventory) -> None:
    """Where there is no image at all, say of a file that seems to be one why it is none.

    Raises:
        MedProtectError: as :func:`read_dataset`.
    """
    strangers = (path for path in found.strangers if path.suffix.lower() in DICOM_EXTENSIONS)
    for path in () if found.series else (*filter(is_dicom, found.damaged), *strangers):
        read_dataset(path, pixels=False)


def _check_complete(series: Series, found: Inventory, where: Path) -> None:
    """Refuse slices beside a file that may be another one of them and that nobody can read, or below a folder of no other series.

    Raises:
        MedProtectError: there is such a file.
    """
    damaged = [path for path in found.damaged if not path.name.startswith(".")]
    folders = {path.parent for path in series.files}
    doubtful = [path for path in (*damaged, *_cut_short(series, found)) if len(found.series) == 1 or path.parent in folders]
    if doubtful and not series.alone:
        more = f" and {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
        raise MedProtectError(
            f"{doubtful[0]}{more}: empty, damaged, deflated or without preamble, and perhaps a slice of the series. Get a fresh copy, "
            "convert it with dcmconv of DCMTK, or take it out of the folder if it is none."
        )
    if damaged:
        logger.warning("%s: %d damaged DICOM files were left out, such as %s.", where, len(damaged), damaged[0].name)


def _cut_short(series: Series, found: Inventory) -> list[Path]:
    """Objects of the same class as the slices that end before their picture begins."""
    kinds = {path: _kind(path) for path in (*found.others, *series.files[:1])} if found.others else {}
    return [path for path in found.others if kinds[path] == kinds[series.files[0]]]


def _kind(path: Path) -> str:
    return sop_class(Header(path, read_dataset(path, pixels=False, only=("SOPClassUID",))))


def _without_copies(series: Series) -> dict[Path, tuple[str, str]]:
    """SHA-256 and SOP Instance UID by file; files with the bytes of another are left out.

    Raises:
        MedProtectError: an instance without UID, or two different ones with the same.
    """
    kept: dict[str, tuple[Path, str]] = {}
    for path in series.files:
        uid, digest = sop_instance(Header(path, read_dataset(path, pixels=False, only=("SOPInstanceUID",)))), sha256_file(path)
        if not uid:
            raise MedProtectError(f"{path}: no SOP Instance UID; without one nothing can refer to the image.")
        if kept.setdefault(uid, (path, digest))[1] != digest:
            raise MedProtectError(
                f"{path}: not the same as {kept[uid][0].name}, and yet it has its SOP Instance UID. Remove one of the two."
            )
    return {path: (digest, uid) for uid, (path, digest) in kept.items()}


def _same(headers: Sequence[Header], found: dict[Path, T], what: str) -> T:
    """What holds for all headers."""
    first = found[headers[0].path]
    for path, value in found.items():
        if value != first:
            raise MedProtectError(
                f"{path}: the images of the series have different sizes or {what} ({headers[0].path.name} is another). "
                "Only slices of one volume can be protected together; split the series."
            )
    return first


def _planes(header: Header, form: PixelFormat) -> list[Plane]:
    if sop_class(header) == VLWholeSlideMicroscopyImageStorage:
        raise MedProtectError(f"{header.path}: a whole-slide image. Only radiological images are supported.")
    planes = planes_of(header)
    check_claims(header, form, len(planes))
    return planes


def _padding(header: Header, form: PixelFormat) -> tuple[int, int] | None:
    """The first and last stored value that stand for no picture. Files that declare them with the wrong sign are understood."""
    value = header.integer("PixelPaddingValue")
    if value is None:
        return None
    ends = [value, header.integer("PixelPaddingRangeLimit", value) or 0]
    cells = np.array([end % (1 << form.allocated) for end in ends], form.cell)
    low, high = sorted(cells.view(form.dtype).tolist())
    return low, high


def _pixels(instances: Sequence[Instance], form: PixelFormat, slices: int, padding: tuple[int, int] | None) -> np.ndarray:
    """The values of all frames in the order of the grid.

    Raises:
        MedProtectError: truncated or damaged pixels; padding that no value can tell.
    """
    array = np.empty((slices, *form.shape), form.dtype)
    for one in instances:
        cells = read_cells(read_dataset(one.path), one.path, form, len(one.slices))
        values = form.values(cells)
        if padding and _hides(padding, cells.view(form.dtype), values, form):
            raise MedProtectError(
                f"{one.path}: its padding lies outside the {form.stored} bits that hold its values, so it looks like one of them. Export "
                f"the series with {form.allocated} bits stored."
            )
        array[list(one.slices)] = values
    return array


def _hides(padding: tuple[int, int], cells: np.ndarray, values: np.ndarray, form: PixelFormat) -> bool:
    """Whether cells hold padding that is another number in the bits of the value."""
    least = -(1 << form.stored - 1) if form.signed else 0
    if least <= padding[0] and padding[1] < least + (1 << form.stored):
        return False
    return bool(((cells >= padding[0]) & (cells <= padding[1]) & (cells != values)).any())
