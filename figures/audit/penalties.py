"""What a loss's KL term and entropy bonus do: which divergence is lowered, by how much, and whether anything happens at all."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from envs.token_mdp import TokenMDP
from envs.token_tasks import parity
from figures.audit.contract import Subject
from figures.audit.exact import mean_field
from figures.audit.finding import Finding
from figures.audit.probes import probe
from theory.groups.kl import kl_at_prefixes, sequence_kl
from theory.tokens.prefix_tree import grow

_EXACT = 1e-7
OF_COMPLETIONS, REVERSE, FORWARD = (
    "KL(pi||ref) of completions",
    "KL(pi||ref) at visited prefixes",
    "KL(ref||pi) at visited prefixes",
)


def kl_term(subject: Subject) -> Finding:
    """The mean of what the reference adds to the update, against the exact gradients of the KL divergences, one length."""
    name = "KL term"
    if "ref_log_probs" not in subject.asks:
        return Finding(name, "choice", "the loss takes no reference", facts={"kl": "nothing"})
    rows = probe(moved=0.1)
    with_it = subject.slopes(rows).weights
    without = subject.slopes(replace(rows, ref_log_probs=rows.log_probs)).weights
    if not float((with_it - without).abs().max()) > 1e-12:
        silent = replace(rows, ref_log_probs=rows.log_probs, rewards=0 * rows.rewards)
        constant = float(subject.slopes(silent).weights.abs().max()) > 1e-12
        words = "the reference changes no weight: " + (
            "every token has the same slope, whatever the reference (k1 in the loss does this)"
            if constant
            else "the term is ignored, detached or taken against another policy"
        )
        return Finding(name, "defect", words, 0.0, facts={"kl": "nothing"})
    world = parity(2, 3)
    policy, reference = PrefixTable(world, seed=3), PrefixTable(world, seed=4)
    term = mean_field(subject, world, policy, reference) - mean_field(subject, world, policy, policy)
    slopes = divergences(world, policy, reference)
    facts = dict[str, Any]()
    if not float(term.abs().max()) > _EXACT * max(float(x.abs().max()) for x in slopes.values()):
        words = "its mean is 0: it adds noise and pulls nowhere (k1 in the loss does this)"
        return Finding(name, "defect", words, 0.0, facts=facts | {"kl": "nothing in the mean"})
    for which, slope in slopes.items():
        beta = float(term @ slope / (slope @ slope))
        if float((term - beta * slope).norm() / term.norm()) < _EXACT:
            facts |= {"kl": which, "beta": beta}
            if beta > 0:
                return Finding(name, "holds", f"lowers {which}, times {beta:.6g}", beta, facts=facts)
            return Finding(name, "defect", f"raises {which}, times {-beta:.6g}: the sign is wrong", beta, facts=facts)
    nearest = max(slopes, key=lambda which: float(torch.nn.functional.cosine_similarity(term, slopes[which], dim=0)))
    cosine = float(torch.nn.functional.cosine_similarity(term, slopes[nearest], dim=0))
    facts |= {"kl": f"another; {nearest} has cosine {cosine:.7g}", "cosine": cosine}
    if cosine <= 0:
        return Finding(name, "defect", "pulls away from the reference, whatever the divergence", cosine, facts=facts)
    return Finding(
        name, "choice", f"follows no KL divergence; nearest is {nearest}, cosine {cosine:.7g}", cosine, facts=facts
    )


def divergences(world: TokenMDP, policy: PrefixTable, reference: PrefixTable) -> dict[str, Tensor]:
    """Minus the gradients of the divergences in the table's logits, flat.

    Args:
        world: the token world.
        policy: pi.
        reference: ref.

    Returns:
        By name the slope that a term lowering this divergence has.
    """
    tree = grow(world, policy)
    with torch.no_grad():
        other = grow(world, reference)
    sums = {
        OF_COMPLETIONS: sequence_kl(tree, [level.logits for level in other.levels]),
        REVERSE: kl_at_prefixes(tree, other, tree, forward=False),
        FORWARD: kl_at_prefixes(tree, other, tree, forward=True),
    }
    return {name: -torch.autograd.grad(x, [policy.logits], retain_graph=True)[0].flatten() for name, x in sums.items()}


def entropy_bonus(subject: Subject) -> Finding:
    """The weights of the entropies: none below 0, some above, none where no token is."""
    name = "entropy bonus"
    if "entropy" not in subject.asks:
        return Finding(name, "choice", "the loss takes no entropies")
    rows = probe(moved=0.1)
    slopes = subject.slopes(rows)
    u = torch.zeros_like(rows.log_probs) if slopes.entropy is None else slopes.entropy
    if not bool(u.any()):
        return Finding(name, "defect", "entropies are taken and change nothing: the bonus is ignored or detached", 0.0)
    if bool((u[rows.mask] < 0).any()):
        return Finding(name, "defect", "it lowers the entropy: the sign is wrong", float(u[rows.mask].min()))
    if bool(u[~rows.mask].any()):
        return Finding(name, "defect", "it counts places without a token", float(u[~rows.mask].abs().max()))
    return Finding(
        name, "holds", f"it raises the entropy at every token; its weights sum to {float(u.sum()):.6g}", float(u.sum())
    )


PENALTIES = {"KL term": kl_term, "entropy bonus": entropy_bonus}
