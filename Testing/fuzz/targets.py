"""What is attacked: a reader, the good files it reads, how they are damaged, and what happens with what it accepts."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz import mutations as m
from fuzz import seeds
from fuzz.seeds import Files
from made_images import metaimage, nifti, nrrd
from MedProtectLib.io import read_labels, read_volume, write_volume

WORK = "work"  # the only folder that a reader may write into


@dataclass(frozen=True)
class Target:
    """``files()`` are good; ``mutations`` change the files that they are listed for; ``read`` gets the folder they lie in."""

    files: Callable[[], Files]
    mutations: Mapping[str, tuple[m.Mutation, ...]] | Callable[[], Mapping[str, tuple[m.Mutation, ...]]]
    read: Callable[[Path], object]

    def damaged(self, rng: np.random.Generator) -> dict[str, bytes]:
        """The files with one of them damaged."""
        files = dict(self.files())
        mutations = self.mutations() if callable(self.mutations) else self.mutations
        name = m.choice(rng, list(mutations))
        files[name] = m.choice(rng, mutations[name])(rng, files[name])
        return files


def image(name: str) -> Callable[[Path], object]:
    """Read an image; what is accepted must be written and read back as the same."""

    def read(folder: Path) -> None:
        volume = read_volume(folder / name)
        output = folder / WORK / (name if "." in name else "series")
        write_volume(volume, output)
        again = read_volume(output)
        if again.array.dtype != volume.array.dtype or not np.array_equal(again.array, volume.array):
            raise AssertionError("what was accepted does not come back as it was")

    return read


def labels(name: str) -> Callable[[Path], object]:
    """Read labels and lay them out as classes."""
    return lambda folder: read_labels(folder / name).classes()


def dicom_labels(folder: Path) -> object:
    return read_labels(folder / "labels.dcm", read_volume(folder / "in")).classes()


def protecting_profile(folder: Path) -> None:
    """Read a profile and protect with it, as somebody does who was given it."""
    from MedProtectLib.protector import Protector
    from MedProtectLib.volume import Geometry, LabelMap, Volume

    geometry = Geometry((8, 6, 1), dimension=2)
    volume = Volume(seeds.VOXELS[:1].copy(), geometry)
    Protector.from_profile(folder / "in.medprotect").protect(volume, LabelMap.from_array(seeds.LABELS[1:2], geometry))


def dataset(name: str) -> Callable[[Path], object]:
    """Find the cases of a dataset and read the first two."""

    def read(folder: Path) -> None:
        from MedProtectLib.fitting.dataset import find_cases

        for case in find_cases(folder / name)[:2]:
            case.read()

    return read


def key(folder: Path) -> None:
    from MedProtectLib.release.keys import load_key

    (folder / "k").chmod(0o600)
    load_key(folder / "k")


def restore(folder: Path) -> None:
    from MedProtectLib.release.restore import restore_file

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    restored = restore_file(folder / "b.nii", folder / "vault", seeds.SITE, folder / WORK / "a.nii")
    if before[folder / "b.nii"] != seeds.vault()["b.nii"] or restored.output.read_bytes() != seeds.nifti1():
        raise AssertionError("something else was restored")


def verify(folder: Path) -> None:
    from MedProtectLib.verify import verify_files

    verify_files(folder / "a.nii", folder / "a_protected.nii", folder / "l.nii")


def record() -> Files:
    about = {
        "schema": 1,
        "method": "umed",
        "regions": {"touched": "x", "whole_image": False, "half_width_voxels": 3, "slice_by_slice": False},
        "bound": 4 / 255,
        "protected_sha256": "0" * 64,
        "statistics": {"window": [-100.0, 300.0], "psnr_db": 50.0, "epsilon": 0.01},
    }
    return {
        "a.nii": seeds.nifti1(),
        "a_protected.nii": seeds.vault()["b.nii"],
        "a_record.json": m.dumped(about),
        "l.nii": nifti(seeds.LABELS.T).to_bytes(),
    }


def release(dataset: str) -> Callable[[Path], object]:
    """Release a dataset."""
    return lambda folder: seeds.released((str(folder / dataset),), folder)


def resume(folder: Path) -> object:
    """Resume a release whose own files were changed."""
    for path in folder.rglob("*"):
        if path.is_file() and b"@FOLDER@" in (content := path.read_bytes()):
            path.write_bytes(content.replace(b"@FOLDER@", str(folder).encode()))
    return seeds.released((str(folder / "data"), "--resume"), folder)


def of_release(name: str) -> tuple[m.Mutation, ...]:
    """How a file of a release is damaged, by its name."""
    if name.endswith(".jsonl"):
        return (json_line, json_line, m.any_bytes)
    return (m.json_values, m.json_values, m.any_bytes) if name.endswith(".json") else (m.any_bytes,)


def json_line(rng: np.random.Generator, content: bytes) -> bytes:
    """Of a file of JSON lines: one line changes."""
    rows = content.split(b"\n")
    at = int(rng.integers(0, len(rows)))
    rows[at] = m.json_values(rng, rows[at]) if rows[at] else b"{}"
    return b"\n".join(rows)


def csv_cells(rng: np.random.Generator, content: bytes) -> bytes:
    """Of a manifest: cells become extreme, columns and rows go missing or come twice."""
    rows = list(csv.reader(content.decode().splitlines()))
    for _ in range(int(m.choice(rng, (1, 1, 3)))):
        row = m.choice(rng, rows)
        action, at = int(rng.integers(0, 4)), int(rng.integers(0, max(1, len(row))))
        if action <= 1 and row:
            row[at] = str(m.choice(rng, (*m.WORDS, "a.nii", "l.nii", "../a.nii", "sub/../a.nii", 'x"y', "a.nii\0", "x" * 200_000)))
        elif action == 2 and row:
            del row[at]
        else:
            rows.append(list(m.choice(rng, rows)))
    return "\r\n".join(",".join(f'"{cell}"' if "," in cell or "\n" in cell else cell for cell in row) for row in rows).encode(
        "utf-8", "replace"
    )


def one(name: str, content: Callable[[], bytes]) -> Callable[[], Files]:
    """The files of a target of one file."""
    return lambda: {name: content()}


TEXT = (m.lines, m.lines, m.any_bytes)
NII = (m.field_of(seeds.NIFTI_HEADER), m.field_of(seeds.NIFTI_HEADER), m.any_bytes)
GZ = (m.packed_inside(NII[0]), m.packed_inside(m.any_bytes), m.packed_wrongly, m.any_bytes)
JSON = (m.json_values, m.json_values, m.any_bytes)
DICOM = (m.dicom_elements, m.dicom_elements, m.dicom_elements, m.any_bytes)


def resigned(mutation: m.Mutation) -> m.Mutation:
    return lambda rng, content: seeds.resigned(mutation(rng, content))


def resealed(mutation: m.Mutation) -> m.Mutation:
    """What an entry keeps changes, and is encrypted so that it opens: what somebody with a key could make."""
    return lambda rng, _: seeds.sealed_again(mutation(rng, seeds.secret()))


def signed_header(rng: np.random.Generator, content: bytes) -> bytes:
    """Of a profile: what its header says changes, and its checksum fits."""
    import json

    from safetensors.numpy import load, save

    from MedProtectLib.profile import HEADER

    size = int.from_bytes(content[:8], "little")
    about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][HEADER])
    text = json.dumps(m.changed_json(rng, about))
    return seeds.resigned(save(load(content), metadata={HEADER: text}))


PROFILE = (signed_header, signed_header, signed_header, resigned(m.prefixed_json(0, "<Q")), m.prefixed_json(0, "<Q"), m.any_bytes)
SERIES = {f"in/{k}.dcm": DICOM for k in range(3)}

TARGETS: dict[str, Target] = {
    "nifti": Target(one("in.nii", seeds.nifti1), {"in.nii": NII}, image("in.nii")),
    "nifti2": Target(one("in.nii", seeds.nifti2), {"in.nii": (m.field_of(seeds.NIFTI2_HEADER), m.any_bytes)}, image("in.nii")),
    "nifti gzip": Target(one("in.nii.gz", lambda: gzip.compress(seeds.nifti1(), 1, mtime=0)), {"in.nii.gz": GZ}, image("in.nii.gz")),
    "nifti pair": Target(seeds.nifti_pair, {"in.hdr": NII, "in.img": (m.any_bytes,)}, image("in.hdr")),
    "nifti labels": Target(one("in.nii.gz", seeds.nifti_labels), {"in.nii.gz": GZ}, labels("in.nii.gz")),
    "nrrd": Target(one("in.nrrd", lambda: nrrd(seeds.VOXELS, **seeds.SPACE)), {"in.nrrd": TEXT}, image("in.nrrd")),
    "nrrd gzip": Target(
        one("in.nrrd", lambda: nrrd(seeds.VOXELS, "gzip", **seeds.SPACE)), {"in.nrrd": (*TEXT, m.data_packed)}, image("in.nrrd")
    ),
    "nrrd ascii": Target(one("in.nrrd", seeds.ascii_nrrd), {"in.nrrd": TEXT}, image("in.nrrd")),
    "nrrd hex": Target(one("in.nrrd", seeds.hex_nrrd), {"in.nrrd": TEXT}, image("in.nrrd")),
    "nrrd detached": Target(
        lambda: {"in.nhdr": nrrd(seeds.VOXELS, "raw", b"", data_file="in.raw", **seeds.SPACE), "in.raw": seeds.VOXELS.tobytes()},
        {"in.nhdr": TEXT, "in.raw": (m.any_bytes,)},
        image("in.nhdr"),
    ),
    "metaimage": Target(one("in.mha", lambda: metaimage(seeds.VOXELS)), {"in.mha": TEXT}, image("in.mha")),
    "metaimage packed": Target(
        one("in.mha", lambda: metaimage(seeds.VOXELS, compressed=True)), {"in.mha": (*TEXT, m.data_packed)}, image("in.mha")
    ),
    "metaimage detached": Target(
        lambda: {"in.mhd": metaimage(seeds.VOXELS, b"", ElementDataFile="in.raw"), "in.raw": seeds.VOXELS.tobytes()},
        {"in.mhd": TEXT, "in.raw": (m.any_bytes,)},
        image("in.mhd"),
    ),
    "png grey": Target(one("in.png", lambda: seeds.picture(0)), {"in.png": (m.png_chunks, m.any_bytes)}, image("in.png")),
    "png colours": Target(one("in.png", lambda: seeds.picture(2)), {"in.png": (m.png_chunks, m.any_bytes)}, image("in.png")),
    "png alpha": Target(one("in.png", lambda: seeds.picture(4)), {"in.png": (m.png_chunks, m.any_bytes)}, image("in.png")),
    "tiff pages": Target(
        one("in.tif", lambda: seeds.tiff(seeds.VOXELS, photometric="minisblack")),
        {"in.tif": (m.tiff_tags, m.tiff_tags, m.any_bytes)},
        image("in.tif"),
    ),
    "tiff colours": Target(
        one("in.tif", lambda: seeds.tiff(seeds.COLOURS, photometric="rgb", compression="zlib", predictor=True)),
        {"in.tif": (m.tiff_tags, m.tiff_tags, m.any_bytes)},
        image("in.tif"),
    ),
    "segmentation": Target(one("in.seg.nrrd", seeds.segmentation), {"in.seg.nrrd": (*TEXT, m.data_packed)}, labels("in.seg.nrrd")),
    "profile of umed": Target(one("in.medprotect", seeds.network_profile), {"in.medprotect": PROFILE}, protecting_profile),
    "profile of lsp": Target(one("in.medprotect", lambda: seeds.pattern_profile("lsp")), {"in.medprotect": PROFILE}, protecting_profile),
    "profile of ar": Target(one("in.medprotect", lambda: seeds.pattern_profile("ar")), {"in.medprotect": PROFILE}, protecting_profile),
    "manifest": Target(seeds.manifest, {"manifest.csv": (csv_cells, csv_cells, m.any_bytes)}, dataset("manifest.csv")),
    "medmnist": Target(one("in.npz", seeds.medmnist), {"in.npz": (m.zip_members, m.zip_members, m.any_bytes)}, dataset("in.npz")),
    "key of a site": Target(one("k", lambda: seeds.key_file(seeds.SITE)), {"k": JSON}, key),
    "key of cases": Target(one("k", lambda: seeds.key_file(seeds.SITE.for_cases("r", ["a", "b"]))), {"k": JSON}, key),
    "vault entry": Target(
        seeds.vault, {"vault/e.medvault": (m.prefixed_json(8, ">I"), m.any_bytes), "b.nii": (m.any_bytes, m.flip_bits)}, restore
    ),
    "vault secret": Target(
        seeds.vault,
        {"vault/e.medvault": tuple(map(resealed, (m.prefixed_json(0, ">I"), m.prefixed_json(0, ">I"), m.any_bytes)))},
        restore,
    ),
    "record": Target(record, {"a_record.json": JSON}, verify),
    "release of nnU-Net": Target(seeds.dataset_to_release, {"data/dataset.json": JSON}, release("data")),
    "release of a manifest": Target(
        seeds.manifest_to_release, {"data/manifest.csv": (csv_cells, csv_cells, m.any_bytes)}, release("data/manifest.csv")
    ),
    "release of BIDS": Target(
        seeds.bids_to_release,
        {"data/dataset_description.json": JSON, "data/participants.tsv": TEXT, "data/sub-01/anat/sub-01_T1w.json": JSON},
        release("data"),
    ),
    "release resumed": Target(
        seeds.finished_release,
        lambda: {name: of_release(name) for name in seeds.finished_release() if name.startswith("work/") and "png" not in name},
        resume,
    ),
    "dicom series": Target(seeds.dicom_series, SERIES, image("in")),
    "dicom segmentation": Target(seeds.dicom_segmentation, {"labels.dcm": DICOM}, dicom_labels),
    "dicom structures": Target(seeds.dicom_structures, {"labels.dcm": DICOM}, dicom_labels),
}
