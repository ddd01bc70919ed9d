"""Position attention: the costate splits into a dynamics path and an attention path; closing the latter biases it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.linear import ClosedPath, LinearPolicy, PositionAttention
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic, random_system, stack_history
from envs.noise import Noise
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.rollouts import costates_of, residual_moments, sampled
from theory.continuous.broken_assumptions import attention_split, history_gain
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import second_moments
from theory.continuous.riccati import riccati

_WINDOW, _T = 4, 8
_PULLS = (-4.0, -2.0, -1.0, 0.0, 1.0)  # score of the past against the present: how much attention looks back

_SEEN = -1.0  # from this pull on the closed path's exact bias exceeds 5 %, and the control must show it


@dataclass(frozen=True)
class AttentionPathSetting:
    """One strength of attention to the past."""

    pull: float
    samples: int
    margin: float


def settings(preset: Preset) -> list[AttentionPathSetting]:
    """All strengths."""
    samples, margin = {"quick": (20_000, 0.1), "full": (1_000_000, 0.02)}[preset]
    return [AttentionPathSetting(pull, samples, margin) for pull in _PULLS]


def _build(pull: float) -> tuple[LinearQuadratic, PositionAttention]:
    """Two heads over four states: one stabilises, one looks mainly back."""
    world = random_system(size=2, actions=1, seed=5, spectral_radius=0.95, horizon=_T, gamma=0.95).to()
    K = riccati(world).K[0]
    scores = torch.zeros(2, _WINDOW, dtype=torch.float64)
    scores[:, 1:] = pull
    scores[1, 1:] += torch.tensor([1.0, 0.5, 0.0])
    return world, PositionAttention(scores, torch.stack([0.7 * K, 0.5 * K]))


def measure(setting: AttentionPathSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Total, attention part and closed-path costate against their exact means, as moments against the stacked history."""
    world, policy = _build(setting.pull)
    gains = policy.gains(_T).detach()
    total, attention, closed = attention_split(world, gains)
    stacked, K = stack_history(world, _WINDOW), history_gain(gains)
    Sigma = second_moments(stacked, K)
    maps = {"total": total, "attention path": attention, "attention closed": closed}
    open_policy, shut = policy.to(device), ClosedPath(policy, "past").to(device)
    memory = LinearPolicy(K).to(device)

    def moments(noise: Noise) -> Tensor:
        full, _ = costates_of(world, open_policy, noise)
        cut, _ = costates_of(world, shut, noise)
        lifted = rollout(stacked, memory, _lift(noise, stacked.n))
        slots = autograd_costates(lifted.returns, lifted.state_probe, world.gamma)
        later = world.gamma * slots[:, 1:, world.n : 2 * world.n]  # what reaches s_t from the memory of it
        columns = []
        for t in range(_T):
            history = lifted.states[:, t].detach()
            seen = Sigma[t].diagonal().sqrt().to(history).clamp(min=1e-300)
            for found, P in ((full[:, t], total), (later[:, t], attention), (cut[:, t], closed), (cut[:, t], total)):
                columns.append(residual_moments(found + 2 * history @ P[t].mT.to(history), history, seen))
        return torch.stack(columns, 1)

    found = sampled(world, _T, setting.samples, rng, device, moments)
    rows: list[Row] = []
    parts = ("total", "attention path", "attention closed", "closed path taken for the gradient")
    for t in range(_T):
        size = _size(total[t], Sigma[t])
        for i, part in enumerate(parts):
            k = 4 * t + i
            blind = part == parts[3] and setting.pull < _SEEN
            rows += compare(part, found.mean[k], 0.0, found.standard_error[k], found.samples, size[:, None],
                            tolerance=1e-9 * size[:, None], margin=setting.margin, relation="report" if blind else "==",
                            labels={"t": t, "pull": setting.pull}, axes=("i", "regressor"))  # fmt: skip
    rows += _bias_rows(setting, world, (open_policy, shut), maps, Sigma[0], rng, device)
    return rows + _figure_rows(setting, world, maps, Sigma)


def _bias_rows(
    setting: AttentionPathSetting, world: Any, policies: tuple[Any, Any], maps: dict[str, Tensor], Sigma: Tensor,
    rng: torch.Generator, device: str,
) -> list[Row]:  # fmt: skip
    """Size of the closed path's bias b(s) at t = 0 from samples: `E <closed - open, b> / rms b`, which is rms b."""
    gap = (maps["attention closed"] - maps["total"])[0]
    size, whole = (_size(P, Sigma).square().sum().sqrt() for P in (gap, maps["total"][0]))

    def projection(noise: Noise) -> Tensor:
        full, cut = (costates_of(world, policy, noise)[0][:, 0] for policy in policies)
        b = -2 * noise.s_0 @ gap[:, : world.n].mT.to(noise.s_0)
        return ((cut - full) * b).sum(-1) / size.to(b)

    found = sampled(world, _T, setting.samples, rng, device, projection)
    return compare("size of the bias", found.mean, size, found.standard_error, found.samples, whole, margin=setting.margin,
                   labels={"pull": setting.pull, "t": 0})  # fmt: skip


def _lift(noise: Noise, size: int) -> Noise:
    """The same noise for the stacked history: it enters the newest block, older blocks start at zero."""

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, size - x.shape[-1]))

    return Noise(pad(noise.s_0), noise.xi, pad(noise.w))


def _size(P: Tensor, Sigma: Tensor) -> Tensor:
    """Root mean square of the components of `-2 P S`."""
    return 2 * (P @ Sigma @ P.mT).diagonal().clamp(min=1e-300).sqrt()


def _figure_rows(setting: AttentionPathSetting, world: Any, maps: dict[str, Tensor], Sigma: Tensor) -> list[Row]:
    """Exact root-mean-square sizes of the parts and of the bias, for the picture."""
    rows: list[Row] = []
    exact = {
        "dynamics path": maps["total"] - maps["attention path"],
        "attention path": maps["attention path"],
        "total": maps["total"],
        "bias of the closed path": maps["attention closed"] - maps["total"],
    }
    for name, P in exact.items():
        for t in range(_T):
            value = _size(P[t], Sigma[t]).square().sum().sqrt()
            whole = _size(maps["total"][t], Sigma[t]).square().sum().sqrt()
            rows += compare("exact size", value, value, scale=whole, relation="report",
                            labels={"t": t, "pull": setting.pull, "path": name})  # fmt: skip
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Left: exact sizes of both paths in time. Middle: deviations of all parts. Right: bias of the closed path."""
    from figures.drawing.panels import deviations_panel, legend_above
    from figures.drawing.style import COLOURS, EXACT

    left, middle, right = figure.subplots(1, 3)
    sizes = rows[rows["part"] == "exact size"]
    middling = sizes[sizes["pull"] == 0.0]
    for name, colour in {"dynamics path": "dynamics", "attention path": "attention"}.items():
        group = middling[middling["path"] == name]
        left.plot(
            group["t"], group["measured"] / group["scale"], "--", color=COLOURS[colour], lw=2, label=f"{name} (exact)"
        )
    left.set(
        title="size of the parts, pull 0",
        xlabel="time t",
        ylabel="share of |grad V| (root mean square)",
        ylim=(0, None),
    )
    judged = rows[rows["part"].isin(["total", "closed path taken for the gradient"]) & (rows["pull"] == 0.0)]
    named = judged.replace(
        {"part": {"total": "attention open", "closed path taken for the gradient": "attention closed"}}
    )
    deviations_panel(middle, named, "t", rows[rows["part"] == "total"])
    middle.set(title="deviation from grad V, pull 0", xlabel="time t", ylabel="standard errors (symlog)")
    bias = sizes[(sizes["path"] == "bias of the closed path") & (sizes["t"] == 0)].sort_values("pull")
    right.plot(bias["pull"], bias["measured"] / bias["scale"], **EXACT)
    found = rows[rows["part"] == "size of the bias"]
    right.errorbar(found["pull"], found["measured"] / found["scale"], 2 * found["standard_error"] / found["scale"],
                   fmt="x", color=COLOURS["closed"], ms=6, mew=1.5, capsize=2)  # fmt: skip
    right.set(title="bias of the closed path, t = 0", xlabel="pull of the past (attention score)",
              ylabel="share of |grad V|", ylim=(0, None))  # fmt: skip
    legend_above(figure, left, middle)


CLAIM = Claim(
    name="attention_path",
    statement="The costate of an attention policy has a dynamics and an attention path",
    formula=r"\lambda_t = \underbrace{Dr_t + \gamma Df_t^\top\lambda_{t+1}}_{\text{dynamics}}"
    r" + \underbrace{\sum_{j\ge 1}\gamma^j (\partial_{s_t}\mu_{t+j})^\top(r_a+\gamma f_a^\top\lambda_{t+j+1})}"
    r"_{\text{attention}}",
    source="arXiv:2605.21654, attention as the carrier of the costate; theory page section 1, position attention",
    assumptions=("A1", "A2", "A4", "A5"),
    must_hold="Position-attention policies, all attention strengths: total, attention part, closed path",
    must_fail="The costate with attention to the past closed, taken for the value gradient",
    how_to_read="Left, the exact size of what comes through the dynamics and through later looks back (the two may "
    "overlap). Middle, blue dots (attention open) must stay in the grey band around the dashed exact value, "
    "most orange crosses (attention closed) leave it; right, their bias (dashed exact, crosses measured) grows with"
    " the attention to the past.",
    parts=(
        Part("total", "claim", "holds"),
        Part("attention path", "claim", "holds"),
        Part("attention closed", "claim", "holds"),
        Part("size of the bias", "claim", "holds"),
        Part("closed path taken for the gradient", "control", "fails", every="pull"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
