"""Volumes from DICOM: protected from their own files, with the bytes of the command line on their folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slicer_harness.require import require_harness

require_harness()
pytest.importorskip("highdicom")

import slicer

from made_dicom import SERIES, image, save, series
from MedProtectLib import MedProtectError, read_volume
from MedProtectLib.cli.main import main
from MedProtectSlicer import dicom, logic
from MedProtectSlicer.formats import ExportFormat
from MedProtectSlicer.logic import makePreview
from MedProtectSlicer.nodes import RAS_TO_LPS, caseOf
from MedProtectSlicer.overlay import PreviewOverlay
from MedProtectSlicer.settings import ProtectSettings
from MedProtectSlicer.staging import imageIn, stagedLabels, stagedSeries

SHAPE = (10, 40, 48)
OFFSET = -1024
PADDING = 82


class Database:
    """What the panel asks Slicer's DICOM database for."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def fileForInstance(self, uid: str) -> str:  # noqa: N802 (as ctkDICOMDatabase has it)
        return self.files.get(uid, "")

    def add(self, folder: Path) -> str:
        """Import a folder; the UIDs of its instances in the order of their slices."""
        from pydicom import dcmread

        found = sorted((dcmread(path) for path in folder.rglob("IMG*")), key=lambda d: float(d.ImagePositionPatient[2]))
        self.files |= {str(d.SOPInstanceUID): str(d.filename) for d in found}
        return " ".join(str(d.SOPInstanceUID) for d in found)


@pytest.fixture
def database(a_scene, monkeypatch) -> Database:
    found = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", found, raising=False)
    dicom._filesOf.cache_clear()
    return found


def soft_tissue() -> tuple[np.ndarray, np.ndarray]:
    """HU without air, so that only the header can tell that this is CT, and where the structure is."""
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = ((k - 5) / 3) ** 2 + ((j - 20) / 9) ** 2 + ((i - 24) / 11) ** 2 <= 1
    noise = np.random.default_rng(3).normal(0, 14, inside.shape)
    return np.rint(np.where(inside, 60, -80) + noise).astype(np.int16), inside


def rescaled(dataset, number) -> None:
    dataset.RescaleIntercept = OFFSET


def load(database: Database, folder: Path, name: str = "Chest CT"):
    """A node as the DICOM module makes it of a series: HU, no storage node, the UIDs as an attribute."""
    uids = database.add(folder)
    stored = read_volume(folder)
    node = slicer.util.addVolumeFromArray(stored.in_units(stored.array).astype(np.int16), name=name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ stored.geometry.index_to_physical()))
    node.SetAttribute(dicom.INSTANCES, uids)
    return node


def segmented(volume):
    _array, inside = soft_tissue()
    labels = slicer.util.addVolumeFromArray(inside.astype(np.uint8), name="Lesion", nodeClassName="vtkMRMLLabelMapVolumeNode")
    labels.CopyOrientation(volume)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesion")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
    slicer.mrmlScene.RemoveNode(labels)
    return segmentation


@pytest.fixture
def a_series(database, tmp_path):
    """A CT that was loaded from DICOM, its segmentation and its folder."""
    array, _inside = soft_tissue()
    folder = series(tmp_path / "S 1", (array - OFFSET).astype(np.uint16), edit=rescaled)
    volume = load(database, folder)
    return volume, segmented(volume), folder


def by_command_line(folder: Path, case, place: Path, capsys, *more: str) -> dict:
    labels = stagedLabels(case, place)
    places = ["--labels", str(labels), "--output", str(place / "cli"), "--private", str(place / "cli private")]
    assert main(["protect", str(folder), *places, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def contents(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_the_series_is_that_of_the_command_line(a_logic, a_series, tmp_path, capsys):
    volume, segmentation, folder = a_series
    cli = by_command_line(folder, caseOf(volume, segmentation), tmp_path, capsys)
    made = a_logic.exportTask(volume, segmentation, tmp_path / "gui", tmp_path / "private", fileFormat=ExportFormat.DICOM).run()
    assert Path(made["protected"]).name == Path(cli["protected"]).name == "S 1_protected"
    assert contents(made["protected"]) == contents(cli["protected"])
    assert len(contents(made["protected"])) == SHAPE[0]
    assert Path(made["record"]).read_bytes() == Path(cli["record"]).read_bytes()
    assert (tmp_path / "private" / "S 1_report.html").is_file()
    assert sorted(p.name for p in (tmp_path / "gui").iterdir()) == ["S 1_protected", "S 1_record.json"]


def test_console_panel_and_preview_agree_with_the_exported_series(a_logic, a_series, tmp_path):
    volume, segmentation, _folder = a_series
    made = a_logic.exportTask(volume, segmentation, tmp_path / "gui", tmp_path / "private", fileFormat=ExportFormat.ORIGINAL).run()
    stored = read_volume(made["protected"])
    shown = stored.in_units(stored.array)
    for result in (a_logic.protect(volume, segmentation), a_logic.protectTask(volume, segmentation).run()):
        assert np.array_equal(slicer.util.arrayFromVolume(result.volume), shown)
        assert slicer.util.arrayFromVolume(result.volume).dtype == np.int16
        assert result.statistics == made["statistics"]
    slab = makePreview(caseOf(volume, segmentation), ProtectSettings()).slab(5)
    assert slab.statistics.window == tuple(made["statistics"]["window"])
    assert np.array_equal(slab.protected.array, shown[slab.slices])


def test_one_of_several_series_in_a_folder(a_logic, database, tmp_path, capsys):
    array, _inside = soft_tissue()
    other = f"{SERIES}9"

    def of_another_series(dataset, number):
        rescaled(dataset, number)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = other, f"{other}.{number + 1}"

    series(tmp_path / "both", (array - OFFSET).astype(np.uint16), edit=rescaled)
    for path in sorted((tmp_path / "both").iterdir()):
        path.rename(path.with_name(path.name.replace("IMG", "IMG_A")))
    series(tmp_path / "both", (array + 3 - OFFSET).astype(np.uint16), edit=of_another_series)
    uids = [uid for uid in database.add(tmp_path / "both").split() if not uid.startswith(f"{other}.")]
    stored = read_volume(tmp_path / "both", str(SERIES))
    volume = slicer.util.addVolumeFromArray(stored.in_units(stored.array).astype(np.int16), name="one")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ stored.geometry.index_to_physical()))
    volume.SetAttribute(dicom.INSTANCES, " ".join(uids))
    segmentation = segmented(volume)
    cli = by_command_line(tmp_path / "both", caseOf(volume, segmentation), tmp_path, capsys, "--series", str(SERIES))
    made = a_logic.exportTask(volume, segmentation, tmp_path / "gui", tmp_path / "private", fileFormat=ExportFormat.DICOM).run()
    assert contents(made["protected"]) == contents(cli["protected"])


def test_scattered_files_and_a_part_of_a_series_are_copied_together(database, a_series, tmp_path):
    volume, segmentation, folder = a_series
    for n, path in enumerate(sorted(folder.iterdir())):
        moved = tmp_path / "spread" / str(n % 2) / path.name
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    database.add(tmp_path / "spread")
    dicom._filesOf.cache_clear()
    staged = stagedSeries(caseOf(volume, segmentation), tmp_path / "work")
    assert (staged.path, staged.series) == (tmp_path / "work" / "dicom" / "Chest CT", None)
    stored = read_volume(staged.path)
    assert np.array_equal(stored.in_units(stored.array), slicer.util.arrayFromVolume(volume))


def test_a_changed_volume_is_not_its_series(a_logic, a_series, tmp_path):
    volume, segmentation, _folder = a_series
    window = a_logic.protect(volume, segmentation).statistics["window"]
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    with pytest.raises(MedProtectError, match="changed after loading"):
        a_logic.exportTask(volume, segmentation, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat.DICOM).run()
    assert not (tmp_path / "o").exists()
    applied = a_logic.protectTask(volume, segmentation).run()
    assert applied.statistics["window"] == window, "that it is CT is known from its first file"
    assert a_logic.protect(volume, segmentation).statistics == applied.statistics


def test_a_picture_stays_one_file(database, tmp_path):
    from pydicom import dcmread

    array, inside = soft_tissue()
    path = save(image((array[5] + 200).astype(np.uint16), "DX", 0), tmp_path / "x-ray" / "IMG0")
    database.files[str(dcmread(path).SOPInstanceUID)] = str(path)
    stored = read_volume(path)
    volume = slicer.util.addVolumeFromArray(stored.array.astype(np.int16), name="X-ray")
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ stored.geometry.index_to_physical()))
    volume.SetAttribute(dicom.INSTANCES, str(dcmread(path).SOPInstanceUID))
    labels = slicer.util.addVolumeFromArray(inside[5:6].astype(np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode", name="lesion")
    labels.CopyOrientation(volume)
    assert imageIn(caseOf(volume, labels), tmp_path, ExportFormat.DICOM).arguments() == [str(path)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_keeps_its_window_in_other_formats(a_logic, database, tmp_path, channels):
    from pydicom import dcmread

    array, inside = soft_tissue()
    grey = np.clip(array[5] + 120, 20, 200).astype(np.uint8)
    path = save(image(grey if channels == 1 else np.dstack([grey, grey, grey // 2]), "US", 0), tmp_path / "ultrasound" / "IMG0")
    database.files[str(dcmread(path).SOPInstanceUID)] = str(path)
    stored = read_volume(path)
    kind = "vtkMRMLScalarVolumeNode" if channels == 1 else "vtkMRMLVectorVolumeNode"
    volume = slicer.util.addVolumeFromArray(stored.array, name="ultrasound", nodeClassName=kind)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(RAS_TO_LPS @ stored.geometry.index_to_physical()))
    volume.SetAttribute(dicom.INSTANCES, str(dcmread(path).SOPInstanceUID))
    labels = slicer.util.addVolumeFromArray(inside[5:6].astype(np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode", name="lesion")
    labels.CopyOrientation(volume)
    slab = a_logic.preview(volume, labels).slab(0)
    for form in (ExportFormat.DICOM, ExportFormat.NRRD, *([ExportFormat.NIFTI] if channels == 1 else [])):
        made = a_logic.exportTask(volume, labels, tmp_path / form.name, tmp_path / f"{form.name} own", fileFormat=form).run()
        assert np.array_equal(read_volume(made["protected"]).array, slab.protected.array)


def test_fitting_takes_dicom_volumes_with_their_modality(a_series, tmp_path):
    volume, segmentation, _folder = a_series
    manifest, modality = logic._manifest([caseOf(volume, segmentation)], tmp_path)
    assert modality == "CT"
    (_head, row) = manifest.read_text(encoding="utf-8").splitlines()
    stored = read_volume(row.split(",")[1])
    assert np.array_equal(stored.array, slicer.util.arrayFromVolume(volume))
    assert ProtectSettings().knowing(modality).arguments() == ["--method", "umed", "--modality", "CT"]
    assert ProtectSettings(modality="MR").knowing(modality).modality == "MR"


def test_padding_above_the_floor_holds_in_every_format(a_logic, database, tmp_path):
    """Preview, Apply, the DICOM series and the formats that cannot declare padding make the same voxels."""
    array = np.minimum(soft_tissue()[0], PADDING - 2)
    array[:, 16:20, 20:24] = PADDING
    array[:, 24, 24] = PADDING - 1

    def edit(dataset, number) -> None:
        rescaled(dataset, number)
        dataset.add_new("PixelPaddingValue", "US", PADDING - OFFSET)
        dataset.add_new("PixelPaddingRangeLimit", "US", PADDING - 1 - OFFSET)

    volume = load(database, series(tmp_path / "padded", (array - OFFSET).astype(np.uint16), edit=edit))
    segmentation = segmented(volume)
    made = {}
    for kind in (ExportFormat.DICOM, ExportFormat.NRRD, ExportFormat.NIFTI):
        answer = a_logic.exportTask(volume, segmentation, tmp_path / kind.name, tmp_path / f"{kind.name} own", fileFormat=kind).run()
        stored = read_volume(answer["protected"])
        made[kind] = stored.in_units(stored.array)
    applied = slicer.util.arrayFromVolume(a_logic.protectTask(volume, segmentation).run().volume)
    held = array >= PADDING - 1
    assert held.sum() == 17 * SHAPE[0]
    assert np.array_equal(applied[held], array[held])
    assert not (applied[~held] >= PADDING - 1).any()
    for voxels in made.values():
        assert np.array_equal(voxels, applied)
    slab = makePreview(caseOf(volume, segmentation), ProtectSettings()).slab(5)
    assert np.array_equal(slab.protected.array, applied[slab.slices])
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    changed = slicer.util.arrayFromVolume(a_logic.protectTask(volume, segmentation).run().volume)
    assert np.array_equal(changed[held], array[held]), "also where the volume is not its series any more"


@pytest.mark.parametrize("slope", [2, -1])
def test_the_preview_has_the_levels_of_the_series(a_logic, database, tmp_path, slope):
    """Slicer shows whole numbers where slope and intercept are whole; what is stored has levels of the slope."""

    def edit(dataset, number) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, OFFSET

    array, _inside = soft_tissue()
    volume = load(database, series(tmp_path / "scaled", ((array - OFFSET) // slope).astype(np.int16), edit=edit))
    volume.CreateDefaultDisplayNodes()
    segmentation = segmented(volume)
    applied = slicer.util.arrayFromVolume(a_logic.protectTask(volume, segmentation, bound=3.5 / 255).run().volume)
    slab = a_logic.preview(volume, segmentation, bound=3.5 / 255).slab(5)
    overlay = PreviewOverlay()
    overlay.show(volume, slab, {}, after=True)
    assert np.array_equal(slicer.util.arrayFromVolume(overlay._nodes["after"]), applied[slab.slices])
    overlay.close()


def dicom_item(widget):
    return widget.ui.exportFormatSelector.model().item(list(ExportFormat).index(ExportFormat.DICOM))


def test_the_choice_is_there_for_volumes_from_dicom_only(a_series, a_widget, tmp_path):
    ui = a_widget.ui
    ui.volumeSelector.setCurrentNode(slicer.mrmlScene.GetFirstNodeByName("Phantom"))
    assert not dicom_item(a_widget).isEnabled()
    assert ui.exportHintLabel.text == "No DICOM series: 'Phantom' was not loaded from DICOM."
    volume, segmentation, _folder = a_series
    ui.volumeSelector.setCurrentNode(volume)
    ui.labelsSelector.setCurrentNode(segmentation)
    assert dicom_item(a_widget).isEnabled()
    assert ui.exportHintLabel.text == ""
    a_widget.parameters.exportFormat = ExportFormat.DICOM
    assert ui.exportButton.enabled
    ui.exportFolderPath.currentPath, ui.privateFolderPath.currentPath = str(tmp_path / "share"), str(tmp_path / "own")
    ui.exportButton.click()
    from slicer_harness.fixtures import wait

    wait(lambda: a_widget.task is None)
    assert ui.statusLabel.text.startswith(f"Written: {tmp_path / 'share' / 'S 1_protected'}.")
    ui.volumeSelector.setCurrentNode(slicer.mrmlScene.GetFirstNodeByName("Phantom"))
    assert not ui.exportButton.enabled, "a DICOM series was chosen, and this volume has none"


def test_a_series_that_was_moved_and_imported_again_is_found(database, a_series, tmp_path):
    volume, _segmentation, folder = a_series
    assert dicom.whyNoSeries(volume) == ""
    folder.rename(tmp_path / "elsewhere")
    assert "not in Slicer's DICOM database any more" in dicom.whyNoSeries(volume)
    database.add(tmp_path / "elsewhere")
    assert dicom.whyNoSeries(volume) == ""
    assert {file.parent for file in dicom.seriesFiles(volume)} == {tmp_path / "elsewhere"}


def test_files_that_the_database_has_lost(a_logic, database, a_series, tmp_path, monkeypatch):
    volume, segmentation, _folder = a_series
    assert dicom.whyNoSeries(volume) == ""
    before = a_logic.protect(volume, segmentation).statistics
    dicom.seriesFiles(volume)[-1].unlink()
    with pytest.raises(MedProtectError, match="the DICOM file is gone"):
        a_logic.exportTask(volume, segmentation, tmp_path / "o", tmp_path / "p", fileFormat=ExportFormat.DICOM).run()
    assert a_logic.protect(volume, segmentation).statistics == before, "the volume itself is still there"
    dicom.seriesFiles(volume)[0].unlink()
    assert dicom.seriesFiles(volume) == ()
    dicom._filesOf.cache_clear()
    database.files.clear()
    assert "not in Slicer's DICOM database any more" in dicom.whyNoSeries(volume)
    monkeypatch.setattr(slicer, "dicomDatabase", None)
    assert "not in Slicer's DICOM database any more" in dicom.whyNoSeries(volume)
    assert dicom.whyNoSeries(None) == "Choose a volume first."
