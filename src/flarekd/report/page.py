"""HTML pages that need nothing but themselves: no network, and no word of the data is code."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = "templates"


def render(template: str, *, scripts: tuple[str, ...] = (), **context: Any) -> str:
    """Fill a template of the package.

    Every value is escaped, whatever case ids and messages hold. The page's own scripts are named
    in its content security policy by their hashes: no other one runs, and nothing is fetched.

    Args:
        template: File in ``report/templates``, which extends ``base.html``.
        scripts: Files there, run in this order after ``table.js``, when the page is read.
        context: What the template takes.

    Returns:
        The page.
    """
    sources = [_asset(name) for name in ("table.js", *scripts)]
    policy = (
        "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
        f"script-src {' '.join(_hash(source) for source in sources)}"
    )
    page: str = (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(_asset("page.css")),  # files of the package, not data
            scripts=[Markup(source) for source in sources],
            **context,
        )
    )
    return page


def png_uri(png: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("flarekd.report", FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return resources.files("flarekd.report").joinpath(FOLDER, name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
