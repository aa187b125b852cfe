"""The extension's CMake files and its entry for the extensions index."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from library_list import library_files

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "MedProtect"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
INDEX = json.loads((ROOT / "MedProtect.json").read_text(encoding="utf-8"))
INSTALLED = Path("lib/Slicer-5.12/qt-scripted-modules")


def set_in(name: str) -> str:
    (text,) = re.findall(rf'^set\({name} "([^"]*)"\)$', CMAKE, re.MULTILINE)
    return text


def module_files() -> list[str]:
    """Every file of the module that belongs into the package."""
    return sorted(
        p.relative_to(MODULE).as_posix()
        for p in MODULE.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and p.name != "CMakeLists.txt"
    )


def test_the_module_lists_every_file():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "MedProtect")
    listed = re.findall(r"^  (\S+\.(?:py|ui|png|txt|md|gz|nrrd))$", text, re.MULTILINE)
    assert sorted(listed) == module_files()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The extension configured, built and installed with stand-ins for Slicer's macros."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    build, target = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    configure = [cmake, "-S", ROOT, "-B", build, f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake_stand_in'}", "-DBUILD_TESTING=ON"]
    configure += ["-DMedProtect_TEST_LIBRARY=ON", f"-DCMAKE_INSTALL_PREFIX={target}"]
    for command in (configure, [cmake, "--build", build], [cmake, "--install", build]):
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr + run.stdout
    tests = subprocess.run([shutil.which("ctest"), "-N", "--test-dir", str(build)], capture_output=True, text=True, check=True).stdout
    assert {"py_MedProtect", "py_MedProtect_pytest_in_slicer"} <= set(re.findall(r"Test +#\d+: (\S+)", tests))
    built = {p.relative_to(build) for p in (build / INSTALLED).rglob("*") if p.is_file()}
    assert built == {p.relative_to(target) for p in (target / INSTALLED).rglob("*") if p.is_file()}
    return target


def test_what_lands_where(installed):
    files = {p.relative_to(installed / INSTALLED).as_posix() for p in (installed / INSTALLED).rglob("*") if p.is_file()}
    assert files == set(module_files()) | {f"MedProtectLib/{name}" for name in library_files()}
    assert [p.name for p in installed.iterdir()] == ["lib"]


def test_the_installed_module_finds_its_library(installed, tmp_path):
    modules = installed / INSTALLED
    script = (
        "import sys\n"
        f"sys.path[:0] = [{str(modules)!r}]\n"
        "import MedProtectLib.cli.main, MedProtectLib.preview\n"
        "from MedProtectLib.profile import shipped_profile\n"
        "assert shipped_profile('umed', 3) is not None\n"
        "print(MedProtectLib.__file__)"
    )
    run = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).is_relative_to(modules)


def test_a_missing_file_is_an_error(tmp_path):
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    for name in ("CMakeLists.txt", "MedProtect", "MedProtectLib", "Testing"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "Python", "Benchmarks"))
        else:
            shutil.copy(source, tmp_path / name)
    (tmp_path / "MedProtect" / "MedProtectSlicer" / "logic.py").unlink()
    stand_in = f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake_stand_in'}"
    run = subprocess.run([cmake, "-S", str(tmp_path), "-B", str(tmp_path / "b"), stand_in], capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    assert "logic.py: listed and missing" in run.stderr


def test_the_index_entry_says_what_cmake_says():
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory", "enabled", "tier"}
    assert set(INDEX) <= allowed
    assert INDEX["scm_url"] == set_in("EXTENSION_HOMEPAGE")
    assert INDEX["build_dependencies"] == set_in("EXTENSION_DEPENDS").split()
    assert (INDEX["category"], INDEX["scm_revision"], INDEX["scm_type"]) == ("Utilities", "main", "git")
    assert b"\r" not in (ROOT / "MedProtect.json").read_bytes()


def test_cmake_fields_are_what_the_index_reads():
    assert re.search(r"^project\(MedProtect\b", CMAKE, re.MULTILINE)
    home = set_in("EXTENSION_HOMEPAGE")
    pictures = [set_in("EXTENSION_ICONURL"), *set_in("EXTENSION_SCREENSHOTURLS").split()]
    for url in pictures:
        assert url.startswith(home + "/"), "one variable decides where the project lives"
        assert url.endswith(".png")
        assert (ROOT / url.removeprefix(home + "/")).is_file()
    assert "## NEXT_MODULE" in CMAKE


def test_sample_data_come_with_the_module(monkeypatch, tmp_path):
    registered = {}
    logic = SimpleNamespace(registerCustomSampleDataSource=registered.update)
    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
    monkeypatch.syspath_prepend(str(MODULE))
    from MedProtectSlicer.sampledata import registerSampleData

    registerSampleData(MODULE / "Resources")
    assert Path(registered["thumbnailFileName"]).is_file()
    bundled = ROOT / "Resources" / "SampleData" / "totalseg_ct"
    for uri, name, checksum, same in zip(
        registered["uris"], registered["fileNames"], registered["checksums"], ("ct.nii.gz", "labels.seg.nrrd"), strict=True
    ):
        urllib.request.urlretrieve(uri, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        assert checksum == f"SHA256:{hashlib.sha256(content).hexdigest()}"
        assert content == (bundled / same).read_bytes()
    assert (MODULE / "Resources" / "SampleData" / "ATTRIBUTION.md").read_bytes() == (bundled / "ATTRIBUTION.md").read_bytes()


def test_requirements_are_those_of_the_library():
    """The same packages as in pyproject.toml, without what every Slicer brings in a version that will do, and never pinned."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {"numpy", "scipy", "simpleitk"}
    wanted = {re.split(r"[<>=~!, ]", line)[0].lower(): line for line in project["dependencies"]}
    lines = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {re.split(r"[<>=]", line)[0].lower(): line for line in lines if line and not line.startswith("#")}
    assert set(listed) == set(wanted) - brought
    for name, line in listed.items():
        assert re.fullmatch(r"[\w.-]+>=[\d.]+", line)
        assert wanted[name].lower().startswith(line.lower())


def test_nothing_third_party_is_imported_at_file_scope():
    allowed = set(sys.stdlib_module_names) | {"slicer", "qt", "ctk", "vtk", "numpy", "scipy", "SimpleITK"}
    allowed |= {"MedProtectLib", "MedProtectSlicer"}
    for path in MODULE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                names = {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            assert {name.partition(".")[0] for name in names} <= allowed, path.name
