"""The pictures of the impact claims show all that was measured."""

import numpy as np
import pytest

from figures.claims.impact import impact_inverted_u, impact_product, signal_cap
from figures.drawing.style import new_figure
from tests.figures.impact.made_up_study import claim_rows, few_resamples, product

__all__ = ["few_resamples"]


@pytest.mark.parametrize("module", [impact_inverted_u, impact_product, signal_cap], ids=lambda m: m.CLAIM.name)
def test_no_point_along_pretraining_lies_beyond_its_axes(module):
    rows = claim_rows(module, product)
    rows["tokens"] *= np.where(rows["corpus"] == "clean", 1, 4)  # one corpus is read four times as long
    figure = new_figure(module.CLAIM.height)
    module.CLAIM.draw(rows, figure)
    along = [axis for axis in figure.axes if axis.get_xlabel() == "tokens of pretraining"]
    assert along
    for axis in along:
        low, high = axis.get_xlim()
        drawn = [np.asarray(line.get_xdata(), dtype=float) for line in axis.get_lines() if line.get_linestyle() != "--"]
        assert all((x >= low).all() and (x <= high).all() for x in drawn)
