"""What the header of a derived object says, and what it must not say any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from MedProtectLib.io.dicom.header import Header
from MedProtectLib.version import __version__

PRODUCT = "MedProtect"
SUFFIX = " (protected)"
DESCRIPTION = (
    f"{PRODUCT} {__version__}: pixels changed within a bound, against training without permission; not de-identified; not for diagnosis"
)
LONGEST_LO, LONGEST_ST = 64, 1024
MODIFYING_EQUIPMENT = ("109103", "DCM", "Modifying Equipment")
PIXEL_ADDITION = ("113042", "DCM", "Pixel by pixel addition")
FRAME_TYPES = (
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "MRSpectroscopyFrameTypeSequence",
    "PETFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
    "XRay3DFrameTypeSequence",
    "USImageDescriptionSequence",
)
SIGNATURES = ("DigitalSignaturesSequence", "MACParametersSequence")
OF_THE_ORIGINAL_PIXELS = ("IconImageSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def carries_our_mark(header: Header) -> bool:
    """Whether an object was made by :func:`mark_derived`."""
    return any(item.text("ManufacturerModelName") == PRODUCT for item in header.items("ContributingEquipmentSequence"))


def mark_derived(dataset: Dataset) -> None:
    """Say in a header that the pixels were changed, by what, and drop what spoke of the pixels as they were."""
    dataset.ImageType = _derived(dataset.get("ImageType"))
    dataset.SeriesDescription = f"{_text(dataset.get('SeriesDescription'))[: LONGEST_LO - len(SUFFIX)]}{SUFFIX}".strip()
    earlier = str(dataset.get("DerivationDescription") or "").strip()
    room = LONGEST_ST - len(DESCRIPTION) - 2
    dataset.DerivationDescription = f"{earlier[:room]}; {DESCRIPTION}" if earlier else DESCRIPTION
    _append(dataset, "DerivationCodeSequence", _code(*PIXEL_ADDITION))
    _append(dataset, "ContributingEquipmentSequence", _equipment())
    drop(dataset, (*SIGNATURES, *OF_THE_ORIGINAL_PIXELS))
    _mark_frames(dataset)


def _text(value: Any) -> str:
    """A string as it is stored: a backslash in it makes several values of it."""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")


def drop(dataset: Dataset, keywords: Iterable[str]) -> None:
    """Remove attributes that are no longer true."""
    for keyword in keywords:
        if keyword in dataset:
            del dataset[keyword]


def _mark_frames(dataset: Dataset) -> None:
    """The same for the functional groups of a multi-frame object."""
    shared, per_frame = (list(dataset.get(f"{which}FunctionalGroupsSequence") or ()) for which in ("Shared", "PerFrame"))
    for group in (*shared, *per_frame):
        for keyword in FRAME_TYPES:
            for item in group.get(keyword) or ():
                if "FrameType" in item:
                    item.FrameType = _derived(item.FrameType)
    if shared and not any("DerivationImageSequence" in group for group in (*shared, *per_frame)):
        shared[0].DerivationImageSequence = Sequence()  # may be empty, so that no source image has to be disclosed


def _derived(image_type: Any) -> list[str]:
    values = [image_type] if isinstance(image_type, str) else list(image_type or ())
    return ["DERIVED", *(values[1:] or ["PRIMARY"])]


def _append(dataset: Dataset, keyword: str, item: Dataset) -> None:
    setattr(dataset, keyword, Sequence([*(dataset.get(keyword) or ()), item]))


def _equipment() -> Dataset:
    item = Dataset()
    item.Manufacturer = f"{PRODUCT} contributors"
    item.ManufacturerModelName = PRODUCT
    item.SoftwareVersions = __version__
    item.ContributionDescription = DESCRIPTION
    item.PurposeOfReferenceCodeSequence = Sequence([_code(*MODIFYING_EQUIPMENT)])
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
