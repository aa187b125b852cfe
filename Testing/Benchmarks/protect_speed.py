"""How fast and in how much memory one case is protected, beside the least that the work can cost.

    python Testing/Benchmarks/protect_speed.py IMAGE --labels LABELS [--repeats 5]

IMAGE may be a zip of a DICOM series, which is first converted to gzip NRRD. Prints the medians and the ratio

    protect (read, protect, write, re-read; no statistics, no report) / (read + one forward pass over the box + write + re-read)

the time of the statistics, and the peak memory of a fresh process against three times the stored array plus 1 GB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def converted(path: Path, folder: Path) -> Path:
    """A DICOM zip as gzip NRRD; other files as they are."""
    if path.suffix != ".zip":
        return path
    import SimpleITK as sitk

    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "dicom")
    series = next(p for p in sorted((folder / "dicom").rglob("*")) if p.is_dir() and any(p.glob("*.dcm")))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    sitk.WriteImage(sitk.ReadImage(names), folder / "image.nrrd", useCompression=True)
    return folder / "image.nrrd"


def median_of(repeats: int, work: Callable[[], object]) -> float:
    """Median wall time in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_memory(image: Path, labels: Path) -> int:
    """Peak resident bytes of a fresh process that protects the case."""
    done = subprocess.run(
        [sys.executable, __file__, str(image), "--labels", str(labels), "--child"], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def protect_once(image: Path, labels: Path, target: Path) -> None:
    from MedProtectLib import Protector, read_labels, read_volume
    from MedProtectLib.job import write_and_reread

    write_and_reread(Protector(target_psnr=50.1).protect(read_volume(image), read_labels(labels)).volume, target)


def compare(image: Path, labels: Path, target: Path, repeats: int) -> None:
    from MedProtectLib import Protector, read_labels, read_volume
    from MedProtectLib.job import write_and_reread
    from MedProtectLib.networks.tiling import run_in_tiles
    from MedProtectLib.plan import channel_case
    from MedProtectLib.statistics import measure

    volume, label_map = read_volume(image), read_labels(labels)
    protector = Protector(target_psnr=50.1)
    result = protector.protect(volume, label_map)
    generators = protector.fitted(3)[1].generators  # type: ignore[attr-defined]
    from MedProtectLib.io.resample import on_grid_of

    classes = on_grid_of(volume.geometry, label_map)[0].classes()
    case = channel_case(volume, 0, classes, result.regions, result.window)
    image_in_window = np.clip(case.image, 0, 1)
    everywhere = np.ones(case.image.shape, bool)

    def whole() -> None:
        write_and_reread(protector.protect(read_volume(image), read_labels(labels)).volume, target)

    def least() -> None:
        stored = read_volume(image)
        read_labels(labels)
        run_in_tiles([generators.contour, generators.texture], image_in_window, everywhere)
        write_and_reread(stored, target)

    for work in (whole, least):
        work()
    protected, least_possible = median_of(repeats, whole), median_of(repeats, least)
    measured = median_of(repeats, lambda: measure(volume, result.volume, result.regions, result.windows))
    peak, allowed = peak_memory(image, labels), 3 * volume.array.nbytes + 2**30
    print(f"threads {torch.get_num_threads()}, image {volume.array.shape} {volume.array.dtype}, regions' box {case.image.shape}")
    print(f"protect            {protected:6.2f} s")
    print(f"least possible     {least_possible:6.2f} s   ratio {protected / least_possible:.2f} (must be <= 1.5)")
    print(f"statistics         {measured:6.2f} s   (must be < 2)")
    print(f"peak memory        {peak / 2**20:6.0f} MB  (must be <= {allowed / 2**20:.0f})")
    if protected > 1.5 * least_possible or measured >= 2 or peak > allowed:
        sys.exit("a limit is passed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "protected.nrrd"
        if arguments.child:
            protect_once(arguments.image, arguments.labels, target)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            return
        compare(converted(arguments.image, Path(folder)), arguments.labels, target, arguments.repeats)


if __name__ == "__main__":
    main()
