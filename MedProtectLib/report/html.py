"""The HTML page of a report: one file with its style and pictures inside."""

from __future__ import annotations

from base64 import b64encode

from MedProtectLib.report import ReportContent, figures, words
from MedProtectLib.report.pages import page_of
from MedProtectLib.report.planes import OBLIQUE_FROM_DEGREES, Cut, areas_by_axis, largest_cut, plane_cuts, slice_cuts, tilt

SLICES = 4


def render(content: ReportContent) -> str:
    """The whole page."""
    geometry = content.original.geometry
    areas = areas_by_axis(content.touchable)
    planes = plane_cuts(geometry, areas)
    slices = [cut for cut in slice_cuts(geometry, areas, SLICES) if cut not in planes]
    closest = largest_cut(geometry, areas)
    rows = _rows(content, planes + slices)
    return page_of("MedProtectLib.report", "template.html").render(
        name=content.original.name,
        grid=words.grid(content),
        planar=content.planar,
        warnings=content.warnings,
        verdict=words.verdict(content),
        cards=words.cards(content),
        pair=_source(figures.pair(content, closest)),
        pair_caption=closest.caption,
        headings=figures.headings(content),
        bars=_source(figures.colour_bars(content)),
        note=words.note(content),
        orientation=_orientation(content),
        planes=rows[: len(planes)],
        slices=rows[len(planes) :],
        slice_plot=_source(figures.slice_plot(content)) if geometry.size[2] > 1 else None,
        whole_psnr=words.decibel(content.statistics["psnr_db"]),
        histogram=_source(figures.change_histogram(content)),
        statistics=words.statistic_rows(content),
        per_slice=words.per_slice(content) if geometry.size[2] > 1 else [],
        settings=content.settings,
        limits=content.limits,
    )


def _rows(content: ReportContent, cuts: list[Cut]) -> list[tuple[str, str]]:
    changes = figures.changes_at(content, cuts)
    return [(cut.caption, _source(figures.comparison(content, cut, change))) for cut, change in zip(cuts, changes, strict=True)]


def _source(png: bytes) -> str:
    """A picture as the value of an img element's src."""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _orientation(content: ReportContent) -> str:
    """How the pictures lie in the patient, and what became of several channels."""
    sentences = []
    if not content.planar:
        sentences.append(
            "Radiological display: the patient's right is at the left of axial and coronal pictures. Letters, as the file's header tells: "
            "R right, L left, A front, P back, S head, I feet."
        )
        angle = tilt(content.original.geometry)
        if angle > OBLIQUE_FROM_DEGREES:
            sentences.append(f"The grid lies {angle:.0f}° off the patient's axes; the nearest planes are shown, not resampled.")
    if len(content.original.intensity_channels) > 1:
        sentences.append("The difference is the mean over the channels.")
    return " ".join(sentences)
