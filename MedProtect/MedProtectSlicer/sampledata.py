"""Data to try the module with: they come with it, so that a machine without internet has them too."""

from __future__ import annotations

from pathlib import Path

NAME = "MedProtectCT"
SOURCES = (
    (f"{NAME}.nii.gz", "e50c00b2914e2cac0aaee8e7f3b5f57d44d9f21bfd5c0577271c54c0cb49e9fb", "VolumeFile"),
    (f"{NAME}.seg.nrrd", "d08f71ef73c8ad3142dc847c58e35f92ce8e2d08df498220a2de562af174e011", "SegmentationFile"),
)


def registerSampleData(resources: Path) -> None:
    """Offer the module's small CT with its segmentation in the module Sample Data, which copies it into its cache and loads it."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MedProtect",
        sampleName=NAME,
        thumbnailFileName=str(resources / "Icons" / "MedProtect.png"),
        uris=[(resources / "SampleData" / name).absolute().as_uri() for name, _sha256, _kind in SOURCES],
        fileNames=[name for name, _sha256, _kind in SOURCES],
        checksums=[f"SHA256:{sha256}" for _name, sha256, _kind in SOURCES],
        nodeNames=[NAME, f"{NAME} segmentation"],
        loadFileType=[kind for _name, _sha256, kind in SOURCES],
    )
