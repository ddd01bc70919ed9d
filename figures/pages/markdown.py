"""Markdown with formulas as HTML that needs no network."""

import functools
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markupsafe import Markup
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin


@functools.cache
def _parser() -> MarkdownIt:
    """Formulas become MathML; headings get anchors."""

    def formula(text: str, options: dict[str, Any]) -> str:
        return convert(text, display="block" if options["display_mode"] else "inline")

    parser = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula)
    return parser.use(anchors_plugin, max_level=3, slug_func=anchor)


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub names it: "pass@k" -> "passk"."""
    return "".join(c for c in heading.strip().lower().replace(" ", "-") if c.isalnum() or c in "-_")


def to_html(text: str) -> Markup:
    """Markdown as HTML."""
    return Markup(_parser().render(text))
