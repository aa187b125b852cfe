"""Real files: the bundled ones, and the public datasets where they lie beside the repository."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from MedProtectLib.io import extension_of, read_labels, read_volume, resample_labels, write_volume
from MedProtectLib.volume import Geometry

SAMPLES = Path(__file__).parents[2] / "Resources" / "SampleData"


def check_round_trip(path: Path, out: Path) -> None:
    """Same header and voxels after writing; the voxels are those of nibabel or SimpleITK."""
    volume = read_volume(path)
    write_volume(volume, out)
    written = read_volume(out)
    assert np.array_equal(written.array, volume.array), path
    assert (written.array.dtype, written.geometry) == (volume.array.dtype, volume.geometry), path
    if path.name.endswith(".nii.gz"):
        assert gzip.decompress(out.read_bytes()) == gzip.decompress(path.read_bytes()), path
        assert np.array_equal(np.asarray(nib.load(out).dataobj.get_unscaled()).T, volume.array), path
    else:
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(out)).ravel(), volume.array.ravel()), path
    if path.suffix == ".nrrd":
        assert out.read_bytes().partition(b"\n\n")[0] == path.read_bytes().partition(b"\n\n")[0], path


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if extension_of(path) in (".nii.gz", ".nrrd", ".seg.nrrd", ".png"))


def test_bundled_files(tmp_path):
    files = files_in(SAMPLES)
    assert len(files) > 50
    for path in files:
        check_round_trip(path, tmp_path / f"out{extension_of(path)}")


@pytest.mark.parametrize(
    ("dataset", "step"),
    [
        ("msd_hippocampus", 8),
        ("msd_heart", 1),
        ("sts_sarcoma", 1),
        ("lidc_nodules", 12),
        ("lidc_ct_full", 1),
        ("totalseg_example", 1),
        ("dicom_seg_samples", 1),
        ("busi", 40),
    ],
)
def test_public_datasets(shared_data, tmp_path, dataset, step):
    files = files_in(shared_data / dataset)
    assert files
    for path in files[::step]:
        check_round_trip(path, tmp_path / f"out{extension_of(path)}")


def test_bundled_segmentation_has_the_names_of_the_nifti_labels(ct):
    nifti, slicer = read_labels(SAMPLES / "totalseg_ct" / "labels.nii.gz"), read_labels(ct[1])
    assert len(slicer.segments) == 41
    assert slicer.segments == nifti.segments
    assert "liver" in [segment.name for segment in slicer.segments]
    assert np.array_equal(slicer.classes(), nifti.classes())
    assert slicer.geometry.same_grid(read_volume(ct[0]).geometry)


def test_float_labels(shared_data):
    folder = shared_data / "msd_hippocampus" / "labelsTr"
    floats = [path for path in sorted(folder.iterdir()) if nib.load(path).get_data_dtype() == np.float32]
    assert floats
    for path in floats:
        labels = read_labels(path)
        assert labels.layers[0].dtype == np.uint8
        assert [segment.value for segment in labels.segments] == [1, 2]


def series_geometry(folder: Path) -> Geometry:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    return Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def test_labels_stored_upside_down_come_out_right(shared_data):
    """The label file of this DICOM series has its y axis reversed, in storage and in its affine."""
    geometry = series_geometry(shared_data / "totalseg_example" / "example_ct_dicom")
    labels = read_labels(shared_data / "totalseg_example" / "example_seg_dicom.nii.gz")
    assert labels.geometry.size == geometry.size
    assert not labels.geometry.same_grid(geometry)
    resampled = resample_labels(labels, geometry)
    assert resampled.geometry == geometry
    assert np.array_equal(resampled.layers[0], labels.layers[0][:, ::-1])


def test_full_size_ct_is_as_fast_as_with_simpleitk(shared_data, tmp_path):
    with ZipFile(shared_data / "lidc_ct_full" / "LIDC-IDRI-0001_CT_dicom.zip") as archive:
        archive.extractall(tmp_path / "dicom")
    (folder,) = {path.parent for path in (tmp_path / "dicom").rglob("*.dcm")}
    series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)), sitk.sitkInt16)
    sitk.WriteImage(series, tmp_path / "ct.nrrd", useCompression=True)

    def seconds(action) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
        return min(times)

    volume = read_volume(tmp_path / "ct.nrrd")
    assert volume.array.shape == (83, 512, 512)
    assert seconds(lambda: read_volume(tmp_path / "ct.nrrd")) < 2 * seconds(lambda: sitk.ReadImage(tmp_path / "ct.nrrd"))
    ours = seconds(lambda: write_volume(volume, tmp_path / "ours.nrrd"))
    assert ours < 2 * seconds(lambda: sitk.WriteImage(series, tmp_path / "theirs.nrrd", useCompression=True))
    assert (tmp_path / "ours.nrrd").stat().st_size < 1.05 * (tmp_path / "theirs.nrrd").stat().st_size
    labels = read_labels(shared_data / "lidc_ct_full" / "LIDC-IDRI-0001_nodule_mask.nii.gz")
    assert int(np.count_nonzero(resample_labels(labels, volume.geometry).layers[0])) == 6547
