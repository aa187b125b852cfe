"""medprotect verify: measure two files as they lie on disk."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from MedProtectLib.cli.console import answer, refuse, say, table
from MedProtectLib.cli.options import add_common, add_intensity, add_labels, add_series, fraction
from MedProtectLib.window import WINDOW_UNITS

if TYPE_CHECKING:
    from MedProtectLib.statistics import Statistics

EXAMPLE = """example:
  medprotect verify ct.nii.gz shareable/ct_protected.nii.gz --labels ct_labels.nii.gz --segments 5

exit code 1 when the protected file does what it must not: a change outside the regions or above the bound, no change
at all, or another file than the one its record describes. The record lies beside the file (DIR of 'medprotect protect') or in
medprotect_records.jsonl of the release that the file lies in; without one neither hash nor bound is checked, and that is said."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("original", metavar="ORIGINAL")
    parser.add_argument("protected", metavar="PROTECTED")
    add_series(parser)
    add_labels(parser)
    parser.add_argument(
        "--bound", type=fraction, default=None, metavar="E", help="largest change to allow, even where the record allows more"
    )
    add_intensity(parser)
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.verify import verify_files

    result = verify_files(
        arguments.original,
        arguments.protected,
        arguments.labels,
        arguments.segments,
        arguments.modality,
        arguments.window,
        image_class=arguments.image_class,
        series=arguments.series,
        bound=arguments.bound,
    )
    say(result.notices, "notice")
    if result.findings:
        refuse(arguments.json, f"{arguments.protected}: {'; '.join(result.findings)}.")
        return 1
    record, limit = result.record and str(result.record), result.statistics.epsilon
    checked = [
        ("bound", "not checked" if limit is None else f"{limit * 255:.3g}/255 of the window, kept"),
        ("record", record or "none: the hash is not checked"),
    ]
    answer(
        arguments,
        {"statistics": result.statistics.as_record(), "notices": list(result.notices), "record": record},
        table([*statistic_rows(result.statistics), *checked]),
    )
    return 0


def statistic_rows(statistics: Statistics, unit: str = "in the image's own units") -> list[tuple[str, str]]:
    """Label and value of the numbers that people look for first."""
    low, high = statistics.window
    window = f"{low:g} to {high:g}"
    if statistics.channels:
        unit, window = WINDOW_UNITS, "one for every channel, in whose units these numbers are"
    return [
        ("PSNR, whole image", _decibel(statistics.psnr_db)),
        ("PSNR, regions", _decibel(statistics.psnr_roi_db)),
        ("SSIM", f"{'' if statistics.ssim is None else f'{statistics.ssim:.5f} '}({statistics.ssim_window})"),
        ("largest change", f"{statistics.max_abs_change_units:.4g} {unit} ({statistics.max_abs_change[0] * 255:.3g}/255 of the window)"),
        ("changed voxels", f"{statistics.changed_voxels} ({statistics.changed_fraction:.1%} of the regions)"),
        ("changed outside the regions", str(statistics.changed_outside_regions)),
        ("intensity window", window),
        *((f"channel {number}", _of_channel(channel)) for number, channel in enumerate(statistics.channels)),
    ]


def _of_channel(statistics: Statistics) -> str:
    low, high = statistics.window
    largest = f"{statistics.max_abs_change_units:.4g} of {low:g} to {high:g}"
    return f"PSNR {_decibel(statistics.psnr_db)}, in the regions {_decibel(statistics.psnr_roi_db)}; largest change {largest}"


def _decibel(value: float | None) -> str:
    return "no change" if value is None else f"{value:.2f} dB"
