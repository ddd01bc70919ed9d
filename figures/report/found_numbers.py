"""Numbers of single findings, each a sentence made from the rows of its claim. No number stands here."""

import math
from collections.abc import Callable

import pandas as pd


def _of(rows: pd.DataFrame, part: str, **labels: object) -> pd.DataFrame:
    """The rows of a part that have these labels."""
    own = rows[rows["part"] == part]
    for name, value in labels.items():
        own = own[own[name] == value]
    return own


def _number(x: float) -> str:
    """Two digits after the point, none of a large number; no minus before a zero."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{round(x, 2) + 0.0:.2f}"


def _span(values: pd.Series) -> str:
    """The smallest and the largest value; one of them where both look alike."""
    low, high = _number(values.min()), _number(values.max())
    return low if low == high else f"{low} to {high}"


def _with_error(row: pd.Series) -> str:
    return f"{_number(row['measured'])} +- {_number(row['standard_error'])}"


def estimator_variance(rows: pd.DataFrame) -> str:
    """What a perfect critic and the score function do to the variance."""
    ratios = _of(rows, "variance over pathwise")
    critic = ratios.loc[ratios["estimator"] == "critic", "measured"]
    score = ratios.loc[ratios["estimator"].str.startswith("score"), "measured"]
    return (
        f"In units of the pathwise estimator's variance, a perfect critic has {_span(critic)} and the score function (with or "
        f"without a baseline) {_span(score)}, over the systems of the claim."
    )


def chaos(rows: pd.DataFrame) -> str:
    """How many times the standard deviation of the score function the pathwise one has."""
    (row,) = _of(rows, "pathwise explodes").to_dict("records")
    (growth,) = _of(rows, "growth = top eigenvalue", map="chaotic").to_dict("records")
    return (
        f"At T = {row['T']:.0f} the standard deviation of the pathwise gradient is {math.exp(row['measured']):.0f} times that "
        f"of the score function. In the long run it grows by a factor of {growth['measured']:.3g} per step."
    )


def attention_costate_biased(rows: pd.DataFrame) -> str:
    """Median errors of E1b by kind of reward."""
    medians = _of(rows, "E1b = value gradient").groupby("reward", sort=False)["measured"].median()
    each = ", ".join(f"{reward} {error:.2f}" for reward, error in medians.items())
    return (
        f"Median error of E1b with more than one step to go, in units of the value gradient, by kind of reward: {each}. The "
        "costate 0 would have an error of 1."
    )


def entropy_knobs(rows: pd.DataFrame) -> str:
    """Rank correlations of the error with entropy and with the bound."""
    told = []
    for (knob, costate), own in rows.groupby(["knob", "costate"], sort=False):
        means = [_of(own, f"rank correlation with {x}")["measured"].mean() for x in ("entropy", "bound")]
        told.append(f"{means[0]:.2f} with entropy and {means[1]:.2f} with the bound ({knob}, {costate})")
    return f"Mean rank correlation of the error: {'; '.join(told)}. Where E1 is 0 the error is the size of the value gradient."


def attention_transport(rows: pd.DataFrame) -> str:
    """Share of the value gradient at the prompt that is lost with all edges closed."""
    lost = _of(rows, "share lost", closed="all", k=0)
    each = ", ".join(f"{world} {_span(own)}" for world, own in lost.groupby("world", sort=False)["measured"])
    later = _of(rows, "share lost", closed="all", k=1)["measured"].max()
    return (
        f"Share of the value gradient at the prompt that is lost when all edges are closed, by world: {each}. One token later "
        f"it is up to {_number(later)}."
    )


def error_map(rows: pd.DataFrame) -> str:
    """How far the one constant is exceeded by each costate, and how close the bound comes."""
    bound = _of(rows, "tier 3 is never exceeded")["measured"]
    told = []
    for costate, own in _of(rows, "gap and entropy alone").groupby("costate", sort=False):
        largest = own.groupby("family", sort=False)["measured"].max()
        told.append(f"{costate}: " + ", ".join(f"{family} {_number(x)}" for family, x in largest.items()))
    return (
        "Largest error in units of what the one constant allows, by costate and by how the random policies were changed. "
        f"{'; '.join(told)}. In units of the bound that keeps the other factors it is {_number(bound.max())}. Where E1 is 0 "
        "(a token reward at alpha = 1) the error is the size of the value gradient."
    )


def critic_or_not(rows: pd.DataFrame) -> str:
    """Differences of the mean return along the way, as shares of the exact gradient's gain."""
    parts = ("critic-free against learned critic", "exact critic against critic-free", "no baseline does as well")
    told = []
    for part in parts:
        own = _of(rows, part)
        each = "; ".join(
            f"{r['world']} {_number(r['measured'])} ({_number(r['low'])} to {_number(r['high'])})"
            for _, r in own.iterrows()
        )
        told.append(f"{own['learner'].iloc[0]}: {each}")
    return f"Differences as shares of the exact gradient's gain, with simultaneous intervals. {'. '.join(told)}."


def impact_inverted_u(rows: pd.DataFrame) -> str:
    """Gains at the first draw, at the peak and at the last checkpoint, of the largest budget."""
    told = []
    for corpus in dict.fromkeys(rows["corpus"]):
        curve = _of(rows, "curve", corpus=corpus, recipe="GRPO")
        curve = curve[curve["budget"] == curve["budget"].max()].sort_values("tokens")
        gains = curve["measured"]
        peak = curve.loc[gains.idxmax()]
        told.append(
            f"{corpus}: {gains.iloc[0]:.2f} from the first draw, {peak['measured']:.2f} at the peak ({peak['tokens']:.0f} "
            f"tokens), {gains.iloc[-1]:.2f} from the last checkpoint"
        )
    return f"Mean gain of GRPO in exact J after the largest budget, by corpus. {'; '.join(told)}."


def signal_cap(rows: pd.DataFrame) -> str:
    """The alignment at the first draw and at its highest."""
    own = _of(rows, "alignment").sort_values("tokens")
    told = [
        f"{corpus} {group['measured'].iloc[0]:.2f} at the first draw and {group['measured'].max():.2f} at its highest"
        for corpus, group in own.groupby("corpus", sort=False)
    ]
    return f"Mean share of the cap that is used, by corpus: {'; '.join(told)}."


def what_moves_the_peak(rows: pd.DataFrame) -> str:
    """Shifts of the centre, in doublings of tokens."""
    corpus = _of(rows, "a half-wrong corpus: later", recipe="GRPO")
    budget = _of(rows, "a larger budget: earlier", recipe="GRPO").iloc[0]
    group = _of(rows, "sixteen times the group: earlier by a doubling").iloc[0]
    return (
        "Shift of the centre of the gain of GRPO, in doublings of pretraining tokens (positive: later): "
        f"{_span(corpus['measured'])} with the worse corpus (over budgets), {_with_error(budget)} with the larger "
        f"budget, {_with_error(group)} with the larger groups (mean over budgets)."
    )


def value_gradient_flow(rows: pd.DataFrame) -> str:
    """Efficiency at prompts against the KL ball's headroom, and what alpha does to ten particles by both optimisers."""
    small, best = (_of(rows, f"efficiency of {what}")["measured"] for what in ("a small step", "the best small shift"))
    last = _of(rows, "efficiency").sort_values("step").groupby(["system", "seed", "prompt"])["measured"].last()
    gains = _of(rows, "gain of ten particles").groupby(["optimiser", "alpha"])["measured"].mean()
    each = "; ".join(
        f"alpha {alpha:g}: plain steps {_number(gains['plain', alpha])}, Adam {_number(gains['adam', alpha])}"
        for alpha in gains["plain"].index
    )
    return (
        f"Efficiency at a prompt, gain over the KL ball's headroom: {_span(small)} for a small step along the value gradient, "
        f"{_span(last)} at the end of the flow, {_span(best)} for a small step in the best direction. Mean gain of ten "
        f"particles, the same step size and number of steps: {each}."
    )


NUMBERS: dict[str, Callable[[pd.DataFrame], str]] = {
    teller.__name__: teller
    for teller in (
        estimator_variance,
        chaos,
        attention_costate_biased,
        entropy_knobs,
        attention_transport,
        error_map,
        critic_or_not,
        impact_inverted_u,
        signal_cap,
        what_moves_the_peak,
        value_gradient_flow,
    )
}
