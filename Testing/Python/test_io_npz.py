"""MedMNIST files written anew: what is exchanged, and all the rest byte for byte."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from MedProtectLib import Protector
from MedProtectLib.errors import MedProtectError
from MedProtectLib.fitting.dataset import find_cases
from MedProtectLib.fitting.fit import FitOptions, fit_in
from MedProtectLib.io.npz import member_array, member_volume, rewrite
from MedProtectLib.io.volumes import read_volume
from samples import SAMPLES


def slices(count: int) -> np.ndarray:
    """Slices of the bundled CT as 8-bit pictures (n, j, i)."""
    array = read_volume(SAMPLES / "totalseg_ct" / "ct.nii.gz").array[5 : 5 + count, 20:60, 30:70]
    return np.clip((array.astype(np.float64) + 200) / 500 * 255, 0, 255).astype(np.uint8)


@pytest.fixture(params=[np.savez, np.savez_compressed])
def medmnist(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pictures, labels = slices(4), np.array([[0], [1], [0], [1]], np.uint8)
    parts = {f"{part}_{kind}": value for part in ("train", "val", "test") for kind, value in (("images", pictures), ("labels", labels))}
    request.param(tmp_path / "in.npz", **parts)
    return tmp_path / "in.npz"


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_protected_part_goes_back_into_its_place(medmnist: Path, tmp_path: Path) -> None:
    cases = find_cases(medmnist, "train")
    options = FitOptions(method="lsp", dimension=2, bound=8 / 255, modality="US")
    protector = Protector(profile=fit_in(tmp_path / "work", cases, options, "test"))
    before = np.load(medmnist)["train_images"]
    after = before.copy()
    for case in cases:
        assert case.member is not None
        after[case.member] = member_array(protector.protect(*case.read()).volume)
    rewrite(medmnist, tmp_path / "out.npz", {"train_images": after})
    old, new = members(medmnist), members(tmp_path / "out.npz")
    assert list(old) == list(new), "keys and their order"
    assert [name for name in old if old[name] != new[name]] == ["train_images.npy"]
    stored = np.load(tmp_path / "out.npz")["train_images"]
    assert stored.dtype == before.dtype
    assert np.array_equal(stored, after)
    change = stored.astype(int) - before
    assert all(picture.any() for picture in change)
    assert np.abs(change).max() == 8
    with zipfile.ZipFile(medmnist) as a, zipfile.ZipFile(tmp_path / "out.npz") as b:
        assert [e.compress_type for e in a.infolist()] == [e.compress_type for e in b.infolist()]
    assert not list(tmp_path.glob("*.part"))


def test_nothing_exchanged_is_the_same_file_and_twice_the_same_bytes(medmnist: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        rewrite(medmnist, tmp_path / f"{name}.npz", {"test_images": slices(4)[::-1]})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    rewrite(medmnist, tmp_path / "same.npz", {})
    assert members(tmp_path / "same.npz") == members(medmnist)


@pytest.mark.parametrize("shape", [(3, 12, 10), (3, 12, 10, 3), (3, 9, 12, 10)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_members_of_every_shape_go_there_and_back(shape: tuple[int, ...], order: str, tmp_path: Path) -> None:
    images = np.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), order=order)  # type: ignore[call-overload]
    np.savez(tmp_path / "in.npz", train_images=images)
    volumes = [member_volume(images, n, str(n)) for n in range(3)]
    assert volumes[0].geometry.dimension == (3 if shape == (3, 9, 12, 10) else 2)
    turned = np.stack([member_array(v.with_array(v.array[:, ::-1].copy())) for v in volumes])
    rewrite(tmp_path / "in.npz", tmp_path / "out.npz", {"train_images": turned})
    expected = images[:, ::-1] if volumes[0].geometry.dimension == 2 else images[:, :, ::-1]
    assert np.array_equal(np.load(tmp_path / "out.npz")["train_images"], expected)


def test_what_does_not_fit_is_refused_and_leaves_nothing(medmnist: Path, tmp_path: Path) -> None:
    target, pictures = tmp_path / "out.npz", slices(4)
    for arrays, reason in (
        ({"nosuch": pictures}, "no array 'nosuch'"),
        ({"train_images": pictures.astype(np.int16)}, "uint8"),
        ({"train_images": pictures[:3]}, "'train_images' is uint8"),
    ):
        with pytest.raises(MedProtectError, match=reason):
            rewrite(medmnist, target, arrays)
    with pytest.raises(MedProtectError, match="would replace the original"):
        rewrite(medmnist, medmnist, {})
    damaged = tmp_path / "damaged.npz"
    for content in (b"", b"no archive", medmnist.read_bytes()[:300], damage(medmnist)):
        damaged.write_bytes(content)
        with pytest.raises(MedProtectError, match=r"damaged\.npz"):
            rewrite(damaged, target, {})
    with pytest.raises(MedProtectError, match="cannot be read or written"):
        rewrite(medmnist, tmp_path / "nosuch" / "out.npz", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged.npz", "in.npz"]


def damage(file: Path) -> bytes:
    """The file with one byte of its first array changed, which its checksum shows."""
    content = bytearray(file.read_bytes())
    content[200] ^= 255
    assert zipfile.is_zipfile(io.BytesIO(content))
    return bytes(content)
