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
TORCH = "torch"
OWNED_BY_SLICER = ["numpy", "scipy", "SimpleITK", "torch", "requests", "vtk"]
REQUESTER = "MedProtect"
_replaced: list[str] = []  # in this session, which may have loaded parts of the old ones


def ensureDependencies() -> None:
    """Make sure that everything can be imported, and ask before anything is installed.

    :raises MedProtectError: something is missing or too old and the user, or the test mode, does not want it installed, or a restart
        is needed.
    """
    _checkSession()
    _ensureTorch()
    missing = missingPackages()
    if not missing:
        return
    older = {name: version for name in map(_name, missing) if (version := _installed(name)) is not None}
    if not slicer.app.testingEnabled() and not slicer.util.confirmOkCancelDisplay(_question(missing, older)):
        raise _incomplete(missing)
    _install(missing)
    importlib.invalidate_caches()
    still = missingPackages()
    if still:
        raise _incomplete(still)
    _replaced.extend(f"{name} {version}" for name, version in older.items() if _installed(name) != version)
    _checkSession()


def missingPackages() -> list[str]:
    """The requirements that are not installed, or too old."""
    return [line for line in _requirements() if not _satisfied(line)]


def _requirements() -> list[str]:
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def _satisfied(requirement: str) -> bool:
    match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)(?:\s*,.*)?", requirement)
    if match is None:
        raise MedProtectError(_("'{line}' in requirements.txt is no requirement of the form name>=version.").format(line=requirement))
    installed = _installed(match[1])
    return installed is not None and _numbers(installed) >= _numbers(match[2])


def _name(requirement: str) -> str:
    return requirement.partition(">=")[0].strip()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:3])


def _ensureTorch() -> None:
    """By the PyTorch extension. One that is too old stays: other extensions use it, and Windows locks the files of a loaded one."""
    (needed,) = (line for line in _requirements() if _name(line) == TORCH)
    version = needed.removeprefix(TORCH)
    if importlib.util.find_spec(TORCH) is None:
        _installTorch(version)
    elif not _satisfied(needed):
        raise MedProtectError(
            _(
                "PyTorch {old} is too old: MedProtect needs {version}. Uninstall it in 'PyTorch Utils', restart Slicer and try again."
            ).format(old=_installed(TORCH), version=version.removeprefix(">="))
        )


def _installTorch(version: str) -> None:
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise MedProtectError(
            _("MedProtect needs PyTorch. Install the extension 'PyTorch' in the Extensions Manager and restart Slicer.")
        ) from error
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=version) is None:
        raise MedProtectError(_("PyTorch was not installed. MedProtect cannot work without it."))
    importlib.invalidate_caches()


def _question(missing: list[str], older: dict[str, str]) -> str:
    text = [_("MedProtect needs these Python packages: {names}.").format(names=", ".join(missing))]
    if older:
        named = ", ".join(f"{name} {version}" for name, version in older.items())
        text.append(_("They replace what is installed, also for other modules: {older}. Restart Slicer afterwards.").format(older=named))
    return " ".join([*text, _("Install them now?")])


def _install(missing: list[str]) -> None:
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        _installWithUtil(missing)
        return
    try:
        pip_ensure(load_requirements(REQUIREMENTS), skip_packages=OWNED_BY_SLICER, prompt_install=False, requester=REQUESTER)
    except RuntimeError as error:
        raise _incomplete(missing) from error


def _installWithUtil(missing: list[str]) -> None:
    """Slicer 5.10 and older have no slicer.packaging; what they and the PyTorch extension bring is held where it is."""
    if slicer.app.testingEnabled():
        raise _incomplete(missing)
    kept = [f"{name}=={version}" for name in OWNED_BY_SLICER if (version := _installed(name)) is not None]
    slicer.util.pip_install([*missing, *kept])


def _checkSession() -> None:
    if _replaced:
        raise MedProtectError(_("Restart Slicer before you go on: it has replaced {names}.").format(names=", ".join(_replaced)))


def _incomplete(missing: list[str]) -> MedProtectError:
    return MedProtectError(_("These Python packages are missing or too old: {names}. Nothing was done.").format(names=", ".join(missing)))
