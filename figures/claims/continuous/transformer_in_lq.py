"""A transformer that acts in the scalar linear-quadratic world: its expected costate is the value gradient."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from agents.policies.linear import ClosedPath
from envs.noise import draw_noise
from figures.drawing.panels import Series, diagonal_panel, legend_above
from figures.drawing.style import COLOURS, EXACT
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals
from figures.measures.conditioned_costates import LookingBack, Place, mean_costate, sampled_costates, value_gradient
from figures.measures.memory_policies import transformer_policy, transformer_world
from figures.measures.token_systems import at_least

_NODES = {False: (8, 10), True: (7, 9)}  # coarse and fine, by process noise: for 3 and 4 noise numbers in all
_DIFFERENCES = 1e-6  # central differences of a quadrature against its autograd slope, relative
_SEEN = 4  # a control is judged where its exact bias exceeds so many margins; its resolution is below two
_MEAN, _EXACT, _CONVERGED = "sampled mean", "exact mean", "quadrature has converged"
_CLOSED, _BLIND = "attention to earlier states closed", "policy input detached"


@dataclass(frozen=True)
class TransformerInLqSetting:
    """One random network; action noise alone over three steps, or process noise as well over two."""

    network: int
    process_noise: bool
    starts: tuple[float, ...]
    samples: int
    margin: float

    def __post_init__(self) -> None:
        """Refuse what has no mean and error."""
        at_least(2, samples=self.samples)


def settings(preset: Preset) -> list[TransformerInLqSetting]:
    """Networks x noises, each at several start states."""
    networks, starts, samples, margin = {
        "tiny": (1, (1.0,), 2, 0.02),
        "quick": (2, (-1.0, 1.0), 3_000, 0.02),
        "full": (5, (-1.0, 0.2, 1.0), 50_000, 0.01),
    }[preset]
    return [TransformerInLqSetting(i, both, starts, samples, margin) for i in range(networks) for both in (False, True)]


def measure(setting: TransformerInLqSetting, rng: torch.Generator, device: str) -> list[Row]:
    """All start states and times but the last one of one network, deviations in units of its largest gradient."""
    world, policy = transformer_world(setting.process_noise), transformer_policy(setting.network)
    policies: dict[str, LookingBack] = {
        _MEAN: policy,
        _CLOSED: ClosedPath(policy, "past"),
        _BLIND: ClosedPath(policy, "all"),
    }
    steps, (coarse, fine) = world.horizon or 1, _NODES[setting.process_noise]
    places = [
        Place(world, t, torch.tensor([start], dtype=torch.float64), draw_noise(world, 1, steps, rng))
        for start in setting.starts
        for t in range(steps - 1)
    ]
    truths = [value_gradient(place, policy, fine) for place in places]
    size, rows = torch.stack(truths).abs().max(), []
    for place, truth in zip(places, truths, strict=True):
        gradient = value_gradient(place, policy, coarse)
        exact = {part: mean_costate(place, each, coarse) for part, each in policies.items()}
        estimates = sampled_costates(place, list(policies.values()), setting.samples, rng, device)
        at_place: dict[str, Any] = {"scale": size, "margin": setting.margin}
        labels, fine_enough = _labels(setting, place), setting.margin / 100 * size
        rows += equals(_CONVERGED, gradient, truth, tolerance=fine_enough, labels=labels, **at_place)
        rows += equals(_EXACT, exact[_MEAN], gradient, size, tolerance=_DIFFERENCES * size, labels=labels)
        at_place["tolerance"] = 1e-9 * size
        for i, (part, mean) in enumerate(exact.items()):
            bias = float((mean - truth) / size)
            judged, named = part == _MEAN or abs(bias) > _SEEN * setting.margin, {**labels, "exact bias": bias}
            rows += equals(part, estimates[i], truth, judged=judged, labels=named, **at_place)
    return rows


def _labels(setting: TransformerInLqSetting, place: Place) -> dict[str, Any]:
    """Columns that say where a row was measured."""
    noise = "action and process" if setting.process_noise else "action"
    labels = {"network": setting.network, "noise": noise, "start": float(place.start), "t": place.t}
    return {**labels, "place": ", ".join(str(value) for value in labels.values())}


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Sampled mean costates against the value gradient, and their deviations place by place."""
    left, right = figure.subplots(1, 2)
    places = list(dict.fromkeys(rows["place"]))
    shown = {_MEAN: ("costate", "o"), _CLOSED: ("closed", "x"), _BLIND: ("reference", "+")}
    groups = {part: rows[rows["part"] == part] for part in shown}
    diagonal_panel(left, [Series(groups[part], *look, part) for part, look in shown.items()])
    left.set(title="mean costate against value gradient", xlabel="value gradient (quadrature)", ylabel="mean costate")
    for i, (part, (colour, marker)) in enumerate(shown.items()):
        group = groups[part]
        at = [places.index(place) + 0.2 * (i - 1) for place in group["place"]]
        gap, bars = (group["measured"] - group["target"]) / group["scale"], 2 * group["standard_error"] / group["scale"]
        right.errorbar(at, gap, bars, fmt=marker, color=COLOURS[colour], ms=6, mew=1.5, capsize=2)
    right.axhline(0, **EXACT)
    margin = float(groups[_MEAN]["margin"].max())
    right.axhspan(-margin, margin, color="0.85", zorder=0)
    right.set_yscale("symlog", linthresh=margin)
    right.set(title="deviation, every place", xlabel="place (network, noise, start, time)", xticks=[])
    right.set_ylabel("(mean - gradient) / largest gradient")
    legend_above(figure, left)


CLAIM = Claim(
    name="transformer_in_lq",
    statement="The expected costate of a transformer's rollout is the value gradient, attention included",
    formula=r"\mathbb{E}[\lambda_t \mid s_0,\dots,s_t] = \nabla_{s_t} V_t(s_0,\dots,s_t),\qquad"
    r" a_t = \mathrm{transformer}(s_0,\dots,s_t) + \xi_t",
    source="arXiv:2605.21654, continuous claim with attention; theory page section 1",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="Random Gaussian-head transformers, several start states, t = 0 and later with the history given, action noise "
    "alone and process noise as well",
    must_fail="Keys and values of earlier states detached; the policy's input detached (where the exact bias can be seen)",
    how_to_read="Every place is a network, a noise, a start state and a time with its past given. Left, means of sampled "
    "costates over the value gradient by quadrature: blue must lie on the dashed line. Right, the same deviations with two "
    "standard errors: blue stays near 0, far inside the grey band (the margin); most crosses leave it: with attention to "
    "earlier states closed, or the policy's input detached, autograd's costate is another quantity.",
    parts=(
        Part(_CONVERGED, "claim", "holds"),
        Part(_EXACT, "claim", "holds"),
        Part(_MEAN, "claim", "holds"),
        Part(_CLOSED, "control", "fails", every="place"),
        Part(_BLIND, "control", "fails", every="place"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
