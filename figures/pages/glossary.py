"""The glossary as a page, and links to its terms."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup, escape

from figures.harness.code import ROOT
from figures.harness.records import write_atomically
from figures.pages.markdown import anchor, to_html
from figures.pages.rendering import render

GLOSSARY = ROOT / "theory" / "GLOSSARY.md"
# Terms that are everyday words, too: prose means them in another sense as often as not
_EVERYDAY = {"claim", "control", "policy", "return", "score", "value"}


def glossary(prefix: str = "") -> Markup:
    """The glossary as HTML; each term's heading has the anchor PREFIX + `terms()[term]`."""
    text = GLOSSARY.read_text("utf-8").split("\n", 1)[1]  # without its title
    text = re.sub(r"\[([^]]+)\]\(README[^)]*\)", r"\1 (theory/README.md)", text)  # not beside the page
    return Markup(str(to_html(text)).replace('<h3 id="', f'<h3 id="{prefix}'))


def write_glossary(out: Path, back: dict[str, str]) -> None:
    """out/glossary.html.

    Args:
        out: the folder of the pages that link to it.
        back: page beside it -> words of the link to that page.
    """
    write_atomically(out / "glossary.html", render("figures.pages", "glossary.html", text=glossary(), back=back))


@functools.cache
def terms() -> dict[str, str]:
    """Every term, "E1b" for instance, and its anchor on the page."""
    headings = re.findall(r"^### (.+)$", GLOSSARY.read_text("utf-8"), re.M)
    return {term: anchor(heading) for heading in headings for term in heading.split(", ")}


@functools.cache
def _pattern() -> re.Pattern[str]:
    known = sorted(set(terms()) - _EVERYDAY, key=len, reverse=True)
    return re.compile(r"(?<![\w/-])(" + "|".join(map(re.escape, known)) + r")s?(?![\w/-])", re.I)


def linker(place_of_words: str) -> Callable[[str], Markup]:
    """A function that turns plain text into HTML, in which each term is a link where the function meets it first.

    Args:
        place_of_words: what stands before the anchor in a link, "glossary.html#" for instance.

    Returns:
        The function; it remembers the terms that it has met.
    """
    seen, by_lower = set[str](), {term.lower(): place for term, place in terms().items()}

    def link(found: re.Match[str]) -> str:
        place = by_lower[found[1].lower()]
        if place in seen:
            return found[0]
        seen.add(place)
        return f'<a class="term" href="{place_of_words}{place}">{found[0]}</a>'

    return lambda text: Markup(_pattern().sub(link, str(escape(text))))
