"""medprotect audit: does a model trained on the protected data fail?"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.cli.console import answer, progress_of, say
from MedProtectLib.cli.options import add_common, add_segments, fraction, seed
from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.window import MODALITIES

if TYPE_CHECKING:
    from MedProtectLib.audit.data import AuditData
    from MedProtectLib.audit.experiment import Experiment

EXAMPLE = """example:
  medprotect audit dataset/ --profile site.medprotect --output audit/ --quick

dataset/ is what 'medprotect fit' takes. A manifest's column split (train, val, test) decides which cases are which; without
one 60 % train, 10 % choose the best epoch and 30 % test, by a hash of their names. Test cases stay clean; a profile should not have
seen them: fit it with 'medprotect fit DATASET --split train', which takes the same lists.
methods: none, noise, random_mask, those of 'medprotect methods' (each is fitted on the training cases), noise@METHOD (random
noise of a method's own PSNR), all. regimes: none, augmented, heavy; jpeg75 jpeg50 jpeg10 gaussian1 gaussian2 median3 bilateral
bits4 half_size denoiser cutout mixup adversarial2 adversarial4 ueraser warm_start; blur_regions inpaint_regions inpaint_contour
subtract_public subtract_weave snap_levels learn_from_pairs; joined by + they are used together: jpeg10+augmented.
victims: unet dynunet residual_unet attention_unet segresnet unetr, nnunet (the real one, an extra; --regimes none); resnet18
densenet for classification.
DIR gets rows.jsonl (one line per training run), audit.md, audit.html, overview.png, frontier.png and bars.png; an interrupted
audit goes on with --resume. Everything about it: Documentation/Audit.md."""

QUICK_CASES, QUICK_STEPS = 60, 300
ALL = "all"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a folder, a CSV manifest or a MedMNIST file of originals with labels")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for rows, tables and plots, and the work folder")
    parser.add_argument(
        "--methods", nargs="+", action="extend", default=None, metavar="M", help="methods and controls (default: umed, noise and none)"
    )
    parser.add_argument("--profile", nargs="+", action="extend", default=[], metavar="FILE", help="fitted profiles to audit")
    parser.add_argument(
        "--released", nargs="+", action="extend", default=[], metavar="DIR", help="folders of already protected files to audit"
    )
    parser.add_argument("--victims", nargs="+", action="extend", default=None, metavar="V", help="networks (default: the setting's)")
    parser.add_argument("--regimes", nargs="+", action="extend", default=None, metavar="R", help="ways to train (default: none augmented)")
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=seed, default=None, metavar="N", help="seeds of the victims (default: 0 1 2)"
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        action="extend",
        type=share,
        default=None,
        metavar="S",
        help="protected parts of the cases, such as 0.8 or 80%%",
    )
    parser.add_argument(
        "--bound", type=fraction, default=None, metavar="E", help="largest change (default: that of --profile and --released, else 4/255)"
    )
    parser.add_argument("--target-psnr", type=float, default=None, metavar="DB", help="whole-image PSNR to come down to")
    parser.add_argument("--steps", type=int, default=None, metavar="N", help="steps of a victim (default: the setting's)")
    parser.add_argument("--fit-steps", type=int, default=None, metavar="N", help="steps of a method's fit (default: 600)")
    parser.add_argument("--setting", default=None, metavar="NAME", help="how victims are trained: entry of audit/settings.toml")
    parser.add_argument("--name", default=None, metavar="NAME", help="name of the data set in the rows (default: the file's)")
    parser.add_argument("--public", default=None, metavar="DATASET", help="another, public data set: for warm_start and denoiser")
    add_segments(parser)
    parser.add_argument("--modality", choices=MODALITIES, default=None, help="kind of image (default: guessed)")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="no more cases than this in each list, class by class")
    parser.add_argument("--quick", action="store_true", help="a first answer in minutes: few cases, few steps, one seed")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted audit stopped")
    add_common(parser)


def share(text: str) -> float:
    """'80%' or '0.8' as a number."""
    value = fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"'{text}' is no part of the cases: above 0 and up to 1, or up to 100%")
    return value


def run(arguments: Namespace) -> int:
    from MedProtectLib.audit.experiment import run_experiment
    from MedProtectLib.audit.releases import PROFILE, RELEASED, told_of_seen
    from MedProtectLib.audit.report import write_report
    from MedProtectLib.audit.rows import RowFile

    output = Path(arguments.output)
    _check_folder(output)
    rows = RowFile(output / "rows.jsonl")
    if rows.rows and not arguments.resume:
        raise MedProtectError(f"{rows.path}: holds the rows of an audit. Use --resume to go on with it, or another --output.")
    report = progress_of(arguments)
    experiment = _experiment(arguments, output)
    experiment.check()
    releases = experiment.releases
    given = [f"{PROFILE}{name}" for name in releases.profiles] + [f"{RELEASED}{name}" for name in releases.folders]
    say([told_of_seen(method, seen) for method in given if (seen := releases.seen_by(method))], "warning")
    for method in given:
        releases.of(method, report)
    output.mkdir(parents=True, exist_ok=True)
    trained = 0
    for _ in run_experiment(experiment, rows, report):
        trained += 1
        write_report(rows.path, output)
    written = write_report(rows.path, output)
    say(written.cautions, "notice")
    content = {"rows": str(rows.path), "trained": trained, "summary": written.summary, "cautions": written.cautions}
    answer(arguments, content, written.text)
    return 0


def kept(arguments: Namespace) -> str | None:
    """Where an interrupted audit lies, None where it left nothing."""
    output = Path(arguments.output)
    return str(output) if any((output / name).exists() for name in ("work", "rows.jsonl")) else None


def _experiment(arguments: Namespace, output: Path) -> Experiment:
    from MedProtectLib.audit.experiment import Experiment
    from MedProtectLib.audit.releases import CLEAN, PROFILE, RELEASED, Releases, supported_methods
    from MedProtectLib.fitting.training import DEFAULT_STEPS

    if arguments.limit is not None and arguments.limit < 2:
        raise UsageError(f"--limit {arguments.limit}: give at least 2.")
    profiles, folders = _named(arguments.profile, "--profile"), _named(arguments.released, "--released")
    bound = _bound(arguments.bound, profiles, folders)
    limit = arguments.limit or (QUICK_CASES if arguments.quick else None)
    data = _read(arguments, arguments.dataset, arguments.setting, arguments.name, limit)
    public = None if arguments.public is None else _read(arguments, arguments.public, None, None, None)
    given = [f"{PROFILE}{name}" for name in profiles] + [f"{RELEASED}{name}" for name in folders]
    methods = arguments.methods if arguments.methods is not None else ([] if given else ["umed"])
    methods = [name for method in methods for name in (supported_methods(data) if method == ALL else [method])]
    releases = Releases(
        data=data,
        work=output / "work",
        bound=bound,
        target_psnr=arguments.target_psnr,
        fit_steps=DEFAULT_STEPS if arguments.fit_steps is None else arguments.fit_steps,
        fit_seed=arguments.seed or 0,
        modality=arguments.modality,
        segments=tuple(arguments.segments),
        profiles=profiles,
        folders=folders,
    )
    return Experiment(
        releases,
        methods=list(dict.fromkeys([CLEAN, "noise", *methods, *given])),
        victims=arguments.victims or [data.setting.victim],
        regimes=arguments.regimes or ["none", "augmented"],
        seeds=arguments.seeds or ([0] if arguments.quick else [0, 1, 2]),
        shares=arguments.shares or [1.0],
        steps=arguments.steps if arguments.steps is not None or not arguments.quick else QUICK_STEPS,
        public=public,
    )


def _check_folder(output: Path) -> None:
    """Raises MedProtectError where no folder can be made or written."""
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise MedProtectError(f"{there}: this is a file, not a folder. Choose another --output.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MedProtectError(f"{there}: cannot be written. Choose another --output.")


def _bound(asked: float | None, profiles: dict[str, Path], folders: dict[str, Path]) -> float:
    """The bound to audit: the one that was asked for, else that of what is audited.

    Raises:
        UsageError: it is out of range, or what is audited has several bounds or does not say which.
    """
    from MedProtectLib.audit.released import recorded_bounds
    from MedProtectLib.checks import check_bound
    from MedProtectLib.profile import Profile
    from MedProtectLib.protector import DEFAULT_BOUND

    if asked is not None:
        check_bound(asked)
        return asked
    found = [(path, Profile.load(path).bound) for path in profiles.values()]
    for folder in folders.values():
        recorded = recorded_bounds(folder)
        if not recorded:
            raise UsageError(f"{folder}: no record in it says how large the changes may be. Give --bound.")
        found += [(folder, bound) for bound in recorded]
    if len({f"{bound * 255:.4g}" for _, bound in found}) > 1:
        listed = ", ".join(f"{path.name} {bound * 255:.4g}/255" for path, bound in found)
        raise UsageError(f"an audit has one bound, and here are several: {listed}. Give --bound.")
    bound = found[0][1] if found else DEFAULT_BOUND
    check_bound(bound)
    return bound


def _read(arguments: Namespace, dataset: str, setting: str | None, name: str | None, limit: int | None) -> AuditData:
    from MedProtectLib.audit.data import load_dataset

    return load_dataset(dataset, setting, name, arguments.modality, arguments.segments, limit, progress_of(arguments))


def _named(paths: list[str], option: str) -> dict[str, Path]:
    """Paths by the names under which their rows go."""
    named = {Path(path).name.split(".")[0]: Path(path) for path in paths}
    if len(named) < len(paths):
        raise UsageError(f"{option}: two of the paths have the same name, so that their rows could not be told apart. Rename one.")
    for path in named.values():
        if not path.exists():
            raise MedProtectError(f"{path}: does not exist. Check {option}.")
    return named
