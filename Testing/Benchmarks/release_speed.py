"""How much faster two processes release than one, and how Dask compares with them.

    python Testing/Benchmarks/release_speed.py --cases 24 --side 160 --repeats 3

Made CT volumes, one thread a process in all runs, time from the first to the last commit in the ledger, medians; the ways take
turns. Two cores must be free: with other work on them the ratio is worth nothing, so the load average is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from release_cases import ledger, own_profile, volumes
from release_processes import start

WAYS = {"--jobs 1": ("--jobs", "1"), "--jobs 2": ("--jobs", "2"), "--dask local": ("--jobs", "2", "--dask", "local")}


def seconds(folder: Path, dataset: Path, profile: Path, way: tuple[str, ...]) -> tuple[float, float]:
    """From the first to the last commit of a release, and the mean of a case."""
    out, private = folder / "out", folder / "out_private"
    process = start(dataset, "--output", out, "--profile", profile, "--no-vault", "--modality", "CT", *way)
    said = process.communicate()
    if process.returncode:
        raise SystemExit(said[1])
    done = [entry for entry in ledger(private) if entry["event"] == "ok"]
    shutil.rmtree(out)
    shutil.rmtree(private)
    return float(done[-1]["time"]) - float(done[0]["time"]), statistics.mean(float(entry["seconds"]) for entry in done)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = volumes(folder / "in", options.cases, options.side)
        profile = own_profile(folder, dataset=dataset)
        print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        measured: dict[str, list[tuple[float, float]]] = {label: [] for label in WAYS}
        for _ in range(options.repeats):
            for label, way in WAYS.items():
                measured[label].append(seconds(folder, dataset, profile, way))
        medians = {label: statistics.median(whole for whole, _ in times) for label, times in measured.items()}
        for label, times in measured.items():
            case = statistics.mean(mean for _, mean in times)
            print(f"{label:>12}: {medians[label]:7.1f} s for {options.cases} cases, {case:.2f} s a case in its process", flush=True)
        print(f"--jobs 2 is {medians['--jobs 1'] / medians['--jobs 2']:.2f} times as fast as --jobs 1")
        print(f"Dask with two workers takes {medians['--dask local'] / medians['--jobs 2'] - 1:+.1%} of --jobs 2")


if __name__ == "__main__":
    main()
