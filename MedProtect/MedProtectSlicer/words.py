"""Messages of the library in the words of the module: its controls instead of options of the command line."""

from __future__ import annotations

import re

from slicer.i18n import tr as _


def inModuleWords(message: str) -> str:
    """One line for a person who has the module in front of them."""
    phrases = {
        "another place with --output": _("another place"),
        ", or another --output": _(", or choose another place"),
        "another --output": _("another place"),
        "another --private": _("another private folder"),
        "Give --output the name": _("Give the name"),
        "give --output a name": _("give a name"),
        "Use --overwrite to replace it": _("Allow it to be replaced"),
        "use --overwrite to replace it": _("allow it to be replaced"),
        "Use --resume to go on with it": _("Start it again to go on with it"),
        "go on with --resume": _("go on by starting it again"),
        ", or with --series by its UID, number or description": "",
        "Use another --method": _("Use another method"),
        "Use --dimension 2": _("Choose 2D under Kind"),
        "another --seed": _("another seed"),
        "a secret --seed": _("a secret seed"),
        " (--split train)": "",
        "Give it by --passphrase-file, or another one": _("Take another one"),
    }
    names = {
        "--segments": _("the list of segments"),
        "--labels": _("Segmentation"),
        "--target-psnr": _("Target PSNR"),
        "--bound": _("Bound"),
        "--window LO HI": _("Intensity window"),
        "--window": _("Intensity window"),
        "--modality": _("Modality"),
        "--profile": _("Profile file"),
        "--method": _("Method"),
        "--private": _("Private folder"),
        "--steps": _("Steps"),
        "--vault": _("Vault folder"),
        "--key": _("Key file"),
        "--passphrase-file or set MEDPROTECT_PASSPHRASE": _("it under Passphrase"),
        "'medprotect fit'": _("the section Fit a profile"),
        "'medprotect fit --method ar'": _("the section Fit a profile"),
        "'medprotect audit'": _("the section Audit"),
    }
    for phrase, said in phrases.items():
        message = message.replace(phrase, said)
    for option in sorted(names, key=len, reverse=True):
        message = re.sub(rf"{re.escape(option)}(?![\w-])", names[option], message)
    return " ".join(message.split())
