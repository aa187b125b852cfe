"""How much memory a case takes and how much there is, so that cases which do not fit together wait for each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedProtectLib.io import extension_of
from MedProtectLib.io.names import is_dicom

PROCESS_BYTES = 600 * 2**20
REGIONS_FACTOR, WHOLE_IMAGE_FACTOR = 8, 40  # measured with 2-byte voxels: 6 and 32 bytes a stored byte
SHARE_OF_FREE = 0.8
PACKED = {".nii.gz": 3, ".nrrd": 3, ".seg.nrrd": 3, ".mha": 3, ".png": 4, ".tif": 3, ".tiff": 3, ".npz": 1, ".hdr.gz": 3}
DICOM_FACTOR = 2
LARGEST_TRAILER_RATIO = 1032
CGROUP = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")


def needed(root: Path, whole_image: bool, content: Mapping[str, Any]) -> int:
    """About how many bytes a process takes for a case; ``whole_image``: whether the method may change all of it."""
    stored = sum(stored_bytes(root / item["source"]) for item in content["image_files"])
    return PROCESS_BYTES + (WHOLE_IMAGE_FACTOR if whole_image else REGIONS_FACTOR) * stored


def stored_bytes(path: Path) -> int:
    """About how many bytes an image takes unpacked, from its size on disk and, for gzip, the size that it says at its end."""
    try:
        if path.is_dir():
            return DICOM_FACTOR * sum(p.stat().st_size for p in path.iterdir())
        size = path.stat().st_size
        if path.name.lower().endswith(".gz") and size > 8:
            with path.open("rb") as file:
                file.seek(-4, os.SEEK_END)
                said = int.from_bytes(file.read(4), "little")
            if size <= said <= LARGEST_TRAILER_RATIO * size:
                return said
        return size * (PACKED.get(extension_of(path)) or (DICOM_FACTOR if is_dicom(path) else 1))
    except OSError:
        return 0


def available() -> int:
    """Bytes that may be used: a share of what is free, within the limit of a container."""
    free = _free()
    try:
        most, used = (int(Path(name).read_text()) for name in CGROUP)
        free = min(free, most - used)
    except (OSError, ValueError):
        pass
    return int(SHARE_OF_FREE * free)


def _free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if os.name == "nt":
        return _free_on_windows()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _free_on_windows() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page", "page_free", "virtual", "virtual_free", "extended")),
        )

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.free)
