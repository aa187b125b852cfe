"""medprotect methods: what is there."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from MedProtectLib.cli.console import answer
from MedProtectLib.cli.options import add_common

EXAMPLE = """example:
  medprotect methods --json"""


def add_arguments(parser: ArgumentParser) -> None:
    add_common(parser)


def run(arguments: Namespace) -> int:
    from MedProtectLib.methods import METHODS, method_class
    from MedProtectLib.profile import shipped_profile

    rows = []
    for name in METHODS:
        method = method_class(name)
        shipped = [f"{d}D" for d in (2, 3) if shipped_profile(name, d) is not None]
        rows.append(
            {
                "name": name,
                "title": method.title,
                "source": method.source,
                "needs": method.needs,
                "components": list(method.component_names),
                "public_profiles": shipped,
            }
        )
    text = "\n\n".join(
        f"{row['name']}: {row['title']}\n  source      {row['source']}\n  needs       {row['needs']}\n"
        f"  components  {', '.join(row['components'])}\n  profiles    {', '.join(row['public_profiles']) or 'none'} (public)"
        for row in rows
    )
    answer(arguments, {"methods": rows}, text)
    return 0
