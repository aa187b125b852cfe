"""What is kept of a DICOM image so that a derived one with other voxels can be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io.dicom.derivation import DESCRIPTION, mark_derived
from MedProtectLib.io.dicom.header import Header, careful, read_dataset, sop_class
from MedProtectLib.io.dicom.pixels import ALWAYS_LOSSY, LOSSY, PixelFormat, is_native, native_bytes, read_cells
from MedProtectLib.io.dicom.uids import IMPLEMENTATION, DerivedUids, uid_of
from MedProtectLib.io.hashing import sha256_file, sha256_voxels
from MedProtectLib.io.names import slice_name
from MedProtectLib.io.source import Source, new_file
from MedProtectLib.version import __version__
from MedProtectLib.volume import Volume

EXTREMES = ("SmallestImagePixelValue", "LargestImagePixelValue")
SERIES_EXTREMES = ("SmallestPixelValueInSeries", "LargestPixelValueInSeries")


@dataclass(frozen=True)
class Instance:
    """One object of a series: its file with its SHA-256, its SOP Instance UID, and the index k of each of its frames in the volume."""

    path: Path
    sha256: str
    uid: str
    slices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DicomSource(Source):
    """``instances`` in the order of their files to be written; ``series_uid`` and ``frame_of_reference`` are empty where there are none.

    ``protected`` says that the series carries MedProtect's mark. The pixels are read a second time when it is written: the bits
    around the values of the cells and all headers come from the files.
    """

    form: PixelFormat
    instances: tuple[Instance, ...]
    series_uid: str
    frame_of_reference: str
    protected: bool

    def uids(self, array: np.ndarray) -> DerivedUids:
        """The UIDs of the derived series with the stored values ``array`` (k, j, i[, c])."""
        series = uid_of(("MedProtect series", DESCRIPTION, self.series_uid, sha256_voxels(array)))
        instances = {
            one.uid: uid_of(("MedProtect instance", DESCRIPTION, one.uid, sha256_voxels(array[list(one.slices)]))) for one in self.instances
        }
        return DerivedUids({self.series_uid: series}, instances)

    def write(self, array: np.ndarray, path: Path) -> None:
        uids = self.uids(array)
        if self.extension:
            self._write_instance(self.instances[0], array, uids, path)
            return
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise MedProtectError(f"{path}: this exists already. Give the series a new folder.")
        made = not path.exists()
        path.mkdir(exist_ok=True)
        try:
            for number, instance in enumerate(self.instances, start=1):
                self._write_instance(instance, array, uids, path / slice_name(number))
        except BaseException:
            if made:
                shutil.rmtree(path, ignore_errors=True)
            raise

    def _write_instance(self, instance: Instance, array: np.ndarray, uids: DerivedUids, path: Path) -> None:
        if sha256_file(instance.path) != instance.sha256:
            raise MedProtectError(f"{instance.path}: the file has changed since it was read. Start again.")
        dataset = read_dataset(instance.path)
        before = read_cells(dataset, instance.path, self.form, len(instance.slices))
        values = np.ascontiguousarray(array[list(instance.slices)])
        cells = self.form.cells(values, before)
        with careful(instance.path):
            mark_derived(dataset)
            set_extremes(dataset, values, array)
            set_uids(dataset, instance, uids)
            set_pixels(dataset, cells, self.form)
            with new_file(path) as stream:
                dataset.save_as(stream, enforce_file_format=True)


def derived_uids(volume: Volume) -> DerivedUids:
    """What :func:`write_volume` calls the series of a volume that was read from DICOM: a function of its source and its voxels.

    Raises:
        MedProtectError: the volume was not read from DICOM.
    """
    if not isinstance(volume.source, DicomSource):
        raise MedProtectError(f"{volume.name}: it was not read from DICOM.")
    return volume.source.uids(volume.array)


def set_extremes(dataset: Dataset, values: np.ndarray, whole: np.ndarray) -> None:
    """Bring the smallest and the largest value up to date where the header has them."""
    for keywords, array in ((EXTREMES, values), (SERIES_EXTREMES, whole)):
        for keyword, extreme in zip(keywords, (array.min(), array.max()), strict=True):
            if keyword in dataset:
                del dataset[keyword]
                if extreme.dtype.itemsize <= 2:  # all that these attributes can hold
                    dataset.add_new(keyword, "SS" if extreme.dtype.kind == "i" else "US", int(extreme))


def set_uids(dataset: Dataset, instance: Instance, uids: DerivedUids) -> None:
    """Give an object its own identity and say which program wrote it."""
    dataset.SOPClassUID = UID(sop_class(Header(instance.path, dataset)))
    dataset.SOPInstanceUID = UID(uids.instances[instance.uid])
    dataset.SeriesInstanceUID = UID(next(iter(uids.series.values())))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION)
    dataset.file_meta.ImplementationVersionName = f"MEDPROTECT_{__version__}"[:16]


def set_pixels(dataset: Dataset, cells: np.ndarray, form: PixelFormat) -> None:
    """Put cells into an object; compressed ones become Explicit VR Little Endian, and lossy ones stay declared as such."""
    if not is_native(dataset):
        if dataset.file_meta.TransferSyntaxUID in ALWAYS_LOSSY:
            dataset.LossyImageCompression = LOSSY
        if dataset.file_meta.TransferSyntaxUID != RLELossless:
            dataset.HighBit = dataset.BitsStored - 1
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if form.samples > 1:
            dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
        del dataset.PixelData
        dataset.add_new("PixelData", "OB" if form.allocated == 8 else "OW", b"")
    dataset["PixelData"].value = native_bytes(cells, dataset, form)


def in_files(slices: Sequence[tuple[Path, int]]) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """From (file, frame) by k to the k of every frame of each file, files in the order in which they first appear."""
    by_file: dict[Path, list[tuple[int, int]]] = {}
    for k, (path, frame) in enumerate(slices):
        by_file.setdefault(path, []).append((frame, k))
    for path, frames in by_file.items():
        yield path, tuple(k for _, k in sorted(frames))
