"""Small good files of every kind that the project reads, to be damaged."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile

from made_images import nifti, nrrd, placed, png, png_rows, slicer_segmentation
from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import read_volume, write_volume
from MedProtectLib.release.keys import Key, SiteKey, save_key
from MedProtectLib.release.vault import Entry, Secret, seal

Files = Mapping[str, bytes]

SITE = SiteKey(bytes(range(32)))
VOXELS = np.random.default_rng(5).integers(-900, 2000, (4, 6, 8)).astype("<i2")
COLOURS = np.random.default_rng(6).integers(0, 256, (6, 8, 3)).astype("u1")
LABELS = np.zeros((4, 6, 8), "u1")
LABELS[1:3, 2:5, 2:6] = 1
SPACE = placed((1.0, 1.5, 2.0), np.eye(3), (1.0, 2.0, 3.0))
NIFTI_HEADER = nib.Nifti1Header.template_dtype
NIFTI2_HEADER = nib.Nifti2Header.template_dtype
PATIENT = "SENTINEL^PATIENT"  # in no message


def nifti1() -> bytes:
    return nifti(VOXELS.T, scl_slope=0.5, scl_inter=-3, cal_max=300).to_bytes()


def nifti2() -> bytes:
    return nifti(VOXELS.T, kind=nib.Nifti2Image).to_bytes()


def nifti_pair() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        nib.save(nifti(VOXELS.T, kind=nib.Nifti1Pair), Path(folder, "in.hdr"))
        return {name: Path(folder, name).read_bytes() for name in ("in.hdr", "in.img")}


def nifti_labels() -> bytes:
    table = b'<CaretExtension><LabelTable><Label Key="1" Red="1"><![CDATA[liver]]></Label></LabelTable></CaretExtension>'
    image = nifti(LABELS.T)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(30, table))
    return gzip.compress(image.to_bytes(), 1, mtime=0)


def segmentation() -> bytes:
    layers = np.stack([LABELS, np.roll(LABELS, 1, axis=2)], axis=-1)
    segments: list[dict[str, object]] = [
        {"ID": "a", "Name": "liver", "LabelValue": 1, "Layer": 0},
        {"ID": "b", "Name": "tumour", "LabelValue": 1, "Layer": 1},
    ]
    return slicer_segmentation(layers, segments)


def picture(colour: int) -> bytes:
    rows = {0: COLOURS[..., 0].astype("u2"), 2: COLOURS, 4: COLOURS[..., :2], 6: np.dstack([COLOURS, COLOURS[..., 0]])}[colour]
    return png(8, 6, 8 * rows.dtype.itemsize, colour, png_rows(rows), (b"pHYs", bytes(9)), (b"tEXt", b"a\0b"))


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def ascii_nrrd() -> bytes:
    return nrrd(VOXELS, "ascii", " ".join(map(str, VOXELS.ravel())).encode(), **SPACE)


def hex_nrrd() -> bytes:
    return nrrd(VOXELS, "hex", VOXELS.tobytes().hex().encode(), **SPACE)


def manifest() -> Files:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerows(
        [("case", "image", "labels", "class", "split"), ("a", "a.nii", "l.nii", "", "train"), ("b", "b.nii", "l.nii", "", "test")]
    )
    return {"manifest.csv": stream.getvalue().encode(), "a.nii": nifti1(), "b.nii": nifti1(), "l.nii": nifti(LABELS.T).to_bytes()}


def medmnist() -> bytes:
    stream = io.BytesIO()
    parts = {
        f"{part}_{kind}": data
        for part in ("train", "val", "test")
        for kind, data in (("images", COLOURS[None]), ("labels", COLOURS[:1, :1, 0]))
    }
    np.savez(stream, **parts)
    return stream.getvalue()


def resigned(content: bytes) -> bytes:
    """A profile with the checksum that fits its header and tensors, as somebody would write it who wants it to be read."""
    from safetensors.numpy import load, save

    from MedProtectLib.profile import HEADER, _digest

    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size])
        about = json.loads(header["__metadata__"][HEADER])
        tensors = load(content)
        about.pop("sha256", None)
        about["sha256"] = _digest(about, tensors)
        return save(tensors, metadata={HEADER: json.dumps(about, sort_keys=True)})
    except Exception:
        return content


def key_file(key: Key) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_key(key, Path(folder, "k"))
        return Path(folder, "k").read_bytes()


@cache
def vault() -> Files:
    """A protected file, its entry, and the site's key."""
    with tempfile.TemporaryDirectory() as folder:
        original, protected = Path(folder, "a.nii"), Path(folder, "b.nii")
        original.write_bytes(nifti1())
        before = read_volume(original)
        write_volume(before.with_array(before.array ^ 1), protected)
        entry = seal(before, read_volume(protected), SITE, "release", "case")
        return {"b.nii": protected.read_bytes(), "vault/e.medvault": entry.to_bytes()}


def sealed_again(content: bytes) -> bytes:
    """The secret ``content`` in an entry that opens: what somebody with a key could make."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from MedProtectLib.release.vault import NONCE, _message_key

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e")
        path.write_bytes(vault()["vault/e.medvault"])
        entry = Entry.load(path)
    key = _message_key(SITE.for_case("release", "case"), entry.header.salt)
    return entry.associated + AESGCM(key).encrypt(NONCE, content, entry.associated)


@cache
def secret() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e")
        path.write_bytes(vault()["vault/e.medvault"])
        opened: Secret = Entry.load(path).open(SITE)
    return opened.to_bytes()


@cache
def pattern_profile(name: str) -> bytes:
    """A small profile of a method without networks: lsp or ar."""
    from MedProtectLib.methods import method_class
    from MedProtectLib.methods.base import Purpose
    from MedProtectLib.profile import Profile

    chosen, purpose = method_class(name), Purpose(2, classes=("1",))
    parameters = chosen.checked_parameters({})
    fixed = chosen.draw_fixed(purpose, parameters, np.random.default_rng(1))  # type: ignore[attr-defined]
    method = chosen(purpose, parameters, fixed)  # type: ignore[call-arg]
    return Profile(name, method.settings(), method.tensors(), 4 / 255, 3, "CT", (-100.0, 300.0), training={"cases": ["a"]}).to_bytes()


def dataset_to_release() -> Files:
    """Two cases in the layout of nnU-Net, and the profile."""
    about = {"name": "x", "labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii", "numTraining": 2}
    files = {"data/dataset.json": json.dumps(about).encode(), "p.medprotect": pattern_profile("lsp")}
    for n, name in enumerate(("a", "b")):
        files[f"data/imagesTr/{name}_0000.nii"] = nifti(VOXELS.T + n).to_bytes()
        files[f"data/labelsTr/{name}.nii"] = nifti(LABELS.T).to_bytes()
    return files


def manifest_to_release() -> Files:
    """The cases of a CSV manifest, and the profile."""
    return {f"data/{name}": content for name, content in manifest().items()} | {"p.medprotect": pattern_profile("lsp")}


def bids_to_release() -> Files:
    """A BIDS dataset of one subject with a mask among the derivatives, and the profile."""
    about = {"Name": "x", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    return {
        "data/dataset_description.json": json.dumps(about).encode(),
        "data/participants.tsv": b"participant_id\tage\nsub-01\t40\n",
        "data/sub-01/anat/sub-01_T1w.nii": nifti1(),
        "data/sub-01/anat/sub-01_T1w.json": b'{"Modality": "MR"}',
        "data/derivatives/masks/dataset_description.json": json.dumps(about | {"DatasetType": "derivative"}).encode(),
        "data/derivatives/masks/sub-01/anat/sub-01_space-orig_dseg.nii": nifti(LABELS.T).to_bytes(),
        "p.medprotect": pattern_profile("lsp"),
    }


def released(arguments: tuple[str, ...], folder: Path) -> int:
    """The exit code of a release of what lies in ``folder``."""
    from MedProtectLib.cli.main import main

    fixed = (
        "--profile",
        str(folder / "p.medprotect"),
        "--no-vault",
        "--jobs",
        "0",
        "--no-reports",
        "--output",
        str(folder / "work" / "out"),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["release", *arguments, *fixed])
    if code:
        raise MedProtectError(said.getvalue().strip().rpartition("error: ")[2] or "refused without a word\n")
    return code


@cache
def finished_release() -> Files:
    """:func:`dataset_to_release` with the release of it, shareable and private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in dataset_to_release().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / "work").mkdir()
        released((str(folder / "data"),), folder)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {path: content.replace(name.encode(), b"@FOLDER@") for path, content in files.items()}


@cache
def network_profile() -> bytes:
    """A small profile of a method with networks."""
    import torch

    from MedProtectLib.methods.umed import UMed
    from MedProtectLib.profile import Profile

    torch.manual_seed(0)
    method = UMed(2, 3, (2, 4))
    return Profile("umed", method.settings(), method.tensors(), 4 / 255, 3, training={"cases": []}).to_bytes()


@cache
def dicom_series() -> Files:
    """A CT of three slices."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    files = {}
    for k in range(3):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.9.{k + 1}"
        ct = Dataset()
        ct.file_meta = meta
        ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = "1.2.826.0.1.1", "1.2.826.0.1.2", "1.2.826.0.1.3"
        ct.PatientName, ct.PatientID, ct.Modality, ct.ImageType = PATIENT, "SENTINEL-ID", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ct.SeriesNumber, ct.InstanceNumber, ct.SeriesDescription = 1, k + 1, "SENTINEL-DESCRIPTION"
        ct.ImagePositionPatient, ct.ImageOrientationPatient = [0, 0, 2.0 * k], [1, 0, 0, 0, 1, 0]
        ct.PixelSpacing, ct.SliceThickness = [1.5, 1.0], 2.0
        ct.Rows, ct.Columns, ct.SamplesPerPixel, ct.PhotometricInterpretation = 6, 8, 1, "MONOCHROME2"
        ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.PixelRepresentation = 16, 16, 15, 1
        ct.RescaleSlope, ct.RescaleIntercept, ct.PixelPaddingValue = 1, -1024, -2000
        ct.PixelData = VOXELS[k].tobytes()
        stream = io.BytesIO()
        ct.save_as(stream, enforce_file_format=True)
        files[f"in/{k}.dcm"] = stream.getvalue()
    return files


@cache
def dicom_segmentation() -> Files:
    """A DICOM-SEG of one segment on :func:`dicom_series`, and the series."""
    import warnings

    import highdicom as hd
    import pydicom
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(io.BytesIO(content)) for content in dicom_series().values()]
    segment = hd.seg.SegmentDescription(
        1, "liver", codes.SCT.Organ, codes.SCT.Liver, hd.seg.SegmentAlgorithmTypeValues.MANUAL, tracking_uid="1.2.3", tracking_id="t"
    )
    for source in sources:
        source.PatientBirthDate = source.PatientSex = source.StudyDate = source.StudyTime = source.AccessionNumber = source.StudyID = ""
        source.ReferringPhysicianName = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = hd.seg.Segmentation(
            sources, LABELS[:3], hd.seg.SegmentationTypeValues.BINARY, [segment], "1.2.826.0.1.4", 2, "1.2.826.0.1.5", 1, "x", "x", "1", "1"
        )
    stream = io.BytesIO()
    made.save_as(stream)
    return {**dicom_series(), "labels.dcm": stream.getvalue()}


@cache
def dicom_structures() -> Files:
    """An RTSTRUCT with one contour on every slice of :func:`dicom_series`, and the series."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    def item(**elements: object) -> Dataset:
        made = Dataset()
        for keyword, value in elements.items():
            setattr(made, keyword, value)
        return made

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.6"
    contours = [
        item(
            ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4, ContourData=[1, 2, 2 * k, 6, 2, 2 * k, 6, 6, 2 * k, 1, 6, 2 * k]
        )
        for k in range(3)
    ]
    rt = item(
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        StudyInstanceUID="1.2.826.0.1.1",
        SeriesInstanceUID="1.2.826.0.1.7",
        PatientName=PATIENT,
        Modality="RTSTRUCT",
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID="1.2.826.0.1.3")],
        StructureSetROISequence=[item(ROINumber=1, ROIName="liver", ReferencedFrameOfReferenceUID="1.2.826.0.1.3")],
        ROIContourSequence=[item(ReferencedROINumber=1, ContourSequence=contours)],
    )
    rt.file_meta = meta
    stream = io.BytesIO()
    rt.save_as(stream, enforce_file_format=True)
    return {**dicom_series(), "labels.dcm": stream.getvalue()}
