"""Coverage-guided fuzzing of one reader: ``pip install atheris`` and ``python Testing/Benchmarks/fuzz_atheris.py nrrd --seconds 60``.

The good files of Testing/fuzz are the first corpus. It ends with a traceback, and a file of the input, at the first thing that is neither
success nor a MedProtectError, takes more than 5 s, or needs more than 2 GB besides what the libraries take.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from argparse import ArgumentParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import atheris

with atheris.instrument_imports(include=["MedProtectLib"], enable_loader_override=False):
    from fuzz.loop import fill_folder
    from fuzz.targets import TARGETS
    from MedProtectLib.errors import MedProtectError


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    good = dict(target.files())
    attacked = next(iter(target.mutations() if callable(target.mutations) else target.mutations))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")

    def read(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fill_folder(Path(folder, "in"), {**good, attacked: content})
            try:
                target.read(Path(folder, "in"))
            except MedProtectError:
                return

    with tempfile.TemporaryDirectory() as corpus:
        Path(corpus, "good").write_bytes(good[attacked])
        limits = (f"-max_total_time={arguments.seconds}", "-timeout=5", "-rss_limit_mb=4096", f"-seed={arguments.seed}", "-max_len=20000")
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={os.getcwd()}/", corpus], read)  # noqa: PTH109
        atheris.Fuzz()


if __name__ == "__main__":
    main()
