"""The page as one file: template, style and scripts of this package, and data that cannot break out of its place."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from attn_lightning.console import printable

_FOLDER = "templates"
_STYLE = "report.css"
_PAGE = "report.html.j2"
_SCRIPTS = (
    "dom.js",
    "data.js",
    "charts.js",
    "tables.js",
    "summary.js",
    "documents.js",
    "reader.js",
    "studies.js",
    "main.js",
)
"""In the order in which they need one another; together they are one script, so that one hash allows them."""


@cache
def _read(name: str) -> str:
    return resources.files("attn_lightning.report").joinpath(_FOLDER, name).read_text("utf-8")


def script() -> str:
    """The page's only script."""
    return '"use strict";\n(() => {\n' + "\n".join(_read(name) for name in _SCRIPTS) + "\n})();\n"


def render(content: Mapping[str, Any]) -> str:
    """The page of this content.

    Args:
        content: JSON, with a `title`; texts in it are untrusted.

    Returns:
        HTML that needs no other file, and that allows nothing but its own script and style.
    """
    # Only a page needs it, and every command would wait for it.
    from jinja2 import Environment
    from markupsafe import Markup

    # Escaped by default: titles and notes hold names of folders, which anybody may choose.
    environment = Environment(autoescape=True, keep_trailing_newline=True)
    style, code = _read(_STYLE), script()
    return environment.from_string(_read(_PAGE)).render(
        title=printable(str(content["title"])),
        policy=policy(style, code),
        style=Markup(style),
        script=Markup(code),
        data=Markup(embedded(content)),
    )


def policy(style: str, code: str) -> str:
    """The content-security policy that allows this style and this script, by their hashes, and nothing else."""
    return (
        f"default-src 'none'; script-src '{_hash(code)}'; style-src '{_hash(style)}'; "
        # `default-src` does not cover these two, and either would let a text of the page lead elsewhere.
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def embedded(content: Any) -> str:
    r"""JSON that may stand inside a script element: no `<`, `>` or `&`, so that no text in it can end the element.

    `</script>` and `<!--` become `\u003c/script\u003e` and `\u003c!--`, which JSON reads as the same text.
    """
    # ASCII, so that line separators of Unicode cannot end a line of script; NaN is no JSON, and an error here is a bug.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
