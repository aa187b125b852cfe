"""A class is one in every case: by the names that label maps give their segments, else by the label values."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from MedProtectLib import Profile, Protector
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.fit import CaseInMemory, FitOptions, fit_in
from MedProtectLib.io.segmentation import write_segmentation
from MedProtectLib.label_classes import Classes, common_classes
from MedProtectLib.volume import Geometry, LabelMap, Segment, Volume
from samples import Run

GRID = Geometry((40, 32, 3))
LEFT, RIGHT = np.s_[:, 4:28, 3:18], np.s_[:, 4:28, 22:37]
LIVER = (0, 10, 10)


def case(name: str, segments: tuple[Segment, ...], areas: dict[tuple[int, int], tuple[slice, ...]]) -> CaseInMemory:
    """An image of noise, and an area for (layer, value)."""
    layers = tuple(np.zeros(GRID.shape, np.uint8) for _ in range(1 + max(layer for layer, _ in areas)))
    for (layer, value), area in areas.items():
        layers[layer][area] = value
    image = np.random.default_rng(len(name)).integers(100, 1000, GRID.shape).astype(np.int16)
    return CaseInMemory(Volume(image, GRID), LabelMap(layers, GRID, segments, name), name)


def liver_and_spleen(name: str, liver: int, spleen: int) -> CaseInMemory:
    return case(name, (Segment("liver", liver), Segment("spleen", spleen)), {(0, liver): LEFT, (0, spleen): RIGHT})


def unnamed(name: str) -> CaseInMemory:
    return case(name, (Segment("1", 1), Segment("2", 2)), {(0, 1): LEFT, (0, 2): RIGHT})


def fitted(folder: Path, *cases: CaseInMemory, method: str = "lsp", segments: tuple[str, ...] = ()) -> Profile:
    return fit_in(folder / "work", cases, FitOptions(method=method, seed=4, segments=segments), "test")


def number_at(profile: Profile, each: CaseInMemory, voxel: tuple[int, int, int] = LIVER, segments: tuple[str, ...] = ()) -> int:
    return int(Protector(profile=profile).plan(each.volume, each.labels.select(segments)).classes[voxel])


@pytest.mark.parametrize("segments", [(), ("liver",)], ids=["all", "one"])
def test_files_that_number_their_segments_differently_have_one_liver(segments: tuple[str, ...], tmp_path: Path) -> None:
    cases = liver_and_spleen("a", 1, 2), liver_and_spleen("b", 2, 1)
    profile = fitted(tmp_path, *cases, segments=segments)
    assert profile.settings["classes"] == list(segments or ("liver", "spleen"))
    assert [number_at(profile, each, segments=segments) for each in cases] == [1, 1]


@pytest.mark.parametrize("method", ["lsp", "weave"])
def test_overlapping_segments_of_one_value_are_classes_of_their_own(method: str) -> None:
    each = case("a", (Segment("liver", 1, 0), Segment("tumour", 1, 1)), {(0, 1): LEFT, (1, 1): np.s_[:, 10:20, 6:12]})
    plan = Protector(method, seed=1).plan(each.volume, each.labels)
    assert plan.method.purpose.classes == ("liver", "tumour")
    assert [int(plan.classes[voxel]) for voxel in ((0, 0, 0), (0, 5, 4), LIVER)] == [0, 1, 2]


def test_a_profile_of_named_segments_goes_through_its_file(tmp_path: Path) -> None:
    profile = fitted(tmp_path, liver_and_spleen("a", 2, 1))
    profile.save(tmp_path / "p.medprotect")
    again = Profile.load(tmp_path / "p.medprotect")
    assert [number_at(again, each) for each in (liver_and_spleen("a", 2, 1), liver_and_spleen("c", 7, 9))] == [2, 2]
    with pytest.raises(MedProtectError, match="does not know the class 'kidney', only spleen, liver"):
        number_at(again, case("d", (Segment("kidney", 1),), {(0, 1): LEFT}))


def test_values_on_which_named_files_agree_stand_for_the_names(tmp_path: Path) -> None:
    profile = fitted(tmp_path, liver_and_spleen("a", 1, 2), liver_and_spleen("b", 1, 2), unnamed("c"))
    assert (profile.settings["classes"], profile.settings["values"]) == (["liver", "spleen"], [1, 2])
    assert [number_at(profile, each) for each in (unnamed("c"), liver_and_spleen("d", 2, 1))] == [1, 1]


def test_values_on_which_named_files_do_not_agree_stand_for_nothing(tmp_path: Path) -> None:
    profile = fitted(tmp_path, liver_and_spleen("a", 1, 2), liver_and_spleen("b", 2, 1))
    with pytest.raises(MedProtectError, match="does not know the class '1', only liver, spleen"):
        number_at(profile, unnamed("c"))


def test_a_profile_of_values_takes_named_segments_by_their_value(tmp_path: Path) -> None:
    profile = fitted(tmp_path, unnamed("a"))
    assert profile.settings["classes"] == [1, 2]
    assert "values" not in profile.settings
    assert number_at(profile, liver_and_spleen("b", 2, 1)) == 2


def test_classes_come_in_the_order_of_their_smallest_values() -> None:
    cases = [("a", (Segment("z", 2), Segment("7", 7))), ("b", (Segment("z", 12), Segment("y", 3), Segment("10", 10)))]
    assert common_classes(cases) == Classes(("z", "y", 7, 10), (0, 3, 7, 10))
    assert common_classes([("a", (Segment("10", 10),)), ("b", (Segment("9", 9),))]) == Classes((9, 10), ())
    assert common_classes([]) == Classes((), ())


def test_cases_that_contradict_each_other_are_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for each in (liver_and_spleen("a", 1, 2), liver_and_spleen("b", 2, 1), unnamed("c")):
        nib.save(nib.Nifti1Image(each.volume.array.T, np.diag([-1.0, -1.0, 1.0, 1.0])), data / "imagesTr" / f"{each.name}.nii.gz")
        if each.name == "c":
            nib.save(nib.Nifti1Image(each.labels.layers[0].T, np.diag([-1.0, -1.0, 1.0, 1.0])), data / "labelsTr" / "c.nii.gz")
        else:
            write_segmentation(each.labels, data / "labelsTr" / f"{each.name}.seg.nrrd")
    rows = [
        f"{name},imagesTr/{name}.nii.gz,labelsTr/{name}{end}" for name, end in (("a", ".seg.nrrd"), ("b", ".seg.nrrd"), ("c", ".nii.gz"))
    ]
    (data / "cases.csv").write_text("\n".join(["case,image,labels", *rows, ""]))
    output = tmp_path / "p.medprotect"
    code, _, err = run("fit", data / "cases.csv", "--method", "lsp", "--output", output)
    assert (code, err.count("\n")) == (1, 1)
    assert "c: its label value 1 has no name, and the other cases do not agree on one: 'liver' is 1 in a, 'liver' is 2 in b" in err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    code, _, err = run("fit", data / "cases.csv", "--method", "lsp", "--output", output, "--segments", "liver")
    assert code == 0, err
    assert Profile.load(output).settings["classes"] == ["liver"]
