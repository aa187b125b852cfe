"""DICOM objects made for the tests from real voxels: series, multi-frame objects, segmentations, structure sets.

pydicom and highdicom write them, and dicom3tools, GDCM and these libraries read what the project writes, so that the project's reader
and writer do not test each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    UltrasoundImageStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498.77."
STUDY, FRAME_OF_REFERENCE, SERIES = UID(ROOT + "1"), UID(ROOT + "2"), UID(ROOT + "3")
PATIENT, PATIENT_ID, INSTITUTION = "Mustermann^Erika", "PID-47110815", "Klinik am Deich"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Edit = Callable[[Dataset, int], None]
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "US": UltrasoundImageStorage, "DX": DigitalXRayImageStorageForPresentation}


def unchanged(dataset: Dataset, number: int) -> None:
    """The edit that does nothing."""


def image(array: np.ndarray, modality: str, number: int, series: str = SERIES) -> Dataset:
    """One object of an array (j, i) or (j, i, c) without a place in space; its SOP Instance UID goes by its number."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CLASSES[modality], UID(f"{series}.{number + 1}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, UID(series)
    dataset.PatientName, dataset.PatientID, dataset.InstitutionName = PATIENT, PATIENT_ID, INSTITUTION
    dataset.PatientBirthDate, dataset.PatientSex = "19640812", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20200102", "030405", "A1", "S1"
    dataset.ReferringPhysicianName, dataset.Manufacturer, dataset.Laterality, dataset.PositionReferenceIndicator = "", "Maker", "", ""
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, 4, number + 1
    dataset.SeriesDescription, dataset.ImageType = "Thin slices", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.add_new((0x0009, 0x0010), "LO", "MAKER HEADER")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(range(8)))
    dataset.SamplesPerPixel = 1 if array.ndim == 2 else array.shape[2]
    dataset.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    if array.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = array.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelSpacing = [0.75, 0.5]
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if array.dtype.itemsize == 1 else "OW", content + b"\0" * (len(content) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def slice_of(
    array: np.ndarray, k: int, modality: str = "CT", step: Sequence[float] = (0.0, 0.0, 2.0), orientation: Sequence[float] = AXIAL
) -> Dataset:
    """The k-th slice of a series, which begins at (-10, -20, 30) and goes by ``step`` from slice to slice."""
    dataset = image(array, modality, k)
    dataset.FrameOfReferenceUID = FRAME_OF_REFERENCE
    dataset.ImagePositionPatient = [float(a + k * b) for a, b in zip((-10.0, -20.0, 30.0), step, strict=True)]
    dataset.ImageOrientationPatient, dataset.SliceThickness = list(orientation), 2
    dataset.AcquisitionNumber = 1
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType, dataset.KVP = 1, 0, "HU", 120
    else:
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions, dataset.MRAcquisitionType = "SE", "SK", "", "2D"
        dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = 500, 10, 1
    return dataset


def series(folder: Path, array: np.ndarray, modality: str = "CT", edit: Edit = unchanged, **placed: Sequence[float]) -> Path:
    """A folder with the slices of an array (k, j, i); their names do not follow their order."""
    for k, slab in enumerate(array):
        dataset = slice_of(slab, k, modality, **placed)
        edit(dataset, k)
        save(dataset, folder / f"IMG{(k * 7 + 3) % 1000:03d}")
    return folder


def picture(path: Path, array: np.ndarray, modality: str = "DX", edit: Edit = unchanged, number: int = 0) -> Path:
    """One picture (j, i) or (j, i, c) without a place in space."""
    dataset = image(array, modality, number)
    edit(dataset, number)
    return save(dataset, path)


def enhanced(path: Path, array: np.ndarray, edit: Edit = unchanged, order: Sequence[int] | None = None) -> Path:
    """An enhanced CT object whose frames lie in the file in the given order of k."""
    order = range(len(array)) if order is None else order
    dataset = image(array[order[0]], "CT", 0)
    dataset.SOPClassUID, dataset.FrameOfReferenceUID, dataset.NumberOfFrames = EnhancedCTImageStorage, FRAME_OF_REFERENCE, len(array)
    dataset.ContentDate, dataset.ContentTime, dataset.ImageType = "20200102", "030405", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, frame_type, orientation, measures, values = (Dataset() for _ in range(5))
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 2
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.CTImageFrameTypeSequence, shared.PlaneOrientationSequence = Items([frame_type]), Items([orientation])
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = Items([measures]), Items([values])
    groups = []
    for k in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, -20.0, 30.0 + 2 * k]
        group.PlanePositionSequence = Items([position])
        groups.append(group)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = Items([shared]), Items(groups)
    dataset.PixelData = array[list(order)].tobytes()
    del dataset.PixelSpacing
    edit(dataset, 0)
    return save(dataset, path)


def segmentation(
    path: Path,
    sources: Sequence[Path],
    masks: np.ndarray,
    kind: str = "BINARY",
    labels: Sequence[str] = ("liver", "tumour"),
    **options: object,
) -> Path:
    """A SEG object by highdicom of masks (k, j, i, segment), of numbers (k, j, i) or of fractions, on the slices of some files."""
    images = sorted((dcmread(source) for source in sources), key=lambda one: one.get("ImagePositionPatient", [0, 0, 0])[2])
    algorithm = AlgorithmIdentificationSequence("by hand", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        SegmentDescription(number, label, codes.SCT.Organ, codes.SCT.Liver, "AUTOMATIC", algorithm_identification=algorithm)
        for number, label in enumerate(labels, start=1)
    ]
    made = Segmentation(
        images,
        masks,
        SegmentationTypeValues(kind),
        descriptions,
        UID(ROOT + "8"),
        8,
        UID(ROOT + "8.1"),
        1,
        "Maker",
        "Model",
        "1",
        "Serial",
        **options,
    )
    return save(made, path)


def structure_set(path: Path, structures: dict[str, Sequence[np.ndarray]], sources: Sequence[Path] = (), edit: Edit = unchanged) -> Path:
    """An RTSTRUCT of closed contours (points, 3) in LPS mm by the name of their structure, with references to some image files."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, UID(ROOT + "9.1")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = STUDY, UID(ROOT + "9"), "RTSTRUCT"
    dataset.PatientName, dataset.PatientID, dataset.StructureSetLabel = PATIENT, PATIENT_ID, "contours"
    place, study, one_series = Dataset(), Dataset(), Dataset()
    place.FrameOfReferenceUID = FRAME_OF_REFERENCE
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = UID("1.2.840.10008.3.1.2.3.1"), STUDY
    one_series.SeriesInstanceUID = SERIES
    one_series.ContourImageSequence = Items([reference(source) for source in sources])
    study.RTReferencedSeriesSequence = Items([one_series])
    place.RTReferencedStudySequence = Items([study])
    dataset.ReferencedFrameOfReferenceSequence = Items([place])
    regions, contours = [], []
    for number, (name, polygons) in enumerate(structures.items(), start=1):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name, FRAME_OF_REFERENCE
        drawn.ReferencedROINumber, drawn.ContourSequence = number, Items([contour(points) for points in polygons])
        regions.append(region)
        contours.append(drawn)
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Items(regions), Items(contours)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    edit(dataset, 0)
    return save(dataset, path)


def contour(points: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{value:.6g}" for value in np.ravel(points)]
    return item


def reference(source: Path) -> Dataset:
    header, item = dcmread(source, stop_before_pixels=True), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
