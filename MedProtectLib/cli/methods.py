"""medprotect methods: what is there, what each needs, what it costs, and what our own measurements say."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from MedProtectLib.cli.console import answer, table
from MedProtectLib.cli.options import add_common

EXAMPLE = """example:
  medprotect methods --json"""


def add_arguments(parser: ArgumentParser) -> None:
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.methods import METHODS

    rows = [row_of(name) for name in METHODS]
    answer(arguments, {"methods": rows}, "\n\n".join(_text(row) for row in rows))
    return 0


def row_of(name: str) -> dict[str, Any]:
    """What there is to know about a method, JSON values."""
    from MedProtectLib.methods import method_class
    from MedProtectLib.methods.measured import EFFECTS, NOT_WITHSTOOD, SECONDS_PER_CASE
    from MedProtectLib.profile import shipped_profile

    method, effect = method_class(name), EFFECTS.get(name)
    return {
        "name": name,
        "title": method.title,
        "source": method.source,
        "needs": method.needs,
        "components": list(method.component_names),
        "dimensions": list(method.dimensions),
        "tasks": list(method.tasks),
        "scopes": list(method.scopes),
        "parameters": {key: asdict(parameter) for key, parameter in method.parameters.items()},
        "seconds_per_case": SECONDS_PER_CASE.get(name),
        "measured": None if effect is None else asdict(effect) | {"below_random": effect.below_random},
        "does_not_withstand": list(NOT_WITHSTOOD.get(name, ())),
        "public_profiles": [f"{d}D" for d in (2, 3) if shipped_profile(name, d) is not None],
    }


def _text(row: dict[str, Any]) -> str:
    parameters = [f"{key}={p['default']:g} ({p['meaning']})" for key, p in row["parameters"].items()]
    seconds = "not measured" if row["seconds_per_case"] is None else f"{row['seconds_per_case']:g} s for 122 x 101 x 30 voxels, two cores"
    lines = [
        ("source", row["source"]),
        ("needs", row["needs"]),
        ("works on", f"{', '.join(f'{d}D' for d in row['dimensions'])}; {', '.join(row['tasks'])}"),
        ("touches", " or ".join(f"the {scope}" for scope in row["scopes"])),
        ("components", ", ".join(row["components"])),
        *(("--set", parameter) for parameter in parameters),
        ("time per case", seconds),
        ("measured", _effect_text(row["measured"])),
        ("does not withstand", "; ".join(row["does_not_withstand"]) or "not yet audited by us"),
        ("profiles", f"{', '.join(row['public_profiles']) or 'none'} (public)"),
    ]
    return f"{row['name']}: {row['title']}\n{table(lines)}"


def _effect_text(effect: dict[str, Any] | None) -> str:
    if effect is None:
        return "not yet, by us"
    verdict = "victim lower than after random noise" if effect["below_random"] else "victim NOT clearly lower than after random noise"
    scores = f"{effect['protected']:.2f} against {effect['random']:.2f}, clean {effect['clean']:.2f}"
    seeds = "one seed" if effect["seeds"] == 1 else f"mean of {effect['seeds']} seeds"
    return f"{verdict}: {scores} ({effect['regime']}, {seeds})"
