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
    from MedProtectLib.methods.measured import SECONDS_PER_CASE, effects, not_withstood
    from MedProtectLib.profile import shipped_profile

    method = method_class(name)
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
        "measured": [asdict(effect) | {"below_random": effect.below_random} for effect in effects().get(name, ())],
        "does_not_withstand": list(not_withstood(name)),
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
        *(("measured", _effect_text(effect)) for effect in row["measured"]),
        *(("does not withstand", training) for training in row["does_not_withstand"]),
        ("public profiles", ", ".join(row["public_profiles"]) or "none"),
    ]
    return f"{row['name']}: {row['title']}\n{table(lines)}"


def _effect_text(effect: dict[str, Any]) -> str:
    apart = 100 * (effect["protected"] - effect["random"])
    width = "" if effect["interval"] is None else f" ± {100 * effect['interval']:.1f}"
    seeds = "one seed" if effect["seeds"] == 1 else f"{effect['seeds']} seeds"
    scores = f"{effect['score']} {effect['protected']:.2f}, after random noise {effect['random']:.2f}, clean {effect['clean']:.2f}"
    return f"{effect['data']}, {effect['psnr_db']:.1f} dB: {scores} ({apart:+.1f}{width} points against noise, {seeds})"
