"""Attention as the credit pathway: how much of the value gradient is lost when attention edges are closed to autograd."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import torch

from agents.policies.closed_attention import Closed, ClosedAttention, beyond, everything, in_head, in_layer
from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from figures.drawing.lost_shares import draw_lost_shares
from figures.drawing.panels import with_columns
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, report, vanishes
from figures.measures.token_systems import HEADS, LAYERS, build_policy, build_world, reaches, rms_gap
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import error_split
from theory.tokens.exact_ascent import exact_ascent

_ROUNDING = 1e-9  # of the value gradient
OWN, NOTHING_LOST = "all closed: what is left is the own step", "all closed: nothing is lost"
_LAST, _IDLE = "after the last block nothing travels", "distractor: nothing has to travel"
_SHARE = "share lost"
WORLDS = ("garnet (4,4)", "lock (3,4)", "parity (2,5)", "copy (2,3)", "distractor (3,4)")


@dataclass(frozen=True)
class AttentionTransportSetting:
    """One world, one policy, random or on its way up by exact ascent: not to the end, where no gradient is left."""

    world: str
    trained: bool
    seed: int
    steps: int = knob(12)
    rate: float = knob(0.003)
    site: str = knob("embedding")


def settings(preset: Preset) -> list[AttentionTransportSetting]:
    """Worlds x random and trained x seeds."""
    if preset == "tiny":
        trained = {"copy (2,3)": True, "distractor (3,4)": False}
        return [AttentionTransportSetting(world, trained[world], seed=0) for world in trained]
    seeds = range({"quick": 1, "full": 10}[preset])
    return [AttentionTransportSetting(*point) for point in product(WORLDS, (False, True), seeds)]


def closings(horizon: int) -> Iterator[tuple[str, Closed]]:
    """What is closed, by name."""
    yield "all", everything
    for longest in range(1, horizon - 1):
        yield f"longer than {longest}", beyond(longest)
    for layer in range(LAYERS):
        yield f"layer {layer + 1}", in_layer(layer)
    for head in range(HEADS):
        yield f"head {head + 1}", in_head(head, HEADS)


def measure(setting: AttentionTransportSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Share of the value gradient lost under every closing at prefixes of every length; alpha = 1, exact."""
    world = build_world(setting.world).to(device)
    policy = build_policy(world, setting.seed)
    if setting.trained:
        (policy,) = exact_ascent(world, policy, (setting.steps,), setting.rate)
    labels = {"world": setting.world, "trained": setting.trained, "seed": setting.seed}
    whole, reach = expected_costates(world, policy, "score", setting.site), reaches(world, policy)
    at_stake = [float(g.norm()) > _ROUNDING * float(whole[0].norm()) for g in whole]  # levels where anything is
    rows = _exact_rows(world, policy, setting.site, labels)
    for name, closed in closings(world.horizon):
        left = expected_costates(world, ClosedAttention(policy, closed), "score", setting.site)
        lost = [rms_gap(*level) for level in zip(left, whole, reach, strict=True)]
        for k, share in enumerate(lost[: sum(at_stake)]):
            rows += report(_SHARE, share, labels={**labels, "closed": name, "k": k})
        if name == "all":
            part = _IDLE if setting.world.startswith("distractor") else NOTHING_LOST
            rows += vanishes(part, lost[0], _ROUNDING, labels=labels)
    return rows


def _exact_rows(world: TokenMDP, policy: Transformer, site: str, labels: dict[str, Any]) -> list[Row]:
    """With all edges closed the prompt keeps its own covariance alone; after the last block closing changes nothing."""
    shut, split = ClosedAttention(policy, everything), error_split(world, policy, 1.0, site)
    own = expected_costates(world, shut, "score", site)[0][:, -1]
    gap = (own - split.sampling[0]).norm() / split.value_gradient.norm()
    rows = vanishes(OWN, gap, _ROUNDING, labels=labels)
    after = [expected_costates(world, each, "score", f"layer{LAYERS}")[0][:, -1] for each in (policy, shut)]
    return rows + vanishes(_LAST, (after[0] - after[1]).norm() / after[0].norm(), _ROUNDING, labels=labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Left, the share lost at the prompt for every closing and world; right, for all edges closed, along the prefix."""
    shares = with_columns(rows, "k", "closed", "trained", "world")
    draw_lost_shares(figure, shares[shares["part"] == _SHARE].astype({"k": int}), _ROUNDING)


CLAIM = Claim(
    name="attention_transport",
    statement="Closing attention to autograd leaves the prompt its own step's covariance, no more",
    formula=r"E_2^{\,\mathrm{closed}}(\text{prompt}) = \mathrm{Cov}_{a\sim\pi_0}\left(w_0(a), Q_0(a)\right)",
    source="arXiv:2605.21654: attention in the backward pass plays the part of the dynamics; theory page section 3",
    assumptions=("A5",),
    must_hold="With all edges closed the prompt keeps the covariance of its own step and nothing else; closing costs nothing "
    "after the last block, and where only the first token counts",
    must_fail="That closing all edges loses nothing, in every world whose reward depends on later tokens",
    how_to_read="All numbers exact. Left, what share of the value gradient at the prompt is missing when attention edges "
    "carry no derivative (the forward pass is untouched): all of them (red: what is left is the prompt's own step), only "
    "edges longer than 1, 2, ... tokens, those of one layer or of one head. Right, with all edges closed, at prefixes of "
    "every length, mean over policies: the last token before the end needs no transport.",
    parts=(
        Part(OWN, "claim", "holds"),
        Part(_LAST, "claim", "holds"),
        Part(_IDLE, "claim", "holds"),
        Part(NOTHING_LOST, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
