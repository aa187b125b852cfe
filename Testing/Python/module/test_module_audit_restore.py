"""The sections Audit and Restore: from the Python console, in the panel, cancelled and failing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slicer_harness.require import require_harness

require_harness()

import qt
import slicer

from MedProtectLib import MedProtectError, read_volume, write_volume
from MedProtectLib.release.keys import SiteKey, save_key
from MedProtectLib.release.vault import seal
from MedProtectSlicer.child import Child
from MedProtectSlicer.settings import ProtectSettings
from release_cases import own_profile
from slicer_harness.fixtures import SAMPLE, finish, wait

DATASET = SAMPLE.parent / "hippocampus"
PASSPHRASE = "five words that nobody guesses"


@pytest.fixture
def short_trainings(monkeypatch):
    """Two steps on six cases: enough to see that everything arrives."""
    asked = ProtectSettings.auditArguments
    monkeypatch.setattr(ProtectSettings, "auditArguments", lambda self: [*asked(self), "--steps", "2", "--limit", "6", "--regimes", "none"])


def column(table, title: str) -> list[str]:
    values = table.GetTable().GetColumnByName(title)
    return [values.GetValue(row) for row in range(values.GetNumberOfValues())]


def test_audit(a_widget, short_trainings, tmp_path, monkeypatch):
    ui, told, opened = a_widget.ui, [], []
    a_widget.parameters.method = "lsp"
    ui.auditButton.click()
    assert ui.statusLabel.text == "Choose the folder with the dataset to audit."
    ui.auditFolderPath.currentPath = str(DATASET)
    ui.auditButton.click()
    assert ui.statusLabel.text == "Choose the folder for the results of the audit."
    assert not ui.auditReportButton.enabled
    ui.auditOutputPath.currentPath = str(tmp_path / "found")
    ui.auditButton.click()
    assert ui.cancelButton.enabled
    wait(lambda: told.append((ui.progressBar.value, ui.statusLabel.text)) or a_widget.task is None, seconds=150)
    assert ui.statusLabel.text.startswith("Audited: the table 'Audit of hippocampus' has the results.\nonly 1 seed")
    assert [value for value, _text in told] == sorted(value for value, _text in told)
    assert any(text.startswith("Training networks") for _value, text in told)
    table = slicer.mrmlScene.GetFirstNodeByName("Audit of hippocampus")
    assert set(column(table, "Data")) == {"none", "noise", "lsp"}
    assert all(value == "-" or value.endswith("%") for value in column(table, "On clean images")), "a dash where a row is void"
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", opened.append)
    ui.auditReportButton.click()
    assert Path(opened[0].toLocalFile()) == tmp_path / "found" / "audit.html"
    assert Path(opened[0].toLocalFile()).is_file()


def test_a_cancelled_audit_goes_on_when_it_is_started_again(a_widget, stuck_child, tmp_path):
    ui = a_widget.ui
    ui.auditFolderPath.currentPath, ui.auditOutputPath.currentPath = str(DATASET), str(tmp_path / "found")
    stuck_child.write_text("import sys\nprint(*sys.argv, file=open(__file__ + '.asked', 'a'))\n" + stuck_child.read_text())
    for _ in range(2):
        ui.auditButton.click()
        wait(lambda: ui.statusLabel.text.startswith("Fitting 1/9"))
        ui.cancelButton.click()
        assert finish(a_widget) == "Cancelled. What was finished is kept; press Audit again to go on."
        (tmp_path / "found").mkdir(exist_ok=True)
        (tmp_path / "found" / "rows.jsonl").write_text("")
    first, second = Path(f"{stuck_child}.asked").read_text().splitlines()
    assert "--resume" not in first
    assert "--quick" in first
    assert second.endswith("--resume --json --progress json")
    assert not ui.auditReportButton.enabled


def test_an_audit_that_cannot_be_done_says_why(a_widget, tmp_path):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    a_widget.ui.auditFolderPath.currentPath = str(tmp_path / "nothing")
    a_widget.ui.auditOutputPath.currentPath = str(tmp_path / "found")
    a_widget.ui.auditButton.click()
    text = finish(a_widget)
    assert "nothing" in text
    assert "\n" not in text
    assert "--" not in text
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert a_widget.ui.auditButton.enabled


def test_an_audit_of_a_profile_or_of_a_method():
    assert ProtectSettings("em", bound=8 / 255).auditArguments() == ["--methods", "em", "--bound", repr(8 / 255)]
    assert ProtectSettings(profile="p.medprotect", modality="CT").auditArguments() == ["--profile", "p.medprotect", "--modality", "CT"]


def test_an_audit_takes_the_seed_and_says_what_it_does_not_take(a_logic, stuck_child, tmp_path):
    assert ProtectSettings("lsp", seed=7).auditArguments() == ["--methods", "lsp", "--seed", "7"]
    stuck_child.write_text("import json\nprint(json.dumps({'ok': True, 'summary': [], 'cautions': ['only 1 seed']}))")
    for settings, told in (
        (ProtectSettings("lsp", seed=7, bound=8 / 255), []),
        (ProtectSettings("lsp", seed=7, window=(0.0, 100.0)), ["intensity window"]),
        (ProtectSettings(profile="p.medprotect", seed=7, window=(0.0, 100.0)), ["intensity window", "the profile's own seed"]),
    ):
        first, *cautions = a_logic.auditTask(DATASET, tmp_path / "found", settings).run()["cautions"]
        assert first == "only 1 seed"
        assert len(cautions) == len(told)
        assert all(word in line for word, line in zip(told, cautions, strict=True))


def test_a_profile_is_audited_at_its_own_bound(a_logic, short_trainings, tmp_path):
    profile = own_profile(tmp_path, bound=8 / 255)
    a_logic.auditTask(DATASET, tmp_path / "found", profile=str(profile)).run()
    rows = [json.loads(line) for line in (tmp_path / "found" / "rows.jsonl").read_text().splitlines()]
    assert {row["method"]: row["epsilon"] for row in rows} == {"none": 0.0, "noise": 8 / 255, "profile:lsp": 8 / 255}


@pytest.fixture
def released(tmp_path):
    """A released file, its vault and its key."""
    original = tmp_path / "in" / "scan.nrrd"
    original.parent.mkdir()
    array = np.random.default_rng(5).integers(-900, 900, (4, 6, 8)).astype(np.int16)
    from MedProtectLib.volume import Geometry, Volume

    write_volume(Volume(array, Geometry((8, 6, 4), (1.0, 1.0, 3.0))), original)
    volume = read_volume(original)
    changed = array.copy()
    changed[1:3, 2:4] += 3
    protected = tmp_path / "share" / "scan_protected.nrrd"
    protected.parent.mkdir()
    write_volume(volume.with_array(changed), protected)
    key = SiteKey.new(PASSPHRASE)
    save_key(key, tmp_path / "site.key")
    seal(volume, read_volume(protected), key, release="r1", case="scan").save(tmp_path / "private" / "vault")
    return tmp_path, original, protected


def test_restore(a_widget, released):
    folder, original, protected = released
    ui = a_widget.ui
    for path, value, missing in (
        (ui.restoreFilePath, protected, "Choose the protected file."),
        (ui.vaultFolderPath, folder / "private", "Choose the vault folder"),
        (ui.keyFilePath, folder / "site.key", "Choose the key file"),
        (ui.restoreOutputPath, folder / "back" / "scan.nrrd", "Choose the file for the original."),
    ):
        ui.restoreButton.click()
        assert ui.statusLabel.text.startswith(missing)
        path.currentPath = str(value)
    (folder / "back").mkdir()
    ui.restoreButton.click()
    text = finish(a_widget)
    assert text.endswith("needs a passphrase: give it under Passphrase.")
    ui.passphraseLineEdit.text = PASSPHRASE
    ui.restoreButton.click()
    assert finish(a_widget).startswith(f"Restored: {folder / 'back' / 'scan.nrrd'}, ")
    assert np.array_equal(read_volume(folder / "back" / "scan.nrrd").array, read_volume(original).array)
    assert ui.passphraseLineEdit.text == ""
    node = slicer.mrmlScene.GetSingletonNode("MedProtect", "vtkMRMLScriptedModuleNode")
    assert not any(PASSPHRASE in (node.GetParameter(name) or "") for name in node.GetParameterNames())


def test_restoring_fails_in_one_line_and_writes_nothing(a_widget, released):
    folder, original, protected = released
    ui = a_widget.ui
    paths = (ui.restoreFilePath, ui.vaultFolderPath, ui.keyFilePath, ui.restoreOutputPath)
    for path, value in zip(paths, (original, folder / "private", folder / "site.key", folder / "back.nrrd"), strict=True):
        path.currentPath = str(value)
    ui.passphraseLineEdit.text = PASSPHRASE
    ui.restoreButton.click()
    text = finish(a_widget)
    assert "\n" not in text
    assert "--" not in text
    assert not (folder / "back.nrrd").exists()
    ui.restoreFilePath.currentPath, ui.passphraseLineEdit.text = str(protected), "another sentence altogether"
    ui.restoreButton.click()
    assert "\n" not in finish(a_widget)
    assert not (folder / "back.nrrd").exists()


def test_restoring_can_be_cancelled(a_widget, stuck_child, tmp_path):
    ui = a_widget.ui
    for path in (ui.restoreFilePath, ui.vaultFolderPath, ui.keyFilePath, ui.restoreOutputPath):
        path.currentPath = str(tmp_path / "x")
    ui.restoreButton.click()
    task = a_widget.task
    wait(lambda: isinstance(task._waiting, Child))
    ui.cancelButton.click()
    assert finish(a_widget) == "Cancelled. Nothing was kept."


def test_restoring_a_dicom_series_by_one_of_its_files(tmp_path):
    pytest.importorskip("highdicom")
    from made_dicom import image, save, series
    from MedProtectSlicer.staging import wholeImage

    folder = series(tmp_path / "series", np.arange(3 * 16 * 16, dtype=np.uint16).reshape(3, 16, 16))
    assert wholeImage(next(folder.iterdir())) == wholeImage(folder) == folder
    picture = save(image(np.zeros((16, 16), np.uint16) + 5, "DX", 0), tmp_path / "x-ray" / "a.dcm")
    assert wholeImage(picture) == picture


def test_from_the_console(a_logic, released):
    folder, original, protected = released
    output = folder / "console.nrrd"
    answer = a_logic.restoreTask(protected, folder / "private", folder / "site.key", output, PASSPHRASE).run()
    assert (answer["release"], answer["case"]) == ("r1", "scan")
    assert np.array_equal(read_volume(output).array, read_volume(original).array)
    with pytest.raises(MedProtectError, match="exists"):
        a_logic.restoreTask(protected, folder / "private", folder / "site.key", output, PASSPHRASE).run()
    a_logic.restoreTask(protected, folder / "private", folder / "site.key", output, PASSPHRASE, overwrite=True).run()
