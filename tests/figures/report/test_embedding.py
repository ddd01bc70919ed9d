"""An embedded picture shows what the file shows, without title and caption, in fewer bytes."""

import re
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import numpy as np
import pytest

from figures.drawing.frame import add_frame, picture
from figures.drawing.style import house_style, new_figure
from figures.report.embedding import embedded

TITLE, CAPTION = "A title above", 'A caption below, in 100 % of cases: it\'s "quoted" & #1.'


@pytest.fixture(scope="module")
def svg():
    """Marks of two colours, one of them see-through, an area, a log axis, turned text, signs that a URI has its own use for."""
    with house_style():
        figure = new_figure(4)
        left, right = figure.subplots(1, 2)
        x = np.linspace(0.1, 3, 40)
        left.plot(x, x**2, "o", alpha=0.4, label='50 % of "x" & #2 <it\'s>')
        left.scatter(x, 3 * x, c=x, marker="s")
        left.legend()
        right.fill_between(x, x, 2 * x, alpha=0.3)
        right.errorbar(x, x, 0.1 * x, fmt="D")
        right.set(xscale="log", yscale="log", ylabel="turned")
        add_frame(figure, TITLE, CAPTION)
        return picture(figure, "svg").decode()


def parsed(picture):
    kind, _, text = picture.uri.partition(",")
    assert kind == "data:image/svg+xml"
    return ET.fromstring(unquote(text))


def drawn(root, tags=("use", "path", "text", "tspan")):
    """Everything that is drawn outside of definitions: (tag, numbers, text, style with what it inherits)."""
    found = []

    def walk(element, style):
        own = dict(re.findall(r"([\w-]+):\s*([^;]+)", element.get("style", "")))
        style = style | {name: value.strip().replace("'", "") for name, value in own.items()}
        tag = element.tag.split("}")[-1]
        if tag in ("defs", "metadata") or element.get("id") in ("title", "caption"):
            return
        if tag in tags:
            values = " ".join(element.get(name, "") for name in ("d", "x", "y"))
            numbers = [float(x) for x in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", values)]
            moves = re.sub(r"rotate\(-?0 [^)]*\)", "", element.get("transform", ""))
            numbers += [float(x) for x in re.findall(r"-?\d*\.?\d+", moves)]
            shown = {k: v for k, v in style.items() if not k.startswith("font-family") and k != "font"}
            found.append((tag, numbers, (element.text or "").strip(), shown))
        for child in element:
            walk(
                child, {k: v for k, v in style.items() if k != "opacity"}
            )  # a group that has it is see-through as a whole

    walk(root, {})
    return found


def test_all_marks_lines_and_texts_are_where_and_as_they_were(svg):
    before, after = drawn(ET.fromstring(svg)), drawn(parsed(embedded(svg)))
    assert len(before) == len(after) > 150
    for old, new in zip(before, after, strict=True):
        assert (old[0], old[2], old[3]) == (new[0], new[2], new[3])
        np.testing.assert_allclose(new[1], old[1], atol=0.0051)


def test_a_mark_that_moved_or_another_style_would_be_seen(svg):
    before = drawn(ET.fromstring(svg))
    moved = re.sub(r'(<use [^>]* x=")', r"\g<1>1", svg, count=1)
    for wrong in (moved, svg.replace("fill-opacity: 0.4", "fill-opacity: 0.5", 1)):
        assert wrong != svg
        after = drawn(parsed(embedded(wrong)))
        same = [
            old[3] == new[3] and np.allclose(old[1], new[1], atol=0.0051)
            for old, new in zip(before, after, strict=True)
        ]
        assert not all(same)


def test_title_and_caption_are_left_out_and_the_panels_fill_what_is_left(svg):
    picture = embedded(svg)
    root = parsed(picture)
    words = " ".join(root.itertext())
    assert TITLE in svg
    assert not any(text in words for text in (TITLE, "A caption below"))
    _, top, width, height = map(float, root.get("viewBox").split())
    assert (width, height) == pytest.approx((picture.width, picture.height), abs=0.01)
    assert 8 < top < 30
    assert top + height < 4 * 72 - 8
    y = [float(e.get("y")) for e in root.iter() if e.tag.endswith("}text") and e.get("y")]
    assert y
    assert all(top < at < top + height for at in y)


def test_a_picture_without_marked_words_keeps_all(svg):
    plain = svg.replace('id="title"', 'id="other"').replace('id="caption"', 'id="another"')
    picture = embedded(plain)
    assert (picture.width, picture.height) == (720, 288)
    assert TITLE in " ".join(parsed(picture).itertext())


def test_it_is_about_half_as_large_and_fits_an_attribute(svg):
    uri = embedded(svg).uri
    assert len(uri) < 0.55 * len(svg)
    assert not set('"#\n') & set(uri)
    assert "%232" in uri.replace("%20", " ")
    assert '50 % of "x" & #2 <it\'s>' in " ".join(parsed(embedded(svg)).itertext())


def test_clips_and_markers_are_still_found(svg):
    text = unquote(embedded(svg).uri)
    names = set(re.findall(r"id='([^']+)'", text))
    used = set(re.findall(r"(?:href='|url\()#([\w.-]+)", text))
    assert used
    assert used <= names


@pytest.mark.parametrize("style", ["fill: red; opacity: 0.5", "fill: red; fill-opacity: 0.5"])
def test_only_what_members_inherit_is_said_for_their_group(style):
    """Two see-through marks in a see-through group do not darken where they overlap."""
    marks = f'<path d="M 0 0 L 1.23456 1" style="{style}"/>' * 2
    root = parsed(
        embedded(f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"><g id="a">{marks}</g></svg>')
    )
    assert {mark[3]["fill"] for mark in drawn(root)} == {"red"}
    own = [e.get("style") is not None for e in root.iter() if e.tag.endswith("}path")]
    assert own == [" opacity" in style] * 2
