"""List every file of MedProtectLib in its CMakeLists.txt: ``python Testing/library_list.py``."""

from __future__ import annotations

from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "MedProtectLib"
CMAKE = LIBRARY / "CMakeLists.txt"

TEMPLATE = """\
# Written by Testing/library_list.py (make library-list): an unlisted file would be missing from the Slicer package.
set(LIBRARY_SCRIPTS
{scripts})

set(LIBRARY_RESOURCES
{resources})

# WITH_SUBDIR installs the package as a folder beside MedProtect.py, so that "import MedProtectLib" works in Slicer.
slicerMacroBuildScriptedModule(
  NAME MedProtectLib
  SCRIPTS ${{LIBRARY_SCRIPTS}}
  RESOURCES ${{LIBRARY_RESOURCES}}
  WITH_SUBDIR
  )
"""


def library_files() -> list[str]:
    """Every file of the package, relative to it."""
    return sorted(
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*")
        if path.is_file() and path != CMAKE and "__pycache__" not in path.parts and not path.name.startswith(".")
    )


def cmake_text() -> str:
    """What MedProtectLib/CMakeLists.txt has to say."""
    lines = [f"  {name}\n" for name in library_files()]
    scripts = "".join(line for line in lines if line.endswith(".py\n"))
    resources = "".join(line for line in lines if not line.endswith(".py\n"))
    return TEMPLATE.format(scripts=scripts, resources=resources)


if __name__ == "__main__":
    CMAKE.write_text(cmake_text(), encoding="utf-8", newline="\n")
