"""The protection methods, by name. A new one is a file beside these and a line here; loading a name loads its file only."""

from __future__ import annotations

from importlib import import_module

from MedProtectLib.errors import UsageError
from MedProtectLib.methods.base import Case, Component, Method

_HOME = {
    "umed": "MedProtectLib.methods.umed:UMed",
    "voxshield": "MedProtectLib.methods.voxshield:VoxShield",
    "em": "MedProtectLib.methods.em:EM",
    "salm": "MedProtectLib.methods.salm:SALM",
    "tap": "MedProtectLib.methods.tap:TAP",
    "sep": "MedProtectLib.methods.sep:SEP",
    "lsp": "MedProtectLib.methods.lsp:LSP",
    "ar": "MedProtectLib.methods.ar:AR",
    "weave": "MedProtectLib.methods.weave:Weave",
}

METHODS = tuple(_HOME)


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UsageError: no method of that name.
    """
    if name not in _HOME:
        raise UsageError(f"unknown method '{name}'. Known methods: {', '.join(METHODS)}.")
    module, _, attribute = _HOME[name].partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found


__all__ = ["METHODS", "Case", "Component", "Method", "method_class"]
