"""medprotect protect: one image from file to file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.cli.console import answer, progress_of, say, table
from MedProtectLib.cli.options import add_common, add_intensity, add_key, add_labels, add_method_settings, add_series, fraction, key_of
from MedProtectLib.errors import UsageError

if TYPE_CHECKING:
    from MedProtectLib.job import ProtectJob
    from MedProtectLib.protector import Protector

EXAMPLE = """example:
  medprotect protect ct.nii.gz --labels ct_labels.nii.gz --segments 5 --output shareable --target-psnr 50.1
  medprotect protect ct_series --labels segmentation.dcm --segments liver --output shareable

writes into shareable/ the protected image and its record, and into shareable_private/ what reveals the perturbation:
the perturbation itself (with --key encrypted, for 'medprotect restore'), the private record, the report and the overlay picture."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "image",
        nargs="+",
        metavar="IMAGE",
        help="NRRD, NIfTI, MetaImage, PNG, TIFF, DICOM (a file, or the folder of a series); "
        "several: the channels case_0000.nii.gz, case_0001.nii.gz, ... of one case, for which case.nii.gz stands, too",
    )
    add_series(parser)
    add_labels(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what may be shared")
    parser.add_argument("--private", default=None, metavar="DIR", help="folder for what may not (default: DIR_private)")
    parser.add_argument("--method", default=None, metavar="M", help="protection method (default: umed)")
    parser.add_argument("--profile", default=None, metavar="P", help="your own profile (default: a public one, else fitted on the image)")
    parser.add_argument(
        "--bound",
        type=fraction,
        default=None,
        metavar="E",
        help="largest change as a fraction of the window (default: the profile's 4/255)",
    )
    parser.add_argument(
        "--target-psnr", type=float, default=None, metavar="DB", help="come down to this PSNR where the bound allows more change"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result of the same name")
    add_key(parser)
    add_method_settings(parser)
    add_intensity(parser)
    parser.add_argument(
        "--padding",
        nargs=2,
        type=fraction,
        default=None,
        metavar=("FIRST", "LAST"),
        help="first and last stored value that hold no picture (default: as a DICOM header declares, else found)",
    )
    parser.add_argument(
        "--photograph", action="store_true", help="an 8-bit picture, whose window is 0-255 (default: PNG, TIFF and such DICOM pictures)"
    )
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.io.channels import group_of
    from MedProtectLib.job import protect_file

    job = protect_file(
        group_of([Path(image) for image in arguments.image]),
        arguments.labels,
        arguments.output,
        protector_of(arguments),
        segments=arguments.segments,
        image_class=arguments.image_class,
        series=arguments.series,
        private=arguments.private,
        padding=arguments.padding,
        photograph=arguments.photograph,
        key=None if arguments.key is None else key_of(arguments),
        overwrite=arguments.overwrite,
        report=progress_of(arguments),
    )
    say(job.protection.notices, "notice")
    say(job.protection.warnings, "warning")
    answer(arguments, _content(job), _text(job))
    return 0


def protector_of(arguments: Namespace) -> Protector:
    """The protector that the options describe.

    Raises:
        UsageError: a bad option value. MedProtectError: a profile that cannot be used.
    """
    from MedProtectLib.protector import Protector

    options = {key: getattr(arguments, key) for key in ("bound", "target_psnr", "modality", "window", "seed")}
    if arguments.profile is None:
        return Protector(arguments.method or "umed", scope=arguments.scope, parameters=dict(arguments.set), **options)
    if arguments.scope is not None or arguments.set:
        raise UsageError("--scope and --set are for a method without --profile: a profile decides them.")
    Protector(arguments.method or "umed", **options)
    return Protector.from_profile(arguments.profile, arguments.method, **options)


def _content(job: ProtectJob) -> dict[str, object]:
    return {
        "protected": str(job.protected),
        "record": str(job.record_path),
        "private": str(job.private),
        "statistics": job.record["statistics"],
        "notices": list(job.protection.notices),
        "warnings": list(job.protection.warnings),
    }


def _text(job: ProtectJob) -> str:
    from MedProtectLib.io import channel_files

    which = "_0000" if job.statistics.channels else ""
    report = Path(job.private) / job.record_path.name.replace("_record.json", f"_report{which}.html")
    images = channel_files(job.protected) or (job.protected,)
    files = [*(("protected image", str(image)) for image in images), ("record", str(job.record_path)), ("report (private)", str(report))]
    return f"{table(files)}\n{statistics_text(job)}"


def statistics_text(job: ProtectJob) -> str:
    """The numbers that people look for first."""
    from MedProtectLib.cli.verify import statistic_rows

    return table(statistic_rows(job.statistics, job.protection.window.unit))
