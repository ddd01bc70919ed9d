"""Short reprs, and tables of what is known at every prefix, against the tensors that they are made of."""

import math

import pytest
import torch

from agents.recipes.learners import grpo
from envs.linear_quadratic import scalar
from envs.token_tasks import arithmetic, sum_and_stop
from envs.world import InputError
from tests.theory.token_cases import transformer
from theory.groups.expected_update import expected_update
from theory.tokens.costates import SURROGATES, costate_name, expected_costates
from theory.tokens.error_split import error_split
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

WORLD = arithmetic(3, 3)  # nine prompts, horizon 3
POLICY = transformer(WORLD, seed=2)


def test_reprs_are_one_line_of_shapes_and_single_numbers():
    exact = tree_gradients(WORLD, POLICY, sites="layer1")
    assert repr(exact) == f"TreeGradients(J={float(exact.J):.4g}, {9 * 13} prefixes, sites: layer1)"
    single = transformer(WORLD, seed=2).to(torch.float32)
    assert repr(tree_gradients(WORLD, single)).endswith("prefixes, float32)")
    split = repr(error_split(WORLD, POLICY, 0.5, "layer1"))
    assert split.startswith("ErrorSplit(value_gradient (9, ")
    assert "tiers (4, 9)" in split
    assert repr(scalar(horizon=3)).startswith("LinearQuadratic(A (1, 1), B (1, 1), ")
    assert "optimal_return=1" in repr(WORLD)
    for record in (
        WORLD,
        grow(WORLD, POLICY),
        expected_update(sum_and_stop(2, 2), transformer(sum_and_stop(2, 2)), grpo(), 2),
    ):
        assert "\n" not in repr(record)
        assert "tensor(" not in repr(record)
        assert len(repr(record)) < 1000


def test_a_site_may_be_one_name():
    one, several = (tree_gradients(WORLD, POLICY, sites=sites) for sites in ("layer1", ("layer1",)))
    for x, y in zip(one.costates["layer1"], several.costates["layer1"], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_the_frame_of_tree_gradients_names_every_prefix():
    exact = tree_gradients(WORLD, POLICY, sites=("embedding", "layer1"))
    frame = exact.frame(components=True)
    assert len(frame) == 9 * 13
    assert frame["tokens"].map(len).tolist() == frame["level"].tolist()
    assert not frame.duplicated(["prompt", "tokens"]).any()
    value = {(row.prompt, row.tokens): row.V for row in frame.itertuples()}
    tree = grow(WORLD, POLICY)
    for row in frame[frame["level"] < 2].itertuples():  # V(prefix) = sum_a pi(a) (r + V(prefix a)), by the names alone
        level, node = tree.levels[row.level], row.prompt
        for token in row.tokens:
            node = 3 * node + token
        later = torch.tensor([value[row.prompt, (*row.tokens, a)] for a in range(3)], dtype=torch.float64)
        assert float((level.pi[node] * (level.rewards[node] + later)).detach().sum()) == pytest.approx(row.V, abs=1e-12)
    site = frame[[name for name in frame if name.startswith("layer1.")]].to_numpy()
    torch.testing.assert_close(torch.tensor(site).norm(dim=1), torch.tensor(frame["layer1"].to_numpy()))
    torch.testing.assert_close(torch.tensor(site[-1]), exact.costates["layer1"][-1][-1, -1])


def test_the_frames_of_a_split_and_of_an_update():
    split = error_split(WORLD, POLICY, 0.5, "layer1")
    frame = split.frame()
    assert frame["error"].tolist() == split.error.tolist()
    assert frame["tier2"].tolist() == split.tiers[2].tolist()
    assert (frame["residual"] < 1e-12).all()
    world = sum_and_stop(2, 3)
    update = expected_update(world, transformer(world, seed=1), grpo(length="row sum"), 4, "layer1")
    rows = update.frame().dropna()
    assert len(rows) > 3
    assert (rows["layer1.cosine"] > 1 - 1e-9).all()  # binary rewards, one number for each row: parallel at every prefix
    bent = expected_update(world, transformer(world, seed=1), grpo(), 4, "layer1").frame().dropna()
    assert (bent["layer1.cosine"] < 0.999).any()
    assert "weight.2" in rows
    assert repr(update.alignment).startswith("Alignment(cosine=1, scale=")
    assert not math.isclose(update.alignment.scale, 1.0)


@pytest.mark.parametrize("world", [sum_and_stop(2, 3), arithmetic(2, 2)], ids=["one prompt", "four prompts"])
def test_the_frame_of_an_update_stands_the_means_costate_to_the_truths(world):
    """By the names of the prefixes alone, and with the mean as what is measured: the scale of the inverse is another."""
    update = expected_update(world, transformer(world, seed=1), grpo(), 4, "layer1")
    frame, seen = update.frame(), 0
    for row in frame.to_dict("records"):
        node = row["prompt"]
        for token in row["tokens"]:
            node = world.V * node + token
        level = row["level"]
        assert [row[f"weight.{a}"] for a in range(world.V)] == update.weights[level][node].tolist()
        x, y = (gradients.costates["layer1"][level][node, -1] for gradients in (update.mean, update.truth))
        if float(y.norm()) == 0:
            assert math.isnan(row["layer1.scale"])
            continue
        seen += 1
        slope = torch.linalg.lstsq(y[:, None], x[:, None]).solution[0, 0]  # of the mean on the truth
        assert row["layer1.scale"] == pytest.approx(float(slope), rel=1e-9)
        assert row["layer1.bias"] == pytest.approx(float((x - slope * y).norm() / y.norm()), rel=1e-6, abs=1e-12)
        assert row["layer1.cosine"] == pytest.approx(float(torch.cosine_similarity(x, y, 0)), rel=1e-9)
    assert seen > 3
    assert not torch.equal(update.weights[0], update.weights[0].flip(1))
    x, y = (torch.cat([p.flatten() for p in g.parameters]) for g in (update.mean, update.truth))
    slope = float(torch.linalg.lstsq(y[:, None], x[:, None]).solution)
    assert update.alignment.scale == pytest.approx(slope, rel=1e-9)
    assert slope != pytest.approx(float(x @ y / (x @ x)), rel=1e-3)


def test_costates_have_short_names():
    for short, long in {"E1": "attention", "E2": "score", "E4": "soft"}.items():
        one, other = (expected_costates(WORLD, POLICY, name, "layer1", 0.5) for name in (short, long))
        torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert {costate_name(f"E{i}") for i in range(1, 6)} < set(SURROGATES)
    with pytest.raises(InputError, match="costate 'E6' is unknown; did you mean"):
        costate_name("E6")
