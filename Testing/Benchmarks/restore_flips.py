"""Random bit flips in vault entries and protected files: ``python Testing/Benchmarks/restore_flips.py --flips 10000 --seed 1``.

Every flip must be refused with a MedProtectError of one line, and nothing may be written. Cases of several formats and types take turns,
entry and protected file as well.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.keys import SiteKey
from MedProtectLib.release.restore import restore_file
from vault_cases import Sealed, files_of, sealed

CASES = (
    ("NIfTI", "i2"),
    ("NIfTI, gzip", "i2"),
    ("NIfTI pair", "f4"),
    ("NRRD, gzip", "f8"),
    ("NRRD with data file", "u1"),
    ("MetaImage, packed", "u2"),
    ("PNG RGB", "u1"),
    ("TIFF pages", "i2"),
)


def flip_and_restore(case: Sealed, key: SiteKey, rng: np.random.Generator, in_vault: bool, output: Path) -> str:
    """Flip one bit, try to restore, flip it back. What the refusal says, '' where there was none or something was written."""
    folder = case.vault if in_vault else case.protected.parent
    file = folder / str(rng.choice(sorted(files_of(folder / "x"))))
    content = file.read_bytes()
    bit = int(rng.integers(8 * len(content)))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    try:
        restore_file(case.protected, case.vault, key, output / case.original.name)
    except MedProtectError as error:
        written = output.exists() and any(output.iterdir())
        return "" if written or "\n" in str(error) else str(error)
    finally:
        file.write_bytes(content)
    return ""


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, key, refused, began = np.random.default_rng(arguments.seed), SiteKey.new(), Counter[str](), time.monotonic()
    folder = Path(tempfile.mkdtemp())
    try:
        cases = [sealed(folder / str(n), name, kind, key, rng) for n, (name, kind) in enumerate(CASES)]
        for number in range(arguments.flips):
            in_vault = bool(number // len(cases) % 2)
            said = flip_and_restore(cases[number % len(cases)], key, rng, in_vault, folder / "back")
            refused["vault" if in_vault else "protected file"] += bool(said)
        for case in cases:
            restore_file(case.protected, case.vault, key, folder / "good" / case.original.name, overwrite=True)
    finally:
        shutil.rmtree(folder)
    accepted = arguments.flips - sum(refused.values())
    print(json.dumps({"flips": arguments.flips, "refused": refused, "accepted": accepted, "seconds": round(time.monotonic() - began, 1)}))
    return 1 if accepted else 0


if __name__ == "__main__":
    sys.exit(main())
