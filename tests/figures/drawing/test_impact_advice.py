"""Every number of the advice comes from the rows: a changed row changes the text, and no number stands in it besides."""

import re

import pytest

from figures.claims.impact import impact_product
from figures.drawing.impact_advice import advice
from figures.impact.contest import COUNT, OPTIMISER, POWER_GAP
from tests.figures.impact.made_up_study import claim_rows, few_resamples, product

__all__ = ["few_resamples"]
ERROR, CHOICE, RANK = "left-out error", "gain of its choice", "rank correlation"
NAMES = ("P(1-P)", "pass@k - pass@1", "J* - J")  # the digits of names


@pytest.fixture
def rows(few_resamples):
    """Rows of the claim, where the gain is the product."""
    return claim_rows(impact_product, product)


def put(rows, part, measured, predictor=None, recipe="GRPO", budget=32, **columns):
    """Change one row."""
    which = rows["part"] == part
    if predictor is not None:
        which &= rows["predictor"] == predictor
    if part in (ERROR, CHOICE, RANK):
        which &= (rows["recipe"] == recipe) & (rows["budget"] == budget)
    assert which.sum() == 1
    for name, value in {"measured": measured, **columns}.items():
        rows.loc[which, name] = value


def test_numbers_of_the_rows_stand_in_the_text(rows):
    put(rows, ERROR, 0.0123, "power")
    put(rows, CHOICE, 0.876, "power")
    put(rows, ERROR, 0.345, "snr x best_of")
    put(rows, CHOICE, 0.765, "snr x best_of")
    put(rows, ERROR, 0.456, "spread")
    put(rows, CHOICE, 0.654, "spread")
    put(rows, ERROR, 0.567, "costate")
    put(rows, POWER_GAP, -0.1234, standard_error=0.0456)
    put(rows, COUNT, 7)
    put(rows, RANK, 0.321, "snr x best_of", "exact, SGD")
    put(rows, RANK, 0.432, "spread", "exact, SGD")
    put(rows, OPTIMISER, -0.2345, "costate", standard_error=0.0678)
    text = advice(rows)
    for sentence in (
        "Take the checkpoint with the largest power-sampling headroom.",
        "its error is 0.01 of the error of the mean gain alone, and the checkpoints that it chooses give 88 % of the best",
        "For signal to noise x (pass@k - pass@1), which this claim judges, the error is 0.34 and the choices give 76 %",
        "Its error is smaller than that of power-sampling headroom by 0.12 +- 0.05 (reported, not judged)",
        "For P(1-P), which needs only the success rate, the error is 0.46 and the choices give 65 %",
        "Of the 12 products 7 have a smaller error than both",
        "The norm of the costate alone has an error of 0.57",
        "rank correlation with the gain is 0.32 for signal to noise x (pass@k - pass@1) and 0.43 for P(1-P)",
        "norm is lower than with Adam by 0.23 +- 0.07 (reported, not judged)",
    ):
        assert sentence in text, sentence


def test_where_the_rows_come_from_is_counted(rows):
    assert advice(rows).startswith(
        "These numbers come from 12 trajectories on the corpora clean and quality 0.5, after 32 updates of GRPO. "
    )


@pytest.mark.parametrize("predictor", ["power", "snr x best_of", "spread", "J"])
def test_the_best_predictor_is_the_one_with_the_smallest_error(rows, predictor):
    put(rows, ERROR, 1e-3, predictor)
    name = {
        "power": "power-sampling headroom",
        "snr x best_of": "signal to noise x (pass@k - pass@1)",
        "spread": "P(1-P)",
    }
    assert f"Take the checkpoint with the largest {name.get(predictor, predictor)}. " in advice(rows)


def test_products_of_the_norm_are_compared_with_the_spread_one_by_one(rows):
    norms = ("costate x rest", "costate x best_of", "costate x ball", "costate x power")
    for predictor, error in zip(norms, (0.51, 0.61, 0.71, 0.81), strict=True):
        put(rows, ERROR, error, predictor)
    put(rows, ERROR, 0.5, "spread")
    assert "of 0.51 to 0.81; no such product has a smaller error than P(1-P), so for GRPO with Adam" in advice(rows)
    put(rows, ERROR, 0.65, "spread")
    assert "of 0.51 to 0.81; 2 of these 4 products have a smaller error than P(1-P)." in advice(rows)


def test_predictors_that_cannot_place_a_peak_are_shown_with_their_range(rows):
    for i, predictor in enumerate(("J", "H", "entropy_law", "rest")):
        put(rows, ERROR, 0.91 + i / 100, predictor)
        put(rows, CHOICE, 0.11 + i / 10, predictor)
    assert "J, H, the entropy law and J* - J only rise or fall" in advice(rows)
    assert "their errors are 0.91 to 0.94, and their choices give 11 % to 41 % of the best gain" in advice(rows)


def test_recipes_and_budgets_where_the_product_is_no_better_are_listed(rows):
    for recipe in ("GRPO", "RLOO", "exact, Adam", "exact, SGD"):
        for budget in (8, 16, 32):
            put(rows, ERROR, 0.2, "snr x best_of", recipe, budget)
            put(rows, ERROR, 0.3, "spread", recipe, budget)
    assert "With every recipe and budget the product that is judged has a smaller error than P(1-P)" in advice(rows)
    put(rows, ERROR, 0.2, "spread", "RLOO", 16)
    for budget in (8, 32):
        put(rows, ERROR, 0.1, "spread", "exact, SGD", budget)
    assert "no smaller than that of P(1-P) with RLOO (16 updates); exact, SGD (8 and 32 updates)." in advice(rows)


def test_no_number_is_there_that_the_rows_do_not_give(rows):
    """Other rows change every number but those of settings and names; a part of the study has no numbers of the rest."""
    text = advice(rows)
    scaled = rows.copy()
    scaled[["measured", "standard_error"]] = 7 + scaled[["measured", "standard_error"]] * 3
    for name in NAMES:
        text = text.replace(name, "")
    settings = {"12", "0.5", "32", "8", "16", "4"}  # trajectories and products, a corpus, budgets, products of the norm
    numbers = set(re.findall(r"\d+(?:\.\d+)?", text)) - settings
    assert len(numbers) > 10
    changed = advice(scaled)
    for name in NAMES:
        changed = changed.replace(name, "")
    assert not numbers & set(re.findall(r"\d+(?:\.\d+)?", changed))


@pytest.mark.parametrize("quality", [1.0, 0.5])
def test_a_part_of_the_study_has_the_sentences_of_its_rows(quality):
    text = advice(claim_rows(impact_product, product, quality))
    assert text.startswith(
        f"These numbers come from 6 trajectories on the corpus {'clean' if quality == 1 else 'quality 0.5'},"
    )
    assert ("plain SGD the rank correlation" in text) == (quality == 1)


def test_without_the_main_recipe_there_is_no_advice(rows):
    assert advice(rows[rows["recipe"] != "GRPO"]) == ""
