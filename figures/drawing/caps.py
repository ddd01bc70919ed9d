"""The signal at a prompt under its cap, along pretraining, and the share of the cap that is used."""

from typing import Any

import pandas as pd

from figures.drawing.impact import token_axis
from figures.drawing.panels import no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS

_HUES = ("costate", "score")


def draw_caps(figure: Any, rows: pd.DataFrame, corpora: list[str], largest: str) -> None:
    """A panel of signal and cap for every corpus; last, the share that is used, of all of them.

    Args:
        figure: where to draw.
        rows: parts "costate" (the signal), "cap" and "alignment", with the columns corpus and tokens.
        corpora: those that are drawn, two at most.
        largest: part of the rows with the largest alignment over prompts at each checkpoint.
    """
    *axes, right = figure.subplots(1, len(corpora) + 1)
    top = 1.08 * (rows["measured"] + 2 * rows["standard_error"])[rows["part"].isin(("costate", "cap"))].max()
    for axis, corpus, hue in zip(axes, corpora, _HUES, strict=False):
        cap_panel(axis, rows[rows["corpus"] == corpus], COLOURS[hue])
        axis.set_title(f"{corpus}:\n{_used(rows[rows['corpus'] == corpus])}")
        if top == top:
            axis.set_ylim(0, top)
    if axes:
        axes[0].set_ylabel("|E costate| at the prompt, and its cap")
    alignment_panel(right, rows[rows["corpus"].isin(corpora)], corpora, largest)


def cap_panel(axis: Any, rows: pd.DataFrame, colour: Any) -> Any:
    """The signal (points) under its cap (dashed), means over prompts and trajectories, each with its name; one corpus."""
    lines = {part: rows[rows["part"] == part].sort_values("tokens") for part in ("costate", "cap")}
    if any(line.empty for line in lines.values()):
        return no_rows(axis)
    signal, cap = lines["costate"], lines["cap"]
    axis.errorbar(cap["tokens"], cap["measured"], 2 * cap["standard_error"], capsize=2, **EXACT)
    look: dict[str, Any] = {"fmt": "o-", "color": colour, "ms": 4, "lw": 1.4, "capsize": 2}
    axis.errorbar(signal["tokens"], signal["measured"], 2 * signal["standard_error"], **look)
    axis.fill_between(signal["tokens"], signal["measured"], color=colour, alpha=0.12, lw=0)
    token_axis(axis, rows["tokens"].dropna())
    top, peak = cap.loc[cap["measured"].idxmax()], signal.loc[signal["measured"].idxmax()]
    look = {"textcoords": "offset points", "fontsize": "small", "ha": "right"}
    axis.annotate("cap", (top["tokens"], top["measured"]), (-6, 4), **look)
    look = {"color": colour, "fontsize": "small", "ha": "center", "va": "center"}
    axis.text(peak["tokens"], 0.3 * peak["measured"], "signal", **look)
    return axis


def _used(rows: pd.DataFrame) -> str:
    """The share of the cap that the mean signal has where it is largest."""
    table = rows[rows["part"].isin(("costate", "cap"))].pivot_table(index="tokens", columns="part", values="measured")
    if table.shape[1] < 2 or table.dropna().empty:
        return "no signal"
    peak = table.dropna().loc[table["costate"].idxmax()]
    return f"{peak['costate'] / peak['cap']:.0%} of the cap at the peak"


def alignment_panel(axis: Any, rows: pd.DataFrame, corpora: list[str], largest: str) -> Any:
    """The share of the cap that is used: means over prompts, the largest prompt of each checkpoint, the cap dashed.

    Args:
        axis: where to draw.
        rows: of all corpora.
        corpora: their names, in the order of the colours.
        largest: as in `draw_caps`.
    """
    if rows.empty:
        return no_rows(axis)
    for corpus, hue, marker in zip(corpora, _HUES, MARKERS, strict=False):
        own = rows[rows["corpus"] == corpus]
        mean, each = own[own["part"] == "alignment"].sort_values("tokens"), own[own["part"] == largest]
        look: dict[str, Any] = {"fmt": marker + "-", "color": COLOURS[hue], "ms": 4.5, "capsize": 2}
        axis.errorbar(mean["tokens"], mean["measured"], 2 * mean["standard_error"], **look)
        axis.plot(each["tokens"], each["measured"], ".", color=COLOURS[hue], ms=3, alpha=0.5)
        for x, y in list(zip(mean["tokens"], mean["measured"], strict=True))[-1:]:
            style: dict[str, Any] = {"color": COLOURS[hue], "fontsize": "small", "va": "center"}
            axis.annotate(corpus, (x, y), (7, 0), textcoords="offset points", **style)
    axis.axhline(1, **EXACT)
    axis.text(0.03, 1.01, "the cap", transform=axis.get_yaxis_transform(), va="bottom", fontsize="small")
    token_axis(axis, rows["tokens"].dropna())  # of all corpora: one of them reads more tokens
    every = rows.loc[rows["part"] == largest, "measured"]
    axis.set(ylabel="share of the cap that is used", ylim=(0, max(1.15, 1.05 * every.max()) if len(every) else 1.15))
    if len(every):
        axis.set_title(
            f"{int((every > 1 + 1e-9).sum())} of {len(every)} above the cap:\nlargest prompt {every.max():.2f}"
        )
    axis.set_xlim(right=20 * axis.get_xlim()[1])  # room for the names
    return axis
