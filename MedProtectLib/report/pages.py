"""The one frame of all HTML pages: policy, colours and letters; a page fills in its title, its style and its body."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined, Template

FRAME = "page.html"


def page_of(package: str, name: str) -> Template:
    """The template ``name`` of a package, in the frame."""
    sources = {FRAME: files(__package__).joinpath(FRAME), name: files(package).joinpath(name)}
    loader = DictLoader({key: source.read_text(encoding="utf-8") for key, source in sources.items()})
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).get_template(name)
