"""The claims on the impact study, judged on made-up rows whose truth is known, and the sharing of its points."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from envs.world import InputError
from figures.claims.impact import impact_inverted_u, impact_product, signal_cap, what_moves_the_peak
from figures.harness.claim import STUDIES, judge, load_claim, load_claims, measure_of
from figures.harness.runner import forecast, plan
from figures.impact import runs as impact_runs
from figures.impact.numbers import PREDICTORS, PRODUCTS
from figures.impact.tables import CLEAN, aligned, centre, corpus_names, peak_of_the_others

TOKENS = [0, 1000, 2000, 4000, 8000, 16000, 32000, 64000]
CLAIMS = ["impact_inverted_u", "impact_product", "signal_cap", "what_moves_the_peak"]
RECIPES = (("GRPO", 8), ("GRPO", 2), ("GRPO", 32), ("RLOO", 8), ("exact, Adam", 1), ("exact, SGD", 1))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Enough for a standard error here."""
    monkeypatch.setattr(impact_product, "_RESAMPLES", 150)


def known(clean, rng):
    """What is known of one checkpoint along each trajectory: P rises to 1, or to a half."""
    P = np.linspace(0.01, 0.99 if clean else 0.5, len(TOKENS)) * rng.uniform(0.97, 1, len(TOKENS))
    snr, headroom = np.sqrt(P) * (1 - P) ** 0.3, (1 - P) * P**0.2
    table = {name: rng.uniform(0, 1, len(TOKENS)) for name in PREDICTORS}
    table |= {"snr": snr, "best_of": headroom, "snr x best_of": snr * headroom, "spread": P * (1 - P), "J": P, "rest": 1 - P,
              "sqrt_spread": np.sqrt(P * (1 - P)), "H": 1 - P, "entropy_law": np.exp(1 - P) - 1,
              "power": snr * headroom, "gradient": table["costate"]}  # fmt: skip
    return table | {"pass_at_k": P + headroom, "reader": np.ones(len(TOKENS))}


def study(gain, seed=0, trajectories=6):
    """Rows of a made-up study; `gain(known, recipe, group, budget, clean, rng)` gives the gains of a trajectory."""
    rng, rows = np.random.default_rng(seed), []
    for quality in (1.0, 0.5):
        for block, i in np.ndindex(2, trajectories // 2):
            who = {"quality": quality, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add",
                   "run": f"{quality} {block}", "trajectory": i}  # fmt: skip
            facts = known(quality == 1, rng)
            for c, tokens in enumerate(TOKENS):
                fact = {name: float(x[c]) for name, x in facts.items()}
                cap = {"alignment": 0.1 + 0.05 * c, "largest_alignment": 0.9, "over_sd": 2.0, "cap": 1.0, "sd": 0.5}
                rows.append({"kind": "checkpoint", **who, "checkpoint": c, "tokens": tokens, **fact, **cap})
            for recipe, group in RECIPES if quality == 1 else (RECIPES[0], *RECIPES[3:5]):
                for budget in (8, 16, 32):
                    found = gain(facts, recipe, group, budget, quality == 1, rng)
                    rows += [{"kind": "gain", **who, "checkpoint": c, "tokens": TOKENS[c], "recipe": recipe, "group": group,
                              "budget": budget, "gain": float(x)} for c, x in enumerate(found)]  # fmt: skip
    return pd.DataFrame(rows)


def by_product(facts, recipe, group, budget, clean, rng):
    """The gain is the product, and with SGD the spread of rewards; a little earlier at a larger budget."""
    if recipe == "exact, SGD":
        return facts["spread"] + 1e-4 * facts["costate"]
    early = 1 + 0.05 * np.log2(budget) * np.linspace(1, 0, len(TOKENS))
    return facts["snr x best_of"] * early + 0.003 * rng.standard_normal(len(TOKENS))


def parts(module, rows):
    """Outcome of every part of a claim."""
    verdict = judge(module.CLAIM, module.CLAIM.rows_from(rows))
    return {name: result.outcome for name, result in verdict.parts.items()}


def test_a_gain_that_is_the_product_is_found_to_be_so():
    found = parts(impact_product, study(by_product))
    assert found == {name: expected for name, (_, expected) in impact_product.CLAIM.parts.items()}


def test_a_gain_that_is_the_spread_of_rewards_is_not_called_the_product():
    rows = study(lambda facts, *_: facts["spread"] + 1e-4 * facts["J"])
    found = parts(impact_product, rows)
    assert found[impact_product.NULL_MODELS] == "fails"


def test_a_gain_that_is_one_factor_is_not_called_the_product():
    found = parts(impact_product, study(lambda facts, *_: facts["snr"] + 1e-4 * facts["J"]))
    assert found[impact_product.FACTORS] == "fails"


def test_a_gain_that_j_foretells_turns_the_control():
    found = parts(impact_product, study(lambda facts, *_: facts["J"] + 1e-4 * facts["spread"]))
    assert found[impact_product.FLAT] != "fails"
    assert found[impact_product.NULL_MODELS] == "fails"


def test_where_the_product_is_the_better_one_for_sgd_too_the_control_is_blind():
    rows = study(lambda facts, *_: facts["snr x best_of"] + 1e-4 * facts["costate"])
    assert parts(impact_product, rows)[impact_product.SGD] == "holds"


def test_products_that_win_are_counted():
    rows = impact_product.CLAIM.rows_from(study(by_product)).set_index("part")
    assert 1 <= rows.loc[impact_product.COUNT, "measured"] < 12
    none = impact_product.CLAIM.rows_from(study(lambda facts, *_: facts["spread"] + 1e-4 * facts["J"])).set_index(
        "part"
    )
    assert none.loc[impact_product.COUNT, "measured"] == 0


def test_trajectories_that_gain_nothing_have_no_centre_and_are_counted():
    def sometimes(facts, recipe, group, budget, clean, rng):
        return bump(4) * (rng.uniform() < 0.8)

    rows = what_moves_the_peak.CLAIM.rows_from(study(sometimes))
    assert rows.loc[rows["part"] == "centre", "without a centre"].max() > 0
    assert what_moves_the_peak.CLAIM.rows_from(study(lambda facts, *_: -facts["J"])).empty


def optimisers(rows):
    """The difference that is reported: of the costate's rank correlations with gains of SGD and of Adam."""
    found = impact_product.CLAIM.rows_from(rows)
    found = found[found["part"] == impact_product.OPTIMISER].set_index("predictor")
    assert set(found["relation"]) == {"report"}
    return float(found.loc["costate", "measured"]), float(found.loc["costate", "standard_error"])


def test_a_difference_between_optimisers_is_reported_and_has_its_sign():
    rows = study(lambda facts, recipe, *_: facts["costate" if recipe == "exact, SGD" else "snr x best_of"])
    value, error = optimisers(rows)
    assert value > 4 * error
    assert optimisers(rows.replace({"recipe": {"exact, SGD": "exact, Adam", "exact, Adam": "exact, SGD"}}))[0] == -value
    assert optimisers(study(lambda facts, *_: facts["snr x best_of"])) == (0.0, 0.0)


def bump(at, floor=0.0):
    return floor + np.exp(-((np.arange(len(TOKENS)) - at) ** 2) / 2)


def test_a_peak_in_the_middle_is_an_inverted_u_and_a_plateau_is_none():
    def shaped(facts, recipe, group, budget, clean, rng):
        return bump(4 if clean else 7) + 0.01 * rng.standard_normal(len(TOKENS))

    found = parts(impact_inverted_u, study(shaped))
    assert set(found.items()) == {(impact_inverted_u.RISES, "holds"), (impact_inverted_u.FALLS, "holds"),
                                  (impact_inverted_u.LATE, "fails")}  # fmt: skip
    late = parts(impact_inverted_u, study(lambda *given: bump(7) + 0.01 * given[-1].standard_normal(len(TOKENS))))
    assert late[impact_inverted_u.FALLS] == "fails"
    early = parts(impact_inverted_u, study(lambda *given: bump(0) + 0.01 * given[-1].standard_normal(len(TOKENS))))
    assert early[impact_inverted_u.RISES] == "fails"
    blind = parts(impact_inverted_u, study(lambda *given: bump(4) + 0.01 * given[-1].standard_normal(len(TOKENS))))
    assert blind[impact_inverted_u.LATE] == "holds"


def test_the_peak_moves_as_it_was_made_to():
    def moving(facts, recipe, group, budget, clean, rng):
        where = (3 if clean else 5) - 0.1 * np.log2(budget)
        return bump(where + 0.02 * rng.standard_normal())

    found = parts(what_moves_the_peak, study(moving))
    assert found == {name: expected for name, (_, expected) in what_moves_the_peak.CLAIM.parts.items()}
    other = parts(
        what_moves_the_peak,
        study(lambda f, recipe, g, budget, clean, rng: moving(f, recipe, g, 64 / budget, not clean, rng)),
    )
    assert other[what_moves_the_peak.CORPUS] == other[what_moves_the_peak.BUDGET] == "fails"

    def by_group(facts, recipe, group, budget, clean, rng):
        return bump(4 - np.log2(group) / 2 + 0.02 * rng.standard_normal())

    assert parts(what_moves_the_peak, study(by_group))[what_moves_the_peak.GROUPS] == "holds"


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [("largest_alignment", 1.0 + 1e-6, signal_cap.KEPT), ("alignment", 0.3, signal_cap.MOVES)],
)
def test_a_broken_cap_and_a_still_alignment_fail(column, value, part):
    rows = study(by_product)
    assert parts(signal_cap, rows) == {name: expected for name, (_, expected) in signal_cap.CLAIM.parts.items()}
    rows.loc[rows["kind"] == "checkpoint", column] = value
    assert parts(signal_cap, rows)[part] == "fails"


def test_blind_controls_of_the_cap_are_seen():
    rows = study(by_product)
    rows.loc[rows["kind"] == "checkpoint", ["over_sd", "alignment"]] = [0.9, 0.97]
    found = parts(signal_cap, rows)
    assert found[signal_cap.BARE] == found[signal_cap.ATTAINED] == "holds"


def test_corpora_are_named_by_what_differs_from_the_clean_one():
    plain = {"quality": 1.0, "noise": 0.0, "coverage": 1.0, "width": 16, "names": "say,copy,add"}
    rows = pd.DataFrame(
        [plain, {**plain, "quality": 0.5}, {**plain, "noise": 0.2, "width": 32}, {**plain, "names": "copy"}]
    )
    assert corpus_names(rows).tolist() == [CLEAN, "quality 0.5", "noise 0.2, width 32", "copy"]
    assert corpus_names(rows[2:3]).tolist() == ["noise 0.2"]  # a width that all share is no difference


def test_aligned_runs_keep_every_trajectory_with_its_own_numbers():
    rows = study(lambda facts, *_: facts["J"])
    runs = aligned(rows.sample(frac=1, random_state=1), "GRPO", group=8, budget=16, known=["J"])
    np.testing.assert_allclose(runs.gain, runs.known["J"])
    assert (runs.tokens == TOKENS).all()
    assert aligned(rows, "GRPO", group=2).of(CLEAN).gain.shape == (6, len(TOKENS))
    with pytest.raises(InputError, match="not run"):
        aligned(rows, "GRPO", group=5)
    with pytest.raises(InputError, match="different numbers of checkpoints"):
        aligned(rows[(rows["tokens"] > 0) | (rows["trajectory"] > 0)], "GRPO", group=8)
    longer = rows.assign(tokens=rows["tokens"] * np.where(rows["quality"] == 1, 1, 4))
    assert aligned(longer, "GRPO").of("quality 0.5").tokens[0].tolist() == [4 * t for t in TOKENS]


def test_the_peak_is_placed_by_the_others_and_the_centre_is_a_weighted_mean():
    gain = np.array([[0.0, 9.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 3.0]])
    assert peak_of_the_others(gain).tolist() == [2, 1, 1]
    found = centre(np.array([[5.0, 1.0, 3.0, -7.0], [2.0, 0.0, -1.0, 0.0]]), np.array([[0, 2, 8, 16]] * 2))
    assert found[0] == (1 * 1 + 3 * 3) / 4
    assert np.isnan(found[1])


def test_claims_on_a_study_share_its_points_which_come_first_and_are_counted_once():
    claims = load_claims(["chaos", *CLAIMS])
    points = plan(claims, "quick", 0, "cpu")
    of_study = [p for p in points if p.claim == "impact_runs"]
    assert points[: len(of_study)] == of_study
    assert [p.setting for p in of_study] == impact_runs.settings("quick")
    assert len({p.id for p in points}) == len(points)
    alone = plan([load_claim("signal_cap")], "quick", 0, "cpu")
    assert [p.id for p in alone] == [p.id for p in of_study]
    told = forecast([load_claim(name) for name in CLAIMS], of_study, of_study, "quick", 1)
    assert told == forecast([load_claim("signal_cap")], of_study, of_study, "quick", 1).replace("1 claims", "4 claims")
    assert measure_of("impact_runs") is impact_runs.measure
    assert measure_of("chaos") is load_claim("chaos").measure


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_on_the_study_takes_all_its_points(name):
    claim = load_claim(name)
    assert claim.runs in STUDIES
    assert claim.settings is impact_runs.settings
    assert claim.cost is impact_runs.seconds_of


def test_all_products_are_told_in_the_table():
    rows = impact_product.CLAIM.rows_from(study(by_product))
    table = rows[(rows["part"] == "left-out error") & (rows["largest"] == True)]  # noqa: E712
    assert set(table["predictor"]) == set(PREDICTORS)
    assert len(PRODUCTS) == 12
    samples = table.groupby("recipe")["samples"].unique().map(list).to_dict()
    assert samples == {"GRPO": [12], "RLOO": [12], "exact, Adam": [12], "exact, SGD": [6]}


def test_settings_refuse_what_cannot_be_run():
    for wrong in ({"budgets": (0,)}, {"budgets": ()}, {"groups": (7,)}, {"seeds": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            dataclasses.replace(impact_runs.ImpactSetting(), **wrong)


@pytest.mark.parametrize("module", [impact_inverted_u, impact_product, signal_cap, what_moves_the_peak])
@pytest.mark.parametrize("quality", [1.0, 0.5])
def test_a_sweep_of_one_corpus_is_judged_on_what_it_has(module, quality):
    rows = study(by_product)
    some = module.CLAIM.rows_from(rows[rows["quality"] == quality])
    assert set(some.loc[some["relation"] != "report", "part"]) <= set(module.CLAIM.parts)
    assert not some.empty
