"""DICOM: image series in, derived series out, segmentations and structure sets as labels.

Loads pydicom when imported; :mod:`MedProtectLib.io` loads it only for a folder or a file that is DICOM. Documentation/DICOM.md says
what is kept, changed and refused.
"""

from MedProtectLib.io.dicom.reading import read, read_series, series_at
from MedProtectLib.io.dicom.references import rewrite_references
from MedProtectLib.io.dicom.series import Inventory, LabelFile, Series, find_series, is_picture, scan
from MedProtectLib.io.dicom.source import DicomSource, derived_uids
from MedProtectLib.io.dicom.uids import DerivedUids
from MedProtectLib.io.names import is_dicom

__all__ = [
    "DerivedUids",
    "DicomSource",
    "Inventory",
    "LabelFile",
    "Series",
    "derived_uids",
    "find_series",
    "is_dicom",
    "is_picture",
    "read",
    "read_series",
    "rewrite_references",
    "scan",
    "series_at",
]
