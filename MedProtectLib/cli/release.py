"""medprotect release: a whole dataset, in its own layout."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.cli.console import answer, progress_of, say, table
from MedProtectLib.cli.options import add_common, add_intensity, add_key, add_segments, fraction, key_of
from MedProtectLib.errors import MedProtectError, UsageError

if TYPE_CHECKING:
    from MedProtectLib.release.dry_run import Plan
    from MedProtectLib.release.keys import Key
    from MedProtectLib.release.run import Workforce
    from MedProtectLib.release.settings import Settings
    from MedProtectLib.release.summary import Summary

EXAMPLE = """example:
  medprotect release dataset/ --output release_1 --profile site.medprotect --key site.key --dry-run
  medprotect release dataset/ --output release_1 --profile site.medprotect --key site.key --jobs 4
  medprotect release dataset/ --output release_1 --profile site.medprotect --key site.key --jobs 4 --resume
  medprotect release --status release_1
  medprotect release --verify release_1

release_1/ has the layout of dataset/ (Decathlon, nnU-Net, BIDS, DICOM tree, class folders, CSV manifest, MedMNIST) and may be shared.
release_1_private/ has what may not: records, audit trail, reports, quarantine and the vault that restores the originals."""

LARGEST_JOBS = 1024
SHOWN_PROBLEMS = 20
MOST_TRIED = 10


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="a folder, a CSV manifest or a MedMNIST file (.npz)")
    parser.add_argument("--output", default=None, metavar="DIR", help="folder for what may be shared")
    parser.add_argument("--private", default=None, metavar="DIR", help="folder for what may not (default: DIR_private)")
    parser.add_argument("--profile", default=None, metavar="P", help="your own profile (medprotect fit)")
    parser.add_argument(
        "--allow-public-profile",
        action="store_true",
        help="release with a public profile, whose perturbations anybody can compute: for trials only",
    )
    parser.add_argument("--method", default=None, metavar="M", help="method of the public profile, or a check of your own one's")
    parser.add_argument("--bound", type=fraction, default=None, metavar="E", help="largest change (default: the profile's)")
    parser.add_argument("--target-psnr", type=float, default=None, metavar="DB", help="come down to this PSNR where the bound allows more")
    add_segments(parser)
    parser.add_argument("--name", default=None, metavar="NAME", help="name of the release (default: that of the output folder)")
    parser.add_argument("--dry-run", action="store_true", help="plan and estimate, write nothing")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted release, or start it")
    parser.add_argument("--status", default=None, metavar="DIR", help="say how far the release in DIR is (shareable or private folder)")
    parser.add_argument(
        "--verify", default=None, metavar="DIR", help="compare every file of the release in DIR with its records, write nothing"
    )
    parser.add_argument(
        "--unlabelled",
        choices=("quarantine", "copy", "fail"),
        default="quarantine",
        help="what becomes of cases without labels, test images for instance (default: quarantine); copy releases them unprotected",
    )
    parser.add_argument("--previous", default=None, metavar="DIR", help="shareable folder of the release that this is a new version of")
    parser.add_argument("--previous-private", default=None, metavar="DIR", help="its private folder (default: DIR_private)")
    parser.add_argument(
        "--withdraw", nargs="+", action="extend", default=[], metavar="CASE", help="cases of the dataset that do not go out"
    )
    parser.add_argument("--no-reports", action="store_true", help="no report page per case, only its picture in the overview: faster")
    add_key(parser)
    parser.add_argument("--no-vault", action="store_true", help="keep nothing that could restore the originals")
    workers = parser.add_argument_group("who does it")
    workers.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes of one thread each (default: 1; 0: this process alone)"
    )
    workers.add_argument(
        "--memory", type=float, default=None, metavar="GIB", help="memory for all of them (default: 80 %% of what is free)"
    )
    workers.add_argument("--shard", default=None, metavar="I/N", help="one share of the cases, 1/8 to 8/8, or 'auto' in a SLURM array")
    workers.add_argument("--dask", default=None, metavar="ADDRESS", help="'local', tcp:// on this machine, or tls:// with --dask-tls")
    workers.add_argument("--dask-tls", nargs=3, default=None, metavar=("CA", "CERT", "KEY"), help="certificates for tls://")
    add_intensity(parser)
    add_common(parser)


def run(arguments: Namespace) -> int:
    if arguments.status is not None:
        return _status(arguments)
    if arguments.verify is not None:
        return _verify(arguments)
    _check(arguments)
    workforce, settings = _workforce(arguments), _settings(arguments)
    if arguments.dry_run:
        return _dry_run(arguments, settings, workforce)
    from MedProtectLib.release.run import release
    from MedProtectLib.release.runners import Job

    job = Job(str(settings.roots.manifest), _key(arguments, settings))
    summary = release(settings, job, workforce, arguments.resume, progress_of(arguments))
    _warn([f"{case}: {reason}" for case, reason in summary.problems], "see audit.csv in the private folder")
    left_out = settings.roots.left_out.read_bytes().count(b"\n")
    if left_out:
        say([f"{left_out} files of the dataset belong to no case and stayed behind: see {settings.roots.left_out}"], "warning")
    about = {"release": settings.output, "private": settings.private, "left_out": left_out}
    answer(arguments, {**about, **summary.as_json()}, _text(settings, summary))
    return 0 if summary.complete else 1


def kept(arguments: Namespace) -> str | None:
    """Where an interrupted release lies, None where it left nothing."""
    from MedProtectLib.release.roots import Roots

    if arguments.output is None or arguments.status is not None or arguments.verify is not None or arguments.dry_run:
        return None
    roots = Roots.of(arguments.output, arguments.private)
    return f"{roots.output} and {roots.private}" if roots.manifest.is_file() else None


def _check(arguments: Namespace) -> None:
    for name in ("dataset", "output"):
        if getattr(arguments, name) is None:
            raise UsageError(f"{'DATASET' if name == 'dataset' else '--output'} is missing (see 'medprotect release --help').")
    if not 0 <= arguments.jobs <= LARGEST_JOBS:
        raise UsageError(f"--jobs {arguments.jobs}: give a number from 0 to {LARGEST_JOBS}.")
    if arguments.memory is not None and not 0 < arguments.memory < float("inf"):
        raise UsageError(f"--memory {arguments.memory:g}: give a positive number of GiB.")
    if arguments.dask is not None and arguments.shard is not None:
        raise UsageError("--dask and --shard exclude each other: Dask shares the cases out itself.")
    if arguments.no_vault and arguments.key is not None:
        raise UsageError("--key and --no-vault exclude each other.")


def _settings(arguments: Namespace) -> Settings:
    """What the options describe.

    Raises:
        UsageError: a bad option value. MedProtectError: a profile that cannot be used, or a public one without the word for it.
    """
    from MedProtectLib.methods.base import IMAGE
    from MedProtectLib.profile import Profile
    from MedProtectLib.protector import Protector
    from MedProtectLib.release.keys import check_name
    from MedProtectLib.release.layouts import find_layout
    from MedProtectLib.release.roots import Roots
    from MedProtectLib.release.settings import Settings

    if not arguments.no_vault and arguments.key is None and not arguments.dry_run:
        raise UsageError(
            "say whether originals shall be restorable: --key FILE (make one with 'medprotect keys new'), or --no-vault to keep nothing."
        )
    path = _profile_path(arguments)
    profile = Profile.load(path)
    if profile.public and not arguments.allow_public_profile:
        raise MedProtectError(
            f"{path}: a public profile: anybody can have it and subtract what it adds. Fit your own with 'medprotect fit', or say "
            "--allow-public-profile for a trial."
        )
    if arguments.method not in (None, profile.method):
        raise UsageError(f"--method {arguments.method}: the profile is of method {profile.method}. Leave one of them out.")
    options = {key: getattr(arguments, key) for key in ("bound", "target_psnr", "modality", "seed")}
    window = None if arguments.window is None else tuple(arguments.window)
    Protector(profile=profile, window=window, **options)
    dataset, roots = Path(arguments.dataset).absolute(), Roots.of(arguments.output, arguments.private)
    name = roots.output.name if arguments.name is None else arguments.name
    check_name(name if name.strip() else "")
    return Settings(
        name=name,
        dataset=str(dataset),
        layout=find_layout(dataset).name,
        output=str(roots.output),
        private=str(roots.private),
        profile=str(Path(path).absolute()),
        profile_sha256=profile.sha256(),
        whole_image=profile.settings.get("scope") == IMAGE,
        window=window,
        segments=tuple(arguments.segments),
        unlabelled=arguments.unlabelled,
        vault=not arguments.no_vault,
        reports=not arguments.no_reports,
        withdrawn=tuple(arguments.withdraw),
        previous=_previous(arguments),
        **options,
    )


def _profile_path(arguments: Namespace) -> Path:
    from MedProtectLib.profile import shipped_profile

    if arguments.profile is not None:
        return Path(arguments.profile)
    if not arguments.allow_public_profile:
        raise UsageError("a release needs a profile of your own: fit one with 'medprotect fit' and give it with --profile.")
    dimension = _dimension(Path(arguments.dataset).absolute())
    path = shipped_profile(arguments.method or "umed", dimension)
    if path is None:
        raise MedProtectError(f"no public profile comes with method '{arguments.method}' in {dimension}D. Fit one with 'medprotect fit'.")
    return path


def _dimension(dataset: Path) -> int:
    """2 for a dataset of pictures, 3 for one of volumes, by the first of its images that can be read."""
    from MedProtectLib.release.layouts import find_layout
    from MedProtectLib.release.make import read_case_image

    layout = find_layout(dataset)
    for case in islice(layout.cases(), MOST_TRIED):
        with suppress(MedProtectError):
            return read_case_image(layout.root, case).geometry.dimension
    return 3


def _previous(arguments: Namespace) -> tuple[str, str] | None:
    from MedProtectLib.release.roots import Roots

    if arguments.previous is None:
        if arguments.previous_private is not None:
            raise UsageError("--previous-private goes with --previous.")
        return None
    roots = Roots.of(arguments.previous, arguments.previous_private)
    return str(roots.output), str(roots.private)


def _workforce(arguments: Namespace) -> Workforce:
    from MedProtectLib.release.run import Workforce
    from MedProtectLib.release.runners.dask import check_address
    from MedProtectLib.release.runners.shard import Shard

    tls = None if arguments.dask_tls is None else (arguments.dask_tls[0], arguments.dask_tls[1], arguments.dask_tls[2])
    if arguments.dask is not None and (warning := check_address(arguments.dask, tls)):
        say([warning], "warning")
    shard = None if arguments.shard is None else Shard.parse(arguments.shard)
    memory = None if arguments.memory is None else int(arguments.memory * 2**30)
    return Workforce(arguments.jobs, memory, shard, arguments.dask, tls)


def _key(arguments: Namespace, settings: Settings) -> Key | None:
    return key_of(arguments).for_release(settings.name) if settings.vault else None


def _dry_run(arguments: Namespace, settings: Settings, workforce: Workforce) -> int:
    from MedProtectLib.release.dry_run import dry_run

    key = None if arguments.key is None else _key(arguments, settings)
    plan = dry_run(settings, workforce, progress_of(arguments), arguments.resume, key)
    answer(arguments, plan.as_json(), _plan_text(plan))
    return 0 if plan.complete else 1


def _status(arguments: Namespace) -> int:
    from MedProtectLib.release.status import status_of

    status = status_of(Path(arguments.status))
    rows = [(name, str(value)) for name, value in status.rows()]
    answer(arguments, status.as_json(), table(rows))
    return 0


def _verify(arguments: Namespace) -> int:
    from MedProtectLib.release.verify import verify_release

    verification = verify_release(arguments.verify, arguments.private, progress_of(arguments))
    _warn(verification.findings, "--json lists them")
    answer(arguments, verification.as_json(), table(verification.rows()))
    return 1 if verification.findings else 0


def _warn(problems: Sequence[str], elsewhere: str) -> None:
    say(problems[:SHOWN_PROBLEMS], "warning")
    if len(problems) > SHOWN_PROBLEMS:
        say([f"{len(problems) - SHOWN_PROBLEMS} more; {elsewhere}."], "warning")


def _text(settings: Settings, summary: Summary) -> str:
    counts = ", ".join(f"{summary.counts[status]} {status}" for status in ("ok", "skipped", "copied", "quarantined", "failed"))
    rows = [("cases", counts), ("shareable", settings.output), ("private", settings.private)]
    if summary.stopped:
        rows.append(("stopped", summary.stopped))
    elif not summary.finished:
        rows.append(("not finished", "others are at work; the last one to end finishes the release"))
    else:
        rows.append(("overview", str(settings.roots.overview / "index.html")))
        rows.append(("audit trail", str(settings.roots.audit.with_suffix(".csv"))))
    return table(rows)


def _plan_text(plan: Plan) -> str:
    return "\n".join([*plan.case_lines(), "", table(plan.rows())])
