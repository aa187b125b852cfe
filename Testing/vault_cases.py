"""Original and protected files of every format and stored type, sealed, for the tests of the vault."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tifffile

from made_images import metaimage, nifti, nrrd, png, png_rows
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.release.keys import Key
from MedProtectLib.release.vault import seal

NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
SHAPE = (3, 4, 5)


@dataclass(frozen=True)
class Format:
    """How to write an array (k, j, i[, c]) as a file; ``kept``: whether a restored file has the original's bytes."""

    extension: str
    write: Callable[[Path, np.ndarray], object]
    types: tuple[str, ...] = NUMBERS
    shape: tuple[int, ...] = SHAPE
    kept: bool = True


def _nifti(path: Path, array: np.ndarray, **header: object) -> None:
    nib.save(nifti(array.T, kind=nib.Nifti1Pair if path.suffix in (".hdr", ".img") else nib.Nifti1Image, **header), path)


def _nifti_images(path: Path, array: np.ndarray) -> None:
    nib.save(nifti(array.transpose(2, 1, 0, 3)), path)


def _detached_nrrd(path: Path, array: np.ndarray) -> None:
    path.with_suffix(".raw").write_bytes(array.tobytes())
    path.write_bytes(nrrd(array, packed=b"", data_file=path.with_suffix(".raw").name))


def _detached_metaimage(path: Path, array: np.ndarray) -> None:
    path.with_suffix(".raw").write_bytes(array.tobytes())
    path.write_bytes(metaimage(array, b"", ElementDataFile=path.with_suffix(".raw").name))


def _ascii_nrrd(path: Path, array: np.ndarray) -> None:
    path.write_bytes(nrrd(array, "ascii", " ".join(map(repr, array.ravel().tolist())).encode()))


def _list_nrrd(path: Path, array: np.ndarray) -> None:
    path.write_bytes(nrrd(array, kinds="list domain domain domain"))


def _channels(path: Path, array: np.ndarray) -> None:
    for channel in range(array.shape[-1]):
        write = _nifti if path.suffix == ".nii" else _gzip_nifti
        write(path.with_name(f"{path.name.partition('.')[0]}_{channel:04d}.{path.name.partition('.')[2]}"), array[..., channel])


def _gzip_nifti(path: Path, array: np.ndarray) -> None:
    path.write_bytes(gzip.compress(nifti(array.T).to_bytes(), 6))


def _rgb_nifti(path: Path, array: np.ndarray) -> None:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array).view(rgb)[..., 0].T, np.diag([2.0, 3.0, 4.0, 1.0])), path)


def _png(colour: int) -> Callable[[Path, np.ndarray], object]:
    def write(path: Path, array: np.ndarray) -> None:
        picture = array[0]
        path.write_bytes(png(picture.shape[1], picture.shape[0], 8 * picture.dtype.itemsize, colour, png_rows(picture)))

    return write


def _tiff(**options: object) -> Callable[[Path, np.ndarray], object]:
    return lambda path, array: tifffile.imwrite(path, array, **options)


FORMATS = {
    "NIfTI": Format(".nii", _nifti),
    "NIfTI, big-endian": Format(".nii", lambda path, array: _nifti(path, array.astype(array.dtype.newbyteorder(">")))),
    "NIfTI with slope": Format(".nii", lambda path, array: _nifti(path, array, scl_slope=0.25, scl_inter=-3), ("i2", "u1", "f4")),
    "NIfTI, gzip": Format(".nii.gz", _gzip_nifti, kept=False),
    "NIfTI pair": Format(".hdr", _nifti),
    "NIfTI RGB": Format(".nii", _rgb_nifti, ("u1",), (*SHAPE, 3)),
    "NIfTI of several images": Format(".nii", _nifti_images, ("i2", "u1", "f4"), (*SHAPE, 2)),
    "NRRD": Format(".nrrd", lambda path, array: path.write_bytes(nrrd(array))),
    "NRRD, gzip": Format(".nrrd", lambda path, array: path.write_bytes(nrrd(array, "gzip")), kept=False),
    "NRRD, ascii": Format(".nrrd", _ascii_nrrd, kept=False),
    "NRRD of channels": Format(".nrrd", _list_nrrd, shape=(*SHAPE, 2)),
    "NRRD with data file": Format(".nhdr", _detached_nrrd),
    "MetaImage": Format(".mha", lambda path, array: path.write_bytes(metaimage(array))),
    "MetaImage, packed": Format(".mha", lambda path, array: path.write_bytes(metaimage(array, compressed=True)), kept=False),
    "MetaImage with data file": Format(".mhd", _detached_metaimage),
    "PNG grey": Format(".png", _png(0), ("u1", "u2"), (1, 6, 7), kept=False),
    "PNG grey, alpha": Format(".png", _png(4), ("u1", "u2"), (1, 6, 7, 2), kept=False),
    "PNG RGB": Format(".png", _png(2), ("u1", "u2"), (1, 6, 7, 3), kept=False),
    "PNG RGBA": Format(".png", _png(6), ("u1", "u2"), (1, 6, 7, 4), kept=False),
    "TIFF pages": Format(".tif", _tiff(photometric="minisblack"), ("u1", "i1", "u2", "i2", "u4", "i4", "f4"), kept=False),
    "TIFF, deflate": Format(".tif", _tiff(photometric="minisblack", compression="zlib"), ("u1", "u2", "f4"), kept=False),
    "TIFF RGB": Format(".tiff", _tiff(photometric="rgb"), ("u1", "u2"), (1, 6, 7, 3), kept=False),
    "channel files": Format(".nii", _channels, ("i2", "u1", "f4"), (*SHAPE, 2)),
}
MATRIX = [(name, kind) for name, form in FORMATS.items() for kind in form.types]


@dataclass(frozen=True)
class Sealed:
    """A case on disk: its original, its protected file and the vault."""

    original: Path
    protected: Path
    vault: Path
    entry: Path


def disturbed(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with the lowest bits of half of its values changed; floats stay finite."""
    changed = np.ascontiguousarray(array).copy()
    bits = changed.view(f"u{array.dtype.itemsize}")
    bits ^= rng.integers(0, 4, bits.shape).astype(bits.dtype) * rng.integers(0, 2, bits.shape).astype(bits.dtype)
    bits.ravel()[0] ^= 1
    return changed


def values(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values over the whole range of a type, its ends among them; finite floats, zeros of both signs and denormal ones too."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        array = (rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)).astype(dtype)
        array.ravel()[:4] = (0.0, -0.0, np.finfo(dtype).tiny / 4, np.finfo(dtype).max / 2)
        return array
    limits = np.iinfo(dtype)
    array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    array.ravel()[:2] = (limits.min, limits.max)
    return array


def sealed(
    folder: Path, name: str, kind: str, key: Key, rng: np.random.Generator, release: str = "test", case: str = "case", stem: str = "image"
) -> Sealed:
    """Make an original, protect it in some way and seal it."""
    form = FORMATS[name]
    original, protected = (folder / part / f"{stem}{form.extension}" for part in ("in", "out"))
    for path in (original, protected):
        path.parent.mkdir(parents=True, exist_ok=True)
    form.write(original, values(kind, form.shape, rng))
    before = read_volume(original)
    write_volume(before.with_array(disturbed(before.array, rng)), protected)
    entry = seal(before, read_volume(protected), key, release, case).save(folder / "vault")
    return Sealed(original, protected, folder / "vault", entry)


def files_of(path: Path) -> dict[str, bytes]:
    """The content of a file and of what belongs to it, by name."""
    return {file.name: file.read_bytes() for file in sorted(path.parent.iterdir()) if file.is_file()}


def as_simpleitk_sees(path: Path) -> np.ndarray:
    """The voxels as another reader gives them."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
