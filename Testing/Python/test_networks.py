from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from MedProtectLib.networks.central_difference import CentralDifferenceConv
from MedProtectLib.networks.convolution import Conv3d
from MedProtectLib.networks.tiling import run_in_tiles
from MedProtectLib.networks.unet import GeneratorUNet


def naive_central_difference(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, theta: float) -> np.ndarray:
    out = np.zeros((weight.shape[0], *image.shape[1:]))
    padded = np.pad(image, [(0, 0), *[(1, 1)] * (image.ndim - 1)])
    for o in range(weight.shape[0]):
        for index in np.ndindex(image.shape[1:]):
            total = bias[o]
            for c in range(image.shape[0]):
                near = padded[(c, *(slice(n, n + 3) for n in index))]
                total += np.sum(weight[o, c] * near) - theta * image[(c, *index)] * np.sum(weight[o, c])
            out[(o, *index)] = total
    return out


@pytest.mark.parametrize("dimension", [2, 3])
def test_central_difference_convolution_follows_its_formula(dimension: int) -> None:
    torch.manual_seed(0)
    layer = CentralDifferenceConv(dimension, 2, 3, theta=0.7).double()
    image = torch.rand(1, 2, *[5] * dimension, dtype=torch.float64)
    expected = naive_central_difference(image[0].numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy(), 0.7)
    assert np.allclose(layer(image)[0].detach().numpy(), expected, atol=1e-12)


def test_central_difference_without_theta_is_a_convolution() -> None:
    layer = CentralDifferenceConv(2, 1, 4, theta=0.0)
    image = torch.rand(1, 1, 8, 8)
    assert torch.allclose(layer(image), functional.conv2d(image, layer.weight, layer.bias, padding=1))


def test_theta_is_learned() -> None:
    layer = CentralDifferenceConv(2, 1, 1)
    layer(torch.rand(1, 1, 5, 5)).square().sum().backward()
    assert layer.theta.grad is not None
    assert layer.theta.grad != 0


@pytest.mark.parametrize("engine", [True, False])
def test_convolution_is_pytorchs_with_and_without_its_engine(engine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: engine)
    layer, image = Conv3d(2, 3, 3), torch.rand(1, 2, 6, 7, 8)
    expected = functional.conv3d(image, layer.weight, layer.bias, padding=1)
    with torch.inference_mode():
        assert torch.allclose(layer(image), expected, atol=1e-6)
    layer(image).square().sum().backward()
    assert layer.weight.grad is not None


@pytest.fixture(scope="module")
def generators() -> list[GeneratorUNet]:
    torch.manual_seed(0)
    return [GeneratorUNet(3, (8, 8, 8), cdc).eval() for cdc in (True, False)]


def test_tiles_give_what_one_piece_gives(generators: list[GeneratorUNet]) -> None:
    image = np.random.default_rng(0).random((18, 70, 45), np.float32)
    wanted = np.ones(image.shape, bool)
    whole = run_in_tiles(generators, image, wanted, tile=128)
    tiles = run_in_tiles(generators, image, wanted, tile=16)
    for a, b in zip(whole, tiles, strict=True):
        assert a.std() > 1e-4
        assert np.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("core", [((0, 1), (0, 64), (3, 4)), ((9, 10), (20, 37), (0, 64)), ((19, 20), (63, 64), (30, 64))])
def test_a_part_of_the_output_is_what_the_whole_has_there(generators: list[GeneratorUNet], core: tuple) -> None:
    image = torch.rand(1, 1, 20, 64, 64)
    part = tuple(slice(a, b) for a, b in core)
    with torch.inference_mode():
        for network in generators:
            assert torch.allclose(network(image, part), network(image)[(..., *part)], atol=1e-6)


def test_bytes_do_not_depend_on_the_thread_count(generators: list[GeneratorUNet]) -> None:
    image = np.random.default_rng(0).random((20, 70, 70), np.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run_in_tiles(generators, image, np.ones(image.shape, bool)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_tiles_without_a_wanted_voxel_cost_nothing(generators: list[GeneratorUNet]) -> None:
    image = np.random.default_rng(0).random((16, 64, 64), np.float32)
    wanted = np.zeros(image.shape, bool)
    wanted[:, :16, :16] = True
    seen: list[int] = []
    output = run_in_tiles(generators, image, wanted, tile=16, report=lambda p: seen.append(p.total))
    assert seen == [2, 2]
    assert not output[0][:, 16:].any()


def test_a_receiver_that_raises_ends_the_run(generators: list[GeneratorUNet]) -> None:
    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_tiles(generators, np.zeros((16, 64, 64), np.float32), np.ones((16, 64, 64), bool), tile=16, report=stop)
