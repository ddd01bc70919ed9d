"""A tree of prefixes with the policy's law, Q and V written on it."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from envs.arguments import short, whole
from envs.world import InputError
from figures.drawing.likely_prefixes import LikelyPrefixes, Node, Prefix, likely_prefixes
from figures.drawing.one_panel import check_width, inches, lay_out, panel
from figures.drawing.style import text_scale
from theory.tokens.prefix_tree import Tree

_USUAL, _MOST = 16, 40  # ends: where nobody asks for a number, and at most
_LEAST = 4.5  # points; smaller text is not read
_ROW = 2.9  # height of a row over the size of its text: a line of text above the edge and one below
_LETTER = 0.6  # width of a letter over the size of the text
_SMALL_LETTER, _LINE = 0.55, 0.45  # the same of running text, and the height of its lines in rows
_CURVE = 0.22  # of a column: the edge bends there, the rest is level and carries the text


@dataclass(frozen=True)
class _Page:
    """What is written where: rows of the prefixes, from the top on, the key below them, how numbers and tokens are written."""

    shown: LikelyPrefixes
    rows: dict[Prefix, float]
    key: str
    form: str
    names: Sequence[str] | None

    @property
    def columns(self) -> int:
        return max(map(len, self.shown.ends))

    def token(self, token: int) -> str:
        return str(token) if self.names is None else str(self.names[token])

    def number(self, x: float) -> str:
        return format(float(format(x, self.form)) + 0.0, self.form)  # without the sign of -0.00

    def letters(self) -> float:
        """The longest text of an edge, and half of the longest box after it, in letters."""
        texts = [len(self.token(tokens[-1])) + 7 for tokens in self.shown.nodes if tokens]
        numbers = [len(self.number(x)) + 2 for node in self.shown.nodes.values() for x in (node.value, node.Q)]
        return max(*texts, *numbers) + max(numbers) / 2

    def key_lines(self, width: float, size: float) -> list[str]:
        return textwrap.wrap(self.key, max(12, int(72 * width / (_SMALL_LETTER * size))))

    def height(self, width: float, size: float) -> float:
        """Of everything below the title, in rows."""
        return len(self.shown.ends) + 1.5 + _LINE * len(self.key_lines(width, size))


def draw_tree(
    tree: Tree,
    ax: Any = None,
    *,
    prompt: int = 0,
    depth: int | None = None,
    most: int | None = None,
    names: Sequence[str] | None = None,
    width: float = 7.0,
) -> Any:
    """A prompt's tree from left to right: V in the nodes, a token with its pi above each edge, Q below it.

    Edges are as wide as their prefix is likely. A large tree is reduced to its likeliest completions; the picture says how many
    there are, and how much of the probability it shows. Outlined nodes are finished completions with their return. Where the
    environment speaks, the node is a square and p takes the place of pi. Impossible tokens are left out.

    Args:
        tree: `costate.prefix_tree(world, policy)`.
        ax: axes to draw on; None for a figure of its own, which is `.figure` of the answer.
        prompt: index of the prompt.
        depth: how many tokens after the prompt are shown; None for all.
        most: how many completions are shown, at most 40; None for 16, or fewer where the axes are small.
        names: of the tokens, one for each; None for their numbers.
        width: of a figure of its own, in inches.

    Returns:
        The axes.

    Raises:
        InputError: the tree does not follow every token, there is no such prompt, the names do not fit, or the axes are too
            small for text that can be read.
    """
    check_width(width)
    if most is not None and whole("most", most, 1) > _MOST:
        raise InputError(f"most must be at most {_MOST} completions in one picture; got {most}")
    shown = likely_prefixes(tree, prompt, depth, most or _USUAL)
    if names is not None and len(names) != tree.world.V:
        raise InputError(f"names must be one for each of the {tree.world.V} tokens; got {short(names)}")
    page = _page(shown, names, tree)
    size = min(_across(page, width), 12 * text_scale(width))
    with panel(ax, width, 0.5 + page.height(width, size) * _ROW * size / 72) as axis:
        axis.set_axis_off()
        axis.set_title("V of a prefix is the mean of its Q, weighted by $\\pi$")
        lay_out(axis)
        room = inches(axis)
        while most is None and len(shown.ends) > 2 and _down(page, room) < _LEAST:
            shown = likely_prefixes(tree, prompt, depth, len(shown.ends) - 1)
            page = _page(shown, names, tree)
        _draw(axis, page, _size(page, room), tree.world.prompts[prompt].tolist())
    return axis


def _page(shown: LikelyPrefixes, names: Sequence[str] | None, tree: Tree) -> _Page:
    """Every end has a row of its own; a prefix stands in the middle of what follows it."""
    rows: dict[Prefix, float] = {end: float(i) for i, end in enumerate(shown.ends)}
    for tokens in sorted(shown.nodes, key=len, reverse=True):
        below = [rows[other] for other in shown.nodes if len(other) == len(tokens) + 1 and other[:-1] == tokens]
        if below:
            rows[tokens] = (below[0] + below[-1]) / 2
    return _Page(shown, rows, _key(shown, tree), _form(shown), names)


def _form(shown: LikelyPrefixes) -> str:
    """How all values are written: with two digits after the point unless they are very small or large."""
    largest = max(abs(x) for node in shown.nodes.values() for x in (node.value, node.Q))
    if largest >= 100:
        return ".0f" if largest < 1e4 else ".1e"
    if largest >= 0.1 or largest == 0:
        return ".2f"
    return f".{1 - math.floor(math.log10(largest))}f" if largest >= 1e-4 else ".1e"


def _across(page: _Page, width: float) -> float:
    """The largest size of text, in points, that the columns leave room for."""
    return 72 * width * (0.9 - _CURVE) / ((page.columns + 0.6) * _LETTER * page.letters())


def _down(page: _Page, room: tuple[float, float]) -> float:
    """The same for the rows."""
    size = 72 * room[1] / (_ROW * page.height(room[0], _LEAST))
    return 72 * room[1] / (_ROW * page.height(room[0], max(size, _LEAST)))


def _size(page: _Page, room: tuple[float, float]) -> float:
    """Size of the text in points: what there is room for, no larger than a fifth above the usual one."""
    across, down = _across(page, room[0]), _down(page, room)
    what = f"ax is {room[0]:.2g} x {room[1]:.2g} inches, too small for text that can be read"
    if across < _LEAST:
        raise InputError(f"{what} in {page.columns} columns: give wider axes, or a depth below {page.columns}")
    if down < _LEAST:
        raise InputError(
            f"{what} in {len(page.shown.ends)} rows: give higher axes, or a most below {len(page.shown.ends)}"
        )
    return min(across, down, 1.2 * FontProperties(size="medium").get_size_in_points())


def _draw(axis: Any, page: _Page, size: float, prompt: list[int]) -> None:
    width, height = inches(axis)
    top, bottom = -1.4, page.height(width, size) - 1.4
    bottom = max(bottom, top + 72 * height / (_ROW * size)) if height < 1e3 else bottom
    axis.set(xlim=(-0.3, page.columns + 0.3), ylim=(bottom, top))
    values = [node.value for node in page.shown.nodes.values()]
    norm = Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1)
    for tokens, node in page.shown.nodes.items():
        if tokens:
            _draw_edge(axis, page, size, node, page.shown.nodes[tokens[:-1]])
        if node.cut:
            _draw_stub(axis, page, size, node)
        _draw_node(axis, page, size, node, norm)
    heads = [
        f"prompt {' '.join(map(page.token, prompt))}",
        *(f"{k} token{'s'[: k > 1]}" for k in range(1, page.columns + 1)),
    ]
    look: dict[str, Any] = {"fontsize": size, "color": "0.35", "in_layout": False}
    for k, head in enumerate(heads):
        axis.text(k, -1, head, ha="center", va="center", **look)
    key = "\n".join(page.key_lines(width, size))
    axis.text(-0.25, len(page.shown.ends) - 0.35, key, va="top", linespacing=1.2, **look)


def _draw_edge(axis: Any, page: _Page, size: float, node: Node, before: Node) -> None:
    """A curve that is level from a fifth of the column on, as wide as the prefix is likely, with its two texts."""
    x, y0, y1 = len(node.tokens) - 1.0, page.rows[before.tokens], page.rows[node.tokens]
    bend = x + 0.1 + _CURVE
    points = [(x, y0), (x + 0.5 * _CURVE + 0.1, y0), (x + 0.5 * _CURVE + 0.05, y1), (bend, y1), (x + 1, y1)]
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO])
    wide = size * (0.06 + 0.35 * node.probability)
    axis.add_patch(PathPatch(path, fill=False, edgecolor="0.6", linewidth=wide, capstyle="butt", zorder=1))
    law = "\\pi" if before.own else "p"
    above, below = f"{page.token(node.tokens[-1])}   ${law}$ {_chance(node.share)}", f"Q {page.number(node.Q)}"
    look: dict[str, Any] = {
        "ha": "left",
        "textcoords": "offset points",
        "fontsize": size,
        "zorder": 4,
        "in_layout": False,
    }
    gap = wide / 2 + 0.12 * size
    axis.annotate(above, (bend, y1), (0, gap), va="baseline", gid=_gid("pi", node), **look)
    axis.annotate(below, (bend, y1), (0, -gap), va="top", color="0.35", gid=_gid("Q", node), **look)


def _gid(what: str, node: Node) -> str:
    """The name of a text in SVG, and for those who look one up in the axes: "Q-0-1" after the tokens 0 and 1."""
    return "-".join([what, *map(str, node.tokens)])


def _draw_stub(axis: Any, page: _Page, size: float, node: Node) -> None:
    x, y = len(node.tokens), page.rows[node.tokens]
    axis.plot([x, x + 0.28], [y, y + 0.42], ":", color="0.45", lw=0.12 * size, zorder=0)


def _draw_node(axis: Any, page: _Page, size: float, node: Node, norm: Any) -> None:
    """A box with V; outlined where it is a finished completion, square where the environment speaks next."""
    colour = colormaps["cividis"](0.3 + 0.7 * norm(node.value))  # its lighter part: an outline is seen on it
    light = (
        sum(w * c**2.2 for w, c in zip((0.2126, 0.7152, 0.0722), colour, strict=False)) > 0.18
    )  # black is read better
    box: dict[str, Any] = {"boxstyle": "round,pad=0.3" if node.own else "square,pad=0.35", "facecolor": colour}
    box |= {"edgecolor": "black" if node.finished else "none", "linewidth": 0.14 * size}
    place = len(node.tokens), page.rows[node.tokens]
    look: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": size,
        "zorder": 5,
        "bbox": box,
        "in_layout": False,
    }
    axis.text(*place, page.number(node.value), color="black" if light else "white", gid=_gid("V", node), **look)


def _key(shown: LikelyPrefixes, tree: Tree) -> str:
    """What the marks mean, and how much of the tree is shown."""
    depth = max(map(len, shown.ends))
    what = "completions" if shown.whole else f"beginnings of {depth} token{'s'[: depth > 1]}"
    said = ["Box: V, outlined: return. Width: probability."]
    if any(not node.own for node in shown.nodes.values()):
        said.append("Square: the environment speaks, with chances p.")
    if not tree.world.deterministic:
        said.append("Rewards are means over states.")
    if len(shown.ends) < shown.of:
        share = _percent(shown.probability)
        said.append(f"{len(shown.ends)} likeliest of {shown.of} {what}, {share} of the probability (dotted: left out).")
    else:
        said.append(f"All {shown.of} possible {what}.")
    return " ".join(said)


def _percent(share: float) -> str:
    text = f"{100 * share:.0f}"
    return {"100": ">99", "0": "<1"}.get(text, text) + "\u00a0%" if share < 1 - 1e-12 else "100\u00a0%"


def _chance(share: float) -> str:
    text = f"{share:.2f}"
    return {"1.00": ">.99", "0.00": "<.01"}.get(text, text) if 0 < share < 1 else text
