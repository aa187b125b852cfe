"""The real nnU-Net as a victim. Training it takes minutes, so that here it is trained only where it is installed and asked for."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from audit_samples import nodules, pictures
from MedProtectLib.audit import nnunet
from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.audit.nnunet import DATASET, check_nnunet, train_nnunet
from MedProtectLib.audit.training import score
from MedProtectLib.errors import MedProtectError, UsageError


def few() -> AuditData:
    data = nodules()
    return replace(data, cases={split: cases[:2] for split, cases in data.cases.items()})


def test_the_raw_layout_holds_what_was_released(tmp_path: Path) -> None:
    data = few()
    released = [Sample(s.case, s.image + np.float32(0.01)) for s in data.samples("train")]
    nnunet._write_raw(tmp_path, data, released)
    raw = tmp_path / "raw" / DATASET
    content = json.loads((raw / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "class 1": 1}
    assert (content["channel_names"], content["numTraining"]) == ({"0": "CT"}, 4)
    assert len(list((tmp_path / "test").iterdir())) == 2
    for sample, change in [(s, 0.01) for s in released] + [(s, 0.0) for s in data.samples("val")]:
        name, window = sample.case.name, sample.case.windows[0]
        image, label = (sitk.ReadImage(str(raw / path)) for path in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"))
        stored = sample.case.volume.array + change * window.width
        assert sitk.GetArrayFromImage(image) == pytest.approx(stored, abs=0.01)
        assert np.array_equal(sitk.GetArrayFromImage(label), sample.case.target)
        assert image.GetSpacing() == pytest.approx(sample.case.volume.geometry.spacing) == label.GetSpacing()


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnunet, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"medprotect\[nnunet\]"):
        check_nnunet(nodules(), "none")
    monkeypatch.setattr(nnunet, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match="own augmentation"):
        check_nnunet(nodules(), "augmented")
    with pytest.raises(UsageError, match="for classification"):
        check_nnunet(pictures(), "none")


def test_a_failing_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnunet, "find_spec", lambda name: object())
    monkeypatch.setattr(nnunet.sys, "executable", "false")
    with pytest.raises(MedProtectError, match="nnU-Net stopped"):
        train_nnunet(few(), few().samples("train"), steps=10)


class Trainer:
    """nnU-Net's, without a network: every epoch only sees a score."""

    def __init__(self, scores: list[float], folder: Path) -> None:
        self.scores, self.output_folder, self.logger = scores, str(folder), self
        self.num_epochs = self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = self.current_epoch = 0
        self.lengths: list[int] = []

    def on_epoch_start(self) -> None:
        self.lengths.append(self.num_iterations_per_epoch)

    def on_epoch_end(self) -> None:
        self.current_epoch += 1

    def get_value(self, key: str, step: int | None) -> list[float]:
        return self.scores[: self.current_epoch + 1]

    def save_checkpoint(self, path: str) -> None:
        Path(path).write_text(str(self.current_epoch))

    def run_training(self) -> None:
        for _ in range(self.num_epochs):
            self.on_epoch_start()
            self.on_epoch_end()


class Scales(nn.Module):
    """A convolution, told at several scales, that remembers in what precision it told."""

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.convolution, self.scales, self.seen = nn.Conv2d(1, 3, 3), scales, []

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        told = self.convolution(images)
        self.seen.append(told.dtype)
        return told if self.scales == 1 else [told] * self.scales


@pytest.mark.parametrize(
    ("scores", "best"), [([0.1, 0.5, 0.2, 0.5], 1), ([math.nan, 0.0, math.nan, 0.3], 3), ([math.nan] * 4, 0), ([0.4, 0.3, 0.2, 0.1], 0)]
)
def test_the_network_of_the_highest_look_is_kept(scores: list[float], best: int, tmp_path: Path) -> None:
    trainer = Trainer(scores, tmp_path)
    nnunet._watch(trainer, [6, 13, 19, 26])
    trainer.run_training()
    assert trainer.lengths == [6, 7, 6, 7]
    assert (tmp_path / nnunet.HIGHEST).read_text() == str(best)
    assert int(np.argmax(nnunet._seen(trainer))) == best


@pytest.mark.parametrize(("steps", "looks"), [(255, [26, 51, 76, 102, 128, 153, 178, 204, 230, 255]), (3, [1, 2, 3])])
def test_as_many_iterations_as_asked_for(steps: int, looks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = []

    def ran(folder: Path, *_: object) -> None:
        tasks.append(json.loads((folder / "task.json").read_text()))
        (folder / "curve.json").write_text(json.dumps({"dsc": [0.5] * len(looks), "loss": 0.1}))

    monkeypatch.setattr(nnunet, "find_spec", lambda name: object())
    monkeypatch.setattr(nnunet, "_run", ran)
    monkeypatch.setattr(nnunet, "_read", lambda *_: {})
    trained = train_nnunet(few(), few().samples("train"), steps=steps)
    assert tasks[0]["looks"] == looks == [step for step, _ in trained.curve]


@pytest.mark.parametrize("scales", [1, 2])
def test_bfloat16_multiplies_and_float32_comes_out(scales: int) -> None:
    torch.manual_seed(0)
    network = Scales(scales)
    images = torch.randn(2, 1, 8, 8)
    exact = network(images)
    nnunet.in_bfloat16(network)
    told = network(images)
    assert network.seen == [torch.float32, torch.bfloat16]
    for mixed, single in zip(told, exact, strict=True) if scales > 1 else [(told, exact)]:
        assert mixed.dtype == torch.float32
        assert torch.allclose(mixed, single, atol=0.05)
        assert not torch.equal(mixed, single)
    (told[0] if scales > 1 else told).sum().backward()
    assert network.convolution.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("capabilities", "has"), [({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({}, False)])
def test_only_matrix_units_are_worth_it(capabilities: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert nnunet.multiplies_bfloat16() is has


def test_torch_that_cannot_tell_trains_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not nnunet.multiplies_bfloat16()


@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed (the extra medprotect[nnunet])")
@pytest.mark.skipif("MEDPROTECT_TEST_NNUNET" not in os.environ, reason="takes minutes; set MEDPROTECT_TEST_NNUNET=1")
def test_it_trains_and_predicts() -> None:
    data = few()
    trained = train_nnunet(data, data.samples("train"), steps=12)
    assert [step for step, _ in trained.curve] == [1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    for predictor in (trained.last, trained.best):
        assert score(predictor, data.samples("test"), data).dsc.shape == (2, 1)
