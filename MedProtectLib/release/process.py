"""One case of a release, from the dataset to its committed record: a function of a manifest's path and a case, on any machine.

    claim -> hash -> skip? -> read -> checks -> protect -> write -> re-read -> measure -> seal -> commit

It takes paths and gives a small dict, so that every runner can call it: here, in another process, on another machine.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import sha256_file, sha256_path
from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.protector import Protector
from MedProtectLib.release.case import ReleaseCase
from MedProtectLib.release.claims import claimed
from MedProtectLib.release.commit import OvertakenError, commit, hashes_below, outputs_hold, read_record, staged, write_record
from MedProtectLib.release.layouts.base import leads_out
from MedProtectLib.release.ledger import BUSY, FAILED, OK, QUARANTINED, SKIPPED, STARTED, Ledger
from MedProtectLib.release.make import Clock, Making, copied, protected, read_case_image
from MedProtectLib.release.roots import MEMBER, Roots
from MedProtectLib.release.settings import COPY, Settings, key_of_case
from MedProtectLib.release.versions import Released, is_remembered, remember

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key

RECORD_SCHEMA = 1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LOG = logging.getLogger(__name__)


class ChangedCaseError(MedProtectError):
    """A committed case that stays as it is: its files are not those that it was made of, or its vault entry is under another key."""


def process_case(manifest: str, content: Mapping[str, Any], key: Key | None = None, attempt: int = 1) -> dict[str, Any]:
    """Settle one case.

    Args:
        manifest: path of the release's manifest, :attr:`~MedProtectLib.release.roots.Roots.manifest`.
        content: the case, as :meth:`ReleaseCase.as_json` gives it.
        key: of the restore vault, for this release; None where there is no vault.
        attempt: which one it is, for the ledger.

    Returns:
        ``case``, ``status`` (ok, skipped, copied, quarantined, failed, busy), ``reason``, ``seconds``, ``withheld`` (objects of the
        case that could not go out) and ``stop``: whether no other case will fare better, such as on a full disk.
    """
    began = time.monotonic()
    settings, protector = _loaded(manifest)
    case = ReleaseCase.from_json(content)
    roots, ledger = settings.roots, Ledger(settings.roots.ledger)
    result = {"case": case.name, "reason": "", "withheld": [], "stop": False}
    try:
        with claimed(roots.claims, case.name) as mine:
            if not mine:
                return result | {"status": BUSY, "seconds": 0.0}
            return result | _settled(settings, protector, case, ledger, key, attempt)
    except Exception as error:
        status, stop, reason = judged(error, roots)
        if status == QUARANTINED and read_record(roots, case.name) is not None:
            status = FAILED  # it is out, and stays so
        seconds = round(time.monotonic() - began, 3)
        try:
            if status == QUARANTINED:
                quarantine(roots, case, reason, attempt)
            ledger.append(status, case=case.name, reason=reason, seconds=seconds, attempt=attempt)
        except OSError as full:
            status, stop, reason = FAILED, True, f"{full.filename or roots.private}: {full.strerror}"
        return result | {"status": status, "reason": reason, "stop": stop, "seconds": seconds}


def quarantine(roots: Roots, case: ReleaseCase, reason: str, attempt: int) -> None:
    """Write down why a case does not go out."""
    path = roots.reason(case.name)
    private_folder(path.parent)
    content = {"case": case.name, "reason": reason, "files": list(case.sources), "attempt": attempt, "time": time.time()}
    write_private(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


@lru_cache(maxsize=1)
def _loaded_at(manifest: str, modified: int) -> tuple[Settings, Protector]:
    settings = Settings.load(Path(manifest))
    return settings, settings.protector()


def _loaded(manifest: str) -> tuple[Settings, Protector]:
    """The settings and the protector, once for a process."""
    return _loaded_at(manifest, Path(manifest).stat().st_mtime_ns)


def judged(error: Exception, roots: Roots) -> tuple[str, bool, str]:
    """What an error makes of a case, whether to stop, and the reason in one line without any of the image's content."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return FAILED, True, f"{cause.filename or 'the output'}: {cause.strerror}. Make space and go on with --resume."
        if isinstance(cause, OSError) and cause.filename is not None and roots.hold(Path(os.fsdecode(cause.filename))):
            return FAILED, False, f"{cause.filename}: {cause.strerror}. Mend that and go on with --resume."
        cause = cause.__cause__
    if isinstance(error, ChangedCaseError | OvertakenError):
        return FAILED, False, str(error)
    if isinstance(error, MedProtectError):
        return QUARANTINED, False, " ".join(str(error).split())
    if isinstance(error, OSError):
        return FAILED, False, f"{error.filename or 'a file'}: {error.strerror}."
    if isinstance(error, MemoryError):
        return FAILED, False, "not enough memory for this case. Use fewer --jobs or a machine with more memory."
    where = traceback.extract_tb(error.__traceback__)[-1]
    LOG.debug("unexpected error in a case", exc_info=error)
    return QUARANTINED, False, f"an unexpected error ({type(error).__name__} in {Path(where.filename).name}, line {where.lineno})."


def _settled(settings: Settings, protector: Protector, case: ReleaseCase, ledger: Ledger, key: Key | None, attempt: int) -> dict[str, Any]:
    roots, clock = settings.roots, Clock.started()
    inputs = hashed_inputs(settings, case)
    identity, before = committed(settings, case, inputs)
    if before is not None and outputs_hold(roots, before):
        roots.reason(case.name).unlink(missing_ok=True)
        if not is_remembered(roots, before["original_voxels_sha256"]):
            _remember(settings, case, before)
        again = before["status"] == OK and key is not None and _sealed_again(settings, case, before, key)
        seconds = round(time.monotonic() - clock.at, 3)
        ledger.append(OK if again else SKIPPED, durable=again, case=case.name, key=identity, seconds=seconds)
        return {"status": OK if again else SKIPPED, "seconds": seconds, "withheld": before["withheld"]}
    clock.lap("hash")
    ledger.append(STARTED, case=case.name, key=identity, attempt=attempt)
    with staged(roots, case) as stage:
        record: dict[str, Any] = {"schema": RECORD_SCHEMA, "case": case.name, "key": identity, "inputs": inputs, "attempt": attempt}
        making = Making(settings, protector, case, stage, inputs, key, clock)
        record |= protected(making) if case.labelled else copied(making)
        record["outputs"] = hashes_below(stage.shared)
        if case.member is not None:
            record["member_sha256"] = sha256_file(stage.private / MEMBER)
        clock.lap("hash_outputs")
        if before is not None and record["protected_voxels_sha256"] != before["protected_voxels_sha256"]:
            raise ChangedCaseError(
                "its files are missing or damaged, and made again they would not be those that were released (another version of "
                "MedProtect, or another machine). Put them back, or make a new version of the release with --previous."
            )
        record["seconds"] = clock.steps
        record["time"] = time.time()
        commit(stage, roots, case, record, before)
    _remember(settings, case, record)
    roots.reason(case.name).unlink(missing_ok=True)
    seconds = round(sum(clock.steps.values()), 3)
    ledger.append(record["status"], case=case.name, key=identity, seconds=seconds, attempt=attempt, outputs=record["outputs"])
    return {"status": record["status"], "seconds": seconds, "withheld": record["withheld"]}


def hashed_inputs(settings: Settings, case: ReleaseCase) -> dict[str, str]:
    """SHA-256 of the files of a case by source.

    Raises:
        MedProtectError: the case has no labels and shall not go out without; a file cannot be read, or is a link out of the dataset.
    """
    if not case.labelled and settings.unlabelled != COPY:
        raise MedProtectError("it has no labels: nothing says what to protect. Label it, or release it as it is with --unlabelled copy.")
    return {source: _sha256(settings.root / source, settings.root) for source in case.sources}


def committed(settings: Settings, case: ReleaseCase, inputs: Mapping[str, str]) -> tuple[str, dict[str, Any] | None]:
    """The identity of what a case is made of, and its record where it was committed.

    Raises:
        ChangedCaseError: it was made of something else.
    """
    identity = key_of_case(settings, {**inputs, "class": str(case.image_class), "member": str(case.member)})
    record = read_record(settings.roots, case.name)
    if record is not None and record["key"] != identity:
        raise ChangedCaseError("its files changed since it was released. Make a new version of the release with --previous.")
    return identity, record


def _sealed_again(settings: Settings, case: ReleaseCase, record: Mapping[str, Any], key: Key) -> bool:
    """Make the vault entry of a committed case again where it is lost or damaged; whether that was so.

    Raises:
        ChangedCaseError: it was sealed under another key. MedProtectError: it cannot be made.
    """
    from MedProtectLib.release.sealing import is_sealed, released_image, sealed, sealed_before

    try:
        if is_sealed(settings.roots, record, key):
            return False
    except MedProtectError as error:
        raise ChangedCaseError(str(error)) from error
    volume = read_case_image(settings.root, case)
    stored = released_image(settings.roots, case, volume)
    found = None if "vault_entry" in record else sealed_before(settings, case, stored, key)
    entry = found or sealed(settings, case, volume, stored, key)
    write_record(settings.roots, {**record, "vault_entry": entry})
    return found is None


def _remember(settings: Settings, case: ReleaseCase, record: Mapping[str, Any]) -> None:
    inputs = {name: sha for name, sha in record["inputs"].items() if name in {item.source for item in case.image_files}}
    released = Released(
        case=case.name,
        labels=case.label_identity(record["inputs"]),
        version=record.get("frozen_since") or settings.name,
        output=settings.output,
        image=case.image.target,
        outputs=record["outputs"],
        inputs=inputs,
        protected_voxels=record["protected_voxels_sha256"],
        changed=record["changed_fraction"],
    )
    remember(settings.roots, record["original_voxels_sha256"], released)


def _sha256(path: Path, root: Path) -> str:
    """Of a file, or of the files of a folder.

    Raises:
        MedProtectError: it is none, it cannot be read, or a symbolic link leads out of the dataset.
    """
    try:
        nowhere = path.is_symlink() and not path.exists()
        out = not nowhere and any(leads_out(file, root) for file in (path, *(path.rglob("*") if path.is_dir() else ())))
    except ValueError:  # a zero byte in its name
        nowhere, out = True, False
    if nowhere:
        raise MedProtectError(f"{path}: not a path that leads to a file. Correct it.")
    if out:
        raise MedProtectError(f"{path}: a symbolic link that leads out of the dataset. Put the file itself there.")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise MedProtectError(f"{path}: neither a file nor a folder. Put the file itself there.")
    stat = path.stat() if path.is_file() else None
    return sha256_path(path) if stat is None else _sha256_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _sha256_of(path: Path, modified: int, size: int) -> str:
    """Of a file; kept for the next case, which may lie in the same one."""
    return sha256_file(path)
