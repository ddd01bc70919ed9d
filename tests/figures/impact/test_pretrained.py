"""`costate.pretrain`: the same networks as `costate pretrain` writes, what the corpus teaches, and bad input."""

import pytest
import torch

import costate
from envs.corpus import Corpus
from figures.cli import main
from figures.impact.numbers import reader_return
from theory.tokens.dynamic_programming import best_words

SMALL = {"updates": 12, "checkpoints": 2, "batch": 16, "width": 4}


@pytest.fixture
def world():
    return costate.world("TokenCopy", V=2, length=1)


def test_it_gives_the_networks_of_the_command(world, tmp_path):
    path = costate.pretrain(world, seed=3, **SMALL)
    names = [f"--{name}={value}" for name, value in SMALL.items()]
    sizes = ["--world=TokenCopy", "--set", "V=2", "--set", "length=1", "--seed=3", f"--out={tmp_path}"]
    with pytest.raises(SystemExit, match="0"):
        main(["pretrain", *sizes, *names])
    files = sorted(tmp_path.glob("update-*.pt"))
    assert len(files) == len(path) == 3
    for file, (tokens, policy) in zip(files, path.items(), strict=True):
        kept = torch.load(file)
        assert kept["tokens"] == tokens
        for name, value in policy.state_dict().items():
            assert torch.equal(value, kept["state"][name])


def test_it_learns_what_the_corpus_says(world):
    """A clean corpus teaches all; one of guesses alone leaves the policy at the return of a guess."""
    for quality, limit in ((1.0, 1.0), (0.0, 0.5)):
        path = costate.pretrain(world, updates=300, checkpoints=3, quality=quality, rate=0.02)
        last = float(costate.exact(world, path[max(path)]).J)
        assert reader_return(Corpus(world, best_words(world), quality)) == pytest.approx(limit)
        assert last == pytest.approx(limit, abs=0.1)


def test_the_seed_is_used_and_the_first_has_read_nothing(world):
    one, again, other = (costate.pretrain(world, seed=seed, **SMALL) for seed in (0, 0, 1))
    assert list(one) == [0, 4 * 16 * 2, 12 * 16 * 2]
    last = max(one)
    J = [float(costate.exact(world, path[last]).J) for path in (one, again, other)]
    assert J[0] == J[1] != J[2]


def test_bad_input_is_one_line(world):
    with pytest.raises(costate.InputError, match="world must be a TokenMDP"):
        costate.pretrain(costate.world("LQScalar"))
    with pytest.raises(costate.InputError, match="updates"):
        costate.pretrain(world, updates=0)
    with pytest.raises(costate.InputError, match="quality must lie"):
        costate.pretrain(world, quality=2.0)
