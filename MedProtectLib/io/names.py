"""Names of files and cases: double extensions such as ``.nii.gz`` count as one, DICOM names are kept whole."""

from __future__ import annotations

import os
from pathlib import Path

DICOM_EXTENSIONS = (".dcm", ".dicom", ".ima")
NO_MARK = (
    "not a DICOM file, or one without preamble (no 'DICM' behind the first 128 bytes). Get a fresh copy, or convert it with dcmconv "
    "of DCMTK."
)
DOUBLE_EXTENSIONS = (".nii.gz", ".seg.nrrd", ".seg.nhdr", ".hdr.gz", ".img.gz", ".raw.gz", ".tar.gz")


def extension_of(path: str | os.PathLike[str]) -> str:
    """The extension in lower case with its dot, such as ``.nii.gz``, ``.seg.nrrd`` or ``.png``; empty when there is none."""
    name = Path(path).name.lower()
    return next((double for double in DOUBLE_EXTENSIONS if name.endswith(double)), Path(name).suffix)


def stem_of(path: str | os.PathLike[str]) -> str:
    """The file name without its folder and without :func:`extension_of`: ``a/ct.01.nii.gz`` gives ``ct.01``."""
    name = Path(path).name
    return name[: len(name) - len(extension_of(path))]


def slice_name(number: int) -> str:
    """The file of a slice in a series that MedProtect writes; the first has the number 1."""
    return f"{number:04d}.dcm"


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the mark of DICOM behind its preamble."""
    path = Path(path)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def part_with_labels(dataset: Path) -> str | None:
    """What follows "images" and "labels" in the names of the folders that hold the labelled cases of a dataset.

    "Tr" for Decathlon and nnU-Net, nothing where the folders are called images and labels and hold image files other than DICOM;
    None where a dataset has no such folders.
    """
    from MedProtectLib.io.volumes import READERS

    if (dataset / "imagesTr").is_dir():
        return "Tr"
    images = (p for p in (dataset / "images").glob("*") if extension_of(p) in READERS and p.is_file() and not p.name.startswith("."))
    first = min(images, default=None)
    return "" if (dataset / "labels").is_dir() and first is not None and not is_dicom(first) else None


def case_name(path: str | os.PathLike[str]) -> str:
    """The name of a case by its image: a file's :func:`stem_of`, a folder's name, a DICOM file's name without ``.dcm``.

    Names of DICOM folders and files are often UIDs, whose dots begin no extension.
    """
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    if is_dicom(path):
        return path.stem if path.suffix.lower() in DICOM_EXTENSIONS else path.name
    return stem_of(path)
