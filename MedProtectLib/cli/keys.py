"""medprotect keys: make, hand out, show and change the keys of the restore vault."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from MedProtectLib.cli.console import answer, progress_of, say
from MedProtectLib.cli.options import add_common, add_key, add_passphrase_file, key_of, new_passphrase

EXAMPLE = """example:
  medprotect keys new site.key
  medprotect keys grant partner.key --key site.key --release hospital-2026 --cases case_007 case_019
  medprotect keys show partner.key
  medprotect keys rotate private/vault --key site.key --new-key site-2027.key

site.key opens everything: keep it, and a copy of it, apart from the data. A key file is readable by its owner only."""

SHOWN_PROBLEMS = 20


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a site key")
    new.add_argument("file", metavar="FILE", help="the key file to write; an existing one is never overwritten")
    new.add_argument(
        "--passphrase",
        action="store_true",
        help="derive it from a passphrase, which is then needed with the file; --passphrase-file alone says the same",
    )
    add_passphrase_file(new)
    grant = actions.add_parser("grant", help="make a key for a partner: of a release, or of single cases")
    grant.add_argument("file", metavar="FILE", help="the key file to write; an existing one is never overwritten")
    grant.add_argument("--release", required=True, metavar="NAME", help="name of the release")
    grant.add_argument(
        "--cases", nargs="+", action="extend", default=None, metavar="CASE", help="only these cases (default: the whole release)"
    )
    add_key(grant, required=True)
    show = actions.add_parser("show", help="say what a key opens")
    show.add_argument("key", metavar="FILE")
    add_passphrase_file(show)
    rotate = actions.add_parser("rotate", help="encrypt the entries of a vault anew under another site key")
    rotate.add_argument("vault", metavar="DIR", help="folder with the vault entries, subfolders included")
    rotate.add_argument("--new-key", required=True, metavar="FILE", help="the other site key")
    add_key(rotate, required=True)
    for action in (new, grant, show, rotate):
        add_common(action)


def run(arguments: Namespace) -> int:
    code: int = ACTIONS[arguments.action](arguments)
    return code


def _new(arguments: Namespace) -> int:
    from MedProtectLib.release.keys import SiteKey, save_key

    wanted = arguments.passphrase or arguments.passphrase_file is not None
    key = SiteKey.new(new_passphrase(arguments) if wanted else None)
    save_key(key, arguments.file)
    also = " Without the passphrase it is worth nothing." if wanted else ""
    answer(
        arguments,
        {"key": arguments.file, "opens": key.reach},
        f"{arguments.file}: opens {key.reach}. Keep a copy apart from the data.{also}",
    )
    return 0


def _grant(arguments: Namespace) -> int:
    from MedProtectLib.release.keys import save_key

    site = key_of(arguments)
    key = site.for_release(arguments.release) if arguments.cases is None else site.for_cases(arguments.release, arguments.cases)
    save_key(key, arguments.file)
    answer(arguments, {"key": arguments.file, "opens": key.reach}, f"{arguments.file}: opens {key.reach}.")
    return 0


def _show(arguments: Namespace) -> int:
    key = key_of(arguments)
    answer(arguments, {"key": arguments.key, "opens": key.reach}, f"{arguments.key}: opens {key.reach}.")
    return 0


def _rotate(arguments: Namespace) -> int:
    from MedProtectLib.release.rotate import rotate

    rotated = rotate(Path(arguments.vault), key_of(arguments), key_of(arguments, arguments.new_key), progress_of(arguments))
    say(rotated.refused[:SHOWN_PROBLEMS], "error")
    left = f", {len(rotated.refused)} stay as they were" if rotated.refused else ""
    answer(
        arguments,
        {"ok": not rotated.refused, "rotated": rotated.changed, "unchanged": rotated.unchanged, "refused": list(rotated.refused)},
        f"{arguments.vault}: {rotated.changed} entries sealed anew, {rotated.unchanged} were under the new key already{left}.",
    )
    return 1 if rotated.refused else 0


ACTIONS = {"new": _new, "grant": _grant, "show": _show, "rotate": _rotate}
