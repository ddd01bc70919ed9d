"""Value gradient and estimators as arrows in one plane: which backward pass points where."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from envs.world import InputError
from figures.drawing.arrow_plane import Arrow, ArrowPlane, arrow_plane
from figures.drawing.labels import wrap
from figures.drawing.one_panel import check_width, inches, lay_out, panel
from figures.drawing.style import COLOURS, EXACT
from figures.drawing.tip_labels import Tip, label_tips
from theory.tokens.costates import SHORT_NAMES

_SHORTEST = 0.02  # of the longest arrow: what is shorter is a dot with its length beside it
_COLOURS = {
    "E1": "reference",
    "E1b": "control",
    "E2": "costate",
    "E3": "score_value",
    "E4": "score_best",
    "E5": "critic",
}
_OTHERS = ("score", "critic", "score_best", "score_value", "control", "costate", "reference")
_MEANINGS = {
    "attention": "through attention alone",
    "attention_expected": "the same, own token averaged",
    "score": "through log $\\pi$ of the tokens",
    "total": "E1 + E2",
    "straight_through": "straight-through tokens",
    "reinmax": "straight-through, second order",
    "soft": "soft tokens",
    "gumbel": "Gumbel-softmax tokens",
}


def draw_arrows(
    vectors: Mapping[str, Any],
    ax: Any = None,
    *,
    reference: str | None = None,
    basis: Any = None,
    legend: bool = True,
    width: float = 6.0,
) -> Any:
    """Vectors as arrows from one point, in true proportion: the value gradient dashed along the x axis, estimators beside it.

    The plane is that of the reference and of the direction orthogonal to it that holds most of the other vectors. A vector
    that leaves the plane is paler, and the legend says how much of its length is in it. A vector that is zero is named at the
    origin; so is one below a fiftieth of the longest, with its length. The title says which vectors are the reference.

    Args:
        vectors: name -> vector (D,), the reference first, or samples (samples, D), whose mean is drawn with an ellipse of two
            standard errors. E1, E1b, ... and the long names of costates are explained in the legend.
        ax: axes to draw on; None for a figure of its own, which is `.figure` of the answer.
        reference: name of the vector along the x axis, the unit of both axes; None for the first.
        basis: two vectors that span another plane; None for the one above.
        legend: whether there is one.
        width: of a figure of its own, in inches.

    Returns:
        The axes.

    Raises:
        InputError: the vectors do not fit each other, hold NaN or are all 0, the reference is too short to be seen, or the
            axes are too small for the legend.
    """
    check_width(width)
    plane = arrow_plane(vectors, reference, basis)
    _check_proportion(plane)
    low, high = _limits(plane)
    wide, steep = width - 0.8, float(np.clip((high - low)[1] / (high - low)[0], 0.2, 0.9 if width < 5 else 0.5))
    entries = 0.2 * len(plane.arrows) * legend
    with panel(ax, width, max(1.0, wide * steep) + entries + 1.1) as axis:
        axis.set(title=_message(plane), xlabel=_x_label(plane), ylabel="orthogonal to it")
        for arrow in plane.arrows.values():
            _draw_arrow(axis, plane, arrow)
        _fit(axis, low, high, _legend(axis, plane) if legend else None)
        label_tips(axis, list(_tips(plane)), [arrow.tip for arrow in plane.arrows.values()])
    return axis


def _legend(axis: Any, plane: ArrowPlane) -> Any:
    """What each vector is; entries that are longer than the axes go on in a second line."""
    handles = [_handle(plane, arrow) for arrow in plane.arrows.values()]
    legend = axis.legend(handles=handles, loc="upper left", fontsize="small")
    legend.set_in_layout(False)
    lay_out(axis)
    excess = legend.get_window_extent().width - 0.97 * axis.bbox.width
    longest = max(text.get_window_extent().width for text in legend.get_texts())
    for text in legend.get_texts() if excess > 0 else ():
        wrap(text, "width", max(longest - excess, 0.4 * axis.bbox.width))
    return legend


def _check_proportion(plane: ArrowPlane) -> None:
    longest = max(plane.arrows.values(), key=lambda arrow: arrow.length)
    own = plane.arrows[plane.reference].length
    if 0 < own < _SHORTEST * longest.length:
        raise InputError(
            f"vectors[{longest.name!r}] is {longest.length / own:.3g} times as long as {plane.reference!r}, which would be a "
            f"dot beside it: leave it out, or make it the reference"
        )


def _dot(plane: ArrowPlane, arrow: Arrow) -> bool:
    """Whether an arrow is too short to be seen."""
    return bool(np.linalg.norm(arrow.tip) < _SHORTEST * max(np.linalg.norm(one.tip) for one in plane.arrows.values()))


def _colour(plane: ArrowPlane, arrow: Arrow) -> Any:
    if arrow.name == plane.reference:
        return COLOURS["exact"]
    short = {long: short for short, long in SHORT_NAMES.items()}.get(arrow.name, arrow.name)
    others = [name for name in plane.arrows if name not in _COLOURS and name != plane.reference]
    return COLOURS[_COLOURS[short] if short in _COLOURS else _OTHERS[others.index(arrow.name) % len(_OTHERS)]]


def _draw_arrow(axis: Any, plane: ArrowPlane, arrow: Arrow) -> None:
    """An arrow from the origin, dashed for the reference, wide for what coincides with it; a dot for what is too short."""
    colour, exact = _colour(plane, arrow), arrow.name == plane.reference
    if arrow.spread is not None:
        _draw_error(axis, arrow.tip, arrow.spread, colour)
    if _dot(plane, arrow):
        axis.plot(*arrow.tip, "o", color=colour, ms=5, zorder=4, gid=arrow.name)
        return
    size = FontProperties(size="medium").get_size_in_points()
    look: dict[str, Any] = {
        "arrowstyle": "-|>",
        "shrinkA": 0,
        "shrinkB": 0,
        "color": colour,
        "mutation_scale": 1.3 * size,
    }
    look |= {"lw": 0.19 * size, "alpha": max(0.3, arrow.share)}
    if exact:
        look |= {"linestyle": EXACT["linestyle"], "lw": 0.14 * size}
    elif arrow.same:
        look |= {"lw": 0.4 * size, "mutation_scale": 1.8 * size}
    order = 5 if exact else 3 if arrow.same else 4
    axis.annotate("", tuple(arrow.tip), (0, 0), arrowprops=look, gid=arrow.name, in_layout=False, zorder=order)


def _draw_error(axis: Any, tip: np.ndarray, spread: np.ndarray, colour: Any) -> None:
    """Two standard errors of a sampled mean, as an ellipse around the tip."""
    variances, directions = np.linalg.eigh(spread)
    sizes = 4 * np.sqrt(np.clip(variances, 0, None))
    angle = float(np.rad2deg(np.arctan2(*directions[::-1, 1])))
    look = {"facecolor": colour, "alpha": 0.25, "lw": 0, "zorder": 2}
    axis.add_patch(Ellipse(tuple(tip), float(sizes[1]), float(sizes[0]), angle=angle, **look))


def _limits(plane: ArrowPlane) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner of what is drawn, with room for the labels."""
    ends = [np.zeros(2)]
    for arrow in plane.arrows.values():
        error = np.zeros(2) if arrow.spread is None else 2 * np.sqrt(np.diag(arrow.spread))
        ends += [arrow.tip - error, arrow.tip + error]
    low, high = np.min(ends, 0), np.max(ends, 0)
    pad = 0.16 * max(high - low)
    return low - pad, high + pad


def _fit(axis: Any, low: np.ndarray, high: np.ndarray, legend: Any) -> None:
    """Limits with one scale on both axes, and the legend above what is drawn."""
    middle = (low + high) / 2
    for _ in range(2):  # the numbers at the ticks change the room
        lay_out(axis)
        above = 0.0 if legend is None else legend.get_window_extent().height + 6
        if above > 0.75 * axis.bbox.height:
            wide, high_ = inches(axis)
            raise InputError(
                f"ax is {wide:.2g} x {high_:.2g} inches, too small for this legend: enlarge it, or legend=False"
            )
        pixels = axis.bbox.width, axis.bbox.height - above
        scale = max((high - low) / pixels)  # units of a pixel
        bottom = middle[1] - scale * pixels[1] / 2
        axis.set_xlim(middle[0] - scale * pixels[0] / 2, middle[0] + scale * pixels[0] / 2)
        axis.set_ylim(bottom, bottom + scale * axis.bbox.height)
    axis.set_aspect("equal", adjustable="box")
    lay_out(axis)


def _tips(plane: ArrowPlane) -> Iterable[Tip]:
    """Labels at the tips: one for vectors that are the reference, one for all that are zero, one for each other."""
    groups: list[list[Arrow]] = []
    for arrow in plane.arrows.values():
        near = next((group for group in groups if _coincide(group[0], arrow)), None)
        if near is None:
            groups.append([arrow])
        else:
            near.append(arrow)
    unit = f" |{plane.reference}|" if plane.arrows[plane.reference].length else ""
    for group in groups:
        text, length = " = ".join(arrow.name for arrow in group), group[0].length
        if length == 0:
            text += " = 0"
        elif _dot(plane, group[0]):
            text += f": {length:.1g}{unit}"
        yield Tip(group[0].tip, text, tuple(0.7 * part for part in to_rgb(_colour(plane, group[-1]))))


def _coincide(a: Arrow, b: Arrow) -> bool:
    return a.length == b.length == 0 or (a.same and b.same)


def _handle(plane: ArrowPlane, arrow: Arrow) -> Line2D:
    """An entry of the legend: the name, what it is, how much of it is in the plane, how many samples it is the mean of."""
    meaning = _MEANINGS.get(SHORT_NAMES.get(arrow.name, arrow.name))
    said = [arrow.name + (f": {meaning}" if meaning else "")]
    if arrow.name == plane.reference:
        said.append("exact" if arrow.samples is None else "")
    if arrow.samples is not None:
        said.append(f"mean of {arrow.samples}")
    if arrow.share <= 0.995:
        said.append(f"{100 * arrow.share:.0f} % in the plane")
    look = dict(EXACT) if arrow.name == plane.reference else {"color": _colour(plane, arrow), "lw": 2.0}
    return Line2D([], [], label=", ".join(filter(None, said)), **look)


def _message(plane: ArrowPlane) -> str:
    """Which exact vectors are the reference, and which are not."""
    others = [arrow for name, arrow in plane.arrows.items() if name != plane.reference and arrow.samples is None]
    same, apart = ([arrow.name for arrow in others if arrow.same is is_it] for is_it in (True, False))
    if not others:
        return plane.reference
    verb = ("is", "are")
    if not same:
        return f"{_listed(apart)} {verb[len(apart) > 1]} not {plane.reference}"
    said = f"{_listed(same)} {verb[len(same) > 1]} {plane.reference}"
    return said + (f"; {_listed(apart)} {verb[len(apart) > 1]} not" if apart else "")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def _x_label(plane: ArrowPlane) -> str:
    along = "along the first vector of the basis" if plane.chosen else f"along {plane.reference}"
    if plane.arrows[plane.reference].length == 0:
        return along if plane.chosen else "along the main direction"
    return f"{along}, in units of |{plane.reference}| = {plane.unit:.2g}"
