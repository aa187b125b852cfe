"""The file formats that a protected volume can be exported in: those that the library writes."""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _


class ExportFormat(Enum):
    """The value is the file name's extension, None where what the volume was loaded from decides."""

    NRRD = ".nrrd"
    NIFTI = ".nii.gz"
    DICOM = "DICOM"
    ORIGINAL = None

    def label(self) -> str:
        return {
            "NRRD": "NRRD (.nrrd)",
            "NIFTI": "NIfTI (.nii.gz)",
            "DICOM": _("DICOM series (as it was loaded)"),
            "ORIGINAL": _("As the original file"),
        }[self.name]
