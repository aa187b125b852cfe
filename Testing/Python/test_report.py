from __future__ import annotations

import base64
import math
import re
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from MedProtectLib.errors import MedProtectError
from MedProtectLib.regions import find_regions
from MedProtectLib.report import ReportContent, write_overlay, write_report
from MedProtectLib.statistics import measure
from MedProtectLib.volume import Geometry, Volume
from MedProtectLib.window import IntensityWindow

WINDOW = (-160.0, 240.0)
AMPLITUDES = {"contour": 5, "texture": 3}
SETTINGS = {
    "Method": "UMed 3D",
    "Profile": "public",
    "Bound": "4/255",
    "Target PSNR": "50.1 dB",
    "Window": "-160 to 240 HU, given",
    "Unit": "HU",
    "Original": "ct.nii.gz, SHA-256 9f86d081884c7d65",
}
LIMITS = ("Not for diagnosis.", "This is not de-identification.")
VOID = {"meta", "img", "br", "hr", "link", "input"}


def content_of(
    array: np.ndarray,
    mask: np.ndarray,
    geometry: Geometry | None = None,
    dtype: Any = np.int16,
    amplitudes: dict[str, int] = AMPLITUDES,
    **about: Any,
) -> ReportContent:
    """A case whose regions' voxels change by whole numbers up to the amplitudes, measured by the library."""
    rng = np.random.default_rng(4)
    geometry = geometry or Geometry(array.shape[2::-1])
    original = Volume(array.astype(dtype), geometry, **{"name": "case_1"} | about)
    found = find_regions(mask, planar=geometry.dimension == 2)
    regions = {"contour": found.on_grid(found.contour, geometry.shape), "texture": found.on_grid(found.interior, geometry.shape)}
    colour = (slice(None),) * 3 + (None,) if array.ndim == 4 else ()
    changes = {name: rng.integers(-amplitudes[name], amplitudes[name] + 1, array.shape) * regions[name][colour] for name in amplitudes}
    if original.alpha is not None:
        for change in changes.values():
            change[..., original.alpha] = 0
    protected = original.with_array((original.array + sum(changes.values())).astype(dtype))
    width = WINDOW[1] - WINDOW[0]
    components = {name: (change / width).astype(np.float32) for name, change in changes.items()}
    statistics = measure(original, protected, found, [IntensityWindow(*WINDOW)], 4 / 255).as_record()
    return ReportContent(original, protected, components, regions, WINDOW, statistics, SETTINGS, ("Public profile.",), LIMITS)


def block(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return np.linspace(-100, 100, math.prod(shape)).reshape(shape)


def solid() -> ReportContent:
    shape = (20, 40, 48)
    return content_of(ramp(shape), block(shape, (4, 16), (8, 30), (10, 36)), modality="CT")


def picture_2d() -> ReportContent:
    return content_of(
        ramp((1, 60, 80)) + 110,
        block((1, 60, 80), (0, 1), (20, 44), (25, 60)),
        Geometry((80, 60, 1), dimension=2),
        np.uint8,
        photograph=True,
    )


def two_slices() -> ReportContent:
    shape = (2, 50, 60)
    return content_of(ramp(shape), block(shape, (0, 2), (10, 30), (20, 50)), Geometry((60, 50, 2), (0.7, 0.7, 8.0)))


def oblique() -> ReportContent:
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    shape = (16, 30, 36)
    return content_of(
        ramp(shape), block(shape, (0, 12), (0, 20), (15, 36)), Geometry((36, 30, 16), (1, 1, 3), direction=(c, -s, 0, s, c, 0, 0, 0, 1))
    )


def rgb() -> ReportContent:
    shape = (1, 50, 70, 3)
    return content_of(
        ramp(shape) + 110, block(shape[:3], (0, 1), (12, 40), (12, 50)), Geometry((70, 50, 1), dimension=2), np.uint8, photograph=True
    )


def rgba() -> ReportContent:
    shape = (1, 50, 70, 4)
    mask = block(shape[:3], (0, 1), (12, 40), (12, 50))
    return content_of(ramp(shape) + 110, mask, Geometry((70, 50, 1), dimension=2), np.uint8, photograph=True, alpha=3)


def colour_volume() -> ReportContent:
    shape = (6, 30, 30, 2)
    return content_of(ramp(shape), block(shape[:3], (0, 6), (5, 25), (5, 25)), dtype=np.int16)


def border() -> ReportContent:
    shape = (10, 30, 30)
    return content_of(ramp(shape), block(shape, (0, 6), (0, 20), (12, 30)))


def empty_component() -> ReportContent:
    shape = (12, 30, 30)
    content = content_of(ramp(shape), block(shape, (5, 7), (10, 13), (10, 13)))
    assert not content.regions["texture"].any()
    return content


def unchanged() -> ReportContent:
    shape = (12, 30, 30)
    content = content_of(ramp(shape), block(shape, (2, 9), (5, 25), (5, 25)), amplitudes={"contour": 0, "texture": 0})
    assert content.statistics["psnr_db"] is None
    return content


def float_mr() -> ReportContent:
    shape = (12, 30, 30)
    array = ramp(shape)
    array[0, 0, 0] = np.nan
    content = content_of(ramp(shape), block(shape, (2, 9), (5, 25), (5, 25)), dtype=np.float32)
    holed = [v.with_array(np.where(np.isnan(array), np.nan, v.array).astype(np.float32)) for v in (content.original, content.protected)]
    return replace(content, original=holed[0], protected=holed[1])


def one_slice_in_space() -> ReportContent:
    shape = (1, 30, 40)
    return content_of(ramp(shape), block(shape, (0, 1), (8, 25), (8, 30)))


def thread() -> ReportContent:
    shape = (30, 1, 1)
    return content_of(ramp(shape), block(shape, (8, 20), (0, 1), (0, 1)))


def without_components() -> ReportContent:
    return replace(solid(), components={}, regions={})


def five_components() -> ReportContent:
    content = solid()
    parts = {f"part {n}": content.components["contour" if n % 2 else "texture"] for n in range(5)}
    return replace(content, components=parts)


def one_component() -> ReportContent:
    content = solid()
    return replace(content, components={"noise": content.components["texture"]}, regions={"noise": content.regions["texture"]})


CASES = (
    solid,
    picture_2d,
    two_slices,
    oblique,
    rgb,
    rgba,
    colour_volume,
    border,
    empty_component,
    unchanged,
    float_mr,
    one_slice_in_space,
    thread,
    without_components,
    five_components,
    one_component,
)


class Page(HTMLParser):
    """Text and pictures of a page; complains about tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.pictures: list[bytes] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        if tag == "img":
            assert values["alt"]
            kind, data = (values["src"] or "").split(",", 1)
            assert kind == "data:image/png;base64"
            self.pictures.append(base64.b64decode(data, validate=True))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(content: ReportContent, folder: Path) -> tuple[str, Page]:
    write_report(folder / "report.html", content)
    source = (folder / "report.html").read_text(encoding="utf-8")
    return source, Page(source)


def overlay_of(content: ReportContent, folder: Path) -> np.ndarray:
    write_overlay(folder / "overlay.png", content)
    with Image.open(folder / "overlay.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_every_kind_of_image_gives_a_whole_page_and_an_overlay(make: Callable[[], ReportContent], tmp_path: Path) -> None:
    content = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, page = page_of(content, tmp_path)
        overlay_of(content, tmp_path)
    for picture in page.pictures:
        Image.open(BytesIO(picture)).load()
    volumetric = content.original.geometry.size[2] > 1
    assert ("PSNR of every slice" in page.words) == volumetric
    assert len(page.pictures) >= 4 + volumetric


def test_page_stands_alone(tmp_path: Path) -> None:
    source, page = page_of(solid(), tmp_path)
    assert not page.tags & {"script", "link", "iframe", "object", "base"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bon[a-z]+=", re.sub(r"base64,[^\"]+", "", source))
    assert "default-src 'none'" in source


def test_page_tells_every_number_setting_warning_and_limit(tmp_path: Path) -> None:
    content = solid()
    _, page = page_of(content, tmp_path)
    s = content.statistics
    assert set(s) == {
        *("psnr_db", "psnr_roi_db", "psnr_full_range_db", "full_range", "ssim", "ssim_window", "max_abs_change", "max_abs_change_units"),
        *(
            "changed_voxels",
            "changed_fraction",
            "changed_outside_regions",
            "roi_voxels",
            "roi_mean_shift",
            "per_slice_psnr_db",
            "epsilon",
            "window",
        ),
    }
    shift = float(f"{s['roi_mean_shift']:.3g}")
    per_slice = [value for value in s["per_slice_psnr_db"] if value is not None]
    expected = [
        *(f"{s[key]:.2f} dB" for key in ("psnr_db", "psnr_roi_db", "psnr_full_range_db")),
        *("\N{MINUS SIGN}100 to 100 HU", f"{s['ssim']:.5f}", s["ssim_window"], "5 HU 1.25 % of the window width", "5 in stored values"),
        *(f"{s['changed_voxels']:,}", f"{100 * s['changed_fraction']:.3g} %", f"{s['roi_voxels']:,}", "no voxel touched"),
        *("4/255 = 0.0157", ": 6.27 HU", "\N{MINUS SIGN}160 to 240 HU", "400 HU, the window width"),
        f"{shift:g} HU".replace("-", "\N{MINUS SIGN}"),
        f"{min(per_slice):.2f} to {max(per_slice):.2f} dB in {len(per_slice)} of 20 slices; {20 - len(per_slice)} unchanged",
        *(
            f"{number}: {'no change' if value is None else f'{value:.2f} dB'}"
            for number, value in enumerate(s["per_slice_psnr_db"], start=1)
        ),
        *SETTINGS.keys(),
        *SETTINGS.values(),
        *("Public profile.", *LIMITS, "PRIVATE", "case_1", "48 × 40 × 20 voxels, 1 × 1 × 1 mm, int16, CT"),
        *("Difference ×80", "full colour at ±5 HU"),
    ]
    assert [text for text in expected if text not in page.words] == []
    assert "protection works" not in page.words


def test_unknown_statistics_are_told_too(tmp_path: Path) -> None:
    content = solid()
    extra = {"drift_of_features": 0.00427, "by_segment": {"liver": [51.5, None], "usable": True}}
    _, page = page_of(replace(content, statistics={**content.statistics, **extra}), tmp_path)
    assert "drift of features 0.00427" in page.words
    assert "by segment liver: 51.5, None, usable: True" in page.words


def test_largest_change_may_be_one_mapping() -> None:
    from MedProtectLib.report.words import cards, statistic_rows, verdict

    content = solid()
    named = {"window": 5 / 400, "stored": 5.0, "units": 5.0}
    statistics = {key: value for key, value in content.statistics.items() if key != "max_abs_change_units"} | {"max_abs_change": named}
    renamed = replace(content, statistics=statistics)
    assert all(words(renamed) == words(content) for words in (verdict, cards, statistic_rows))


def test_verdict(tmp_path: Path) -> None:
    from MedProtectLib.report.words import verdict

    content = solid()
    changed = content.statistics["changed_voxels"]
    share = f"{100 * changed / 38400:.3g} %"
    sentence = f"{changed:,} of 38,400 voxels ({share} of the image) were changed, by at most 5 HU (1.25 % of the window width)"
    assert verdict(content) == f"{sentence}, all within the regions (contour and texture); nothing outside was touched."
    assert "Nothing was changed" in verdict(unchanged())

    outside = replace(content, statistics={**content.statistics, "changed_outside_regions": 7})
    source, page = page_of(outside, tmp_path)
    assert f"{sentence}, but 7 of them lie outside the regions (contour and texture)" in page.words
    assert "nothing outside" not in page.words
    assert 'class="alarm"' in source


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>\"'><img src=x onerror=y> $x^2$ \u65e5\u672c \udcff {{ 7*7 }} " + "long" * 60
    content = solid()
    content = replace(
        content,
        original=replace(content.original, name=attack, modality=attack),
        components={attack: content.components["contour"]},
        regions={attack: content.regions["contour"]},
        settings={attack: attack, "Unit": attack},
        warnings=[attack],
        limits=[attack],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source, page = page_of(content, tmp_path)
        overlay_of(content, tmp_path)
    assert "<script" not in source
    assert "<img src=x" not in source
    assert page.words.count("<script>alert(1)</script>") >= 6
    assert page.words.count("{{ 7*7 }}") >= 6


def test_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    import matplotlib

    content = empty_component()
    page, overlay = page_of(content, tmp_path)[0], overlay_of(content, tmp_path)
    with Image.open(tmp_path / "overlay.png") as picture:
        assert set(picture.info) <= {"dpi"}
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "image.cmap": "jet", "savefig.facecolor": "green"}):
        assert page_of(content, tmp_path)[0] == page
        assert np.array_equal(overlay_of(content, tmp_path), overlay)
        assert matplotlib.rcParams["font.size"] == 30


def test_heavy_libraries_are_loaded_only_to_write() -> None:
    code = "import sys, MedProtectLib.report; print([m for m in ('matplotlib', 'jinja2', 'PIL', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_no_global_figure_manager_is_used(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_report import picture_2d, write_overlay, write_report
write_report(Path({str(tmp_path)!r}) / "a.html", picture_2d())
write_overlay(Path({str(tmp_path)!r}) / "a.png", picture_2d())
print("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("make", "aspects"), [(solid, (40 / 48, 0.4166, 0.5)), (picture_2d, (0.75,)), (two_slices, (50 / 60, 0.38, 0.4571))]
)
def test_overlay_has_a_row_for_every_plane_and_three_panels(
    make: Callable[[], ReportContent], aspects: tuple[float, ...], tmp_path: Path
) -> None:
    from MedProtectLib.report.figures import BARS, CAPTION, DPI, GAP, HEADING, MARGIN, NOTE, WIDTH

    picture = overlay_of(make(), tmp_path)
    panel = (WIDTH - 2 * GAP) * DPI / 3
    height = DPI * (HEADING + len(aspects) * CAPTION + BARS + NOTE) + panel * sum(aspects)
    assert picture.shape[1] == round((WIDTH + 2 * MARGIN) * DPI)
    assert picture.shape[0] == pytest.approx(height, abs=1)


def simulated(colour: np.ndarray, matrix: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """How a dichromat sees an sRGB colour: a matrix in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(matrix) @ linear, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@pytest.mark.parametrize("vision", VISION)
def test_components_and_signs_differ_for_every_colour_vision(vision: str) -> None:
    from skimage.color import deltaE_ciede2000, rgb2lab

    from MedProtectLib.report.colours import paint

    one, none = np.ones((1, 1)), np.zeros((1, 1))
    full = [paint({"contour": c, "texture": t}, 1.0)[0, 0] for c, t in ((one, none), (-one, none), (none, one), (none, -one))]
    seen = [rgb2lab(simulated(colour, VISION[vision])) for colour in full]
    assert min(deltaE_ciede2000(a, b) for a, b in combinations(seen, 2)) > 25


def test_paint_weighs_components_and_leaves_no_change_white() -> None:
    from MedProtectLib.report.colours import PALETTES, paint, palettes_for

    zero, one = np.zeros((2, 2)), np.full((2, 2), 0.5)
    assert np.array_equal(paint({"contour": zero, "other": zero}, 1.0), np.ones((2, 2, 3)))
    alone, both = paint({"contour": one}, 1.0), paint({"contour": one, "texture": zero}, 1.0)
    assert np.allclose(alone, both)
    mixed = paint({"contour": one, "texture": one}, 1.0)
    assert np.allclose(mixed, (alone + paint({"texture": one}, 1.0)) / 2)
    assert palettes_for(["texture", "noise", "contour"])["noise"] == PALETTES[2]
    assert len({id(p) for p in palettes_for(["a", "b", "c"]).values()}) == 3


def test_overlay_shows_contour_and_texture_in_their_hues(tmp_path: Path) -> None:
    shape = (1, 64, 64)
    content = content_of(
        np.full(shape, 240.0), block(shape, (0, 1), (16, 48), (16, 48)), Geometry((64, 64, 1), dimension=2), photograph=True
    )
    full = {name: np.where(region, 5 / 400, 0).astype(np.float32) for name, region in content.regions.items()}
    picture = overlay_of(replace(content, components=full), tmp_path)

    from MedProtectLib.report.figures import DPI, GAP, HEADING, MARGIN, WIDTH

    panel = (WIDTH - 2 * GAP) / 3

    def at(row: float, column: float) -> tuple[int, ...]:
        return tuple(picture[int((HEADING + panel * row / 64) * DPI), int((MARGIN + 2 * (panel + GAP) + panel * column / 64) * DPI)])

    assert at(16, 40) == (0xF2, 0x8E, 0x1C)
    assert at(40, 40) == (0x1C, 0x5B, 0x2B)
    assert at(5, 5) == (255, 255, 255)


ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS, ids=str)
def test_patient_left_is_at_the_right_of_the_picture(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    from MedProtectLib.report.planes import areas_by_axis, plane_cuts

    direction = np.zeros((3, 3))
    direction[list(order), range(3)] = signs
    geometry = Geometry((9, 11, 13), direction=tuple(direction.ravel()))
    indices = np.moveaxis(np.indices(geometry.shape)[::-1], 0, -1)  # (i, j, k) of every voxel
    left, posterior, superior = np.moveaxis(indices @ direction.T, -1, 0)
    views = {
        "axial": (left, posterior, ("R", "L", "A", "P")),
        "coronal": (left, -superior, ("R", "L", "S", "I")),
        "sagittal": (posterior, -superior, ("A", "P", "S", "I")),
    }
    cuts = plane_cuts(geometry, areas_by_axis(np.ones(geometry.shape, bool)))
    assert cuts[0].plane.normal == 0
    assert {cut.plane.name for cut in cuts} == set(views)
    for cut in cuts:
        rightward, downward, edges = views[cut.plane.name]
        assert cut.plane.edges == edges
        assert np.all(np.diff(cut.of(rightward), axis=1) == 1)
        assert np.all(np.diff(cut.of(downward), axis=0) == 1)


def test_a_marker_at_the_patients_left_is_drawn_at_the_right(tmp_path: Path) -> None:
    shape = (20, 40, 40)
    array = np.full(shape, -160.0)
    array[:, 15:25, 2:8] = 240.0  # low i; direction -1 along i: the patient's left
    flipped = Geometry((40, 40, 20), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    content = content_of(array, block(shape, (5, 15), (10, 30), (10, 30)), flipped, modality="CT")

    from MedProtectLib.report.figures import DPI, GAP, HEADING, MARGIN, WIDTH

    panel = (WIDTH - 2 * GAP) / 3
    top, left = round(HEADING * DPI), round(MARGIN * DPI)
    axial = overlay_of(content, tmp_path)[top : top + round(panel * DPI), left : left + round(panel * DPI)].mean(axis=-1)
    band = axial[axial.shape[0] * 3 // 8 : axial.shape[0] * 5 // 8]
    assert band[:, axial.shape[1] // 4 : axial.shape[1] // 2].mean() < 5
    assert band[:, int(0.82 * axial.shape[1]) : int(0.93 * axial.shape[1])].mean() > 240


def test_planes_have_true_proportions_and_name_oblique_axes() -> None:
    from MedProtectLib.report.planes import areas_by_axis, plane_cuts, tilt

    content = oblique()
    cuts = {cut.plane.name: cut for cut in plane_cuts(content.original.geometry, areas_by_axis(content.touchable))}
    assert cuts["axial"].aspect == pytest.approx(30 / 36)
    assert cuts["coronal"].aspect == pytest.approx(16 * 3 / 36)
    assert cuts["axial"].plane.edges == ("RA", "LP", "AL", "PR")
    assert tilt(content.original.geometry) == pytest.approx(30)


def test_page_tells_of_an_oblique_grid(tmp_path: Path) -> None:
    assert "The grid lies 30° off" in page_of(oblique(), tmp_path)[1].words
    assert "off the patient's axes" not in page_of(two_slices(), tmp_path)[1].words


def test_slices_hold_the_regions_and_spread_over_them() -> None:
    from MedProtectLib.report.planes import areas_by_axis, largest_cut, plane_cuts, slice_cuts

    shape = (40, 200, 300)
    mask = block(shape, (8, 32), (50, 70), (240, 280))
    mask[20, 40:80, 230:290] = True
    geometry, areas = Geometry((300, 200, 40), (1.0, 1.0, 5.0)), areas_by_axis(mask)
    assert all(np.array_equal(area, mask.sum(axis=tuple({0, 1, 2} - {axis}))) for axis, area in enumerate(areas))
    assert plane_cuts(geometry, areas)[0].index == largest_cut(geometry, areas).index == 20
    cuts = slice_cuts(geometry, areas, 4)
    assert len(cuts) == 4
    assert cuts[0].index < 14 < 26 < cuts[3].index
    for cut in cuts:
        assert cut.cropped
        assert cut.aspect == pytest.approx(1)
        assert np.count_nonzero(cut.of(mask)) == np.count_nonzero(mask[cut.index])
    assert [cut.index for cut in slice_cuts(geometry, areas_by_axis(block(shape, (3, 6), (0, 9), (0, 9))), 4)] == [3, 4, 5]
    nothing = areas_by_axis(np.zeros(shape, bool))
    assert slice_cuts(geometry, nothing, 4) == []
    assert largest_cut(geometry, nothing).index == 20


def test_histogram_counts_every_changed_value() -> None:
    from MedProtectLib.report.figures import histogram_of_changes

    content = solid()
    change = content.protected.array.astype(int) - content.original.array
    edges, counts = histogram_of_changes(content)
    assert np.array_equal(edges, np.arange(-5, 7) - 0.5)
    assert counts.tolist() == [0 if level == 0 else int((change == level).sum()) for level in range(-5, 6)]

    wide = replace(content, protected=content.original.with_array((content.original.array + 100 * change).astype(np.int16)))
    edges, counts = histogram_of_changes(wide)
    assert counts.sum() == np.count_nonzero(change)
    assert edges[-1] == -edges[0] >= 500

    grid = np.float32(0.25)
    coarse = content.original.array.astype(np.float32) * grid
    fractions = replace(content.original, array=coarse)
    moved = replace(fractions, array=coarse + change.astype(np.float32) * grid)
    edges, counts = histogram_of_changes(replace(content, original=fractions, protected=moved))
    assert np.allclose(edges, (np.arange(-5, 7) - 0.5) * 0.25)
    assert counts.sum() == np.count_nonzero(change)


def test_colour_pictures_keep_their_colours_and_average_the_difference() -> None:
    from MedProtectLib.report.figures import changes_at, picture
    from MedProtectLib.report.planes import areas_by_axis, plane_cuts

    for content in (rgb(), rgba()):
        (cut,) = plane_cuts(content.original.geometry, areas_by_axis(content.touchable))
        shown = picture(content.original, cut, (0.0, 255.0))
        assert np.allclose(shown * 255, content.original.array[0, ..., :3])
        change = content.protected.array[0, ..., :3].astype(float) - content.original.array[0, ..., :3]
        (changes,) = changes_at(content, [cut])
        assert np.allclose(sum(changes.values()), change.mean(axis=-1) / 400, atol=1e-7)


def test_without_components_the_whole_change_is_shown() -> None:
    from MedProtectLib.report.figures import changes_at
    from MedProtectLib.report.planes import areas_by_axis, plane_cuts

    split = solid()
    cuts = plane_cuts(split.original.geometry, areas_by_axis(split.touchable))
    for parts, whole in zip(changes_at(split, cuts), changes_at(replace(split, components={}), cuts), strict=True):
        assert list(whole) == ["change"]
        assert np.allclose(whole["change"], sum(parts.values()), atol=1e-7)


def test_numbers_are_written_for_people() -> None:
    from MedProtectLib.report.words import bound, decibel, number, share, similarity

    minus = "\N{MINUS SIGN}"
    wanted = {
        0: "0",
        5.0: "5",
        -0.09512: f"{minus}0.0951",
        21757952: "21,757,952",
        2776.88: "2,777",
        5.95: "5.95",
        1.3e-7: f"1.30e{minus}7",
    }
    assert {value: number(value) for value in wanted} == wanted
    assert (number(math.nan), number(math.inf), number(None)) == ("not available", "infinite", "not available")
    assert (share(0.5), share(0.99991), share(1.0), share(0.0)) == ("50 %", "more than 99.9 %", "100 %", "0 %")
    assert (decibel(None), decibel(50.126), decibel(math.nan)) == ("no change", "50.13 dB", "not available")
    assert (similarity(1.0), similarity(0.9999999), similarity(0.98765432), similarity(None)) == (
        "1",
        "above 0.99999",
        "0.98765",
        "not available",
    )
    assert (bound(4 / 255), bound(0.01), bound(None)) == ("4/255 = 0.0157", "0.01", "not stated")


def test_bad_content_and_unwritable_paths_give_one_line(tmp_path: Path) -> None:
    content = replace(border(), original=replace(border().original, name="case_1"))
    with pytest.raises(MedProtectError, match=r"case_1: the protected image has shape \(2, 50, 60\)"):
        replace(content, protected=two_slices().protected)
    with pytest.raises(MedProtectError, match="'contour' has shape"):
        replace(content, regions=two_slices().regions)
    with pytest.raises(MedProtectError, match=r"window .* is empty"):
        replace(content, window=(5.0, 5.0))
    for write in (write_report, write_overlay):
        with pytest.raises(MedProtectError, match="'contour' has shape"):
            write(tmp_path / "x", replace(content, components=two_slices().components))
        with pytest.raises(MedProtectError, match="cannot write the report") as error:
            write(tmp_path / "absent" / "x", content)
        assert "\n" not in str(error.value)


def test_a_full_size_ct_is_quick_and_never_copied_as_float(tmp_path: Path) -> None:
    shape = (83, 512, 512)
    mask = block(shape, (30, 50), (200, 300), (220, 330))
    array = np.zeros(shape, np.int16)
    original = Volume(array, Geometry((512, 512, 83), (0.7, 0.7, 2.5)), modality="CT")
    small = solid()
    content = replace(
        small,
        original=original,
        protected=original.with_array(array + 5 * mask.astype(np.int16)),
        components={"texture": np.where(mask, np.float32(5 / 400), np.float32(0))},
        regions={"texture": mask},
        statistics={**small.statistics, "per_slice_psnr_db": [50.0 if mask[k].any() else None for k in range(83)]},
    )
    tracemalloc.start()
    try:
        start = time.perf_counter()
        write_report(tmp_path / "report.html", content)
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 15  # about 1.5 s on a free processor without tracing
    assert peak < 6 * array.size
