"""A transformer that acts in the scalar linear-quadratic world: its expected costate is the value gradient."""

import copy
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from agents.policies.transformer import Transformer, TransformerCommand
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic, scalar
from envs.noise import Noise, draw_noise
from figures.harness.claim import Claim, Preset, Row, batches, compare
from figures.harness.statistics import Estimate, pooled
from figures.measures.rollouts import costates_of, fixed_start, sampled
from figures.measures.token_systems import at_least
from theory.continuous.quadrature import noise_grid, quadrature_value_gradient

_WIDTH = 16
_HEAD, _ATTENTION = 3.0, 4.0  # weights scaled up: commands far from linear, and earlier states that matter to them
_STEPS = {False: 3, True: 2}  # by process noise
_NODES = {False: (8, 10), True: (7, 9)}  # for 3 and 4 noise numbers in all
_BATCH = 20_000
_DIFFERENCES = 1e-6  # central differences of a quadrature against its autograd slope, relative
_SEEN = 4  # a control is judged where its exact bias exceeds so many margins; its resolution is below two
_MEAN, _EXACT, _CONVERGED = "sampled mean", "exact mean", "quadrature has converged"
_CONTROLS = {"closed": "attention to earlier states closed", "blind": "policy input detached"}


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
        "quick": (2, (-1.0, 1.0), 3_000, 0.02),
        "full": (5, (-1.0, 0.2, 1.0), 50_000, 0.01),
    }[preset]
    return [TransformerInLqSetting(i, both, starts, samples, margin) for i in range(networks) for both in (False, True)]


class EarlierDetached(TransformerCommand):
    """No credit flows back through attention: earlier states are read as constants, so their keys and values are."""

    def forward(self, history: Tensor, t: int) -> Tensor:
        """The same command."""
        return super().forward(torch.cat([history[:, :-1].detach(), history[:, -1:]], 1), t)


class InputDetached(TransformerCommand):
    """No credit flows through the policy at all."""

    def forward(self, history: Tensor, t: int) -> Tensor:
        """The same command."""
        return super().forward(history.detach(), t)


def build_world(process_noise: bool) -> LinearQuadratic:
    """The scalar world, short enough for quadrature over all its noise."""
    world = scalar(horizon=_STEPS[process_noise], gamma=0.9, action_noise=0.4)
    return world.replace(S_w=[[0.09 if process_noise else 0.0]]).to()


def build_policy(seed: int) -> TransformerCommand:
    """A random Gaussian-head transformer with two layers."""
    network = Transformer(1, 1, width=_WIDTH, heads=2, length=4, seed=seed)
    with torch.no_grad():
        network.head.weight *= _HEAD
        for name, weight in network.named_parameters():
            weight.mul_(_ATTENTION if name.endswith("attention.outward.weight") else 1.0)
    return TransformerCommand(network)


@dataclass(frozen=True)
class Place:
    """A time and a past: the noise before t is given, so that the history up to s_t is the same in all samples."""

    world: LinearQuadratic
    steps: int
    t: int
    start: Tensor  # (1,)
    past: Noise  # batch of one; what comes before t counts

    def given(self, noise: Noise) -> Noise:
        """The same paths from t on, with this start and this past."""
        xi, w, t = noise.xi.clone(), noise.w.clone(), self.t
        xi[:, :t], w[:, :t] = self.past.xi[:, :t], self.past.w[:, :t]
        return fixed_start(Noise(noise.s_0, xi, w), self.start)

    def history(self, policy: TransformerCommand) -> Tensor:
        """States s_0 ... s_t, (t + 1, 1)."""
        return rollout(self.world, policy, fixed_start(self.past, self.start)).states[0, : self.t + 1].detach()


def value_gradient(place: Place, policy: TransformerCommand, nodes: int) -> Tensor:
    """`dV_t/ds_t` given the past, by quadrature over the noise from t on and central differences."""
    history, t = place.history(policy), place.t

    def command(later: Tensor, k: int) -> Tensor:
        return policy(torch.cat([history[:t].expand(len(later), -1, -1), later], 1), t + k)

    rest = place.world.replace(horizon=place.steps - t)
    return quadrature_value_gradient(rest, command, history[t], nodes)[0]


def mean_costate(place: Place, policy: TransformerCommand, nodes: int) -> Tensor:
    """The exact mean of autograd's costate at t, its noise on the quadrature's grid in the place of samples."""
    xi, w, weights = noise_grid(place.world, place.steps - place.t, nodes)
    xi, w = (pad(x, (0, 0, place.t, 0)) for x in (xi, w))  # room for the past
    noise = place.given(Noise(place.start.expand(len(xi), 1), xi, w))
    return weights @ costates_of(place.world, policy, noise)[0][:, place.t, 0]


def measure(setting: TransformerInLqSetting, rng: torch.Generator, device: str) -> list[Row]:
    """All start states and times but the last one of one network, deviations in units of its largest gradient."""
    world, policy = build_world(setting.process_noise), build_policy(setting.network)
    steps, (coarse, fine) = _STEPS[setting.process_noise], _NODES[setting.process_noise]
    places = [
        Place(world, steps, t, torch.tensor([start], dtype=torch.float64), draw_noise(world, 1, steps, rng))
        for start in setting.starts
        for t in range(steps - 1)
    ]
    truths = [value_gradient(place, policy, fine) for place in places]
    size = torch.stack(truths).abs().max()
    rows: list[Row] = []
    for place, truth in zip(places, truths, strict=True):
        labels = {
            "network": setting.network,
            "noise": "action and process" if setting.process_noise else "action",
            "start": float(place.start),
            "t": place.t,
        }
        labels["place"] = ", ".join(str(value) for value in labels.values())
        rows += compare(_CONVERGED, value_gradient(place, policy, coarse), truth, scale=size,
                        tolerance=setting.margin / 100 * size, margin=setting.margin, labels=labels)  # fmt: skip
        rows += _rows_at(setting, place, policy, truth, size, rng, device, labels)
    return rows


def _rows_at(
    setting: TransformerInLqSetting, place: Place, policy: TransformerCommand, truth: Tensor, size: Tensor, rng: torch.Generator,
    device: str, labels: dict[str, Any],
) -> list[Row]:  # fmt: skip
    """The exact mean and the sampled one, of the whole costate and of both controls."""
    coarse = _NODES[setting.process_noise][0]
    policies = {"whole": policy, "closed": EarlierDetached(policy.network), "blind": InputDetached(policy.network)}
    exact = {name: mean_costate(place, each, coarse) for name, each in policies.items()}
    rows = compare(_EXACT, exact["whole"], value_gradient(place, policy, coarse), scale=size,
                   tolerance=_DIFFERENCES * size, labels=labels)  # fmt: skip
    found = _sampled_costates(setting, place, list(policies.values()), rng, device)
    for i, name in enumerate(policies):
        bias = (exact[name] - truth) / size
        seen = name == "whole" or bool(bias.abs() > _SEEN * setting.margin)
        rows += compare(_CONTROLS.get(name, _MEAN), found.mean[i], truth, found.standard_error[i], found.samples, size,
                        tolerance=1e-9 * size, margin=setting.margin, relation="==" if seen else "report",
                        labels={**labels, "exact bias": float(bias)})  # fmt: skip
    return rows


def _sampled_costates(
    setting: TransformerInLqSetting, place: Place, policies: list[TransformerCommand], rng: torch.Generator, device: str
) -> Estimate:
    """Mean costates at t on the same noise, in batches that a transformer's graph leaves room for."""
    on_device = [copy.deepcopy(each).to(device) for each in policies]

    def costates(noise: Noise) -> Tensor:
        given = place.given(noise)
        return torch.stack([costates_of(place.world, each, given)[0][:, place.t, 0] for each in on_device], 1)

    return pooled(
        sampled(place.world, place.steps, size, rng, device, costates) for size in batches(setting.samples, _BATCH)
    )


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Sampled mean costates against the value gradient, and their deviations place by place."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT

    left, right = figure.subplots(1, 2)
    places = list(dict.fromkeys(rows["place"]))
    shown = {_MEAN: ("o", "costate"), _CONTROLS["closed"]: ("x", "closed"), _CONTROLS["blind"]: ("+", "reference")}
    for i, (part, (marker, colour)) in enumerate(shown.items()):
        group = rows[rows["part"] == part]
        style = {"fmt": marker, "color": COLOURS[colour], "ms": 6, "mew": 1.5, "capsize": 2}
        left.errorbar(group["target"], group["measured"], 2 * group["standard_error"], **style, label=part)
        at = [places.index(place) + 0.2 * (i - 1) for place in group["place"]]
        gap = (group["measured"] - group["target"]) / group["scale"]
        right.errorbar(at, gap, 2 * group["standard_error"] / group["scale"], **style)
    ends = [rows["target"].min(), rows["target"].max()]
    left.plot(ends, ends, label="exact", **EXACT)
    right.axhline(0, **EXACT)
    margin = float(rows.loc[rows["part"] == _MEAN, "margin"].max())
    right.axhspan(-margin, margin, color="0.85", zorder=0)
    right.set_yscale("symlog", linthresh=margin)
    right.set(title="deviation, every place", xlabel="place (network, noise, start, time)", xticks=[],
              ylabel="(mean - gradient) / largest gradient")  # fmt: skip
    left.set(title="mean costate against value gradient", xlabel="value gradient (quadrature)", ylabel="mean costate")
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
    parts={
        _CONVERGED: ("claim", "holds"),
        _EXACT: ("claim", "holds"),
        _MEAN: ("claim", "holds"),
        _CONTROLS["closed"]: ("control", "fails"),
        _CONTROLS["blind"]: ("control", "fails"),
    },
    settings=settings,
    measure=measure,
    draw=draw,
    groups={control: "place" for control in _CONTROLS.values()},
    seconds=(9, 340),
)
