"""Kill -9 at random moments of a release: of a worker, of the scheduler (the process that hands out cases) and of the whole run.

    python Testing/Benchmarks/release_kills.py --kills 100 --cases 60

Every kill waits until the ledger shows a case at work and then for a random time, looks again that a case is at work, and strikes. The
release is resumed until it is whole, compared with one that nothing happened to, and begun anew until all kills are spent. Printed at
the end: kills by kind, all of which hit a running case; whole releases, in which every case was committed exactly once by the ledger,
with equal SHA-256 of every shareable file and no partial file left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from release_cases import HIPPOCAMPUS, ledger, own_profile, tree
from release_processes import kill_group, running, start, wait_for_case
from samples import SHARED

KINDS = ("worker", "scheduler", "run")
LONGEST_WAIT_S = 1.5


def dataset(folder: Path, count: int) -> Path:
    """So many real hippocampus cases: the bundled ones, and more where the shared datasets are."""
    found = {p.name: p.parents[1] for root in (SHARED / "msd_hippocampus", HIPPOCAMPUS) for p in root.glob("**/imagesTr/*.nii.gz")}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for name, root in sorted(found.items())[:count]:
            shutil.copyfile(root / part / name, folder / part / name)
    return folder


def strike(kind: str, process: subprocess.Popen[str], at_work: dict[str, int], chance: random.Random) -> None:
    """Kill one of the workers that the ledger shows at work, the process that hands out cases, or everything."""
    if kind == "worker":
        os.kill(chance.choice(sorted(at_work.values())), signal.SIGKILL)
    elif kind == "scheduler":
        process.kill()
    else:
        kill_group(process)


def gone(private: Path) -> None:
    """Wait for orphans of a killed scheduler, which finish their case."""
    while running(private):
        time.sleep(0.02)


def check_whole(out: Path, private: Path, expected: dict[str, str], count: int) -> int:
    """Every case exactly once, equal to the undisturbed release, nothing partial.

    Returns how many cases were hit between their record and their line in the ledger, which the next run found committed.
    """
    events = ledger(private)
    committed = Counter(entry["case"] for entry in events if entry["event"] == "ok")
    found = {entry["case"] for entry in events if entry["event"] == "skipped"} - set(committed)
    assert set(committed.values()) == {1}, committed.most_common(3)
    assert len(committed) + len(found) == count == len(list(private.glob("cases/*/record.json")))
    assert tree(out) == expected
    left = [p for root in (out, private) for p in root.rglob("*") if p.name.endswith((".part", ".lock", ".stale"))]
    left += [p for folder in (out / ".medprotect_staging", private / "staging") for p in folder.glob("*")]
    assert not left, left
    return len(found)


def disturb(arguments: list[str], out: Path, private: Path, kinds: list[str], chance: random.Random) -> Counter[str]:
    """Run a release to its end through the kills that are due, and take those that hit from the list."""
    hits: Counter[str] = Counter()
    while True:
        process = start(*arguments)
        while kinds and wait_for_case(process, private):
            time.sleep(chance.uniform(0, LONGEST_WAIT_S))
            at_work = running(private)
            if process.poll() is not None or not at_work:
                continue
            kind = kinds[-1]
            strike(kind, process, at_work, chance)
            hits[kinds.pop()] += 1
            if kind != "worker":
                break
            while running(private).items() >= at_work.items():
                time.sleep(0.005)
        said = process.communicate()
        if process.returncode == 0:
            return hits
        if process.returncode > 0 and "quarantined" not in said[0]:
            raise SystemExit(f"the release ended with {process.returncode}: {said[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--dask", action="store_true", help="the workers of a local Dask cluster instead of --jobs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, profile = dataset(folder / "in", options.cases), own_profile(folder)
        common = [
            str(source),
            "--profile",
            str(profile),
            "--no-vault",
            "--no-reports",
            "--name",
            "r",
            "--resume",
            "--jobs",
            str(options.jobs),
        ]
        common += ["--dask", "local"] if options.dask else []
        began = time.monotonic()
        undisturbed = start(*common, "--output", folder / "undisturbed")
        said = undisturbed.communicate()
        assert undisturbed.returncode == 0, said
        expected = tree(folder / "undisturbed")
        print(f"undisturbed release of {options.cases} cases: {time.monotonic() - began:.0f} s", flush=True)
        kinds = [KINDS[n % len(KINDS)] for n in range(options.kills)]
        chance.shuffle(kinds)
        out, private, hits, wholes = folder / "out", folder / "out_private", Counter[str](), 0
        found = 0
        while kinds:
            hits += disturb([*common, "--output", str(out)], out, private, kinds, chance)
            found += check_whole(out, private, expected, options.cases)
            wholes += 1
            print(f"{hits.total()} kills so far {dict(hits)}, {wholes} whole releases, {time.monotonic() - began:.0f} s", flush=True)
            shutil.rmtree(out)
            shutil.rmtree(private)
    print(f"{hits.total()} kills {dict(hits)}, each of a running case; {found} between the record and its line in the ledger")
    print(f"{wholes} releases of {options.cases} cases whole: every case once, hashes equal to the undisturbed release, nothing partial")


if __name__ == "__main__":
    main()
