"""The drawing of the claim about power sampling: how far its law is from the power of p, and how long its texts are, by steps."""

from typing import Any

import pandas as pd


def draw_power_sampling(figure: Any, away: pd.DataFrame, drawn: pd.DataFrame) -> None:
    figure.subplots()
