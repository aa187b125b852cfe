"""Data to try the module with."""

from __future__ import annotations

from pathlib import Path

# To be set together with the project's URL in pyproject.toml: where the folder Resources/SampleData can be downloaded.
BASE_URL = "https://example.org/SlicerMedProtect/Resources/SampleData"
NAME = "MedProtectCT"
SOURCES = (
    ("totalseg_ct/ct.nii.gz", "e50c00b2914e2cac0aaee8e7f3b5f57d44d9f21bfd5c0577271c54c0cb49e9fb", "VolumeFile"),
    ("totalseg_ct/labels.seg.nrrd", "d08f71ef73c8ad3142dc847c58e35f92ce8e2d08df498220a2de562af174e011", "SegmentationFile"),
)


def registerSampleData(icons: Path) -> None:
    """Offer the project's small CT with its segmentation in the module Sample Data."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MedProtect",
        sampleName=NAME,
        thumbnailFileName=str(icons / "MedProtect.png"),
        uris=[f"{BASE_URL}/{path}" for path, _sha256, _kind in SOURCES],
        fileNames=[f"{NAME}.nii.gz", f"{NAME}.seg.nrrd"],
        checksums=[f"SHA256:{sha256}" for _path, sha256, _kind in SOURCES],
        nodeNames=[NAME, f"{NAME} segmentation"],
        loadFileType=[kind for _path, _sha256, kind in SOURCES],
    )
