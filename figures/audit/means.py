"""The exact mean of a loss as findings: does it climb, is it a multiple of the gradient, and of which size."""

import torch

from agents.recipes.learners import rloo
from envs.token_tasks import sum_and_stop
from figures.audit.contract import Subject, reward_weights
from figures.audit.exact import Mean, Place, groups_over, mean_update, places
from figures.audit.finding import Example, Finding, example
from figures.audit.probes import probe
from figures.audit.recipes import learner_loss

_EXACT = 1e-7
_NOTHING = 1e-9


def means(subject: Subject, group: int | None = None) -> dict[str, Mean]:
    """The mean update in every place.

    Args:
        subject: the loss.
        group: G; by default 4, and 2 for a loss that mixes groups, whose batches are tried one by one.

    Returns:
        By name of the place.
    """
    if groups_over(subject) == "coupled":
        place = Place("stop (2,2), batches of two groups", sum_and_stop(2, 2), 1)
        found = {place.name: mean_update(subject, place, group or 2, prompts=2)}
        one = places()[1]
        return found | {f"{one.name}, one group": mean_update(subject, one, group or 2)}
    return {place.name: mean_update(subject, place, group or 4) for place in places()}


def climbs(found: dict[str, Mean]) -> Finding:
    """On average the update has a positive product with the gradient of the expected return, at every place."""
    worst = min(found, key=lambda name: found[name].scale)
    scale, cosine = found[worst].scale, min(mean.cosine for mean in found.values())
    facts = {"cosine": cosine}
    if scale > _NOTHING:
        words = f"the mean update has a cosine of at least {cosine:.6f} to the gradient"
        return Finding("climbs", "holds", words, scale, facts=facts)
    if scale < -_NOTHING:
        words = f"the mean update is against the gradient, scale {scale:.4g} ({worst})"
    else:
        words = f"the mean update has no part along the gradient, scale {scale:.1g} ({worst}): nothing is learned"
    return Finding("climbs", "defect", words, scale, facts=facts)


def unbiased(found: dict[str, Mean], subject: Subject) -> Finding:
    """The mean is a positive multiple kappa of the gradient at each prompt; and kappa, where it is one number."""
    worst, bias = "", 0.0
    for name, mean in found.items():
        here = max(mean.prompt_bias)
        if not here <= bias:
            worst, bias = name, here
    kappas = [x for mean in found.values() for x in mean.prompts]
    facts = {"bias": bias, "kappas": kappas, "unbiased": bias <= _EXACT and min(kappas) > 0}
    same = max(kappas) - min(kappas) <= _EXACT * max(abs(x) for x in kappas)
    facts["kappa"] = kappas[0] if same else None
    size = f"kappa {kappas[0]:.6g}" if same else f"kappa from {min(kappas):.4g} to {max(kappas):.4g}, by success rate"
    if facts["unbiased"]:
        return Finding("mean update", "choice", f"kappa times the gradient at every prompt; {size}", bias, facts=facts)
    words = f"no multiple of the gradient: off its direction by {bias:.3g} of the part along it ({worst})"
    return Finding("mean update", "choice", words, bias, facts=facts, example=beside_unbiased(subject))


def beside_unbiased(subject: Subject) -> Example | None:
    """The smallest batch on which the weights are not those of an unbiased recipe: leave one out, row sum, times one factor.

    Args:
        subject: the loss.

    Returns:
        The weights found, beside those of that recipe; None where all small batches agree, or a weight is not finite.
    """
    tried = [probe(1, 2), probe(1, 3), probe(1, 4), probe(2, 4)]
    pairs = [(reward_weights(subject, rows), learner_loss(rloo()).slopes(rows).weights) for rows in tried]
    found, other = (torch.cat([w[i].flatten() for w in pairs]) for i in range(2))
    if not bool(found.isfinite().all()):
        return None
    factor = float(found @ other / (other @ other))
    for rows, (own, wanted) in zip(tried, pairs, strict=True):
        if float((own - factor * wanted).abs().max()) > _EXACT * float(found.abs().max()):
            return example(rows, own, factor * wanted)
    return None
