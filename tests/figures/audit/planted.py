"""Losses with one mistake each, made from a sound one by replacing one part, and the property that must name the mistake."""

import torch

from tests.figures.audit.parts import (
    HIGH,
    LOW,
    SOUND,
    Forgetful,
    Planted,
    advantage,
    batch_std,
    best,
    bonus,
    build,
    by_position,
    clean,
    gather,
    importance,
    k1,
    k2,
    k3,
    kl,
    last_column,
    last_token,
    leave_one_out,
    logits,
    loo,
    low_precision,
    mean,
    mean_ratio,
    no_normaliser,
    norm,
    of_logits,
    over_length,
    over_positions,
    own_row,
    plain,
    ppo,
    quotient,
    read,
    row_sum,
    standardised,
    sum_ratio,
    surrogate,
    truncated,
    warm,
    weights,
    whole_batch,
    with_entropy,
    with_kl,
)

PLANTED: dict[str, Planted] = {
    "wrong sign": norm("climbs", f=lambda t, m: -row_sum(t, m)),
    "ratio upside down": surrogate("climbs", f=lambda lp, old, A, m: (old - lp).exp() * A),
    "ratio detached": surrogate("climbs", f=lambda lp, old, A, m: (lp - old).exp().detach() * A + 0 * lp),
    "std over the batch": Planted(("coupling", "recipe"), plain, batch_std, {"groups": "mean"}),
    "best row as baseline": advantage(*weights, f=best),
    "own row left in": advantage("mean update", "recipe", f=own_row),
    "accumulated over G twice": norm(*weights, f=lambda t, m: row_sum(t, m) / len(m)),
    "divided twice": norm(*weights, f=lambda t, m: row_sum(t, m) / 2),
    "sum for mean": norm("split", "recipe", "mean update", f=lambda t, m: -(t * m).sum()),
    "token mean": norm(*weights, f=lambda t, m: -(t * m).sum() / m.sum()),
    "row mean": norm(*weights, f=lambda t, m: -((t * m).sum(1) / m.sum(1)).mean()),
    "advantage over length": advantage(*weights, f=over_length),
    "mask off by one": norm(*weights, f=lambda t, m: row_sum(t, m.roll(1, 1) & m)),
    "end token left out": norm(*weights, f=lambda t, m: row_sum(t, m & ~last_token(m))),
    "truncated rows left out": Planted(weights, truncated, loo, SOUND),
    "rewards read at the last column": advantage(*weights, f=last_column),
    "mean over the padded row": norm("padding", f=lambda t, m: -((t * m).mean(1)).mean()),
    "mask forgotten": Planted(
        ("padding",), build(norm=lambda t, m: -t.sum() / len(m), fill=lambda x, m: x), loo, SOUND
    ),
    "ratio summed over padding": Planted(("padding",), build(sum_ratio, fill=lambda x, m: x), loo, SOUND),
    "NaN times 0": Planted(("padding",), build(fill=lambda x, m: x * m), loo, SOUND),
    "eps 1e-9": Planted(("silent groups",), plain, lambda rewards, mask, group: standardised(rewards, group, 1e-9), {}),
    "eps added to the quotient": Planted(
        ("silent groups", *weights), plain, quotient, {"recipe": "population std; row sum"}
    ),
    "baseline not per group": advantage("coupling", "recipe", f=whole_batch),
    "groups by position": advantage("order", f=by_position),
    "token mean per micro-batch": Planted(
        ("split",), build(norm=lambda t, m: -(t * m).sum() / m.sum()), loo, {"split": "groups"}
    ),
    "max for min": surrogate(
        "clip on the right side",
        f=lambda lp, old, A, m: torch.maximum(importance(lp, old, A, m), (lp - old).exp().clamp(1 - LOW, 1 + HIGH) * A),
    ),
    "clip without min": surrogate(
        "clip on the right side", f=lambda lp, old, A, m: (lp - old).exp().clamp(1 - LOW, 1 + HIGH) * A
    ),
    "bounds swapped": surrogate(
        "clip on the right side",
        f=lambda lp, old, A, m: torch.minimum(importance(lp, old, A, m), (lp - old).exp().clamp(1 - HIGH, 1 + LOW) * A),
    ),
    "clip of ratio x A": surrogate(
        "clip on the right side",
        f=lambda lp, old, A, m: torch.minimum(
            importance(lp, old, A, m), importance(lp, old, A, m).clamp(1 - LOW, 1 + HIGH)
        ),
    ),
    "log pi in the place of the ratio": surrogate("law of the ratio", f=lambda lp, old, A, m: lp * A + 0 * old),
    "row's ratio on each token": surrogate(
        "law of the ratio",
        f=lambda lp, old, A, m: (
            ppo(((lp - old) * m).sum(1, keepdim=True).expand_as(lp), torch.zeros_like(lp), A, m)
            / m.sum(1, keepdim=True)
        ),
    ),
    "k1 in the loss": kl("KL term", f=k1),
    "KL ignored": kl("KL term", f=lambda lp, old, ref: 0 * k3(lp, old, ref)),
    "KL detached": kl("KL term", f=lambda lp, old, ref: k3(lp, old, ref).detach()),
    "KL against old": kl("KL term", f=lambda lp, old, ref: k3(lp, ref, old)),
    "KL of the wrong sign": kl("KL term", f=lambda lp, old, ref: -k2(lp, old, ref)),
    "k3 for k2": kl("KL term", f=k3),
    "k3 reversed": kl("KL term", f=lambda lp, old, ref: (lp - ref).exp() - 1 - (lp - ref)),
    "KL averaged over padding": kl("padding", f=k2, average=lambda t, m: -(t * m).mean()),
    "entropy sign": bonus("entropy bonus", loss=with_entropy(-0.01)),
    "entropy ignored": bonus("entropy bonus", loss=with_entropy(0.01, detach=True)),
    "entropy averaged over padding": bonus("padding", loss=with_entropy(0.01, lambda t, m: -(t * m).mean())),
    "labels not shifted": logits(*mean, "climbs", f=lambda z, t, p: gather(torch.log_softmax(z, -1), t, p, 0)),
    "temperature in one of two passes": logits(*mean, f=lambda z, t, p: read(z, t, p, 0.7)),
    "temperature in both but not in the sampler": logits(*mean, f=warm, old=warm),
    "softmax over positions": logits(*mean, "climbs", "finite", f=over_positions),
    "no normaliser": logits(*mean, "finite", "climbs", f=no_normaliser),
    "bfloat16": logits("precision", "mean update", f=low_precision),
    # more of our own
    "rewards squared": advantage(
        "recipe", "shift of rewards", f=lambda rewards, mask, group: leave_one_out(rewards, mask, group) ** 3
    ),
    "first token left out": norm(*weights, f=lambda t, m: row_sum(t[:, 1:], m[:, 1:])),
    "row's weight on its last token only": norm(*weights, f=lambda t, m: row_sum(t, last_token(m))),
    "old in the place of new": Planted(
        ("climbs",),
        lambda log_probs, old_log_probs, advantages, mask: build()(
            clean(old_log_probs, mask) + 0 * log_probs, log_probs.detach(), advantages, mask
        ),
        loo,
        {},
    ),
    "row divided by the longest of the batch": norm("split", *weights, f=lambda t, m: row_sum(t, m) / m.sum(1).max()),
    "one-hot of the wrong token": logits(
        *mean, "climbs", f=lambda z, t, p: gather(torch.log_softmax(z, -1), (t + 1) % z.shape[-1], p)
    ),
    "row's mean ratio over the padded row": surrogate("padding", f=mean_ratio),  # seen away from ratio 1 alone
    "a power of the ratio that overflows": surrogate("finite", f=lambda lp, old, A, m: ((lp - old) * 8).exp() * A / 8),
    "exponentials of returns": advantage(
        "finite", f=lambda rewards, mask, group: leave_one_out(rewards.sum(1, keepdim=True).exp(), mask, group)
    ),
    "state kept between calls": Planted(("two calls agree",), Forgetful(), loo, {}),
}
SOUND_ONES: dict[str, Planted] = {
    "RLOO": Planted((), build(), leave_one_out, SOUND),
    "RLOO, k2": Planted((), with_kl(k2), leave_one_out, {**SOUND, "kl": "KL(pi||ref)", "beta": 0.1}),
    "RLOO, k3": Planted((), with_kl(k3), leave_one_out, {**SOUND, "kl": "KL(ref||pi)", "beta": 0.1}),
    "RLOO, entropy": Planted((), with_entropy(0.01), leave_one_out, SOUND),
    "RLOO of logits": Planted((), of_logits(read), leave_one_out, SOUND),
}
