"""One path's costate among others, the mean of all, and the value gradient: what a single backward pass knows."""

from typing import Any

import numpy as np

from envs.arguments import whole
from envs.world import InputError
from figures.drawing.one_panel import check_width, inches, numbers, panel, room_above
from figures.drawing.style import COLOURS, EXACT
from figures.harness.statistics import Estimate, critical_value, estimate

_ROUNDING = 1e-9  # of the largest costate


def draw_path(
    costates: Any,
    gradient: Any,
    ax: Any = None,
    *,
    component: int = 0,
    path: int = 0,
    shown: int = 30,
    width: float = 6.0,
) -> Any:
    """Costates of sampled paths over time: one path, others in grey, the mean with its error, the value gradient dashed.

    The title says what these numbers show: the mean agrees with the gradient at every time (0.999, all times together), or
    it does not. `costate.sampled_paths` gives both arguments.

    Args:
        costates: of sampled paths, (paths, times, components), or (paths, times).
        gradient: the exact mean of the value gradient over the paths' states, `-2 (P_t E s_t + p_t)`, (times, components), or
            (times,).
        ax: axes to draw on; None for a figure of its own, which is `.figure` of the answer.
        component: of the state, where there are several.
        path: the one that stands out.
        shown: how many others are drawn; all paths are in the mean.
        width: of a figure of its own, in inches.

    Returns:
        The axes.

    Raises:
        InputError: the arrays do not fit each other, hold NaN, or have no such component or path.
    """
    check_width(width)
    paths, exact, several = _checked(costates, gradient, component)
    path, shown = whole("path", path, 0), whole("shown", shown, 0)
    if path >= len(paths):
        raise InputError(f"path {path} does not exist: the paths are 0 ... {len(paths) - 1}")
    mean = estimate(paths)
    with panel(ax, width, 0.3 * width + 1.6) as axis:
        _draw_paths(axis, paths, path, shown)
        _draw_mean(axis, mean)
        axis.plot(range(len(exact)), exact, label="value gradient (exact)", zorder=6, **EXACT)
        name = f"costate, component {component}" if several else "costate"
        axis.set(title=_message(mean, exact, float(np.abs(paths).max())), xlabel="time t", ylabel=name)
        axis.margins(x=0.02)
        axis.xaxis.get_major_locator().set_params(integer=True)
        room_above(axis, axis.legend(loc="upper right", fontsize="small", ncols=2 if inches(axis)[0] > 4 else 1))
    return axis


def _checked(costates: Any, gradient: Any, component: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """One component of both, (paths, times) and (times,), and whether there are several."""
    paths, exact = numbers("costates", costates), numbers("gradient", gradient)
    if paths.ndim not in (2, 3) or exact.shape != paths.shape[1:]:
        raise InputError(
            "costates must be (paths, times, components) or (paths, times), and gradient the same without paths; got "
            f"{paths.shape} and {exact.shape}"
        )
    if len(paths) < 2:
        raise InputError(f"costates must be of at least 2 paths for a mean with an error; got {len(paths)}")
    paths, exact = np.atleast_3d(paths), exact.reshape(len(exact), -1)
    component, several = whole("component", component, 0), paths.shape[2]
    if component >= several:
        raise InputError(f"component {component} does not exist: the components are 0 ... {several - 1}")
    return paths[..., component], exact[:, component], several > 1


def _draw_paths(axis: Any, paths: np.ndarray, path: int, shown: int) -> None:
    others = np.delete(paths, path, 0)[:shown]
    times = range(paths.shape[1])
    for i, other in enumerate(others):
        label = f"{len(others)} other paths" if i == 0 else None
        axis.plot(times, other, color=COLOURS["reference"], lw=0.7, alpha=0.45, label=label, zorder=2)
    axis.plot(times, paths[path], color=COLOURS["costate"], lw=1.8, label="costate of one path", zorder=3)


def _draw_mean(axis: Any, mean: Estimate) -> None:
    """The mean as a line, two standard errors as a band around it."""
    times, reach = range(len(mean.mean)), 2 * mean.standard_error
    axis.fill_between(times, mean.mean - reach, mean.mean + reach, color=COLOURS["control"], alpha=0.35, lw=0, zorder=4)
    label = f"mean of {mean.samples} paths (band: 2 s.e.)"
    axis.plot(times, mean.mean, color=COLOURS["control"], lw=2.2, label=label, zorder=5)


def _message(mean: Estimate, exact: np.ndarray, largest: float) -> str:
    """What the numbers show, in a sentence."""
    rounding = _ROUNDING * max(largest, float(np.abs(exact).max()))
    reach = critical_value(len(exact), mean.samples) * mean.standard_error + rounding
    agrees = bool((np.abs(mean.mean - exact) <= reach).all())
    if bool((mean.standard_error <= rounding).all()):
        return f"Without noise a path's costate is {'' if agrees else 'here not '}the value gradient"
    if agrees:
        return "One path's costate is noisy; the mean is the value gradient"
    return "The mean of these costates is not the value gradient"
