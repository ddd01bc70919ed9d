"""The colours of the figures by what they stand for, and how a user's own palette replaces them inside `house_style`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import is_color_like

from envs.arguments import short
from envs.world import InputError, unknown

Palette = Mapping[str, Any] | Sequence[Any] | str
# The hues of seaborn's palette "colorblind"; all have a contrast of at least 3 on white, and any two of the first seven and
# black differ by at least 13 (CIEDE2000) also for readers without red, green or blue cones (test_colours.py).
_BLUE, _RED, _ORANGE, _GREEN, _PINK = "#0b5394", "#983503", "#d07f00", "#209266", "#a470a5"
_SKY, _GREY, _BROWN, _ROSE, _YELLOW = "#1e97ff", "#646464", "#40372c", "#5c2249", "#7b753c"
_CYCLE = (_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _ROSE, _GREY, _YELLOW, _SKY)
_IN_ORDER = (_BLUE, _RED, _ORANGE, _GREEN, _PINK, _SKY, _GREY, _BROWN, _ROSE, _YELLOW)  # as a list replaces them
_NAMED = {
    "exact": "black",
    "costate": _BLUE,
    "pathwise": _BLUE,
    "control": _RED,
    "score": _ORANGE,
    "score_value": _GREEN,
    "score_best": _PINK,
    "critic": _SKY,
    "attention": _GREEN,
    "dynamics": _ORANGE,
    "closed": _RED,
    "reference": _GREY,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Colours:
    """Colours by name, and those that a drawing without names takes in turn."""

    named: Mapping[str, Any]
    cycle: tuple[Any, ...]


_OURS = Colours(_NAMED, _CYCLE)
_current: ContextVar[Colours] = ContextVar("colours", default=_OURS)


class _Current(Mapping[str, Any]):
    """The colours by name, as the surrounding `house_style` has them when one is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _current.get().named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMED)

    def __len__(self) -> int:
        return len(_NAMED)


class _ExactLine(Mapping[str, Any]):
    """How an exact answer is drawn: a dashed line, in the colour of that name."""

    _look = {"color": None, "linestyle": "--", "linewidth": 1.4}

    def __getitem__(self, key: str) -> Any:
        return COLOURS["exact"] if key == "color" else self._look[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look)

    def __len__(self) -> int:
        return len(self._look)


COLOURS: Mapping[str, Any] = _Current()
EXACT: Mapping[str, Any] = _ExactLine()


def chosen_colours(palette: Palette | None) -> Colours:
    """Our colours, with those of a palette in the place of some or all of them.

    Args:
        palette: name -> colour, the names being those of `COLOURS`; or colours that replace ours in the order costate,
            control, score, score_value, score_best, critic, reference, and then three that have no name; or the name of a
            palette of seaborn.

    Raises:
        InputError: a name or a colour is unknown.
    """
    if palette is None:
        return _OURS
    if isinstance(palette, Mapping):
        wrong = next((name for name in palette if name not in _NAMED), None)
        if wrong is not None:
            raise unknown("palette: colour", str(wrong), _NAMED)
        new = {name: _checked(colour) for name, colour in palette.items()}
        replaced = {_NAMED[name]: colour for name, colour in new.items()}
        return Colours({**_NAMED, **new}, tuple(replaced.get(colour, colour) for colour in _CYCLE))
    given = _of_seaborn(palette) if isinstance(palette, str) else [_checked(colour) for colour in palette]
    replaced = dict(zip(_IN_ORDER, given, strict=False))
    named = {name: replaced.get(colour, colour) for name, colour in _NAMED.items()}
    return Colours(named, tuple(replaced.get(colour, colour) for colour in _CYCLE))


def _checked(colour: Any) -> Any:
    if not is_color_like(colour):
        raise InputError(
            f"palette: {short(colour)} is no colour: give one that Matplotlib knows, '#0173b2' for instance"
        )
    return colour


def _of_seaborn(name: str) -> list[Any]:
    import seaborn as sns

    try:
        return list(sns.color_palette(name, len(_IN_ORDER)))
    except ValueError:
        raise InputError(f"palette: {short(name)} is no palette of seaborn: 'colorblind' and 'deep' are some") from None


@contextmanager
def use_colours(colours: Colours) -> Iterator[None]:
    """`COLOURS` and `EXACT` give these colours inside."""
    token = _current.set(colours)
    try:
        yield
    finally:
        _current.reset(token)
