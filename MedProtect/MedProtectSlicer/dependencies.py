"""Python packages that Slicer does not bring: asked for when they are first needed, never at import."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from MedProtectLib.errors import MedProtectError

REQUIREMENTS = Path(__file__).parents[1] / "Resources" / "requirements.txt"
TORCH = ">=2.4"
OWNED_BY_SLICER = ["numpy", "scipy", "SimpleITK", "torch", "pydicom", "requests", "vtk"]
REQUESTER = "MedProtect"


def ensureDependencies() -> None:
    """Make sure that everything can be imported, and ask before anything is installed.

    :raises MedProtectError: something is missing and the user, or the test mode, does not want it installed.
    """
    _ensureTorch()
    missing = missingPackages()
    if not missing:
        return
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        _installWithUtil(missing)
    else:
        try:
            pip_ensure(load_requirements(REQUIREMENTS), skip_packages=OWNED_BY_SLICER, requester=REQUESTER)
        except RuntimeError as error:
            raise _incomplete(missing) from error
    importlib.invalidate_caches()
    still = missingPackages()
    if still:
        raise _incomplete(still)


def missingPackages() -> list[str]:
    """The requirements that are not installed, or too old."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not _satisfied(line)]


def _satisfied(requirement: str) -> bool:
    match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)(?:\s*,.*)?", requirement)
    if match is None:
        raise MedProtectError(_("'{line}' in requirements.txt is no requirement of the form name>=version.").format(line=requirement))
    try:
        installed = importlib.metadata.version(match[1])
    except importlib.metadata.PackageNotFoundError:
        return False
    return _numbers(installed) >= _numbers(match[2])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:3])


def _ensureTorch() -> None:
    if importlib.util.find_spec("torch") is not None:
        return
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise MedProtectError(
            _("MedProtect needs PyTorch. Install the extension 'PyTorch' in the Extensions Manager and restart Slicer.")
        ) from error
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH) is None:
        raise MedProtectError(_("PyTorch was not installed. MedProtect cannot work without it."))


def _installWithUtil(missing: list[str]) -> None:
    """Slicer 5.10 and older have no slicer.packaging."""
    question = _("MedProtect needs these Python packages: {names}. Install them now?").format(names=", ".join(missing))
    if slicer.app.testingEnabled() or not slicer.util.confirmOkCancelDisplay(question):
        raise _incomplete(missing)
    slicer.util.pip_install(missing)


def _incomplete(missing: list[str]) -> MedProtectError:
    return MedProtectError(_("These Python packages are missing: {names}. Nothing was done.").format(names=", ".join(missing)))
