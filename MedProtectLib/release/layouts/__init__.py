"""How datasets are laid out on disk: one file a layout. A layout says which cases there are and keeps the release loadable."""

from __future__ import annotations

from pathlib import Path

from MedProtectLib.errors import MedProtectError
from MedProtectLib.release.layouts.base import Layout


def find_layout(dataset: Path) -> Layout:
    """The layout of a dataset: a CSV manifest, a MedMNIST file, BIDS, Decathlon or nnU-Net, a DICOM tree, or class folders.

    Raises:
        MedProtectError: there is no such dataset, or it has none of these layouts.
    """
    from MedProtectLib.release.layouts.bids import Bids
    from MedProtectLib.release.layouts.class_folders import ClassFolders
    from MedProtectLib.release.layouts.dicom_tree import DicomTree
    from MedProtectLib.release.layouts.manifest import Manifest
    from MedProtectLib.release.layouts.medmnist import MedMNIST
    from MedProtectLib.release.layouts.nnunet import NnUNet

    if not dataset.exists():
        raise MedProtectError(f"{dataset}: no such dataset.")
    for layout in (Manifest, MedMNIST, Bids, NnUNet, DicomTree, ClassFolders):
        if layout.fits(dataset):
            return layout(dataset)
    raise MedProtectError(
        f"{dataset}: no layout is known here. Give a folder with imagesTr and labelsTr or images and labels, a BIDS dataset, a tree of "
        "DICOM series, a folder of images per class, a CSV manifest or a MedMNIST file."
    )
