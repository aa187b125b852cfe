"""The command medprotect."""

from __future__ import annotations

import logging
import re
import signal
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

from MedProtectLib.cli.console import JSON_LINES, Notices, close_stdout, refuse
from MedProtectLib.errors import MedProtectError, UsageError, remedy
from MedProtectLib.version import __version__

COMMANDS = {
    "protect": "protect one image: a bounded, imperceptible perturbation in and around its segments",
    "fit": "fit a profile of your own on a dataset",
    "verify": "measure an original and its protected version as they lie on disk",
    "release": "protect a whole dataset: shareable folder, private folder, audit trail",
    "restore": "give back the exact original of a protected file, to whoever holds the key",
    "keys": "make, hand out, show and change the keys that restore",
    "audit": "train models on clean and protected data and see whether they fail on clean images",
    "methods": "list the methods and what each needs",
}


class _Parser(ArgumentParser):
    """Wrong usage is one line and exit code 2. Options are written out: an abbreviation could mean another one in the next version.
    Whatever begins like a negative number is one, -1e3 too, as from Python 3.14 on.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"allow_abbrev": False})
        self._negative_number_matcher = re.compile(r"-\.?\d")
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self._given = [] if self._subparsers else list(args or ())
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Wrong usage. An option that is unknown comes first: others may be missing only because of it."""
        options = list(self._option_string_actions)
        names = [text.partition("=")[0] for text in self._given if text.startswith("--") and text != "--"]
        unknown = next((name for name in names if name not in options), None)
        if unknown is not None:
            near = get_close_matches(unknown, options, 1)
            message = f"unknown option {unknown}" + (f", did you mean {near[0]}?" if near else "")
        raise UsageError(f"{message} (see '{self.prog} --help').")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 2 wrong usage, 1 anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, _interrupt)
    library, notices = logging.getLogger("MedProtectLib"), Notices(logging.WARNING)
    library.addHandler(notices)
    as_lines = JSON_LINES.set("--progress=json" in arguments or ("--progress", "json") in pairwise(arguments))
    parsed = Namespace()
    try:
        parsed = _parser().parse_args(arguments)
        code: int = parsed.run(parsed)
        return code
    except MedProtectError as error:
        refuse(as_json, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        refuse(as_json, _stopped(parsed))
        return 1
    except BrokenPipeError:
        close_stdout()
        return 1
    except OSError as error:
        what_to_do = remedy(error, "Check the path, the permissions and the free space.")
        refuse(as_json, f"{error.filename or 'input or output'}: {error.strerror or error}. {what_to_do}")
        return 1
    except MemoryError:
        refuse(as_json, "not enough memory for this image. Close other programs or use a machine with more memory.")
        return 1
    finally:
        library.removeHandler(notices)
        JSON_LINES.reset(as_lines)


def _parser() -> ArgumentParser:
    parser = _Parser("medprotect", description="Make annotated medical images unlearnable before they are published.")
    parser.add_argument("--version", action="version", version=f"MedProtect {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, summary in COMMANDS.items():
        module = import_module(f"MedProtectLib.cli.{name}")
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=module.EXAMPLE,
            formatter_class=RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, kept=getattr(module, "kept", None))
    return parser


def _stopped(parsed: Namespace) -> str:
    """What an interrupt has left, and how to go on."""
    kept = parsed.kept(parsed) if getattr(parsed, "kept", None) else None
    if kept is None:
        return "cancelled: what was not complete was removed."
    return f"stopped: what is done is kept in {kept}. Go on with --resume, or remove it."


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
