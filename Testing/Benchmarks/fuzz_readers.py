"""Damaged and hostile files for every reader: ``python Testing/Benchmarks/fuzz_readers.py --inputs 500 --log fuzz.jsonl``.

It goes on where an earlier run with the same log stopped. One input again: ``--target nifti --only 1234 --keep folder``.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzz.loop import FOUND, Loop, damaged_files, read_one
from fuzz.targets import TARGETS

BLOCK = 100


def main() -> int:
    arguments = _arguments()
    if arguments.only is not None:
        return _one(arguments.target[0], arguments.only, arguments.keep)
    done, counts, found = _so_far(arguments.log)
    with Loop() as loop, arguments.log.open("a") as log:
        for start in range(0, arguments.inputs, BLOCK):
            for target in arguments.target or TARGETS:
                numbers = range(max(start, done.get(target, 0)), min(start + BLOCK, arguments.inputs))
                for outcome in loop.run(target, numbers):
                    counts[target, outcome.kind] += 1
                    if outcome.kind == FOUND:
                        found += 1
                        log.write(json.dumps(asdict(outcome)) + "\n")
                        print(f"{target} {outcome.number}: {outcome.detail.strip().splitlines()[-1][:200]}", flush=True)
                if numbers:
                    log.write(json.dumps({"target": target, "done": numbers.stop, "counts": _of(counts, target)}) + "\n")
                    log.flush()
    for target in TARGETS:
        print(f"{target:22} {json.dumps(_of(counts, target))}")
    print(f"{sum(counts.values())} inputs, {found} findings")
    return 1 if found else 0


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=500, help="inputs per target")
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=None, help="only these targets")
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"), help="what was done and found; a run with the same log goes on")
    parser.add_argument("--only", type=int, default=None, help="one input of the target, in this process, with its traceback")
    parser.add_argument("--keep", type=Path, default=None, help="with --only: put the files of the input here")
    return parser.parse_args()


def _one(target: str, number: int, keep: Path | None) -> int:
    if keep is not None:
        for name, content in damaged_files(TARGETS[target], target, number).items():
            (keep / name).parent.mkdir(parents=True, exist_ok=True)
            (keep / name).write_bytes(content)
    kind, detail = read_one(TARGETS[target], target, number)
    print(f"{kind}: {detail}")
    return 1 if kind == FOUND else 0


def _so_far(log: Path) -> tuple[dict[str, int], Counter[tuple[str, str]], int]:
    """How far every target is, and the counts, from the log of an earlier run."""
    done: dict[str, int] = {}
    counts: Counter[tuple[str, str]] = Counter()
    found = 0
    for line in log.read_text().splitlines() if log.is_file() else ():
        entry = json.loads(line)
        if "done" in entry:
            done[entry["target"]] = entry["done"]
            counts.update({(entry["target"], kind): n - counts[entry["target"], kind] for kind, n in entry["counts"].items()})
        else:
            found += 1
    return done, counts, found


def _of(counts: Counter[tuple[str, str]], target: str) -> dict[str, int]:
    return {kind: n for (name, kind), n in sorted(counts.items()) if name == target}


if __name__ == "__main__":
    sys.exit(main())
