"""The private overview: pages with one picture a case, so that a person can look at a whole release."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote

from MedProtectLib.outputs import private_folder, write_private
from MedProtectLib.release.audit import WITHDRAWN, Outcome
from MedProtectLib.release.case import file_name_of
from MedProtectLib.release.ledger import COPIED, FAILED, OK, OPEN, QUARANTINED
from MedProtectLib.release.roots import Roots
from MedProtectLib.release.settings import Settings
from MedProtectLib.report.pages import page_of
from MedProtectLib.version import __version__

CASES_A_PAGE = 48
MOST_LISTED = 500
PAGE_STEPS = (1, 2, 3, 10, 30, 100, 300, 1000, 3000)
WORDS = {
    OK: "protected",
    COPIED: "unprotected copy",
    QUARANTINED: QUARANTINED,
    FAILED: FAILED,
    OPEN: "not done",
    WITHDRAWN: WITHDRAWN,
}


@dataclass(frozen=True)
class Card:
    """What a page shows of a case. ``pictures`` and ``reports`` are addresses relative to the page."""

    case: str
    anchor: str
    status: str
    reason: str
    pictures: list[str]
    reports: list[str]
    facts: list[tuple[str, str]]
    warnings: list[str]


def write_overview(roots: Roots, settings: Settings, outcomes: Callable[[], Iterable[Outcome]], withdrawn: list[str]) -> None:
    """Write ``overview/page_0001.html`` and so on, and ``overview/index.html``, the first of them.

    Raises:
        OSError: no space or no permission.
    """
    private_folder(roots.overview)
    counts = Counter(outcome.status for outcome in outcomes()) + Counter({WITHDRAWN: len(withdrawn)})
    pages = max(1, math.ceil(counts.total() / CASES_A_PAGE))
    template = page_of("MedProtectLib.release", "overview.html")
    common: dict[str, Any] = {
        "release": settings.name,
        "counts": [(word, status, counts[status]) for status, word in WORDS.items() if counts[status]],
        "version": __version__,
        "words": WORDS,
        "parameters": _parameters(settings),
    }
    common["attention"] = _attention(outcomes())
    batches = pages_of_cards(roots, outcomes(), withdrawn)
    for number in range(1, pages + 1):
        links = [(other, _page_name(other)) for other in _linked(number, pages)]
        page = template.render(cards=next(batches, []), number=number, links=links, **common).encode(errors="replace")
        write_private(roots.overview / _page_name(number), page)
        if number == 1:
            write_private(roots.overview / "index.html", page)
    made = {_page_name(number) for number in range(1, pages + 1)}
    for path in roots.overview.glob("page_*.html"):
        if path.name not in made:
            path.unlink()


def _linked(number: int, pages: int) -> list[int]:
    """The pages that a page leads to: the first, the last, and others the closer together the nearer they are."""
    near = (number + sign * step for step in PAGE_STEPS for sign in (-1, 1))
    return sorted({1, number, pages, *(page for page in near if 1 <= page <= pages)})


def _attention(outcomes: Iterable[Outcome]) -> list[tuple[str, str, str]]:
    """Case, status and address of the cases that are not protected, the first ones only."""
    found: list[tuple[str, str, str]] = []
    for number, outcome in enumerate(outcomes):
        if outcome.status != OK and len(found) < MOST_LISTED:
            address = f"{_page_name(number // CASES_A_PAGE + 1)}#{quote(file_name_of(outcome.case))}"
            found.append((outcome.case, WORDS[outcome.status], address))
    return found


def pages_of_cards(roots: Roots, outcomes: Iterable[Outcome], withdrawn: Iterable[str]) -> Iterator[list[Card]]:
    """The cards, page by page."""

    def cards() -> Iterator[Card]:
        for outcome in outcomes:
            yield _card(roots, outcome)
        for case in withdrawn:
            yield Card(case, file_name_of(case), WITHDRAWN, "It was in the previous version and is not in this one.", [], [], [], [])

    left = cards()
    while page := list(islice(left, CASES_A_PAGE)):
        yield page


def _card(roots: Roots, outcome: Outcome) -> Card:
    folder = roots.of_case(outcome.case)
    record = outcome.record or {}
    return Card(
        outcome.case,
        file_name_of(outcome.case),
        outcome.status,
        outcome.reason,
        [_address(outcome.case, path.name) for path in sorted(folder.glob("overlay*.png"))],
        [_address(outcome.case, path.name) for path in sorted(folder.glob("report*.html"))],
        _facts(record.get("shareable", {}).get("statistics", {})),
        list(record.get("warnings", ())),
    )


def _facts(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not statistics:
        return []
    psnr, regions = statistics["psnr_db"], statistics["psnr_roi_db"]
    return [
        ("PSNR", "no change" if psnr is None else f"{psnr:.1f} dB"),
        ("in the regions", "no change" if regions is None else f"{regions:.1f} dB"),
        ("largest change", f"{statistics['max_abs_change'][0] * 255:.2f}/255"),
        ("changed", f"{statistics['changed_fraction']:.0%} of the regions"),
    ]


def _address(case: str, file: str) -> str:
    return f"../cases/{quote(file_name_of(case))}/{file}"


def _page_name(number: int) -> str:
    return f"page_{number:04d}.html"


def _parameters(settings: Settings) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), str(value)) for key, value in settings.parameters().items() if value not in (None, ())]
