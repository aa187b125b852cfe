"""Victims on the device of the process, and their tensors on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audit_samples import nodule_slices
from MedProtectLib.audit.registry import regime_of
from MedProtectLib.audit.training import fresh_victim, score, train_victim
from MedProtectLib.device import placed, process_device

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning")


class Watcher(nn.Module):
    """Remembers where its input lay."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = ""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images.device.type
        return torch.zeros(1) if images.is_meta else images * self.weight


def test_a_placed_network_gets_its_input_where_its_weights_are_and_tells_it_on_the_cpu() -> None:
    network = Watcher()
    told = placed(network, torch.device("meta"))(torch.ones(2))
    assert (network.seen, network.weight.device.type, told.device.type) == ("meta", "meta", "cpu")


def test_gradients_pass_through_a_placed_network() -> None:
    network, images = placed(Watcher(), torch.device("cpu")), torch.ones(2, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
    assert images.grad.tolist() == [1.0, 1.0]


def test_a_victim_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedProtectLib.audit.training.process_device", lambda: torch.device("meta"))
    victim = fresh_victim(nodule_slices(), "unet", 0)
    assert {parameter.device.type for parameter in victim.parameters()} == {"meta"}


@pytest.mark.skipif(process_device().type == "cpu", reason="torch finds no GPU")
@pytest.mark.parametrize("regime", ["none", "augmented", "mixup", "adversarial2", "ueraser", "jpeg75"])
def test_a_victim_on_a_gpu_learns_as_on_the_processor(regime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = nodule_slices()
    scores = []
    for device in (process_device(), torch.device("cpu")):
        monkeypatch.setattr("MedProtectLib.audit.training.process_device", lambda device=device: device)
        trained = train_victim(data, data.samples("train"), regime_of(regime), "unet", steps=20)
        scores.append(score(trained.last, data.samples("test"), data, distances=False).mean)
    assert scores[0] == pytest.approx(scores[1], abs=0.1)
