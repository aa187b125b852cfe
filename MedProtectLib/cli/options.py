"""Options that several commands share, and the values they take."""

from __future__ import annotations

import getpass
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from MedProtectLib.errors import MedProtectError
from MedProtectLib.window import MODALITIES

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key

PASSPHRASE_VARIABLE = "MEDPROTECT_PASSPHRASE"


def add_common(parser: ArgumentParser) -> None:
    """What every command has."""
    parser.add_argument("--seed", type=seed, default=None, metavar="N", help="seed of everything random (default: the profile's, or 0)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    parser.add_argument(
        "--progress", choices=("bar", "json", "none"), default=None, help="progress on stderr (default: a bar on a terminal)"
    )


def add_series(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--series", default=None, metavar="SERIES", help="one of several DICOM series in a folder, by its UID, number or description"
    )


def add_labels(parser: ArgumentParser) -> None:
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--labels", default=None, metavar="LABELS", help="labels of the image: .seg.nrrd, .nii.gz, .mha, .png, DICOM SEG or RTSTRUCT, ..."
    )
    given.add_argument("--class", dest="image_class", default=None, metavar="CLASS", help="class of the whole image, for classification")
    add_segments(parser)


def add_segments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--segments", nargs="+", action="extend", default=[], metavar="SEGMENT", help="segments by name or label value (default: all)"
    )


def add_intensity(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--window", nargs=2, type=float, default=None, metavar=("LO", "HI"), help="intensity window in the image's own units"
    )
    parser.add_argument(
        "--modality", choices=MODALITIES, default=None, help="kind of image, which picks the window rule (default: guessed)"
    )


def add_method_settings(parser: ArgumentParser) -> None:
    """What a method can be fitted with."""
    parser.add_argument(
        "--scope",
        choices=("regions", "image"),
        default=None,
        help="where a method may act (default: its first in 'medprotect methods')",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        type=parameter,
        default=[],
        metavar="NAME=VALUE",
        help="numbers of the method, such as fraction=0.3; see 'medprotect methods'",
    )


def add_key(parser: ArgumentParser, required: bool = False) -> None:
    """The key of the restore vault."""
    parser.add_argument(
        "--key", required=required, default=None, metavar="FILE", help="key file of the restore vault (medprotect keys new)"
    )
    add_passphrase_file(parser)


def add_passphrase_file(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        default=None,
        metavar="FILE",
        help=f"file with the key's passphrase, where it has one (default: {PASSPHRASE_VARIABLE} in the environment, else a prompt)",
    )


def key_of(arguments: Namespace, file: str | None = None) -> Key:
    """The key in a file, that of --key where none is named.

    Raises:
        MedProtectError: not a key, readable by others, or a wrong passphrase or none.
    """
    from MedProtectLib.release.keys import load_key

    file = file or arguments.key
    return load_key(file, lambda: _passphrase(arguments, f"Passphrase of {file}: "))


def new_passphrase(arguments: Namespace) -> str:
    """A passphrase for a new key, asked for twice at a prompt.

    Raises:
        MedProtectError: there is none, or the two differ.
    """
    passphrase = _passphrase(arguments, "New passphrase: ")
    if _is_asked_for(arguments) and getpass.getpass("The same again: ") != passphrase:
        raise MedProtectError("the two passphrases differ; nothing was written.")
    return passphrase


def _is_asked_for(arguments: Namespace) -> bool:
    return arguments.passphrase_file is None and PASSPHRASE_VARIABLE not in os.environ


def _passphrase(arguments: Namespace, prompt: str) -> str:
    """From a file, the environment or a prompt; never from the command line, which other users of a machine can read."""
    from MedProtectLib.release.keys import check_owner_only

    if arguments.passphrase_file is not None:
        file = Path(arguments.passphrase_file)
        check_owner_only(file)
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise MedProtectError(f"{file}: no passphrase can be read from it.") from error
    if not _is_asked_for(arguments):
        return os.environ[PASSPHRASE_VARIABLE]
    if not sys.stdin.isatty():
        raise MedProtectError(f"this key needs a passphrase: give --passphrase-file or set {PASSPHRASE_VARIABLE}.")
    return getpass.getpass(prompt)


def parameter(text: str) -> tuple[str, float]:
    """'fraction=0.3' as a name and a number."""
    name, marker, value = text.partition("=")
    if not name or not marker:
        raise ArgumentTypeError(f"'{text}' is no setting such as fraction=0.3")
    return name, fraction(value)


HUGE_EXPONENT = re.compile(r"e[+-]?\d{4}", re.IGNORECASE)


def fraction(text: str) -> float:
    """'4/255' or '0.0157' as a number."""
    try:
        if HUGE_EXPONENT.search(text):
            raise ValueError("it would take for ever")
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ArgumentTypeError(f"'{text}' is no number or fraction such as 4/255") from None


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise ArgumentTypeError(f"'{text}' is no whole number from 0 on")
    return int(text)
