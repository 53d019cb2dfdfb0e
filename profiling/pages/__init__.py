"""Pages: HTML in one file each, with one style, from the templates in this folder. Whatever is filled in is escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.policies["json.dumps_kwargs"] = {}  # the order of keys is that of the menus


def render(template: str, **values: object) -> bytes:
    """A page as UTF-8; nothing in it is loaded from elsewhere. In scripts, `tojson` escapes what could end them."""
    return _TEMPLATES.get_template(template).render(values).encode("utf-8", "backslashreplace")
