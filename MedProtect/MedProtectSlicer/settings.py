"""How a case is to be protected: the same options for the preview, the child process and the command line."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from slicer.i18n import tr as _

from MedProtectLib.errors import UsageError

if TYPE_CHECKING:
    from MedProtectLib.protector import Protector


class _Parser(ArgumentParser):
    """The command line's options without its way of giving up."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def written(number: float) -> str:
    """Every digit and no exponent: what begins with a minus and has one, argparse takes for an option."""
    return np.format_float_positional(float(number), trim="0")


@dataclass(frozen=True)
class ProtectSettings:
    """The options of ``medprotect protect``, under its names; None leaves the choice to the library.

    ``bound`` is a fraction of the intensity window, ``target_psnr`` in dB, ``window`` (low, high) in the image's own units.
    """

    method: str = "umed"
    profile: str | None = None
    bound: float | None = None
    target_psnr: float | None = None
    modality: str | None = None
    window: Sequence[float] | None = None
    seed: int | None = None

    def protector(self) -> Protector:
        """The protector that the command line would make of the same options."""
        from MedProtectLib.cli import protect

        parser = _Parser()
        protect.add_arguments(parser)
        places = ["image", "--labels", "labels", "--output", "output"]
        return protect.protector_of(parser.parse_args([*places, *self.arguments()]))

    def knowing(self, modality: str | None) -> ProtectSettings:
        """The same, with a modality that is known and was not chosen."""
        from MedProtectLib.window import MODALITIES

        return replace(self, modality=modality) if self.modality is None and modality in MODALITIES else self

    def arguments(self) -> list[str]:
        """The same options for the command line."""
        words = ["--method", self.method]
        words += self._options("profile", "bound", "target_psnr", "modality", "seed")
        if self.window is not None:
            words += ["--window", *(written(end) for end in self.window)]
        return words

    def auditArguments(self) -> list[str]:
        """The options of ``medprotect audit`` that say what is audited: the profile, or the method fitted anew."""
        words = ["--methods", self.method] if self.profile is None else ["--profile", self.profile]
        return words + self._options("bound", "target_psnr", "modality", "seed")

    def notAudited(self) -> list[str]:
        """What an audit does otherwise than these options say, a line for each."""
        window = _("The audit takes the profile's intensity window or that of the rule, not the one that is set here.")
        seed = _("The audit protects with the profile's own seed, not with the one that is set here.")
        return [*([] if self.window is None else [window]), *([] if self.seed is None or self.profile is None else [seed])]

    def _options(self, *names: str) -> list[str]:
        """Those of the options that were chosen."""
        chosen = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        return [
            word for name, value in chosen for word in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else repr(value))
        ]
