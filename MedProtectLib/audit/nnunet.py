"""The real nnU-Net v2 as a victim: its own fingerprint, planning, preprocessing, augmentation and trainer, with fewer iterations.

nnU-Net finds its folders in environment variables and uses many processes, so it works in a process of its own

    python -m MedProtectLib.audit.nnunet FOLDER

on FOLDER/task.json, FOLDER/raw and FOLDER/test, and leaves FOLDER/curve.json, FOLDER/last and FOLDER/best. Needs the extra
``medprotect[nnunet]``; Documentation/Audit.md tells how it is installed for a processor without a GPU.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from MedProtectLib.audit.data import TEST, VALIDATION, AuditData, Sample
from MedProtectLib.audit.training import Trained, looks_of
from MedProtectLib.device import process_device
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.methods.base import SEGMENTATION
from MedProtectLib.progress import Report, Stage, ignore

NNUNET = "nnunet"
DATASET = "Dataset001_Audit"
SUFFIX = ".nii.gz"
HIGHEST = "checkpoint_highest.pth"
STEPS = 250
LINES_KEPT = 20


def check_nnunet(data: AuditData, regime: str) -> None:
    """Raises UsageError unless nnU-Net is installed and can do this."""
    if find_spec("nnunetv2") is None:
        raise UsageError("victim 'nnunet' needs nnU-Net: install the extra medprotect[nnunet] (Documentation/Audit.md tells how).")
    if data.task != SEGMENTATION:
        raise UsageError("victim 'nnunet' segments; these data are for classification. Use resnet18 or densenet.")
    if regime != "none":
        raise UsageError(f"victim 'nnunet' trains with its own augmentation, not with '{regime}'. Use --regimes none for it.")


def train_nnunet(data: AuditData, released: Sequence[Sample], seed: int = 0, steps: int = STEPS, report: Report = ignore) -> Trained:
    """Train nnU-Net on what was released and let it predict the clean test cases.

    ``steps`` iterations are made in ten epochs. The curve holds nnU-Net's own pseudo DSC, of patches of the clean validation cases,
    and the best network is that of the highest of these ten values.

    Raises:
        UsageError: it is not installed or cannot do this. MedProtectError: it stopped.
    """
    check_nnunet(data, "none")
    with tempfile.TemporaryDirectory(prefix="medprotect-nnunet-") as name:
        folder = Path(name)
        looks = looks_of(steps)
        _write_raw(folder, data, released)
        task = {
            "seed": seed,
            "looks": looks,
            "configuration": "2d" if data.dimension == 2 else "3d_fullres",
            "train": [_safe(sample) for sample in released],
            "val": [_safe(sample) for sample in data.samples(VALIDATION)],
        }
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        _run(folder, Stage("train nnunet", steps, report), looks)
        logged = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
        curve = tuple(zip(looks, map(float, logged["dsc"]), strict=True))
        last, best = (_read(folder / which, data) for which in ("last", "best"))
        return Trained(_told(last), _told(best), curve, float(logged["loss"]))


def _write_raw(folder: Path, data: AuditData, released: Sequence[Sample]) -> None:
    raw = folder / "raw" / DATASET
    for sub in (raw / "imagesTr", raw / "labelsTr", folder / "test"):
        sub.mkdir(parents=True)
    training = [*released, *data.samples(VALIDATION)]
    for sample in training:
        _write_image(sample, raw / "imagesTr")
        label = sitk.GetImageFromArray(sample.case.target.astype(np.uint8))
        label.SetSpacing(sample.case.volume.geometry.spacing)
        sitk.WriteImage(label, str(raw / "labelsTr" / f"{_safe(sample)}{SUFFIX}"), useCompression=True)
    for sample in data.samples(TEST):
        _write_image(sample, folder / "test")
    labels = {"background": 0} | {f"class {value}": n for n, value in enumerate(data.classes, start=1)}
    content = {
        "channel_names": {str(c): "CT" if data.ct else "MR" for c in range(data.channels)},
        "labels": labels,
        "numTraining": len(training),
        "file_ending": SUFFIX,
    }
    (raw / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def _write_image(sample: Sample, folder: Path) -> None:
    """Every channel in the image's own units, float32, with the spacing of the case."""
    solid = sample.image.reshape(len(sample.image), *sample.case.volume.geometry.shape)
    windows = [
        window for part, window in zip(sample.case.volume.parts(), sample.case.windows, strict=True) for _ in part.intensity_channels
    ]
    for number, (channel, window) in enumerate(zip(solid, windows, strict=True)):
        image = sitk.GetImageFromArray((channel * window.width + window.low).astype(np.float32))
        image.SetSpacing(sample.case.volume.geometry.spacing)
        sitk.WriteImage(image, str(folder / f"{_safe(sample)}_{number:04d}{SUFFIX}"), useCompression=True)


def _safe(sample: Sample) -> str:
    return sample.case.name.replace("/", "-")


def _run(folder: Path, stage: Stage, looks: Sequence[int]) -> None:
    environment = os.environ | {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_compile": "f",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "MedProtectLib.audit.nnunet", str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told: list[str] = []
    epochs = 0
    try:
        for line in process.stdout or ():
            told = [*told[-LINES_KEPT:], line.strip()]
            if "Epoch time" in line:
                stage.at(looks[epochs])
                epochs += 1
        process.wait()
    finally:
        process.kill()
    if process.returncode != 0:
        raise MedProtectError(f"nnU-Net stopped: {' '.join(line for line in told if line)[-400:]}")


def _read(folder: Path, data: AuditData) -> dict[str, np.ndarray]:
    found = {}
    for sample in data.samples(TEST):
        classes = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{_safe(sample)}{SUFFIX}"))).astype(np.int64)
        found[sample.case.name] = classes.reshape(sample.target.shape)
    return found


def _told(predictions: Mapping[str, np.ndarray]) -> Callable[[Sample], np.ndarray]:
    return lambda sample: predictions[sample.case.name]


def work(folder: Path) -> None:
    """What the process of its own does: plan, preprocess, train, predict."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.run.run_training import get_trainer_from_args

    device = process_device()
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    random.seed(task["seed"])
    np.random.seed(task["seed"])  # noqa: NPY002 (nnU-Net draws from the global generator)
    torch.manual_seed(task["seed"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=(task["configuration"],), num_processes=(1,))
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 (augments in this process; planning needs a number above 0)
    done = folder / "preprocessed" / DATASET
    (done / "splits_final.json").write_text(json.dumps([{part: task[part] for part in ("train", "val")}]), encoding="utf-8")
    trainer = get_trainer_from_args("1", task["configuration"], 0, device=device)
    trainer.initialize()
    if device.type == "cpu" and multiplies_bfloat16():
        in_bfloat16(trainer.network)
    _watch(trainer, task["looks"])
    trainer.run_training()
    curve = {"dsc": _seen(trainer), "loss": float(trainer.logger.get_value("train_losses", step=-1))}
    (folder / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
    for which, checkpoint in (("last", "checkpoint_final.pth"), ("best", HIGHEST)):
        predictor = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=device, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(Path(trainer.output_folder).parent), (0,), checkpoint)
        (folder / which).mkdir()
        predictor.predict_from_files_sequential(str(folder / "test"), str(folder / which))


def multiplies_bfloat16() -> bool:
    """Whether this processor has matrix units for bfloat16 (AMX), with which nnU-Net trains in half the time."""
    told: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(told.get("amx_bf16", False))


def in_bfloat16(network: nn.Module) -> None:
    """Let the network multiply bfloat16, as nnU-Net has it multiply float16 on a GPU; its logits are float32 all the same."""
    forward = network.forward

    def mixed(images: Tensor) -> Tensor | list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(images)
        return [scale.float() for scale in logits] if isinstance(logits, (list, tuple)) else logits.float()

    network.forward = mixed


def _watch(trainer: Any, looks: Sequence[int]) -> None:
    """An epoch up to every look, after how many iterations; keep the network of the highest look: nnU-Net's own best is that of a
    moving average over epochs.
    """
    lengths = np.diff(looks, prepend=0).tolist()
    trainer.num_epochs, trainer.num_val_iterations_per_epoch = len(looks), max(1, min(lengths) // 5)
    start, end = trainer.on_epoch_start, trainer.on_epoch_end

    def on_epoch_start() -> None:
        trainer.num_iterations_per_epoch = lengths[trainer.current_epoch]
        start()

    def on_epoch_end() -> None:
        *before, now = _seen(trainer)
        if now > max(before, default=-1.0):
            trainer.save_checkpoint(str(Path(trainer.output_folder) / HIGHEST))
        end()

    trainer.on_epoch_start, trainer.on_epoch_end = on_epoch_start, on_epoch_end


def _seen(trainer: Any) -> list[float]:
    """nnU-Net's pseudo DSC after every epoch, 0 where neither truth nor prediction had a foreground."""
    return [float(value) for value in np.nan_to_num(trainer.logger.get_value("mean_fg_dice", step=None))]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
