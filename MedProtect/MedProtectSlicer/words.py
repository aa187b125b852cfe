"""Messages of the library in the words of the module: its controls instead of options of the command line."""

from __future__ import annotations

import re

from slicer.i18n import tr as _


def inModuleWords(message: str) -> str:
    """One line for a person who has the module in front of them."""
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
        "--output": _("the folder"),
        "--private": _("Private folder"),
        "--steps": _("Steps"),
        "--overwrite": _("Replace earlier results"),
        "--vault": _("Vault folder"),
        "--key": _("Key file"),
        "--passphrase-file or set MEDPROTECT_PASSPHRASE": _("it under Passphrase"),
        "'medprotect fit'": _("the section Fit a profile"),
        "'medprotect audit'": _("the section Audit"),
    }
    for option in sorted(names, key=len, reverse=True):
        message = re.sub(rf"{re.escape(option)}(?![\w-])", names[option], message)
    return " ".join(message.split())
