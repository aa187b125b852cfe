"""Options that several commands share, and the values they take."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from fractions import Fraction

from MedProtectLib.window import MODALITIES


def add_common(parser: ArgumentParser) -> None:
    """What every command has."""
    parser.add_argument("--seed", type=seed, default=None, metavar="N", help="seed of everything random (default: the profile's, or 0)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    parser.add_argument(
        "--progress", choices=("bar", "json", "none"), default=None, help="progress on stderr (default: a bar on a terminal)"
    )


def add_labels(parser: ArgumentParser) -> None:
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--labels", default=None, metavar="LABELS", help="label map of the image: .seg.nrrd, .nii.gz, .mha, .png, ...")
    given.add_argument("--class", dest="image_class", default=None, metavar="CLASS", help="class of the whole image, for classification")
    parser.add_argument("--segments", nargs="+", default=[], metavar="SEGMENT", help="segments by name or label value (default: all)")


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
        type=parameter,
        default=[],
        metavar="NAME=VALUE",
        help="numbers of the method, such as fraction=0.3; see 'medprotect methods'",
    )


def parameter(text: str) -> tuple[str, float]:
    """'fraction=0.3' as a name and a number."""
    name, marker, value = text.partition("=")
    if not name or not marker:
        raise ArgumentTypeError(f"'{text}' is no setting such as fraction=0.3")
    return name, fraction(value)


def fraction(text: str) -> float:
    """'4/255' or '0.0157' as a number."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ArgumentTypeError(f"'{text}' is no number or fraction such as 4/255") from None


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise ArgumentTypeError(f"'{text}' is no whole number from 0 on")
    return int(text)
