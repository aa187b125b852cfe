"""The numbers of protected files on real cases, recomputed from the stored files: the first table of Documentation/Results.md.

    python Testing/Benchmarks/stored_numbers.py [DATA]

Uses the bundled data, and with a folder of public datasets (see test_real_cases.py for their layout) those as well. The same
limits as in the tests hold for every case; a case that passes one ends the run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "Testing" / "Python")]

from test_real_cases import SHARED_CASES, check, chest_as_nrrd  # noqa: E402

from samples import SAMPLES  # noqa: E402 (the tests' folder is no package)

CT = SAMPLES / "totalseg_ct"
Row = list[tuple[Path, Path, tuple[str, ...]]]


def bundled() -> dict[str, Row]:
    """What everybody has."""
    images = sorted((SAMPLES / "hippocampus" / "imagesTr").glob("*.nii.gz"))
    return {
        "bundled CT, liver": [(CT / "ct.nii.gz", CT / "labels.seg.nrrd", ("liver",))],
        "bundled CT, all 41 structures": [(CT / "ct.nii.gz", CT / "labels.seg.nrrd", ())],
        "bundled hippocampus": [(p, SAMPLES / "hippocampus" / "labelsTr" / p.name, ()) for p in images],
    }


def shared(data: Path, folder: Path) -> dict[str, Row]:
    """What lies in a folder of public datasets."""
    rows: dict[str, Row] = {name: [(data / a, data / b, ()) for a, b in cases] for name, cases in SHARED_CASES.items()}
    images = sorted((data / "msd_hippocampus" / "imagesTr").glob("*.nii.gz"))
    rows["msd_hippocampus"] = [(p, data / "msd_hippocampus" / "labelsTr" / p.name, ()) for p in images]
    nodule = data / "lidc_ct_full" / "LIDC-IDRI-0001_nodule_mask.nii.gz"
    rows["lidc_ct_full, nodule"] = [(chest_as_nrrd(data, folder), nodule, ())]
    return rows


def main(data: Path | None) -> None:
    print("| data | cases | PSNR, dB | PSNR in regions, dB | SSIM | largest change, /255 | changed outside |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, cases in (bundled() | (shared(data, Path(folder)) if data else {})).items():
            found = [check(image, labels, Path(folder), segments) for image, labels, segments in cases]
            column = {key: [f[key] for f in found] for key in found[0]}
            ranges = [
                f"{min(column[k]) * s:.{d}f} to {max(column[k]) * s:.{d}f}"
                for k, s, d in (("psnr_db", 1, 2), ("psnr_roi_db", 1, 2), ("ssim", 1, 4), ("largest", 255, 2))
            ]
            print(f"| {name} | {len(found)} | {' | '.join(ranges)} | {sum(column['outside'])} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
