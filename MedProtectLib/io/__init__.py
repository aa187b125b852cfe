"""Image files: read with every check that a damaged or doubtful file asks for, written back with the same header and other voxels.

A reader returns a :class:`~MedProtectLib.volume.Volume` whose ``source`` keeps the file's header; the writer puts it in front of
voxels of the same type and shape. SimpleITK and nibabel are loaded when the first file of their formats is read.
"""

from MedProtectLib.io.channels import channel_files
from MedProtectLib.io.hashing import sha256_file, sha256_files, sha256_image, sha256_path, sha256_voxels
from MedProtectLib.io.labels import labels_or_class, read_labels
from MedProtectLib.io.names import case_name, extension_of, stem_of
from MedProtectLib.io.resample import resample_labels
from MedProtectLib.io.volumes import data_of, read_volume, write_volume

__all__ = [
    "case_name",
    "channel_files",
    "data_of",
    "extension_of",
    "labels_or_class",
    "read_labels",
    "read_volume",
    "resample_labels",
    "sha256_file",
    "sha256_files",
    "sha256_image",
    "sha256_path",
    "sha256_voxels",
    "stem_of",
    "write_volume",
]
