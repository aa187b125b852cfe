"""medprotect fit: a profile of one's own."""

from __future__ import annotations

import os
import secrets
from argparse import ArgumentParser, Namespace
from pathlib import Path

from MedProtectLib.cli.console import answer, progress_of, say
from MedProtectLib.cli.options import add_common, add_intensity, add_method_settings, add_segments, fraction
from MedProtectLib.errors import UsageError
from MedProtectLib.progress import ignore

EXAMPLE = """example:
  medprotect fit dataset/ --output site.medprotect

dataset/ holds imagesTr and labelsTr, or images and labels, with equal file names (Decathlon, nnU-Net; case_0000.nii.gz,
case_0001.nii.gz, ... are the channels of one case), or one folder of images per class (classification). It may also be a MedMNIST
file (.npz), or a CSV with the columns case,image,labels or case,image,class.
Several processes: torchrun --nproc-per-node 2 -m MedProtectLib fit ...
One image: medprotect fit ct.nii.gz --labels ct_labels.nii.gz --output site.medprotect
Whoever has the profile can compute your perturbations: keep it with your private files. Without --seed, a method that draws
its pattern from a seed alone gets a secret one."""
SEED_BITS = 62


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a folder, a CSV manifest, a MedMNIST file, or one image together with --labels")
    parser.add_argument("--labels", default=None, metavar="LABELS", help="label map, when DATASET is one image")
    add_segments(parser)
    parser.add_argument(
        "--split",
        default=None,
        metavar="NAME",
        help="cases to use, by a manifest's column split; without one, train, val or test as 'medprotect audit' draws them (default: all)",
    )
    parser.add_argument("--output", required=True, metavar="PROFILE", help="the profile file to write")
    parser.add_argument("--method", default="umed", metavar="M", help="protection method (default: umed)")
    parser.add_argument(
        "--dimension", type=int, choices=(2, 3), default=3, help="3 for volumes (default), 2 for pictures or slice by slice"
    )
    parser.add_argument(
        "--bound", type=fraction, default=4 / 255, metavar="E", help="largest change as a fraction of the window (default: 4/255)"
    )
    parser.add_argument("--steps", type=int, default=None, metavar="N", help="steps of the optimisation (default: 600)")
    parser.add_argument("--public", action="store_true", help="mark the profile as one that anybody may have")
    parser.add_argument("--note", default="", metavar="TEXT", help="a remark kept in the profile, such as the data's licence")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted fit stopped")
    add_method_settings(parser)
    add_intensity(parser)
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.fitting.dataset import CaseFiles, find_cases
    from MedProtectLib.fitting.fit import DEFAULT_STEPS, FitOptions, check_options, fit
    from MedProtectLib.io import stem_of

    options = FitOptions(
        method=arguments.method,
        dimension=arguments.dimension,
        bound=arguments.bound,
        steps=DEFAULT_STEPS if arguments.steps is None else arguments.steps,
        seed=_seed(arguments),
        modality=arguments.modality,
        window=None if arguments.window is None else tuple(arguments.window),
        segments=tuple(arguments.segments),
        scope=arguments.scope,
        parameters=dict(arguments.set),
        public=arguments.public,
        note=arguments.note,
    )
    check_options(options)
    if arguments.labels is not None:
        if arguments.split is not None:
            raise UsageError("--split is for a manifest; one image with --labels has no splits.")
        cases = [CaseFiles(stem_of(Path(arguments.dataset)), Path(arguments.dataset), Path(arguments.labels))]
    else:
        cases = find_cases(arguments.dataset, arguments.split)
    speaks = os.environ.get("RANK", "0") == "0"
    profile = fit(cases, Path(arguments.output), options, arguments.resume, progress_of(arguments) if speaks else ignore)
    if not speaks:
        return 0
    say(profile.training["left_out"], "warning")
    loss = profile.training.get("final_surrogate_loss")
    learned = "" if loss is None else f", surrogate loss at the end {loss:.3f}"
    keep = "It is marked public." if profile.public else "Whoever has it can compute your perturbations: keep it private."
    answer(
        arguments,
        {"profile": arguments.output, "sha256": profile.sha256(), "training": dict(profile.training)},
        f"{arguments.output}: fitted on {len(profile.training['cases'])} cases{learned}. {keep}",
    )
    return 0


def kept(arguments: Namespace) -> str | None:
    """Where an interrupted fit lies, None where it left nothing."""
    from MedProtectLib.fitting.fit import work_folder

    work = work_folder(Path(arguments.output))
    return f"{work} (copies of the images are in it)" if work.is_dir() else None


def _seed(arguments: Namespace) -> int:
    """The given one; else a secret one where a private profile would have no other secret: its method learns nothing from the images."""
    from MedProtectLib.methods import method_class

    if arguments.seed is not None:
        return int(arguments.seed)
    return 0 if arguments.public or method_class(arguments.method).learns else secrets.randbits(SEED_BITS)
