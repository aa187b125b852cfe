"""Images whose channels are images of their own: nnU-Net's channel files as one case, and NIfTI files of four axes."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from made_images import metaimage
from MedProtectLib import Protector, read_volume
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import CaseInMemory, FitOptions, fit_in
from MedProtectLib.io import channel_files, sha256_file, write_volume
from MedProtectLib.io.channels import together
from MedProtectLib.io.nrrd import new_source
from MedProtectLib.methods import METHODS, method_class
from MedProtectLib.preview import Preview
from MedProtectLib.profile import Profile
from MedProtectLib.protection import Protection
from MedProtectLib.regions import find_regions
from MedProtectLib.volume import Geometry, LabelMap, Volume
from MedProtectLib.window import IntensityWindow, choose_windows
from samples import SAMPLES, Run

BOUND = 8 / 255


def two_sequences(number: int) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """A real MR, its voxels, and the same anatomy as a CT would store it: int16, another range, no zero background."""
    names = sorted(p.name for p in (SAMPLES / "hippocampus" / "imagesTr").glob("*.nii.gz"))
    image = nib.load(SAMPLES / "hippocampus" / "imagesTr" / names[number])
    array = np.asarray(image.dataobj, np.float32)
    return image, array, np.rint(array / array.max() * 2500 - 1000).astype(np.int16)


def labels_of(number: int) -> Path:
    return sorted((SAMPLES / "hippocampus" / "labelsTr").glob("*.nii.gz"))[number]


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of two channels: an MR in float32, and a CT in uint16 with slope and intercept."""
    folder = tmp_path_factory.mktemp("nnunet")
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
    for number, case in enumerate("ab"):
        image, mr, ct = two_sequences(number)
        nib.save(nib.Nifti1Image(mr, image.affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        scaled = nib.Nifti1Image((ct + 1024).astype(np.uint16), image.affine)
        scaled.header.set_slope_inter(1.0, -1024.0)
        nib.save(scaled, folder / "imagesTr" / f"{case}_0001.nii.gz")
        shutil.copy(labels_of(number), folder / "labelsTr" / f"{case}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases of one file (x, y, z, sequence), as Decathlon has them for brain tumours and the prostate."""
    folder = tmp_path_factory.mktemp("decathlon")
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
    for number, case in enumerate(("BRATS_001", "BRATS_002")):
        image, mr, ct = two_sequences(number)
        nib.save(nib.Nifti1Image(np.stack([mr, ct.astype(np.float32)], -1), image.affine), folder / "imagesTr" / f"{case}.nii.gz")
        shutil.copy(labels_of(number), folder / "labelsTr" / f"{case}.nii.gz")
    return folder


def first(dataset: Path) -> CaseInMemory:
    return CaseInMemory(*find_cases(dataset)[0].read(), "first")


def quick(name: str) -> dict[str, float]:
    known = method_class(name).parameters
    return {key: value for key, value in {"steps": 2.0, "visit": 1.0, "step": 0.5, "checkpoints": 2.0}.items() if key in known}


@pytest.fixture(scope="module")
def protections(nnunet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Protection]:
    """The first nnU-Net case by every method, fitted on it in one step."""
    case = first(nnunet)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedProtectLib.fitting.training.PATCH", {2: (32, 32), 3: (16, 16, 16)})
        patch.setattr("MedProtectLib.fitting.training.BATCH", {2: 1, 3: 1})
        for name in METHODS:
            options = FitOptions(method=name, bound=BOUND, steps=1, parameters=quick(name))
            profile = fit_in(tmp_path_factory.mktemp(name) / "work", [case], options, "test")
            made[name] = Protector(profile=profile).protect(case.volume, case.labels)
    return made


def test_a_channel_group_is_one_volume(nnunet: Path) -> None:
    path = nnunet / "imagesTr" / "a.nii.gz"
    assert channel_files(path) == (nnunet / "imagesTr" / "a_0000.nii.gz", nnunet / "imagesTr" / "a_0001.nii.gz")
    volume, (mr, ct) = read_volume(path), (read_volume(file) for file in channel_files(path))
    assert volume.array.shape == (*mr.array.shape, 2)
    assert volume.array.dtype == np.float32, "the smallest type that holds float32 and uint16 exactly"
    for part, alone in zip(volume.parts(), (mr, ct), strict=True):
        assert np.array_equal(part.array, alone.array)
        assert part.array.dtype == alone.array.dtype
        assert (part.slope, part.intercept) == (alone.slope, alone.intercept)
        assert part.geometry == alone.geometry
    assert volume.parts()[1].in_units(np.array(1024)) == 0
    both = b"".join(file.read_bytes() for file in channel_files(path))
    assert sha256_file(path) == hashlib.sha256(both).hexdigest()


def test_a_group_is_written_file_by_file_with_the_headers_it_had(nnunet: Path, tmp_path: Path) -> None:
    path = nnunet / "imagesTr" / "a.nii.gz"
    volume = read_volume(path)
    write_volume(volume.with_array(volume.array[::-1].copy()), tmp_path / "b.nii.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b_0000.nii.gz", "b_0001.nii.gz"]
    for number, file in enumerate(channel_files(path)):
        before, after = (gzip.decompress(p.read_bytes()) for p in (file, tmp_path / f"b_000{number}.nii.gz"))
        assert before[:352] == after[:352]
        ours = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"b_000{number}.nii.gz"))
        assert np.array_equal(ours, sitk.GetArrayFromImage(sitk.ReadImage(file))[::-1])
    with pytest.raises(MedProtectError, match=r"would replace 'a_0000\.nii\.gz' of the original"):
        write_volume(volume, path)


def test_a_group_that_cannot_be_written_leaves_nothing(nnunet: Path, tmp_path: Path) -> None:
    volume = read_volume(nnunet / "imagesTr" / "a.nii.gz")
    (tmp_path / "b_0001.nii.gz").mkdir()
    with pytest.raises(MedProtectError, match="cannot be written"):
        write_volume(volume, tmp_path / "b.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["b_0001.nii.gz"]


@pytest.mark.parametrize("fourth", ["x y z c", "x y z 1 c", "x y 1 c"])
def test_a_nifti_file_of_several_images_reads_as_channels(fourth: str, tmp_path: Path) -> None:
    image, mr, ct = two_sequences(0)
    stacked = np.stack([mr, ct.astype(np.float32)], -1)
    stacked = {"x y z c": stacked, "x y z 1 c": stacked[:, :, :, None], "x y 1 c": stacked[:, :, 12:13]}[fourth]
    nib.save(nib.Nifti1Image(stacked, image.affine), tmp_path / "in.nii.gz")
    volume = read_volume(tmp_path / "in.nii.gz")
    grid = stacked.reshape(*stacked.shape[:3], 2)
    assert np.array_equal(volume.array, np.moveaxis(grid, (2, 1, 0, 3), (0, 1, 2, 3)))
    assert len(volume.channel_types) == 2
    write_volume(volume, tmp_path / "out.nii.gz")
    assert gzip.decompress((tmp_path / "out.nii.gz").read_bytes()) == gzip.decompress((tmp_path / "in.nii.gz").read_bytes())
    swapped = volume.with_array(volume.array[..., ::-1].copy())
    write_volume(swapped, tmp_path / "out.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj), stacked[..., ::-1])


def windows_of(volume: Volume) -> list[IntensityWindow]:
    marked = np.zeros(volume.geometry.shape, bool)
    marked[..., 10:20, 10:20] = True
    return list(choose_windows(volume, find_regions(marked, planar=volume.geometry.dimension == 2)))


@pytest.mark.parametrize("order", [(np.uint8, np.uint16), (np.uint16, np.uint8)])
def test_a_photograph_in_a_group_has_the_window_that_it_has_alone(
    order: tuple[type, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    for number, dtype in enumerate(order):
        picture = rng.integers(0, 250 if dtype == np.uint8 else 60000, (40, 40)).astype(dtype)
        sitk.WriteImage(sitk.GetImageFromArray(picture), tmp_path / f"case_{number:04d}.png")
    alone = [window for number in range(2) for window in windows_of(read_volume(tmp_path / f"case_{number:04d}.png"))]
    assert windows_of(read_volume(tmp_path / "case.png")) == alone
    assert (alone[order.index(np.uint8)].low, alone[order.index(np.uint8)].high) == (0, 255)


@pytest.mark.parametrize("modalities", [("MET_MOD_CT", "MET_MOD_MR"), ("MET_MOD_MR", "MET_MOD_CT")])
def test_a_channel_in_a_group_keeps_the_modality_of_its_file(modalities: tuple[str, str], tmp_path: Path, rng: np.random.Generator) -> None:
    for number, modality in enumerate(modalities):
        array = rng.integers(-100, 300, (6, 40, 40)).astype(np.int16)
        (tmp_path / f"case_{number:04d}.mha").write_bytes(metaimage(array, Modality=modality))
    alone = [window for number in range(2) for window in windows_of(read_volume(tmp_path / f"case_{number:04d}.mha"))]
    assert windows_of(read_volume(tmp_path / "case.mha")) == alone
    assert not any(window.guessed for window in alone)


def test_channels_keep_their_padding_values() -> None:
    volumes = [
        Volume(np.ones((3, 5, 5), np.int16), Geometry((5, 5, 3)), padding_value=value, padding_limit=limit)
        for value, limit in ((-2000.0, -1990.0), (7.0, None))
    ]
    parts = together(Path("case.nrrd"), [replace(volume, source=new_source(volume, ".nrrd")) for volume in volumes]).parts()
    assert [(part.padding_value, part.padding_limit) for part in parts] == [(-2000.0, -1990.0), (7.0, None)]


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_the_channels_of_a_case_are_found_together(layout: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(layout)
    cases = find_cases(dataset)
    assert [case.name for case in cases] == (["a", "b"] if layout == "nnunet" else ["BRATS_001", "BRATS_002"])
    for case in cases:
        volume, labels = case.read()
        assert len(volume.parts()) == 2
        assert labels.geometry.same_grid(volume.geometry)
        assert all(file.is_file() for file in case.files)
        assert len(case.image_files) == (2 if layout == "nnunet" else 1)


@pytest.mark.parametrize("name", METHODS)
def test_every_channel_keeps_the_bound_in_its_own_window(name: str, protections: dict[str, Protection]) -> None:
    result = protections[name]
    found = result.statistics
    assert [w.unit for w in result.windows] == ["stored units", "HU"]
    assert len(found.channels) == len(result.parts()) == 2
    for part, measured, window in zip(result.parts(), found.channels, result.windows, strict=True):
        change = part.volume.array.astype(np.float64) - part.original.array
        assert np.abs(change).max() > 0
        assert measured.max_abs_change_units == pytest.approx(np.abs(change).max())
        assert np.abs(change).max() <= BOUND * window.width * (1 + 1e-6)
        assert measured.changed_outside_regions == 0
        assert measured.window == (window.low, window.high)
        assert part.volume.array.dtype == part.original.array.dtype


def test_every_channel_keeps_the_levels_that_it_is_stored_with(protections: dict[str, Protection]) -> None:
    """The MR's float values lie on a grid of whole numbers of its own step, the CT's on all integers."""
    for part, step in zip(protections["lsp"].parts(), protections["lsp"].steps, strict=True):
        change = part.volume.array.astype(np.float64) - part.original.array
        assert np.abs(np.rint(change / step) * step - change).max() < 0.01 * step
    mr, ct = protections["lsp"].steps
    assert mr == pytest.approx(np.diff(np.unique(protections["lsp"].parts()[0].original.array)).min(), rel=0.1)
    assert (mr > 1.5, ct) == (True, 1.0)


def test_the_padding_of_one_channel_stays_as_it_is(nnunet: Path) -> None:
    """A tracer image is zero in places where the anatomy is not."""
    case = first(nnunet)
    tracer = case.volume.array.copy()
    tracer[..., 1][tracer[..., 1] < np.percentile(tracer[..., 1], 60)] = tracer[..., 1].min()
    volume = case.volume.with_array(tracer)
    result = Protector("lsp", bound=BOUND, scope="image").protect(volume, case.labels)
    floor, changed = tracer[..., 1] == tracer[..., 1].min(), result.volume.array != tracer
    assert not changed[floor, 1].any()
    assert changed[floor, 0].any()
    assert changed[~floor, 1].any()


def test_pooled_numbers_are_those_of_the_channels_in_window_units(protections: dict[str, Protection]) -> None:
    result = protections["lsp"]
    found = result.statistics
    scaled = [
        (part.volume.array.astype(np.float64) - part.original.array) * part.original.slope / window.width
        for part, window in zip(result.parts(), result.windows, strict=True)
    ]
    change = np.stack(scaled, -1)
    touched = result.regions.on_grid(result.regions.touched, result.original.geometry.shape)
    assert found.psnr_db == pytest.approx(-10 * np.log10(np.mean(change**2)))
    assert found.psnr_roi_db == pytest.approx(-10 * np.log10(np.mean(change[touched] ** 2)))
    per_slice = [-10 * np.log10(np.mean(s**2)) if s.any() else None for s in change]
    assert found.per_slice_psnr_db == pytest.approx(per_slice)
    assert found.max_abs_change[0] == found.max_abs_change_units == pytest.approx(np.abs(change).max())
    assert found.roi_mean_shift == pytest.approx(change[touched].mean())
    assert found.changed_voxels == np.count_nonzero(change.any(axis=-1))
    assert found.changed_fraction == pytest.approx(np.mean(change[touched].any(axis=-1)))
    assert found.window == (0.0, 1.0)
    assert found.ssim == pytest.approx(np.mean([c.ssim for c in found.channels]))
    total = sum(result.components[name] for name in result.components)
    assert np.allclose(total, change, atol=1e-6)


def test_a_psnr_target_holds_for_every_channel(nnunet: Path) -> None:
    case = first(nnunet)
    found = Protector("lsp", bound=BOUND, target_psnr=50.1).protect(case.volume, case.labels).statistics
    assert [c.psnr_db for c in found.channels] == pytest.approx([50.1, 50.1], abs=0.5)
    assert found.psnr_db == pytest.approx(50.1, abs=0.5)


def test_channels_of_a_group_do_what_they_do_alone(nnunet: Path) -> None:
    """A method that sees channels one by one gives each channel of a group the bytes that it gives to the file alone."""
    case = first(nnunet)
    together = Protector("umed").protect(case.volume, case.labels).parts()
    for part, file in zip(together, channel_files(nnunet / "imagesTr" / "a.nii.gz"), strict=True):
        alone = Protector("umed").protect(read_volume(file), case.labels)
        assert np.array_equal(alone.volume.array, part.volume.array)
        assert alone.statistics == part.statistics


def with_padding(case: CaseInMemory, padding: tuple[slice, ...]) -> Volume:
    """The case with nothing in a part of its second channel."""
    array = case.volume.array.copy()
    array[..., 1][padding] = array[..., 1].min()
    return case.volume.with_array(array)


@pytest.mark.parametrize("target", [None, 50.1, 62.0])
def test_a_channel_with_padding_of_its_own_is_protected_as_it_is_alone(target: float | None, nnunet: Path) -> None:
    case = first(nnunet)
    volume = with_padding(case, np.s_[:, :, 18:])
    together = Protector("umed", target_psnr=target).protect(volume, case.labels).parts()
    for part, original in zip(together, volume.parts(), strict=True):
        alone = Protector("umed", target_psnr=target).protect(original, case.labels)
        assert np.array_equal(alone.volume.array, part.volume.array)
        assert alone.window == part.window


def pictures(folder: Path) -> tuple[Volume, LabelMap]:
    """A group of two pictures, of which the second is black below."""
    light = np.random.default_rng(0).integers(5, 250, (2, 64, 64)).astype(np.uint8)
    light[1, 32:] = 0
    for number, picture in enumerate(light):
        Image.fromarray(picture).save(folder / f"p_000{number}.png")
    volume = read_volume(folder / "p.png")
    inside = np.zeros((1, 64, 64), np.uint8)
    inside[:, 10:54, 10:54] = 1
    return volume, LabelMap.from_array(inside, volume.geometry)


@pytest.mark.parametrize("method", ["umed", "lsp", "weave"])
def test_the_padding_of_one_picture_of_a_group_stays_as_it_is(method: str, tmp_path: Path) -> None:
    volume, labels = pictures(tmp_path)
    changed = Protector(method, seed=1).protect(volume, labels).volume.array != volume.array
    assert not changed[:, 32:, :, 1].any()
    assert changed[:, 32:, :, 0].any()
    assert changed[:, :32, :, 1].any()


def test_a_channel_with_nothing_to_protect_is_refused_by_its_name(nnunet: Path) -> None:
    case = first(nnunet)
    labelled = np.argwhere(case.labels.classes())
    padding = tuple(slice(a, b + 1) for a, b in zip(labelled.min(axis=0) - 5, labelled.max(axis=0) + 5, strict=True))
    with pytest.raises(MedProtectError, match=r"channel 1: every labelled voxel is padding in this channel"):
        Protector("umed").protect(with_padding(case, padding), case.labels)


def test_a_slab_where_one_channel_is_padding_is_previewed(nnunet: Path) -> None:
    case = first(nnunet)
    k = int(np.argwhere(case.labels.classes())[:, 0].min()) + 3
    slab = Preview(Protector("umed"), with_padding(case, (slice(k + 1),)), case.labels).slab(k)
    changed = slab.protected.array != slab.original.array
    assert (changed[..., 0].any(), changed[..., 1].any()) == (True, False)


def test_a_previewed_slab_of_several_channels(nnunet: Path) -> None:
    case = first(nnunet)
    protector = Protector("umed")
    whole = protector.protect(case.volume, case.labels).volume.array
    preview = Preview(protector, case.volume, case.labels)
    slab = preview.slab((preview.slices.start + preview.slices.stop) // 2, 3)
    changed = slab.protected.array != case.volume.array[slab.slices]
    assert changed.any(axis=(0, 1, 2)).all()
    assert np.mean(slab.protected.array[changed] == whole[slab.slices][changed]) > 0.99
    assert slab.statistics is not None
    assert len(slab.statistics.channels) == 2


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_from_the_dataset_to_the_verified_files(layout: str, request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> None:
    dataset = request.getfixturevalue(layout)
    case = find_cases(dataset)[0]
    profile, out = tmp_path / "p.medprotect", tmp_path / "out"
    code, answer, err = run("fit", dataset, "--method", "lsp", "--output", profile, "--json")
    assert code == 0, err
    assert len(json.loads(answer)["training"]["cases"]) == 2
    assert Profile.load(profile).settings["image_channels"] == 2
    command = ("protect", case.image, "--labels", case.labels, "--output", out, "--profile", profile)
    code, answer, err = run(*command, "--json")
    assert code == 0, err
    assert err.count("intensity window") == 2
    record = json.loads((out / f"{case.name}_record.json").read_text())
    told = record["statistics"]
    assert json.loads(answer)["statistics"] == told
    assert [len(told["channels"]), told["window"]] == [2, [0.0, 1.0]]
    assert "channels" not in told["channels"][0]
    kept = json.loads((tmp_path / "out_private" / f"{case.name}_private_record.json").read_text())
    assert [[w["low"], w["high"]] for w in kept["window"]] == [channel["window"] for channel in told["channels"]]
    files = sorted(p.name for p in (*out.iterdir(), *(tmp_path / "out_private").iterdir()))
    for number in (0, 1):
        assert f"{case.name}_report_000{number}.html" in files
        assert f"{case.name}_overlay_000{number}.png" in files
    counts = read_volume(tmp_path / "out_private" / f"{case.name}_perturbation.nrrd").array
    assert counts.shape == (*case.read()[0].array.shape,)
    protected = out / f"{case.name}_protected.nii.gz"
    assert channel_files(protected) if layout == "nnunet" else protected.is_file()
    code, answer, err = run("verify", case.image, protected, "--labels", case.labels, "--json")
    assert code == 0, err
    assert json.loads(answer)["statistics"]["psnr_db"] == pytest.approx(told["psnr_db"])
    code, answer, err = run("verify", case.image, protected, "--labels", case.labels)
    assert (answer.count("channel 0"), answer.count("channel 1")) == (1, 1)
    again = run(*command)
    assert again[0] == 1
    assert "protected already" in again[2]
    assert run(*command, "--overwrite")[0] == 0
    assert sorted(p.name for p in (*out.iterdir(), *(tmp_path / "out_private").iterdir())) == files


def test_a_group_can_be_given_file_by_file_and_a_changed_file_is_found_out(nnunet: Path, run: Run, tmp_path: Path) -> None:
    files, named, labels = sorted((nnunet / "imagesTr").glob("a_*")), nnunet / "imagesTr" / "a.nii.gz", nnunet / "labelsTr" / "a.nii.gz"
    options = ("--labels", labels, "--method", "lsp", "--json")
    for wrong in ((files[0], nnunet / "imagesTr" / "b_0000.nii.gz"), files[::-1], (files[0], labels)):
        code, _, err = run("protect", *wrong, *options, "--output", tmp_path / "out")
        assert (code, len(err.strip().splitlines())) == (2, 1)
        assert "all channels of one case" in err
    assert run("protect", *files, *options, "--output", tmp_path / "out")[0] == 0
    verify = ("verify", named, tmp_path / "out" / "a_protected.nii.gz", "--labels", labels)
    assert run(*verify)[0] == 0
    shutil.copy(files[1], tmp_path / "out" / "a_protected_0001.nii.gz")
    code, _, err = run(*verify)
    assert code == 1
    assert "SHA-256 differs" in err


def test_one_channel_alone_can_be_protected(nnunet: Path, run: Run, tmp_path: Path) -> None:
    image, labels = nnunet / "imagesTr" / "a_0000.nii.gz", nnunet / "labelsTr" / "a.nii.gz"
    assert run("protect", image, "--labels", labels, "--output", tmp_path / "out", "--method", "lsp")[0] == 0
    record = json.loads((tmp_path / "out" / "a_0000_record.json").read_text())
    assert "channels" not in record["statistics"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_0000_protected.nii.gz", "a_0000_record.json"]


def test_a_profile_of_one_channel_refuses_two(nnunet: Path, run: Run, tmp_path: Path) -> None:
    one = nnunet / "imagesTr" / "a_0000.nii.gz", nnunet / "labelsTr" / "a.nii.gz"
    profile = tmp_path / "p.medprotect"
    assert run("fit", one[0], "--labels", one[1], "--method", "ar", "--output", profile)[0] == 0
    both = nnunet / "imagesTr" / "a.nii.gz"
    code, _, err = run("protect", both, "--labels", one[1], "--output", tmp_path / "out", "--profile", profile)
    assert (code, "the image has 2 channels" in err) == (1, True)
    assert not (tmp_path / "out").exists()


BAD_GROUPS = {
    "gap": "this channel is missing",
    "another grid": "not on the grid of",
    "colours": "it has channels itself",
    "no common type": "no type holds the values",
    "constant channel": "channel 1: the image is constant",
}


@pytest.mark.parametrize("what", BAD_GROUPS)
def test_groups_that_make_no_sense_are_one_line(what: str, nnunet: Path, run: Run, tmp_path: Path) -> None:
    image, mr, ct = two_sequences(0)
    second = {
        "gap": mr,
        "another grid": mr[:-1],
        "colours": np.stack([mr, mr], -1),
        "no common type": ct.astype(np.int64),
        "constant channel": np.zeros_like(mr),
    }[what]
    nib.save(nib.Nifti1Image(mr, image.affine), tmp_path / "a_0000.nii.gz")
    nib.save(nib.Nifti1Image(second, image.affine, dtype=second.dtype), tmp_path / f"a_000{2 if what == 'gap' else 1}.nii.gz")
    code, out, err = run("protect", tmp_path / "a.nii.gz", "--labels", nnunet / "labelsTr" / "a.nii.gz", "--output", tmp_path / "out")
    assert (code, out, len([line for line in err.splitlines() if "notice" not in line])) == (1, "", 1)
    assert BAD_GROUPS[what] in err
    assert not (tmp_path / "out").exists()


def test_a_path_without_any_file_is_still_no_such_file(run: Run, tmp_path: Path, nnunet: Path) -> None:
    image, labels = nnunet / "imagesTr" / "c.nii.gz", nnunet / "labelsTr" / "a.nii.gz"
    code, _, err = run("protect", image, "--labels", labels, "--output", tmp_path / "out")
    assert (code, "no such file" in err) == (1, True)


def test_channels_of_two_formats_are_refused_rather_than_dropped(nnunet: Path, tmp_path: Path) -> None:
    shutil.copytree(nnunet, tmp_path / "data")
    other = tmp_path / "data" / "imagesTr" / "b_0001.nii.gz"
    sitk.WriteImage(sitk.ReadImage(other), other.with_name("b_0001.nrrd"))
    other.unlink()
    with pytest.raises(MedProtectError, match=r"b_0000.nii.gz, b_0001.nrrd are neither one image nor its channels"):
        find_cases(tmp_path / "data")
