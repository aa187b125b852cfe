"""The file formats that a protected volume can be exported in: those that the library writes."""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _


class ExportFormat(Enum):
    """The value is the file name's extension, empty for that of the file that the volume was loaded from."""

    NRRD = ".nrrd"
    NIFTI = ".nii.gz"
    ORIGINAL = ""

    def label(self) -> str:
        return {"ORIGINAL": _("As the original file"), "NRRD": "NRRD (.nrrd)", "NIFTI": "NIfTI (.nii.gz)"}[self.name]
