"""medprotect restore: the exact original of a protected file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from MedProtectLib.cli.console import answer
from MedProtectLib.cli.options import add_common, add_key, key_of

EXAMPLE = """example:
  medprotect restore shareable/ct_protected.nii.gz --vault shareable_private --key site.key --output originals/ct.nii.gz

The protected file must be the one that was released, to the last byte. The voxels come back bit for bit; the command says whether
the whole file did. Wrong key, changed file, another case's file: one line, exit code 1, nothing written."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("protected", metavar="PROTECTED", help="the protected file, or the folder of a protected DICOM series")
    parser.add_argument("--vault", required=True, metavar="DIR", help="folder with the vault entries (.medvault), subfolders included")
    parser.add_argument("--output", required=True, metavar="FILE", help="where the original goes, in another folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    add_key(parser, required=True)
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.release.restore import restore_file

    restored = restore_file(arguments.protected, arguments.vault, key_of(arguments), arguments.output, arguments.overwrite)
    same = "byte for byte the original file" if restored.same_file else "the original's voxels, bit for bit, in a file that is packed anew"
    answer(
        arguments,
        {
            "output": str(restored.output),
            "files": [str(file) for file in restored.files],
            "release": restored.release,
            "case": restored.case,
            "same_file": restored.same_file,
        },
        f"{restored.output}: case '{restored.case}' of the release '{restored.release}': {same}.",
    )
    return 0
