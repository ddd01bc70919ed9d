"""An SVG of Matplotlib inside a page: without title and caption, which the page has as text, and half as large.

Nothing that is seen changes: coordinates are rounded to a hundredth of a point, and what is said once for a group is not
repeated in each of its members.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_G, _HREF = f"{{{_SVG}}}g", f"{{{_XLINK}}}href"
_DROPPED = {f"{{{_SVG}}}metadata"}
_NUMBERED = {"d", "x", "y", "transform", "width", "height"}
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
_FONT = re.compile(r"font-family: ([^;]*);? ?")
_NO_TURN = re.compile(r"^rotate\(-?0 [^)]*\)$")
_ASCENT, _DESCENT = 1.0, 0.3  # of a line of text, in its size


@dataclass(frozen=True)
class Embedded:
    """A picture for a page.

    Attributes:
        uri: the picture as a data URI; it holds no double quote and no line break.
        width, height: in points.
    """

    uri: str
    width: float
    height: float


def embedded(svg: str) -> Embedded:
    """The panels of a claim's figure.

    Args:
        svg: the file that `figures.drawing.frame.picture` makes; one whose title and caption are not marked keeps them.
    """
    root = ET.fromstring(svg)
    top, height = _crop(root)
    width = _size(root.get("width", "0"))
    root.set("viewBox", f"0 {_round(top)} {_round(width)} {_round(height)}")
    root.set("height", f"{_round(height)}pt")
    _drop_names(root, set(re.findall(r"#([\w.-]+)", svg)))
    _say_the_font_once(root)
    _shrink(root)
    return Embedded(_uri(root), width, height)


def _crop(root: ET.Element) -> tuple[float, float]:
    """Take title and caption out; where the panels begin, and their height, in points."""
    top, bottom = 0.0, _size(root.get("height", "0"))
    for parent in list(root.iter(_G)):
        for group in list(parent):
            lines = [_line(text) for text in group.iter(f"{{{_SVG}}}text")]
            if group.get("id") == "title" and lines:
                top = max(y + _DESCENT * size for y, size in lines)
            elif group.get("id") == "caption" and lines:
                bottom = min(y - _ASCENT * size for y, size in lines)
            if group.get("id") in ("title", "caption"):
                parent.remove(group)
    return top, bottom - top


def _line(text: ET.Element) -> tuple[float, float]:
    """Baseline and size of a line of text."""
    moved = re.match(r"translate\(\S+ ([\d.]+)\)", text.get("transform", ""))
    size = re.search(r"font-size: ([\d.]+)", text.get("style", ""))
    return float(moved[1] if moved else text.get("y", "0")), float(size[1]) if size else 0.0


def _size(text: str) -> float:
    return float(text.removesuffix("pt"))


def _drop_names(root: ET.Element, used: set[str]) -> None:
    """No names that nothing refers to."""
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)


def _say_the_font_once(root: ET.Element) -> None:
    """The stack of fonts of nearly all texts stands at the root; mathematics names the first of them alone."""
    styled = [(element, found[1]) for element in root.iter() if (found := _FONT.search(element.get("style", "")))]
    usual = max((stack for _, stack in styled), key=len, default="sans-serif")
    for element, stack in styled:
        if usual.startswith(stack):
            element.set("style", _FONT.sub("", element.attrib["style"]))
    root.set("font-family", usual.replace("'", ""))


def _shrink(element: ET.Element) -> None:
    """Round, leave out layout and groups that say nothing, and give a style that all members share to their group."""
    for name, value in element.attrib.items():
        if name in _NUMBERED and not value.endswith("pt"):
            element.set(name, _rounded(value))
    if _NO_TURN.match(element.get("transform", "")):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", element.attrib["style"].replace("; ", ";").replace(": ", ":").strip("; "))
    for child in list(element):
        if child.tag in _DROPPED:
            element.remove(child)
        else:
            _shrink(child)
    _open_groups(element)
    _share_style(element)
    if not (element.text or "").strip():
        element.text = None
    for child in element:
        if not (child.tail or "").strip():
            child.tail = None


def _open_groups(element: ET.Element) -> None:
    """Members of a group without attributes take its place."""
    members = list(element)
    flat = [inner for child in members for inner in (list(child) if child.tag == _G and not child.attrib else [child])]
    if len(flat) != len(members) or any(a is not b for a, b in zip(flat, members, strict=True)):
        for child in members:
            element.remove(child)
        element.extend(flat)


def _share_style(element: ET.Element) -> None:
    styles = {child.get("style") for child in element}
    style = next(iter(styles)) if len(styles) == 1 and len(element) > 1 else None
    inherited = style is not None and not re.search(r"(^|;)(opacity|filter|mix-blend-mode):", style)
    if inherited and element.tag != f"{{{_SVG}}}defs" and "style" not in element.attrib:
        element.set("style", str(style))
        for child in element:
            del child.attrib["style"]


def _rounded(text: str) -> str:
    """Path data, a coordinate or a transformation with fewer digits and spaces."""
    short = _NUMBER.sub(lambda found: _round(float(found[0])), " ".join(text.split()))
    return re.sub(r" ?([MLQCZz]) ?", r"\1", short)


def _round(x: float) -> str:
    """Two digits after the point; four of a number below 1, which may be a scale."""
    return f"{x:.{2 if abs(x) >= 1 else 4}f}".rstrip("0").rstrip(".").replace("-0.", "-.").removeprefix("0") or "0"


def _uri(root: ET.Element) -> str:
    """`data:` with what a URI and an attribute of HTML cannot hold written in another way."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    text = ET.tostring(root, encoding="unicode").replace("%", "%25").replace("\n", " ").replace(" />", "/>")
    text = re.sub(r"<[^>]*>", lambda tag: tag[0].replace("'", "%27").replace('"', "'"), text)
    return "data:image/svg+xml," + text.replace('"', "%22").replace("#", "%23").replace(
        "&", "%26"
    )  # HTML reads &lt; as <
