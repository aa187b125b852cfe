"""Whether a release is, file by file, what its records say: before it is handed out, after it was copied, or where it arrived.

Nothing is written. Without the private folder this works for everybody who has the release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedProtectLib.errors import MedProtectError
from MedProtectLib.io import extension_of, sha256_file, sha256_voxels
from MedProtectLib.io.names import is_dicom
from MedProtectLib.io.npz import array_shapes, member_volume, read_array
from MedProtectLib.io.volumes import READERS
from MedProtectLib.progress import Report, Stage, ignore
from MedProtectLib.recorded import is_number
from MedProtectLib.release.commit import files_below, read_record
from MedProtectLib.release.fingerprints import Fingerprints
from MedProtectLib.release.finish import COMMON, Tally, shareable_line
from MedProtectLib.release.inventory import listed
from MedProtectLib.release.members import SPLITS
from MedProtectLib.release.roots import RECORDS, SUMMARY, Roots
from MedProtectLib.untrusted import LARGEST_RECORD, parse_json, read_json

DAMAGED = "damaged. Put the one back that was released."
MOST_NAMED = 10
LONGEST_TOLD = 100  # of a name that no file can have


@dataclass
class ReleaseVerification:
    """What was found in a release.

    ``files`` were held against their SHA-256, those about the whole dataset too; the images of a MedMNIST file also against that of
    their voxels, one by one. ``unnamed`` are files that neither a record nor the summary names: they do not belong there, or the
    release was made before the summary named any. ``private``: whether every record was held against the one in the private folder.
    ``findings``: what is not as it was made.
    """

    name: str
    tally: Tally = field(default_factory=Tally)
    files: int = 0
    unnamed: list[str] = field(default_factory=list)
    private: bool = False
    findings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": not self.findings,
            "release": self.name,
            "cases": self.tally.as_json()["cases"],
            "files": self.files,
            "unnamed": self.unnamed,
            "private_records_compared": self.private,
            "findings": self.findings,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and value."""
        yield "release", self.name
        yield "cases", f"{self.tally.protected} protected, {self.tally.unprotected} unprotected"
        yield "files", f"{self.files} compared with their records"
        yield "named nowhere", ", ".join(self.unnamed[:MOST_NAMED]) + (", ..." if len(self.unnamed) > MOST_NAMED else "") or "none"
        yield "private records", "compared" if self.private else "not there: not compared"
        yield "result", f"{len(self.findings)} finding{'s' * (len(self.findings) > 1)}" if self.findings else "as it was made"


def verify_release(output: str | Path, private: str | Path | None = None, report: Report = ignore) -> ReleaseVerification:
    """Read every file of a release and compare it with the records.

    Args:
        output: the shareable folder.
        private: the private one, by default that beside it, if it is there.
        report: told the progress, by cases.

    Raises:
        MedProtectError: no release is there, or no private folder where one was named; a file cannot be read.
    """
    roots = Roots.of(output, private)
    records = roots.output / RECORDS
    if not records.is_file():
        raise MedProtectError(f"{roots.output}: no finished release is here (it has no {RECORDS}).")
    if private is not None and not roots.manifest.is_file():
        raise MedProtectError(f"{roots.private}: not the private folder of a release (it has no {roots.manifest.name}).")
    found = ReleaseVerification(roots.output.name, private=roots.manifest.is_file())
    named, cases, members = _compare_records(roots, found, report)
    _compare_common(roots, found, named)
    for name, voxels in members.items():
        named.add(name)
        found.files += len(voxels)
        found.findings += _of_members(roots, name, voxels)
    named.sort()
    found.unnamed = [name for name in _names_below(roots.output) if name not in named and name not in (RECORDS, SUMMARY)]
    images = [name for name in found.unnamed if extension_of(name) in READERS or is_dicom(roots.output / name)]
    found.findings += [f"{name}: an image or label map that is not of this release" for name in images]
    found.findings += _left_out(roots, cases) if found.private else ()
    return found


def _compare_records(roots: Roots, found: ReleaseVerification, report: Report) -> tuple[Fingerprints, Fingerprints, dict[str, list[str]]]:
    """Compare the files of every case. Returns the names of these files, those of the cases, and the SHA-256 of MedMNIST files' images."""
    records = roots.output / RECORDS
    named, cases, members = Fingerprints(), Fingerprints(), dict[str, list[str]]()
    stage = Stage("verify", sum(1 for _ in _lines(records)), report)
    for number, line in enumerate(_lines(records), start=1):
        record = _read_line(line)
        if record is None:
            found.findings.append(f"{RECORDS}, line {number}: {DAMAGED}")
            continue
        found.tally.add(record)
        cases.add(record["case"])
        for name, sha in record["outputs"].items():
            named.add(name)
            found.files += 1
            found.findings += _of_file(roots, f"case '{record['case']}'", name, sha)
        if not record["outputs"] and "protected_file" in record:
            members.setdefault(record["protected_file"], []).append(record["protected_voxels_sha256"])
        if found.private:
            found.findings += _of_private(roots, record)
        stage.at(number)
    cases.sort()
    if cases.distinct() < found.tally.protected + found.tally.unprotected:
        found.findings.append(f"{RECORDS}: a case has more than one line")
    return named, cases, members


def _compare_common(roots: Roots, found: ReleaseVerification, named: Fingerprints) -> None:
    """Compare the summary with the records, and the files about the whole dataset with the summary."""
    if not (roots.output / SUMMARY).is_file():
        found.findings.append(f"{SUMMARY}: missing: the release is not finished. Go on with --resume")
        return
    try:
        summary = read_json(roots.output / SUMMARY, DAMAGED)
    except MedProtectError as error:
        found.findings.append(str(error))
        return
    if any(summary.get(key) != value for key, value in found.tally.as_json().items()):
        found.findings.append(f"{SUMMARY}: its counts and ranges are not those of the records")
    common = summary.get(COMMON, {})
    if not isinstance(common, dict) or not all(isinstance(sha, str) for sha in common.values()):
        found.findings.append(f"{SUMMARY}: {DAMAGED}")
        return
    for name, sha in common.items():
        named.add(name)
        found.files += 1
        found.findings += _of_file(roots, "the dataset's own", name, sha)


def _lines(records: Path) -> Iterator[bytes]:
    try:
        with records.open("rb") as file:
            while line := file.readline(LARGEST_RECORD):
                yield line
    except OSError as error:
        raise MedProtectError(f"{records}: cannot be read ({error.strerror}).") from error


def _read_line(line: bytes) -> dict[str, Any] | None:
    """The record in a line, None where what is used of it has not the type that it must have; anybody may have written the file."""
    try:
        record = parse_json(line, DAMAGED)
        if record["protected"] is True:
            psnr = record["statistics"]["psnr_db"]
            if not is_number(record["bound"]) or not isinstance(record["method"], str) or not (psnr is None or is_number(psnr)):
                return None
        elif record["protected"] is not False:
            return None
        texts = [record["case"], *record["outputs"], *record["outputs"].values()]
        if "protected_file" in record:
            texts += [record["protected_file"], record["protected_voxels_sha256"]]
    except (MedProtectError, KeyError, TypeError, AttributeError):
        return None
    return record if all(isinstance(text, str) for text in texts) else None


def _of_file(roots: Roots, whose: str, name: str, sha: str) -> Iterator[str]:
    try:
        path = roots.target(name)
        if not path.is_file():
            yield f"{name}: missing ({whose})"
        elif sha256_file(path) != sha:
            yield f"{name}: not the file that was released ({whose}, SHA-256 differs)"
    except MedProtectError as error:
        yield str(error)
    except OSError as error:
        yield f"{name[:LONGEST_TOLD]}: cannot be read ({error.strerror})"


def _of_members(roots: Roots, name: str, recorded: list[str]) -> Iterator[str]:
    """The images of a MedMNIST file, which are in the order of their records."""
    try:
        stored = list(_voxels(roots.target(name)))
    except MedProtectError as error:
        yield str(error)
        return
    if len(stored) != len(recorded):
        yield f"{name}: {len(stored)} images, of which {len(recorded)} are in the records"
        return
    for (image, sha), told in zip(stored, recorded, strict=True):
        if sha != told:
            yield f"{name}: image {image} is not the one that was released (SHA-256 of its voxels differs)"


def _voxels(file: Path) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of the voxels of every image in a MedMNIST file, in the order of the cases of a release."""
    there = array_shapes(file)
    for split in sorted(SPLITS):
        name = f"{split}_images"
        if name not in there:
            continue
        images = read_array(file, name)
        for number in range(len(images)):
            yield f"{number} of '{name}'", sha256_voxels(member_volume(images, number, file.name).array)


def _of_private(roots: Roots, record: dict[str, Any]) -> Iterator[str]:
    kept = read_record(roots, record["case"])
    if kept is None:
        yield f"case '{record['case']}': the private folder has no record of it"
    elif shareable_line(kept) != record:
        yield f"case '{record['case']}': its line in {RECORDS} is not what its private record says"


def _left_out(roots: Roots, cases: Fingerprints) -> Iterator[str]:
    for content in listed(roots):
        if content["name"] not in cases and roots.record(content["name"]).exists():
            yield f"case '{content['name']}': released, but not in {RECORDS}"


def _names_below(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in files_below(folder))
