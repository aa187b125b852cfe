"""Every method in every situation that it supports, on real images; a method in the registry is tested without a change here."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from MedProtectLib import LabelMap, Profile, Protector, Volume, read_labels, read_volume
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.fitting.batch import Batch
from MedProtectLib.fitting.dataset import CaseFiles, TrainingCase
from MedProtectLib.fitting.fit import CaseInMemory, FitOptions, fit, fit_in
from MedProtectLib.fitting.team import Team
from MedProtectLib.methods import METHODS, method_class
from MedProtectLib.methods.base import CLASSIFICATION, IMAGE, REGIONS, SEGMENTATION, Case
from MedProtectLib.methods.gradient import GradientMethod
from MedProtectLib.methods.pattern import PatternMethod
from MedProtectLib.plan import channel_case
from MedProtectLib.preview import Preview
from MedProtectLib.progress import Progress
from MedProtectLib.regions import find_regions
from MedProtectLib.volume import Geometry
from MedProtectLib.window import IntensityWindow
from samples import ROOT, SAMPLES

BOUND = 8 / 255


@dataclass(frozen=True)
class Situation:
    dimension: int
    scope: str = REGIONS
    task: str = SEGMENTATION

    def supported_by(self, name: str) -> bool:
        method = method_class(name)
        return self.dimension in method.dimensions and self.scope in method.scopes and self.task in method.tasks


SITUATIONS = {
    "2D": Situation(2),
    "3D multi-class": Situation(3),
    "2D multi-channel": Situation(2),
    "3D whole image": Situation(3, IMAGE),
    "2D classification": Situation(2, IMAGE, CLASSIFICATION),
    "3D classification": Situation(3, IMAGE, CLASSIFICATION),
}


@cache
def cases_of(name: str) -> tuple[CaseInMemory, ...]:
    """Two real cases that a situation has."""
    if "classification" in name:
        return tuple(nodule(number, planar="2D" in name) for number in (0, 1))
    image, labels = (read_volume(CT[0]), read_labels(CT[1])) if "2D" in name else (None, None)
    if image is None or labels is None:
        folder = SAMPLES / "hippocampus"
        names = sorted(p.name for p in (folder / "imagesTr").glob("*.nii.gz"))[:2]
        return tuple(CaseInMemory(read_volume(folder / "imagesTr" / n), read_labels(folder / "labelsTr" / n), n) for n in names)
    classes = labels.select(["liver"]).classes()
    middle = int(np.argmax(classes.sum(axis=(1, 2))))
    return tuple(ct_slice(image, classes, middle + away, channels="channel" in name) for away in (0, 4))


CT = (SAMPLES / "totalseg_ct" / "ct.nii.gz", SAMPLES / "totalseg_ct" / "labels.seg.nrrd")


def ct_slice(image: Volume, classes: np.ndarray, k: int, channels: bool) -> CaseInMemory:
    """A slice of the CT as a picture, or with its neighbours as three channels."""
    geometry = Geometry((image.geometry.size[0], image.geometry.size[1], 1), dimension=2)
    array = image.array[k - 1 : k + 2].transpose(1, 2, 0)[None] if channels else image.array[k : k + 1]
    volume = Volume(np.ascontiguousarray(array), geometry, f"slice {k}", image.slope, image.intercept, modality="CT")
    return CaseInMemory(volume, LabelMap.from_array(classes[k : k + 1], geometry), f"slice {k}")


def nodule(number: int, planar: bool) -> CaseInMemory:
    """A lung nodule with its diagnosis, the first or second one of different diagnoses."""
    folder = SAMPLES / "lidc_nodules"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    diagnosis = next(key for key in rows[0] if len({row[key] for row in rows}) == 2)
    row = next(r for r in rows if r[diagnosis] == sorted({r[diagnosis] for r in rows})[number])
    volume = read_volume(next((folder / "imagesTr").glob(f"{next(iter(row.values()))}*")))
    if planar:
        middle = volume.array.shape[0] // 2
        i, j, _ = volume.geometry.size
        volume = Volume(volume.array[middle : middle + 1].copy(), Geometry((i, j, 1), dimension=2), volume.name, modality="CT")
    return CaseInMemory(volume, LabelMap.of_image_class(row[diagnosis], volume.geometry), row[diagnosis])


def quick(name: str) -> dict[str, float]:
    """Parameters that make a method fast."""
    known = method_class(name).parameters
    return {key: value for key, value in {"steps": 3.0, "visit": 3.0, "step": 0.5, "checkpoints": 2.0}.items() if key in known}


@pytest.fixture(scope="module", autouse=True)
def small_patches() -> Iterator[None]:
    """Fits of a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedProtectLib.fitting.training.PATCH", {2: (48, 48), 3: (16, 32, 32)})
        patch.setattr("MedProtectLib.fitting.training.BATCH", {2: 2, 3: 1})
        patch.setattr("MedProtectLib.fitting.training.IMAGES", {2: 4, 3: 2})
        yield


@cache
def profile_of(name: str, situation: str, **more: float) -> Profile:
    return fitted(name, situation, 0, {**quick(name), **more})


def fitted(name: str, situation: str, seed: int, parameters: dict[str, float], steps: int = 2) -> Profile:
    wanted = SITUATIONS[situation]
    options = FitOptions(
        method=name,
        dimension=wanted.dimension,
        bound=BOUND,
        steps=steps,
        seed=seed,
        modality="CT" if "hippocampus" not in cases_of(situation)[0].name else None,
        scope=wanted.scope if len(method_class(name).scopes) > 1 else None,
        parameters=parameters,
    )
    with tempfile.TemporaryDirectory() as folder:
        return fit_in(Path(folder) / "work", cases_of(situation), options, "test")


TABLE = [(name, s) for name in METHODS for s in SITUATIONS if SITUATIONS[s].supported_by(name)]
REFUSED = [(name, s) for name in METHODS for s in SITUATIONS if not SITUATIONS[s].supported_by(name)]


@pytest.mark.parametrize(("name", "situation"), TABLE)
def test_what_is_stored_keeps_the_bound_and_the_regions(name: str, situation: str) -> None:
    case = cases_of(situation)[0]
    before = case.volume.array.copy()
    result = Protector(profile=profile_of(name, situation)).protect(case.volume, case.labels)
    found, after = result.statistics, result.volume.array
    assert np.array_equal(case.volume.array, before), "the input must not be modified"
    assert after.dtype == before.dtype
    assert found.changed_voxels > 0
    assert found.max_abs_change[0] <= BOUND * (1 + 1e-6)
    assert found.changed_outside_regions == 0
    assert (after > before).any(), "the sign survives storage"
    assert (after < before).any()
    if SITUATIONS[situation].scope == IMAGE and SITUATIONS[situation].task == SEGMENTATION:
        changed = (after != before).reshape(*before.shape[:3], -1).any(axis=-1)
        assert np.count_nonzero(changed) > 1.2 * np.count_nonzero(result.regions.labelled & changed[result.regions.box])
    assert after.min() >= before.min()
    assert after.max() <= before.max()


@pytest.mark.parametrize(("name", "situation"), TABLE)
def test_same_seed_same_bytes_for_every_thread_count_and_through_the_file(name: str, situation: str, tmp_path: Path) -> None:
    case = cases_of(situation)[0]
    profile = profile_of(name, situation)
    profile.save(tmp_path / "p.medprotect")
    loaded = Profile.load(tmp_path / "p.medprotect")
    before, results = torch.get_num_threads(), []
    try:
        for threads, each in ((1, profile), (2, loaded)):
            torch.set_num_threads(threads)
            results.append(Protector(profile=each).protect(case.volume, case.labels).volume.array)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_the_profile(name: str) -> None:
    one, again, other = (fitted(name, "3D multi-class", seed, quick(name)) for seed in (0, 0, 1))
    assert one.sha256() == again.sha256()
    assert other.sha256() != one.sha256()
    case = cases_of("3D multi-class")[0]
    first, second = (Protector(profile=p).protect(case.volume, case.labels).counts for p in (one, other))
    assert np.mean(first[first != 0] != second[first != 0]) > 0.1


@pytest.mark.parametrize("name", METHODS)
def test_without_a_profile_there_is_a_shipped_one_or_a_notice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.fitting.training.CASE_STEPS", 2)
    case = cases_of("3D multi-class")[0]
    result = Protector(name, bound=BOUND, parameters=quick(name)).protect(case.volume, case.labels)
    assert result.statistics.changed_voxels > 0
    assert result.profile.public or any("no profile was given" in notice for notice in result.notices)


@pytest.mark.parametrize(("name", "situation"), REFUSED)
def test_what_a_method_does_not_do_is_one_line(name: str, situation: str, tmp_path: Path) -> None:
    wanted = SITUATIONS[situation]
    options = FitOptions(method=name, dimension=wanted.dimension, steps=1, scope=wanted.scope if wanted.task == SEGMENTATION else None)
    with pytest.raises(UsageError, match=f"method '{name}'") as refusal:
        fit_in(tmp_path / "work", cases_of(situation), options, "test")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "work").exists()


def test_the_methods_differ_from_each_other() -> None:
    case = cases_of("3D multi-class")[0]
    made = {}
    for name in METHODS:
        result = Protector(profile=profile_of(name, "3D multi-class")).protect(case.volume, case.labels)
        made[name] = result.regions.on_grid(result.counts, case.volume.array.shape)
    for a, b in combinations(METHODS, 2):
        both = (made[a] != 0) | (made[b] != 0)
        assert np.mean(made[a][both] == made[b][both]) < 0.5, (a, b)


def gradient_methods() -> list[str]:
    return [name for name in METHODS if issubclass(method_class(name), GradientMethod)]


def seen(case: CaseInMemory) -> tuple[np.ndarray, np.ndarray]:
    """Image (k, j, i) in window units and classes, as a network sees them."""
    window = IntensityWindow(float(case.volume.array.min()), float(case.volume.array.max()))
    return window.normalise(case.volume.array), case.labels.classes()


def whole_case(image: np.ndarray, classes: np.ndarray) -> Case:
    geometry = Geometry(image.shape[::-1])  # type: ignore[arg-type]
    volume = Volume(image.astype(np.float64), geometry)
    return channel_case(volume, 0, classes, find_regions(classes > 0, whole_image=True), IntensityWindow(0.0, 1.0))


def loss_on(method: GradientMethod, image: np.ndarray, noise: np.ndarray, classes: np.ndarray, wanted: bool) -> float:
    targets = torch.from_numpy(classes.astype(np.int64))[None, None]
    tensor = torch.from_numpy((image + noise).clip(0, 1).astype(np.float32))[None, None]
    with torch.no_grad():
        losses = [method.loss(network(tensor), method.wanted(targets) if wanted else targets) for network in method.networks]
    return float(torch.stack(losses).mean())


@pytest.fixture(scope="module")
def crops() -> list[tuple[np.ndarray, np.ndarray]]:
    """Two real cases cut to one shape that the networks take as it is."""
    return [tuple(array[:24, :32, :32] for array in seen(case)) for case in cases_of("3D multi-class")]  # type: ignore[misc]


@pytest.mark.parametrize("name", gradient_methods())
def test_the_loss_goes_where_the_method_wants_it_and_the_noise_belongs_to_its_case(
    name: str, crops: Sequence[tuple[np.ndarray, np.ndarray]]
) -> None:
    profile = fitted(name, "3D multi-class", 0, quick(name) | {"steps": 10.0, "step": 0.2}, steps=12)
    method = method_class(name).restore(profile.settings | {"scope": IMAGE}, profile.tensors)
    assert isinstance(method, GradientMethod)
    noises = []
    for image, classes in crops:
        parts = method.perturb(whole_case(image, classes), BOUND)
        noises.append(parts["noise"].values)
    (image, classes), own, foreign, none = crops[0], noises[0], noises[1], np.zeros_like(noises[0])
    aimed = [loss_on(method, image, noise, classes, wanted=True) for noise in (own, foreign, none)]
    assert aimed[0] < aimed[1], "another case's noise does less"
    assert aimed[0] < aimed[2]
    true = [loss_on(method, image, noise, classes, wanted=False) for noise in (own, none)]
    if name in ("tap", "sep"):
        assert true[0] > true[1], "targeted methods raise the loss of the truth"
    else:
        assert true[0] < true[1]


@pytest.mark.parametrize("name", ["lsp", "ar"])
def test_a_pattern_has_a_part_of_its_own_in_every_image(name: str, crops: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    profile = profile_of(name, "3D multi-class")
    method = method_class(name).restore(profile.settings | {"scope": IMAGE}, profile.tensors)
    classes = crops[0][1]
    first, again, other = (
        method.perturb(whole_case(image, classes), BOUND)["pattern"].values for image in (crops[0][0], crops[0][0], crops[1][0])
    )
    assert np.array_equal(first, again)
    assert np.mean(first == other) < 0.01


@pytest.mark.parametrize("name", [name for name in METHODS if issubclass(method_class(name), PatternMethod)])
def test_a_previewed_slab_has_the_pattern_of_the_whole(name: str) -> None:
    case = cases_of("3D multi-class")[0]
    protector = Protector(profile=profile_of(name, "3D multi-class"))
    whole = protector.protect(case.volume, case.labels).volume.array
    preview = Preview(protector, case.volume, case.labels)
    slab = preview.slab((preview.slices.start + preview.slices.stop) // 2, 3)
    slices, before = slab.slices, case.volume.array[slab.slices]
    changed = (slab.protected.array != before) & (whole[slices] != before)
    assert changed.any()
    assert np.mean(slab.protected.array[changed] == whole[slices][changed]) > 0.99


def test_salm_at_fraction_one_is_em() -> None:
    parameters = {"steps": 4.0, "step": 0.3, "visit": 2.0}
    em, salm = fitted("em", "3D multi-class", 0, parameters), fitted("salm", "3D multi-class", 0, parameters | {"fraction": 1.0})
    assert all(np.array_equal(em.tensors[key], salm.tensors[key]) for key in em.tensors)
    case = cases_of("3D multi-class")[0]
    one, other = (Protector(profile=p).protect(case.volume, case.labels).volume.array for p in (em, salm))
    assert np.array_equal(one, other)


def test_salm_changes_its_fraction() -> None:
    case = cases_of("3D multi-class")[0]
    result = Protector(profile=profile_of("salm", "3D multi-class", fraction=0.1)).protect(case.volume, case.labels)
    assert 0.05 < result.statistics.changed_fraction <= 0.101


class StopFitError(Exception):
    """What a progress receiver raises to end a fit."""


@pytest.mark.parametrize("name", ["umed", "voxshield", "em", "tap", "sep"])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_profile(
    name: str, hippocampus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedProtectLib.fitting.gradient_noise.SAVE_EVERY", 2)
    monkeypatch.setattr("MedProtectLib.fitting.cotrain.SAVE_EVERY", 2)
    options = FitOptions(method=name, bound=BOUND, steps=5, parameters=quick(name))
    cases = [CaseFiles("a", *hippocampus)]
    undisturbed = fit(cases, tmp_path / "whole.medprotect", options)

    def stop(progress: Progress) -> None:
        if progress.stage == "fit" and progress.done == 3:
            raise StopFitError

    with pytest.raises(StopFitError):
        fit(cases, tmp_path / "resumed.medprotect", options, report=stop)
    started: list[int] = []
    resumed = fit(
        cases, tmp_path / "resumed.medprotect", options, resume=True, report=lambda p: started.append(p.done) if p.stage == "fit" else None
    )
    assert started[0] == 3
    assert resumed.sha256() == undisturbed.sha256()
    with pytest.raises(MedProtectError, match="exists already"):
        fit(cases, tmp_path / "resumed.medprotect", options)


def test_a_class_that_the_profile_does_not_know_is_refused() -> None:
    case = cases_of("3D multi-class")[0]
    strange = LabelMap.from_array((case.labels.classes() > 0) * np.uint8(7), case.volume.geometry)
    with pytest.raises(MedProtectError, match="does not know the class '7', only 1, 2"):
        Protector(profile=profile_of("lsp", "3D multi-class")).protect(case.volume, strange)


def test_a_class_keeps_its_pattern_where_others_are_missing() -> None:
    case = cases_of("3D multi-class")[0]
    protector = Protector(profile=profile_of("lsp", "3D multi-class"))
    both = protector.protect(case.volume, case.labels)
    alone = protector.protect(case.volume, case.labels.select(["2"]))
    inside = case.labels.classes() == 2
    one, other = (r.regions.on_grid(r.counts, case.volume.array.shape)[inside] for r in (both, alone))
    assert np.mean(np.sign(one) == np.sign(other)) > 0.9


@pytest.mark.parametrize("name", ["lsp", "weave"])
def test_a_protector_without_a_profile_keeps_nothing_of_other_segments(name: str) -> None:
    case = cases_of("3D multi-class")[0]
    protector = Protector(name, seed=3)
    for chosen in (None, "1", "2"):
        labels = case.labels.select(chosen)
        alone = Protector(name, seed=3).protect(case.volume, labels)
        assert np.array_equal(protector.protect(case.volume, labels).volume.array, alone.volume.array), chosen


def test_a_protector_without_a_profile_keeps_nothing_of_another_class() -> None:
    case = cases_of("3D classification")[0]
    protector = Protector("weave", seed=3)
    for image_class in ("benign", "malignant"):
        labels = LabelMap.of_image_class(image_class, case.volume.geometry)
        assert protector.protect(case.volume, labels).statistics.psnr_db < 60


def test_segmentation_and_classification_are_not_mixed_up() -> None:
    case = cases_of("3D multi-class")[0]
    image_class = LabelMap.of_image_class("benign", case.volume.geometry)
    with pytest.raises(MedProtectError, match="was fitted for segmentation and was given a class"):
        Protector(profile=profile_of("lsp", "3D multi-class")).protect(case.volume, image_class)
    nodule_case = cases_of("3D classification")[0]
    with pytest.raises(MedProtectError, match="was fitted for classification"):
        Protector(profile=profile_of("lsp", "3D classification")).protect(case.volume, case.labels)
    with pytest.raises(MedProtectError, match="images of several classes"):
        Protector("em").protect(nodule_case.volume, nodule_case.labels)


def test_other_channels_than_fitted_are_refused() -> None:
    case = cases_of("2D multi-channel")[0]
    for name in ("em", "ar"):
        with pytest.raises(MedProtectError, match="3 channels"):
            Protector(profile=profile_of(name, "2D")).protect(case.volume, case.labels)


@pytest.mark.parametrize("given", [{"nosuch": 1.0}, {"fraction": 0.0}, {"fraction": 2.0}, {"steps": float("nan")}, {"steps": 2.5}])
def test_bad_parameters_are_wrong_usage(given: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Protector("salm", parameters=given)


def test_a_case_that_cannot_be_used_is_left_out_with_a_remark(tmp_path: Path) -> None:
    good = cases_of("3D multi-class")[0]
    constant = CaseInMemory(good.volume.with_array(np.ones_like(good.volume.array)), good.labels, "constant")
    cases: list[TrainingCase] = [good, replace(constant, name="constant")]
    profile = fit_in(tmp_path / "work", cases, FitOptions(method="tap", steps=1, parameters=quick("tap")), "test")
    assert len(profile.training["left_out"]) == 1
    assert "constant" in profile.training["left_out"][0]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("name", ["umed", "em"])
def test_two_processes_fit_what_one_does(name: str, tmp_path: Path) -> None:
    """To 1e-5 on the mean; a weight whose gradient is next to nothing may differ by Adam's four steps, since they follow its sign."""
    settings = ["--set", "steps=2"] if name == "em" else []
    dataset = ["fit", str(SAMPLES / "lidc_nodules"), "--method", name, "--dimension", "2", "--steps", "4", "--modality", "CT", *settings]
    starts = {"one": [sys.executable], "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    profiles = []
    for number, start in starts.items():
        command = [*start, "-m", "MedProtectLib", *dataset, "--output", str(tmp_path / f"{number}.medprotect"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('"ok": true') == 1
        profiles.append(Profile.load(tmp_path / f"{number}.medprotect"))
    one, two = profiles
    apart = np.concatenate([np.abs(one.tensors[key] - two.tensors[key]).ravel() for key in one.tensors])
    rate = 1e-3
    assert apart.mean() < 1e-5
    assert apart.max() <= 4 * rate
    assert one.training["final_surrogate_loss"] == pytest.approx(two.training["final_surrogate_loss"], abs=1e-3)
    assert not list(tmp_path.glob("*.work"))


def test_a_batch_is_divided_evenly_or_not_at_all() -> None:
    batch = Batch(*(torch.arange(4.0).reshape(4, 1, 1, 1) for _ in Batch._fields))
    team = Team()
    assert torch.equal(team.share_of(batch).image, batch.image)
    team.size = 2
    shares = []
    for team.rank in (0, 1):
        shares.append(team.share_of(batch).image.flatten())
    assert sorted(torch.cat(shares).tolist()) == [0, 1, 2, 3]
    team.size = 3
    with pytest.raises(UsageError, match="cannot be divided among 3 processes"):
        team.share_of(batch)
