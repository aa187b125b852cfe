"""The report's pictures as PNG bytes, drawn with matplotlib's Agg renderer in a style of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from MedProtectLib.report import ReportContent
from MedProtectLib.report.colours import paint, palettes_for
from MedProtectLib.report.planes import Cut, areas_by_axis, plane_cuts
from MedProtectLib.report.words import amplification, note, number
from MedProtectLib.volume import Volume

DPI = 144
WIDTH = 9.0  # inches of a row of panels
PAIR_WIDTH = 6.0
GAP = 6 / DPI
PANELS = ("Before", "After", "Difference")
LOWEST_PANEL, HIGHEST_PANEL = 0.3, 1.25  # height / width; beyond, the picture is set into a larger panel
MARGIN, HEADING, CAPTION, BARS, NOTE = (pixels / DPI for pixels in (22, 104, 38, 80, 44))

INK, QUIET, ACCENT, ALARM, RULE = "#1c2733", "#5d6b79", "#1f5f8b", "#a4161a", "#b8c2cc"
OUTER_LINE = "#8a97a3"
PAPER = 0.80  # grey of a black voxel beneath the difference colours; a white one stays white
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}
PLOT_SIZE = (4.4, 2.5)
MOST_BARS_A_SIDE = 40
LONGEST_NAME, LONGEST_BAR_LABEL = 55, 20

P = ParamSpec("P")


def _as_png(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Draw in the report's style, whatever the user's matplotlib settings are; the bytes depend on the content alone."""

    @wraps(draw)
    def png(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            buffer = BytesIO()
            FigureCanvasAgg(draw(*args, **kwargs)).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()

    return png


@_as_png
def overlay(content: ReportContent) -> Figure:
    """Before, after and amplified difference, one row a plane, with headings and colour bars."""
    cuts = plane_cuts(content.original.geometry, areas_by_axis(content.touchable))
    changes = changes_at(content, cuts)
    heights = [_row_height(cut) for cut in cuts]
    canvas = _Canvas(WIDTH + 2 * MARGIN, HEADING + sum(heights) + len(cuts) * CAPTION + _bars_height(content) + NOTE)
    canvas.text(MARGIN, 0.2, shortened(content.original.name, LONGEST_NAME), size=11, weight="bold")
    canvas.text(MARGIN + WIDTH, 0.2, "PRIVATE: shows the perturbation", size=8.5, weight="bold", color=ALARM, ha="right")
    for column, heading in enumerate(headings(content)):
        canvas.text(MARGIN + column * (_panel_width() + GAP), 0.52, heading, size=8.5, weight="bold")
    top = HEADING
    for cut, change, height in zip(cuts, changes, heights, strict=True):
        _draw_row(canvas, content, cut, change, MARGIN, top)
        canvas.text(MARGIN, top + height + 0.12, cut.caption, color=QUIET)
        top += height + CAPTION
    _draw_bars(canvas, content, MARGIN, top)
    canvas.text(MARGIN, top + _bars_height(content) + NOTE / 3, note(content), size=7.5, color=QUIET)
    return canvas.figure


@_as_png
def comparison(content: ReportContent, cut: Cut, changes: Mapping[str, np.ndarray]) -> Figure:
    """Before, after and amplified difference of one cut, in three panels of equal width; ``changes`` as from :func:`changes_at`."""
    canvas = _Canvas(WIDTH, _row_height(cut))
    _draw_row(canvas, content, cut, changes, 0, 0)
    return canvas.figure


@_as_png
def pair(content: ReportContent, cut: Cut) -> Figure:
    """Before and after of one cut side by side, nothing drawn over them."""
    width = (PAIR_WIDTH - GAP) / 2
    height = width * min(1, max(LOWEST_PANEL, cut.aspect))
    canvas = _Canvas(PAIR_WIDTH, height)
    for column, volume in enumerate((content.original, content.protected)):
        axes = canvas.axes(column * (width + GAP), 0, width, height, facecolor="black")
        _show(axes, cut, picture(volume, cut, content.window))
    return canvas.figure


@_as_png
def colour_bars(content: ReportContent) -> Figure:
    """One colour bar a component, in the image's own units."""
    canvas = _Canvas(WIDTH, _bars_height(content))
    _draw_bars(canvas, content, 0, 0)
    return canvas.figure


@_as_png
def slice_plot(content: ReportContent) -> Figure:
    """PSNR of every slice with gaps where nothing changed, and that of the whole image as a horizontal line."""
    values = np.array([np.nan if v is None else v for v in content.statistics["per_slice_psnr_db"]])
    canvas = _Canvas(*PLOT_SIZE)
    axes = canvas.axes(0.52, 0.12, PLOT_SIZE[0] - 0.6, PLOT_SIZE[1] - 0.55)
    axes.plot(np.arange(1, values.size + 1), values, color=ACCENT, linewidth=1.2, marker="o", markersize=2.2, clip_on=False, zorder=3)
    axes.set_xlim(0.5, values.size + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    whole = content.statistics["psnr_db"]
    if whole is not None and np.isfinite(whole):
        axes.axhline(whole, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.margins(y=0.15)
    axes.set_xlabel("Slice")
    axes.set_ylabel("PSNR (dB)")
    return canvas.figure


@_as_png
def change_histogram(content: ReportContent) -> Figure:
    """How many of the changed values changed by how much, in stored levels."""
    edges, counts = histogram_of_changes(content)
    canvas = _Canvas(*PLOT_SIZE)
    axes = canvas.axes(0.52, 0.12, PLOT_SIZE[0] - 0.6, PLOT_SIZE[1] - 0.55)
    axes.bar((edges[:-1] + edges[1:]) / 2, 100 * counts / max(1, counts.sum()), width=0.86 * np.diff(edges), color=ACCENT)
    axes.axvline(0, color=RULE, linewidth=0.7, zorder=0)
    axes.set_xlim(edges[0], edges[-1])
    levels = np.issubdtype(content.original.array.dtype, np.integer)
    axes.set_xlabel("Change in stored levels" if levels else "Change of the stored value")
    axes.set_ylabel("Share of changed values (%)")
    return canvas.figure


def headings(content: ReportContent) -> tuple[str, str, str]:
    """What the three panels of a row show."""
    return (PANELS[0], PANELS[1], f"{PANELS[2]} {amplification(content)}")


def histogram_of_changes(content: ReportContent) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges in stored values, symmetric around 0, and how many changed values each bin holds."""
    smallest, largest = np.inf, 0.0
    for change in _changes_by_slice(content):
        smallest, largest = min(smallest, np.abs(change).min()), max(largest, np.abs(change).max())
    if largest == 0:
        smallest = largest = 1.0
    step = 1.0 if np.issubdtype(content.original.array.dtype, np.integer) else smallest
    width = step * np.ceil(largest / step / MOST_BARS_A_SIDE)
    bars = int(np.ceil(largest / width - 0.5))
    edges = (np.arange(-bars, bars + 2) - 0.5) * width
    counts = np.zeros(edges.size - 1, np.int64)
    for change in _changes_by_slice(content):
        counts += np.histogram(change, edges)[0]
    return edges, counts


def picture(volume: Volume, cut: Cut, window: tuple[float, float]) -> np.ndarray:
    """The cut as RGB in [0, 1] in the window, shape (rows, columns, 3); channels that are not red, green and blue are averaged."""
    stored = cut.of(volume.array)
    stored = stored[..., list(volume.intensity_channels)] if stored.ndim == 3 else stored[..., None]
    shown = np.nan_to_num(np.clip((volume.in_units(stored) - window[0]) / (window[1] - window[0]), 0, 1))
    return shown if shown.shape[-1] == 3 else np.repeat(shown.mean(axis=-1, keepdims=True), 3, axis=-1)


def changes_at(content: ReportContent, cuts: Sequence[Cut]) -> list[dict[str, np.ndarray]]:
    """For every cut the components' changes in window units, (rows, columns), averaged over the intensity channels.

    Each component is asked for once, since it may be put together only then. Without components the whole change is one.

    Raises:
        MedProtectError: a component does not fit the grid of the image.
    """
    changes: list[dict[str, np.ndarray]] = [{} for _ in cuts]
    for name in content.component_names:
        component = content.components.get(name)
        if component is not None and component.shape[:3] != content.original.geometry.shape:
            raise content.misfit(name, component)
        for at_cut, cut in zip(changes, cuts, strict=True):
            change = _whole_change(content, cut) if component is None else cut.of(component)
            at_cut[name] = _mean_over_channels(change, content.original)
    return changes


def difference(content: ReportContent, cut: Cut, changes: Mapping[str, np.ndarray]) -> np.ndarray:
    """The changes in colour on a faint print of the original, RGB in [0, 1], shape (rows, columns, 3)."""
    grey = picture(content.original, cut, content.window).mean(axis=-1, keepdims=True)
    return (PAPER + (1 - PAPER) * grey) * paint(changes, content.difference_limit)


def _whole_change(content: ReportContent, cut: Cut) -> np.ndarray:
    change = _finite_change(cut.of(content.original.array), cut.of(content.protected.array))
    return change * content.original.slope / content.window_width


def _mean_over_channels(change: np.ndarray, volume: Volume) -> np.ndarray:
    if change.ndim == 2:
        return change
    channels = list(volume.intensity_channels) if change.shape[-1] == volume.array.shape[-1] else slice(None)
    return change[..., channels].mean(axis=-1)


def _changes_by_slice(content: ReportContent) -> Iterator[np.ndarray]:
    """The changes other than 0 of each slice k, in stored values."""
    for before, after in zip(content.original.array, content.protected.array, strict=True):
        change = _finite_change(before, after)
        if change.any():
            yield change[change != 0]


def _finite_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """After minus before as float64, 0 where either is no finite number."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.subtract(after, before, dtype=np.float64), nan=0, posinf=0, neginf=0)


class _Canvas:
    """A figure that is laid out in inches from the top left."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = _snapped(width), _snapped(height)
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        left, top, right, bottom = (_snapped(inches) for inches in (left, top, left + width, top + height))
        place = (left / self.width, 1 - bottom / self.height, (right - left) / self.width, (bottom - top) / self.height)
        return self.figure.add_axes(place, **options)

    def text(self, left: float, middle: float, text: str, **options: Any) -> None:
        self.figure.text(left / self.width, 1 - middle / self.height, printable(text), va="center", parse_math=False, **options)


def _snapped(inches: float) -> float:
    """The nearest whole pixel, in inches."""
    return round(inches * DPI) / DPI


def shortened(text: str, longest: int) -> str:
    """The text, its middle left out where it is longer than ``longest`` characters."""
    kept = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:kept]}…{text[-kept:]}"


def printable(text: str) -> str:
    """The text with a ? for every character that the pictures' font lacks."""
    font = get_font(findfont(FONT))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in text)


def _panel_width() -> float:
    return (WIDTH - 2 * GAP) / 3


def _row_height(cut: Cut) -> float:
    return _panel_width() * min(HIGHEST_PANEL, max(LOWEST_PANEL, cut.aspect))


def _draw_row(canvas: _Canvas, content: ReportContent, cut: Cut, changes: Mapping[str, np.ndarray], left: float, top: float) -> None:
    width, height = _panel_width(), _row_height(cut)
    before, after, coloured = (canvas.axes(left + column * (width + GAP), top, width, height, facecolor="black") for column in range(3))
    coloured.set_facecolor(str(PAPER))
    _show(before, cut, picture(content.original, cut, content.window))
    _show(after, cut, picture(content.protected, cut, content.window))
    _show(coloured, cut, difference(content, cut, changes))
    _outline(coloured, content, cut)
    for axes in (before, after):
        _letter_edges(axes, cut, "white", "black")
    _letter_edges(coloured, cut, INK, "white")
    if not content.original.photograph:
        _scale_bar(before, cut)


def _show(axes: Axes, cut: Cut, rgb: np.ndarray) -> None:
    """The picture in its true proportions, centred in the panel."""
    box = axes.get_window_extent()
    rows, columns = rgb.shape[:2]
    tall = (box.height / box.width) / cut.aspect  # panel's proportions over the picture's
    beside, above = columns * (max(1, 1 / tall) - 1) / 2, rows * (max(1, tall) - 1) / 2
    axes.imshow(rgb, aspect="auto")
    axes.set_xlim(-0.5 - beside, columns - 0.5 + beside)
    axes.set_ylim(rows - 0.5 + above, -0.5 - above)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outline(axes: Axes, content: ReportContent, cut: Cut) -> None:
    """The limit of all regions as a thin line, the interior (the regions without the contour band) as a dark one."""
    for region, colour, width in ((content.touchable, OUTER_LINE, 0.6), (content.interior, INK, 0.7)):
        mask = cut.of(region)
        if mask.any():
            padded = np.pad(mask.astype(np.float32), 1)
            columns, rows = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
            axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=width)


def _letter_edges(axes: Axes, cut: Cut, colour: str, halo: str) -> None:
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"))
    for letter, (x, y, horizontal, vertical) in zip(cut.plane.edges, places, strict=True):
        _haloed(axes, x, y, letter, colour, halo, transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=8)


def _scale_bar(axes: Axes, cut: Cut) -> None:
    """The longest bar of 1, 2 or 5 times a power of ten mm that fits in a quarter of the picture's width."""
    pixel = cut.plane.pixel[1]
    width = (cut.columns.stop - cut.columns.start) * pixel
    power = 10.0 ** np.floor(np.log10(width / 4))
    length = power * max(factor for factor in (1, 2, 5) if factor * power <= width / 4)
    start, height = 0.04 * width / pixel, 0.06
    transform = axes.get_xaxis_transform()
    halo = [withStroke(linewidth=2.5, foreground="black")]
    axes.plot((start, start + length / pixel), (height, height), transform=transform, color="white", linewidth=1.5, path_effects=halo)
    _haloed(axes, start, height + 0.03, f"{number(length)} mm", "white", "black", transform=transform, fontsize=7)


def _haloed(axes: Axes, x: float, y: float, text: str, colour: str, halo: str, **options: Any) -> None:
    effects = [withStroke(linewidth=1.2, foreground=halo)]
    axes.text(x, y, text, color=colour, weight="bold", path_effects=effects, **options)


def _bars_height(content: ReportContent) -> float:
    return BARS * -(-len(content.component_names) // len(PANELS))


def _draw_bars(canvas: _Canvas, content: ReportContent, left: float, top: float) -> None:
    """A colour bar a component, as many in a row as there are panels."""
    width, full = _panel_width(), content.difference_limit * content.window_width
    for place, (name, palette) in enumerate(palettes_for(content.component_names).items()):
        row, column = divmod(place, len(PANELS))
        start, upper = left + column * (width + GAP), top + row * BARS
        canvas.text(
            start + 0.12, upper + 0.1, f"{shortened(name, LONGEST_BAR_LABEL)}: change in {shortened(content.unit, LONGEST_BAR_LABEL)}"
        )
        axes = canvas.axes(start + 0.12, upper + 0.21, width - 0.24, 0.12)
        axes.imshow(palette.table()[None], aspect="auto", extent=(-full, full, 0, 1))
        axes.set_yticks([])
        ticks = np.linspace(-full, full, 5)
        axes.set_xticks(ticks, [number(tick, 2) for tick in ticks])
        axes.tick_params(length=2, pad=2)
