"""The frame of the project: what is listed, installed, pinned and named agrees with what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from library_list import CMAKE, LIBRARY, cmake_text, library_files

ROOT = Path(__file__).parents[2]
AUTHORS = "MedProtect contributors"
BUDGET = 30e6
MACHINE_PATH = re.compile(r"(?<![\w.~-])(?:/(?:home|root|Users|work|tmp)|[A-Z]:\\Users)[/\\]\w")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.org")
TORCH_BUILD = ("nvidia-", "cuda-", "triton")


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def repository_files() -> list[Path]:
    """What git tracks or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def found(pattern: str, file: str) -> str:
    """The one text that ``pattern`` captures in a file of the project."""
    (text,) = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return text


def test_cmake_lists_every_library_file():
    assert CMAKE.read_text(encoding="utf-8") == cmake_text(), "run: python Testing/library_list.py (or make library-list)"


def test_wheel_holds_every_library_file(tmp_path):
    pytest.importorskip("setuptools", minversion="77.0.3")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(LIBRARY, tmp_path / "MedProtectLib", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name.removeprefix("MedProtectLib/") for name in ZipFile(wheel).namelist() if name.startswith("MedProtectLib/")}
    assert packed == set(library_files()), "tool.setuptools in pyproject.toml must find every package and name every data file"


def test_version_agrees(pyproject):
    version = found(r'^__version__ = "(.+)"$', "MedProtectLib/version.py")
    assert pyproject["project"]["dynamic"] == ["version"]
    assert found(r"^version: (.+)$", "CITATION.cff") == version
    assert found(r"^project\(MedProtect VERSION (.+)\)$", "CMakeLists.txt") == version


def test_authors_agree(pyproject):
    assert pyproject["project"]["authors"] == [{"name": AUTHORS}]
    assert found(r"^authors:\n  - name: (.+)\n(?!  - )", "CITATION.cff") == AUTHORS
    assert found(r'^set\(EXTENSION_CONTRIBUTORS "(.+)"\)$', "CMakeLists.txt") == AUTHORS


def test_url_agrees(pyproject):
    url = pyproject["project"]["urls"]["Homepage"]
    assert found(r'^url: "(.+?)"', "CITATION.cff") == url
    assert found(r'^set\(EXTENSION_HOMEPAGE "(.+)"\)$', "CMakeLists.txt") == url


def test_constraints_pin_every_requirement(pyproject):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if line and not line.startswith("#")}
    extras = pyproject["project"]["optional-dependencies"]
    waiting = [Requirement(text) for text in (*pyproject["project"]["dependencies"], *extras["test"], *extras["dev"])]
    needed: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in needed or name == "medprotect" or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        if name.startswith(TORCH_BUILD):
            continue
        needed.add(name)
        try:
            waiting += [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
    assert needed <= pinned, f"constraints.txt does not pin {sorted(needed - pinned)}"


def test_repository_stays_small(repository_files):
    size = sum(path.stat().st_size for path in repository_files)
    assert size < BUDGET, f"{size / 1e6:.1f} MB in the repository, the Extensions Index allows 100 MB with all of its history"


@pytest.mark.parametrize("forbidden", [MACHINE_PATH, REGISTRY], ids=["machine path", "package registry"])
def test_no_text_names(repository_files, forbidden):
    hits = []
    for path in repository_files:
        content = path.read_bytes()
        if b"\0" not in content:
            hits += [f"{path.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(content.decode("utf-8"))]
    assert not hits


def test_forbidden_patterns_do_match():
    assert MACHINE_PATH.search("see " + "/" + "home/someone/ct.nii.gz")
    assert MACHINE_PATH.search("C:" + r"\Users\someone")
    assert not MACHINE_PATH.search("https://example.org/work/item")
    assert REGISTRY.search("https://" + "pypi" + ".org/simple")
