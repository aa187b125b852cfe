"""What a release of very many cases costs: memory of the coordinator, and a simulation of 100,000 volumes on many nodes.

    python Testing/Benchmarks/release_scale.py memory --cases 100 1000 10000
    python Testing/Benchmarks/release_scale.py nodes --measured RELEASE_private --volumes 100000

'memory' runs whole releases (inventory, runner with two processes, ledger, audit trail, overview) of simulated cases, whose function
only writes a record, and prints the peak resident memory of the coordinating process. 'nodes' takes the seconds of the cases of a real
release and simulates nodes with one process a core that fail and are started again: static shards, and cases handed out one by one.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from release_processes import settled

CORES = 2
SKIP_S = 0.3
RESTART_S = 600.0
HOURS_BETWEEN_FAILURES = 500.0
STATISTICS = {
    "psnr_db": 50.1,
    "psnr_roi_db": 41.3,
    "max_abs_change": [0.0157, 8.0],
    "changed_fraction": 0.97,
    "per_slice_psnr_db": [50.0] * 200,
}


def simulated(manifest: str, content: Mapping[str, Any], key: object, attempt: int) -> dict[str, Any]:
    """A case that takes no time and leaves a record of the usual size, and a line in the ledger."""
    from MedProtectLib.outputs import private_folder, write_private
    from MedProtectLib.release.ledger import Ledger
    from MedProtectLib.release.roots import Roots

    roots = Roots(Path(manifest).parent.with_name("out"), Path(manifest).parent)
    name = content["name"]
    shareable = {"case": name, "protected": True, "method": "simulated", "bound": 4 / 255, "statistics": STATISTICS}
    record = {
        "case": name,
        "status": "ok",
        "key": "0" * 64,
        "inputs": {content["image"]["source"]: "0" * 64},
        "outputs": {content["image"]["target"]: "0" * 64},
        "original_voxels_sha256": "0" * 64,
        "protected_voxels_sha256": "0" * 64,
        "warnings": [],
        "withheld": [],
        "seconds": {"read": 1.0},
        "time": time.time(),
        "private": {},
        "shareable": shareable,
    }
    private_folder(roots.of_case(name))
    write_private(roots.record(name), json.dumps(record).encode())
    Ledger(roots.ledger).append("ok", case=name, seconds=0.0)
    return settled(content)


def coordinate(folder: Path, count: int) -> None:
    """One release of so many simulated cases; prints the peak memory of this process in MB, and the seconds."""
    from MedProtectLib.release.run import Workforce, release
    from MedProtectLib.release.runners import Job
    from MedProtectLib.release.settings import Settings

    for part in ("imagesTr", "labelsTr"):
        (folder / "in" / part).mkdir(parents=True)
        for number in range(count):
            (folder / "in" / part / f"patient_{number:06d}x.nii.gz").touch()
    out, private = folder / "out", folder / "out_private"
    settings = Settings("r", str(folder / "in"), "simulated", str(out), str(private), "none", "0" * 64, vault=False)
    began = time.monotonic()
    summary = release(settings, Job(str(settings.roots.manifest), None, simulated), Workforce(jobs=2))  # type: ignore[arg-type]
    assert summary.counts["ok"] == count
    assert summary.finished
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.monotonic() - began)


def memory(counts: list[int]) -> None:
    """The peak of the coordinator, in a fresh process for every number of cases."""
    peaks = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, __file__, "one", "--folder", name, "--cases", str(count)]
            peak, seconds = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        peaks.append(peak)
        print(
            f"{count:>7} cases: peak of the coordinator {peak:6.1f} MB, {seconds:6.1f} s, {seconds / count * 1000:.1f} ms a case",
            flush=True,
        )
    print(f"growth from {counts[0]} to {counts[-1]} cases: {peaks[-1] - peaks[0]:+.1f} MB ({peaks[-1] / peaks[0] - 1:+.1%})")


def node_hours(costs: list[float], nodes: int, static: bool, chance: random.Random) -> tuple[float, float]:
    """Hours until the last case is done, and the share of the processes' time that went into cases.

    A node fails after exponentially distributed times; what its processes had in hand is lost. It is back after a restart, where a
    static shard first skips what is done.
    """
    processes = nodes * CORES
    queues = [costs[n::processes] for n in range(processes)] if static else [list(costs)]
    for queue in queues:
        queue.reverse()
    failure = [chance.expovariate(1 / (HOURS_BETWEEN_FAILURES * 3600)) for _ in range(nodes)]
    free = [(0.0, n) for n in range(processes)]
    end = worked = 0.0
    done = [0] * processes
    while free:
        now, process = heapq.heappop(free)
        queue, node = queues[process if static else 0], process // CORES
        if not queue:
            continue
        cost = queue.pop()
        finished = now + cost
        if finished > failure[node]:
            queue.append(cost)
            heapq.heappush(free, (failure[node] + RESTART_S + (SKIP_S * done[process] if static else 0.0), process))
            if process % CORES == CORES - 1:
                failure[node] += RESTART_S + chance.expovariate(1 / (HOURS_BETWEEN_FAILURES * 3600))
            continue
        done[process] += 1
        worked += cost
        end = max(end, finished)
        heapq.heappush(free, (finished, process))
    return end / 3600, worked / (end * processes)


def simulate(private: Path, count: int, nodes: list[int]) -> None:
    """Draw the cost of every volume from the cases of a real release."""
    lines = (private / "audit.jsonl").read_text().splitlines()
    measured = [sum(entry["seconds"].values()) for entry in map(json.loads, lines) if entry.get("seconds")]
    chance = random.Random(0)
    costs = [chance.choice(measured) for _ in range(count)]
    print(f"{len(measured)} measured cases: median {statistics.median(measured):.2f} s, largest {max(measured):.2f} s")
    print(f"{count} volumes: {sum(costs) / 3600:.0f} process-hours; {CORES} processes a node, failing every {HOURS_BETWEEN_FAILURES:.0f} h")
    for number in nodes:
        (static, used), (shared, used_shared) = (node_hours(costs, number, way, random.Random(1)) for way in (True, False))
        print(
            f"{number:>5} nodes: shards {static:8.2f} h ({used:.0%} used), handed out one by one {shared:8.2f} h ({used_shared:.0%} used)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "nodes", "one"))
    parser.add_argument("--cases", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--volumes", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 64, 256])
    options = parser.parse_args()
    if options.what == "memory":
        memory(options.cases)
    elif options.what == "one":
        coordinate(options.folder, options.cases[0])
    else:
        simulate(options.measured, options.volumes, options.nodes)


if __name__ == "__main__":
    main()
