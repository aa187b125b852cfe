"""The files of one case, made in its stage: protected with its labels, or an unlabelled one as it is."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import channel_files, data_of, labels_or_class, read_volume, sha256_file, sha256_voxels
from MedProtectLib.io.npz import member_array
from MedProtectLib.job import sha256_of_image, write_and_reread, write_pictures
from MedProtectLib.protection import Protection
from MedProtectLib.protector import Protector
from MedProtectLib.records import private_record, shareable_record
from MedProtectLib.release.already import check_image
from MedProtectLib.release.case import Item, ReleaseCase
from MedProtectLib.release.commit import Stage
from MedProtectLib.release.layouts.base import is_image, relative
from MedProtectLib.release.ledger import COPIED, OK
from MedProtectLib.release.roots import MEMBER
from MedProtectLib.release.settings import Settings
from MedProtectLib.release.versions import Released, frozen, recall, reserve
from MedProtectLib.statistics import Statistics, measure
from MedProtectLib.volume import Volume

if TYPE_CHECKING:
    from MedProtectLib.release.keys import Key


@dataclass
class Clock:
    """Seconds by step."""

    steps: dict[str, float]
    at: float

    @classmethod
    def started(cls) -> Clock:
        return cls({}, time.monotonic())

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.steps[step], self.at = round(now - self.at, 4), now


@dataclass(frozen=True)
class Making:
    """What a case is made with. ``inputs``: SHA-256 of its files by source."""

    settings: Settings
    protector: Protector
    case: ReleaseCase
    stage: Stage
    inputs: Mapping[str, str]
    key: Key | None
    clock: Clock


def image_files(settings: Settings, case: ReleaseCase, inputs: Mapping[str, str]) -> dict[Path, str]:
    """SHA-256 of the files of a case's image, out of those of all its files by source."""
    return {settings.root / item.source: inputs[item.source] for item in case.image_files}


def read_original(settings: Settings, case: ReleaseCase, inputs: Mapping[str, str]) -> tuple[Volume, str]:
    """The image of a case and the SHA-256 of its voxels. ``inputs``: SHA-256 of the case's files by source.

    Raises:
        MedProtectError: it is no image, or was protected before.
    """
    volume = read_case_image(settings.root, case)
    check_image(image_files(settings, case, inputs), settings.root, volume)
    return volume, sha256_voxels(volume.array)


def went_out(settings: Settings, case: ReleaseCase, voxels: str) -> Released | None:
    """How the image with these voxels went out in an earlier version, None when it did not.

    Raises:
        MedProtectError: the case went out with another image, or is to go out unprotected and went out protected.
    """
    before = None if settings.earlier is None else recall(settings.earlier, voxels, case)
    if before is not None and before.protected_voxels is not None and not case.labelled:
        raise MedProtectError(
            f"its image went out protected in '{before.version}': the original beside it would show the perturbation. Withheld."
        )
    return before


def copied(making: Making) -> dict[str, Any]:
    """An unlabelled case as it is; returns what its record says.

    Raises:
        MedProtectError: it is no image, was protected before, or went out protected in an earlier version.
    """
    settings, case, stage, clock = making.settings, making.case, making.stage, making.clock
    _, voxels = read_original(settings, case, making.inputs)
    went_out(settings, case, voxels)
    reserve(settings.roots, voxels, case.name, "")
    _check_whole(settings, case)
    for item in (*case.image_files, *case.copies, *case.references):
        _copy(settings, item, stage)
    clock.lap("copy")
    return {
        "status": COPIED,
        "original_voxels_sha256": voxels,
        "protected_voxels_sha256": None,
        "changed_fraction": 0.0,
        "withheld": [],
        "warnings": ["it has no labels and went out as it is, unprotected."],
        "shareable": {"case": case.name, "protected": False},
        "private": {},
    }


def protected(making: Making) -> dict[str, Any]:
    """A protected case with its labels; returns what its record says.

    Raises:
        MedProtectError: the case cannot be used, or must be withheld.
    """
    settings, case, clock = making.settings, making.case, making.clock
    volume, voxels = read_original(settings, case, making.inputs)
    labels = labels_or_class(volume, None if case.labels is None else settings.root / case.labels, settings.segments, case.image_class)
    reserve(settings.roots, voxels, case.name, case.label_identity(making.inputs))
    clock.lap("read")
    before = went_out(settings, case, voxels)
    if before is None or settings.earlier is None:
        protection = making.protector.protect(volume, labels)
    else:
        protection = frozen(before, settings.earlier, making.protector, volume, labels)
    clock.lap("protect")
    _check_whole(settings, case)
    stored = _written(making, protection, before)
    for item in case.copies:
        _copy(settings, item, making.stage)
    withheld = [*case.withheld, *_rewrite_references(making, protection)]
    if hasattr(volume.source, "uids"):
        _write_uids(making.stage.private / "uids.csv", protection.volume)
    clock.lap("write")
    statistics = measure(volume, stored, protection.regions, protection.windows, protection.bound)
    clock.lap("measure")
    shared, kept = _records(making, protection, stored, statistics, voxels)
    entry = None
    if making.key is not None:
        from MedProtectLib.release.sealing import sealed

        entry = sealed(settings, case, volume, stored, making.key)
        clock.lap("seal")
    write_pictures(making.stage.private, "", protection, stored, statistics, kept, pages=settings.reports)
    clock.lap("report")
    return {
        "status": OK,
        "original_voxels_sha256": voxels,
        "protected_voxels_sha256": shared["protected_voxels_sha256"],
        "changed_fraction": statistics.changed_fraction if before is None else before.changed,
        "withheld": withheld,
        "warnings": [*protection.notices, *protection.warnings, *withheld],
        "frozen_since": None if before is None else before.version,
        "vault_entry": entry,
        "shareable": shared,
        "private": kept,
    }


def read_case_image(root: Path, case: ReleaseCase) -> Volume:
    """The image of a case.

    Raises:
        MedProtectError: it cannot be used.
    """
    if case.member is None:
        path = root / case.image.source
        files = [root / item.source for item in case.image_files]
        if not path.exists() and len(files) > 1 and not {file for file in files if is_image(file)} <= {*channel_files(path)}:
            listed = ", ".join(file.name for file in files)
            raise MedProtectError(f"{path}: {listed} are neither one image nor channels 0000, 0001, ... in one format.")
        volume = read_volume(path)
        if hasattr(volume.source, "uids") and not {file.parent for file in files} <= {file.parent for file in volume.source.files}:
            raise MedProtectError(f"{path}: its series has slices in other folders too. Put them into one.")
        return volume
    from MedProtectLib.fitting.dataset import CaseFiles

    return CaseFiles(case.name, root / case.image.source, None, case.image_class, case.member, case.split).read()[0]


def _written(making: Making, protection: Protection, before: Released | None) -> Volume:
    """The protected image in the stage, as re-read. Where the original's files are those of an earlier version, so are the bytes."""
    if making.case.member is not None:
        return _kept_member(making, protection.volume)
    target = making.stage.place(making.case.image.target)
    files = image_files(making.settings, making.case, making.inputs)
    same_files = before is not None and sorted(before.inputs.values()) == sorted(files.values())
    if before is None or not same_files or not _copied_from(before, making):
        return write_and_reread(protection.volume, target)
    stored = read_volume(target)
    if sha256_voxels(stored.array) != before.protected_voxels:
        raise MedProtectError(f"{target.name}: the file of '{before.version}' was changed. Put the released one back.")
    return stored


def _kept_member(making: Making, protected: Volume) -> Volume:
    """An image of a MedMNIST file, kept in the private root until the whole file is made."""
    path, stream = making.stage.private / MEMBER, BytesIO()
    np.save(stream, member_array(protected), allow_pickle=False)
    path.write_bytes(stream.getvalue())  # np.save into a file does not say that the disk is full
    return protected.with_array(np.load(path, allow_pickle=False).reshape(protected.array.shape))


def _copied_from(before: Released, making: Making) -> bool:
    """Whether the files of the earlier version could be copied."""
    earlier = making.settings.earlier
    places = {making.case.image.target, *(item.target for item in making.case.image_files)}
    names = [name for name in before.outputs if name in places or name.rpartition("/")[0] in places]
    for root in dict.fromkeys([Path(before.output), *([earlier.output] if earlier else [])]):
        if names and all((root / name).is_file() and sha256_file(root / name) == before.outputs[name] for name in names):
            for name in names:
                shutil.copyfile(root / name, making.stage.place(name))
            return True
    return False


def _check_whole(settings: Settings, case: ReleaseCase) -> None:
    """Raises MedProtectError where a header of the case names a data file that is missing, or was when the cases were listed."""
    for item in (*case.image_files, *case.copies):
        found = data_of(settings.root / item.source)
        if found is not None and relative(found[0], settings.root) not in case.sources:
            raise MedProtectError(f"{settings.root / item.source}: its data file '{found[0].name}' is new. Go on with --resume.")


def _copy(settings: Settings, item: Item, stage: Stage) -> None:
    shutil.copyfile(settings.root / item.source, stage.place(item.target))


def _write_uids(path: Path, protected: Volume) -> None:
    """Which UID became which, for the owner of a DICOM series."""
    from MedProtectLib.io.dicom import derived_uids

    uids = derived_uids(protected)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "original", "released"))
        for kind, pairs in (("series", uids.series), ("instance", uids.instances)):
            writer.writerows((kind, original, released) for original, released in pairs.items())


def _rewrite_references(making: Making, protection: Protection) -> list[str]:
    """DICOM objects with references to the protected series; returns the reasons of those that cannot go out."""
    withheld = []
    for item in making.case.references:
        from MedProtectLib.io.dicom import derived_uids, rewrite_references

        target = making.stage.place(item.target)
        if target.exists():
            withheld.append(f"{item.source} was withheld: a slice of the protected series has its name. Rename it.")
            continue
        try:
            rewrite_references(making.settings.root / item.source, target, [derived_uids(protection.volume)])
        except MedProtectError as error:
            target.unlink(missing_ok=True)
            withheld.append(f"{item.source} was withheld: {error}")
    return withheld


def _records(
    making: Making, protection: Protection, stored: Volume, statistics: Statistics, voxels: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may go out about the case, and what repeats it."""
    case, inputs = making.case, making.inputs
    files = [] if stored.source is None else [sha256_file(file) for file in stored.source.files]
    of_voxels = sha256_voxels(stored.array)
    about: dict[str, Any] = {
        "case": case.name,
        "protected": True,
        "protected_file": case.image.target,
        "protected_sha256": files[0] if len(files) == 1 else of_voxels,
        "protected_voxels_sha256": of_voxels,
    }
    path, source = making.settings.root / case.image.source, protection.volume.source
    if hasattr(source, "uids"):
        original = sha256_of_image(path, protection.volume)
    else:
        original = ", ".join(inputs[item.source] for item in case.image_files)
    originals = {"original_file": case.image.source, "original_sha256": original, "original_voxels_sha256": voxels}
    labelled = {"image_class": str(case.image_class)}
    if case.labels is not None:
        labelled = {"labels_file": case.labels, "labels_sha256": inputs[case.labels]}
    kept = private_record(protection, {**about, **originals, **labelled}, making.settings.segments)
    return shareable_record(protection, statistics, about), kept
