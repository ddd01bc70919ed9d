"""Position attention: the costate splits into a dynamics path and an attention path; closing the latter biases it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.linear import ClosedPath
from envs.noise import Noise
from figures.drawing.attention_path import ATTENTION, CLOSED, DYNAMICS, OPEN, draw_attention_path
from figures.drawing.panels import with_columns
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, equals, report
from figures.measures.memory_policies import AttentionSystem, attention_system, costates_by_path, mean_costates
from figures.measures.rollouts import costates_of, residual_moments, sampled
from theory.continuous.attention import mean_costate_norm, mean_costate_size

_PULLS = (-4.0, -2.0, -1.0, 0.0, 1.0)  # score of the past against the present: how much attention looks back
_SEEN = -1.0  # from this pull on the closed path's exact bias exceeds 5 %, and the control must show it
_TOTAL, _ATTENTION, _CLOSED = "total", "attention path", "attention closed"
_TAKEN, _BIAS, _EXACT = "closed path taken for the gradient", "size of the bias", "exact size"
_CLOSED_BIAS = "bias of the closed path"
_SHOWN, _FEW = "mean costate from one start", 4_000  # paths of the picture


@dataclass(frozen=True)
class AttentionPathSetting:
    """One strength of attention to the past."""

    pull: float
    samples: int
    margin: float


def settings(preset: Preset) -> list[AttentionPathSetting]:
    """All strengths."""
    samples, margin = {"tiny": (20, 0.1), "quick": (20_000, 0.1), "full": (1_000_000, 0.02)}[preset]
    pulls = (-2.0, 0.0) if preset == "tiny" else _PULLS
    return [AttentionPathSetting(pull, samples, margin) for pull in pulls]


def measure(setting: AttentionPathSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Total, attention part and closed-path costate against their exact means, as moments against the stacked history."""
    system = attention_system(setting.pull, device)
    exact, Sigma, T = system.exact, system.Sigma, system.world.horizon or 1
    maps = {_TOTAL: exact.total, _ATTENTION: exact.attention, _CLOSED: exact.closed, _TAKEN: exact.total}

    def moments(noise: Noise) -> Tensor:
        costates, columns = costates_by_path(system, noise), []
        for t in range(T):
            history = costates.history[:, t]
            rms = Sigma[t].diagonal().sqrt().to(history).clamp(min=1e-300)
            parts = (costates.whole, costates.attention, costates.closed, costates.closed)
            for part, P in zip(parts, maps.values(), strict=True):
                columns.append(residual_moments(part[:, t] + 2 * history @ P[t].mT.to(history), history, rms))
        return torch.stack(columns, 1)

    estimates = sampled(system.world, T, setting.samples, rng, device, moments)
    rows: list[Row] = []
    for t in range(T):
        size = mean_costate_size(exact.total[t], Sigma[t])[:, None]
        shared: dict[str, Any] = {"labels": {"t": t, "pull": setting.pull}, "axes": ("i", "regressor")}
        shared |= {"margin": setting.margin, "tolerance": 1e-9 * size}
        for i, part in enumerate(maps):
            judged = part != _TAKEN or setting.pull >= _SEEN
            rows += equals(part, estimates[4 * t + i], 0.0, size, judged=judged, **shared)
    rows += _bias_rows(setting, system, rng, device) + _exact_rows(setting, system)
    return rows + _shown_rows(setting, system, rng, device)


def _bias_rows(setting: AttentionPathSetting, system: AttentionSystem, rng: torch.Generator, device: str) -> list[Row]:
    """Size of the closed path's bias b(s) at t = 0 from samples: `E <closed - open, b> / rms b`, which is rms b."""
    world, gap = system.world, (system.exact.closed - system.exact.total)[0]
    size, whole = (mean_costate_norm(P, system.Sigma[0]) for P in (gap, system.exact.total[0]))
    closed = ClosedPath(system.policy, "past")

    def projection(noise: Noise) -> Tensor:
        full, cut = (costates_of(world, policy, noise)[0][:, 0] for policy in (system.policy, closed))
        b = -2 * noise.s_0 @ gap[:, : world.n].mT.to(noise.s_0)
        return ((cut - full) * b).sum(-1) / size.to(b)

    estimate = sampled(world, world.horizon or 1, setting.samples, rng, device, projection)
    return equals(_BIAS, estimate, size, whole, margin=setting.margin, labels={"pull": setting.pull, "t": 0})


def _exact_rows(setting: AttentionPathSetting, system: AttentionSystem) -> list[Row]:
    """Exact sizes of the parts and of the bias, for the picture."""
    exact, rows = system.exact, []
    dynamics, bias = exact.total - exact.attention, exact.closed - exact.total
    maps = {"dynamics path": dynamics, _ATTENTION: exact.attention, _TOTAL: exact.total, _CLOSED_BIAS: bias}
    for name, P in maps.items():
        for t in range(system.world.horizon or 1):
            size, whole = (mean_costate_norm(M[t], system.Sigma[t]) for M in (P, exact.total))
            rows += report(_EXACT, size, size, whole, labels={"t": t, "pull": setting.pull, "path": name})
    return rows


def _shown_rows(setting: AttentionPathSetting, system: AttentionSystem, rng: torch.Generator, device: str) -> list[Row]:
    """Mean costates along paths from one start state, and the parts of the value gradient there, for the picture."""
    sampled, exact, attention = mean_costates(system, min(setting.samples, _FEW), rng, device)
    rows, shared = list[Row](), {"pull": setting.pull}
    for kind, i in ((OPEN, 0), (CLOSED, 1)):
        rows += report(_SHOWN, sampled[i], exact[i], labels={**shared, "shown": kind}, axes=("t", "i"))
    for kind, part in ((DYNAMICS, exact[0] - attention), (ATTENTION, attention)):
        rows += report(_SHOWN, part, part, labels={**shared, "shown": kind}, axes=("t", "i"))
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The costate along one path and its two parts; the same with attention closed; the bias of that by strength."""
    rows = with_columns(rows, "shown", "path", "i")
    exact = rows[(rows["part"] == _EXACT) & (rows["path"] == _CLOSED_BIAS) & (rows["t"] == 0)]
    draw_attention_path(figure, rows[rows["part"] == _SHOWN], rows[rows["part"] == _BIAS], exact)


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
    how_to_read="Left, the value gradient along the mean path from one start (dashed) is the sum of what comes through the "
    "dynamics (orange) and through later actions that look back (green); mean costates (blue) lie on it. Middle, "
    "with attention to the past closed to autograd (red) they miss it. Right, how much they miss, by how "
    "strongly the policy looks back (attention score of the past): crosses measured, dotted exact, 0 dashed.",
    parts=(
        Part(_TOTAL, "claim", "holds"),
        Part(_ATTENTION, "claim", "holds"),
        Part(_CLOSED, "claim", "holds"),
        Part(_BIAS, "claim", "holds"),
        Part(_TAKEN, "control", "fails", every="pull"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
