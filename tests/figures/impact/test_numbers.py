"""The numbers of a policy before RL by a plain road: all completions by the network on whole contexts, and autograd."""

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from agents.sampling.completions import sample_completions
from agents.sampling.token_rewards import token_returns
from envs.corpus import Corpus
from envs.skills import skills
from envs.token_mdp import TokenMDP
from envs.token_tasks import sum_and_stop
from figures.impact.numbers import (
    HEADROOMS,
    NULLS,
    PREDICTORS,
    PRODUCTS,
    SIGNALS,
    Definitions,
    describe_policy,
    reader_return,
)
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.token_cases import several_prompts, transformer, with_readout
from theory.tokens.completions import words
from theory.tokens.dynamic_programming import best_words
from theory.tokens.prefix_tree import grow

SKILLS = skills(2, 2, "copy,add")
STOP = sum_and_stop(3, 3, gamma=0.9)  # returns 0, 0.9 and 0.81
UNEVEN = [0.3, 0.02, 0.08, 0.05, 0.25, 0.1, 0.15, 0.05]
WORLDS = {
    "skills": SKILLS,
    "skills, uneven": replace(SKILLS, weights=UNEVEN),
    "stop": STOP,
    "stop, uneven": replace(STOP, weights=[0.85, 0.15]),
}
EACH = pytest.mark.parametrize("name", WORLDS)
OTHER = Definitions(site="embedding", k=3, eps=0.1, alpha=2.5)


def policy(world, seed=1):
    return transformer(world, temperature=0.5, seed=seed)


@dataclass
class Prompt:
    """One prompt's different completions, each once: log-probabilities with autograd's graph, and returns."""

    words: Tensor  # (L, H), padded after the end token
    mask: Tensor  # (L, H)
    probes: Tensor  # (L, D): what is added for each completion at the prompt's last position
    log_pi: Tensor  # (L, H, V)
    R: Tensor  # (L,)

    @property
    def log_p(self):
        """Of whole completions, (L,)."""
        return (self.log_pi.gather(-1, self.words[..., None])[..., 0] * self.mask).sum(-1)


def enumerated(world, network, index, site="layer1"):
    """Run the network on the whole context of every completion of one prompt; nothing is shared between them."""
    cut = set()
    for word in itertools.product(range(world.V), repeat=world.horizon):
        cut.add(word[: word.index(world.end) + 1] if world.end in word else word)
    words = torch.tensor([(*word, *[world.end] * (world.horizon - len(word))) for word in sorted(cut)])
    mask = torch.arange(world.horizon) < torch.tensor([len(word) for word in sorted(cut)])[:, None]
    prompt = world.prompts[index]
    x = network.embed(torch.cat([prompt.expand(len(words), -1), words[:, :-1]], 1))
    probes = torch.zeros(len(words), x.shape[-1], dtype=x.dtype, requires_grad=True)
    at = torch.zeros(x.shape[1], 1, dtype=x.dtype)
    at[len(prompt) - 1] = 1.0
    log_pi = torch.log_softmax(network(x, {site: probes[:, None] * at}), -1)[:, len(prompt) - 1 :]
    R = token_returns(world, torch.full((len(words),), index), words)
    return Prompt(words, mask, probes, log_pi, R)


def best_of(p, R, k):
    """`E max = r_0 + sum_j (r_{j+1} - r_j) P(max > r_j)`."""
    r = np.unique(R)
    below = np.array([p[value >= R].sum() for value in r])
    return r[0] + (np.diff(r) * (1 - below[:-1] ** k)).sum()


def ball(p, R, eps):
    """The dual: `max { E_q R : KL(q || p) <= eps } = min over beta > 0 of beta (eps + log E_p exp(R / beta))`."""
    bound = lambda t: np.exp(t) * (eps + np.log(p @ np.exp((R - R.max()) / np.exp(t)))) + R.max()  # noqa: E731
    return float(minimize_scalar(bound, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10}).fun)


def of_prompt(world, network, index, definitions):
    """Signals, headrooms, nulls and what the cap is made of, for one prompt."""
    own = enumerated(world, network, index, definitions.site)
    (costates,) = torch.autograd.grad((own.log_p.exp() * own.R).sum(), own.probes, retain_graph=True)
    costate = costates.sum(0).norm()  # one probe for all completions: their slopes add up
    (s,) = torch.autograd.grad(own.log_p.sum(), own.probes)
    p, R, s = own.log_p.exp().detach().numpy(), own.R.numpy(), s.numpy()
    assert p.sum() == pytest.approx(1, rel=1e-12)
    V = p @ R
    samples = (R - V)[:, None] * s
    noise = np.sqrt(sum(p @ (samples[:, d] - p @ samples[:, d]) ** 2 for d in range(s.shape[1])))
    sd, fisher = np.sqrt(p @ (R - V) ** 2), sum(chance * np.outer(row, row) for chance, row in zip(p, s, strict=True))
    cap = sd * np.sqrt(np.linalg.eigvalsh(fisher)[-1])
    q = p**definitions.alpha / (p**definitions.alpha).sum()
    return {
        "V": V,
        "costate": float(costate),
        "snr": float(costate) / noise,
        "rest": R.max() - V,
        "best_of": best_of(p, R, definitions.k) - V,
        "ball": ball(p, R, definitions.eps) - V,
        "power": q @ R - V,
        "sqrt_spread": sd,
        "spread": p @ R**2 - V**2,
        "alignment": float(costate) / cap,
        "cap": cap,
        "sd": sd,
        "over_sd": float(costate) / sd,
    }


def gradient_of_J(world, network):
    """`|grad J|` by autograd of the sum over all completions of all prompts."""
    J = torch.zeros((), dtype=torch.float64)
    for i, weight in enumerate(world.weights):
        own = enumerated(world, network, i)
        J = J + weight * (own.log_p.exp() * own.R).sum()
    parts = torch.autograd.grad(J, list(network.parameters()))
    return float(torch.cat([g.flatten() for g in parts]).norm())


def entropy_per_step(world, network):
    """Entropies of the steps up to the end, over their number, both in the mean over all completions."""
    total, steps = 0.0, 0.0
    for i, weight in enumerate(world.weights.tolist()):
        own = enumerated(world, network, i)
        chance, H = weight * own.log_p.exp().detach(), -(own.log_pi.exp() * own.log_pi).sum(-1).detach()
        total, steps = total + float(chance @ (H * own.mask).sum(-1)), steps + float(chance @ own.mask.sum(-1).double())
    return total / steps


@functools.cache
def expected(name, definitions):
    """All that is a mean over prompts by their weights, or stands for the whole policy; and the numbers of every prompt."""
    world, network = WORLDS[name], policy(WORLDS[name])
    rows = [of_prompt(world, network, i, definitions) for i in range(len(world.prompts))]
    size, H, w = gradient_of_J(world, network), entropy_per_step(world, network), world.weights.numpy()
    for row in rows:
        row["gradient"] = size
        row |= {f"{s} x {h}": row[s] * row[h] for s in SIGNALS for h in HEADROOMS}
    names = {*PRODUCTS, *SIGNALS, *HEADROOMS, "sqrt_spread", "spread"}
    means = {name: float(w @ [row[name] for row in rows]) for name in names}
    J = float(w @ [row["V"] for row in rows])
    means |= {"J": J, "H": H, "entropy_law": np.exp(H) - 1, "gradient^2": size**2}
    return means | {"pass_at_k": float(w @ [row["V"] + row["best_of"] for row in rows])}, rows


@EACH
@pytest.mark.parametrize("definitions", [Definitions(), OTHER], ids=["default", "other"])
def test_every_predictor_is_that_of_all_completions_one_by_one(name, definitions):
    numbers, (truth, _) = describe_policy(WORLDS[name], policy(WORLDS[name]), definitions), expected(name, definitions)
    assert set(PREDICTORS) <= set(truth)
    assert {key: numbers[key] for key in truth} == pytest.approx(truth, rel=1e-7, abs=1e-12)
    assert min(abs(truth[key]) for key in truth) > 1e-6


@pytest.mark.parametrize("name", ["skills", "stop"])
def test_the_cap_and_the_returns_of_single_skills(name):
    world, (truth, rows) = WORLDS[name], expected(name, Definitions())
    numbers = describe_policy(world, policy(world))
    column = {key: [row[key] for row in rows] for key in rows[0]}
    rest = {key: np.mean(column[key]) for key in ("alignment", "cap", "sd")}
    rest |= {"largest_alignment": max(column["alignment"]), "smallest_alignment": min(column["alignment"])}
    rest |= {"over_sd": max(column["over_sd"])}
    for first in {int(prompt[0]) for prompt in world.prompts}:
        own = [V for V, prompt in zip(column["V"], world.prompts, strict=True) if prompt[0] == first]
        rest[f"skill {first}"] = np.mean(own)
    assert {key: numbers[key] for key in rest} == pytest.approx(rest, rel=1e-9)
    assert set(numbers) == set(truth) | set(rest)  # there is nothing else
    assert rest["smallest_alignment"] < 0.9 * rest["largest_alignment"] < 0.9


def test_products_are_formed_prompt_by_prompt_and_prompts_count_by_their_weights():
    even, uneven = (describe_policy(WORLDS[name], policy(SKILLS)) for name in ("skills", "skills, uneven"))
    for s, h in itertools.product(("costate", "snr"), HEADROOMS):
        assert abs(even[f"{s} x {h}"] / (even[s] * even[h]) - 1) > 1e-3
    for h in HEADROOMS:
        assert even[f"gradient x {h}"] == pytest.approx(even["gradient"] * even[h], rel=1e-12)
    for key in PREDICTORS.keys() - {"H", "entropy_law"}:
        assert abs(uneven[key] / even[key] - 1) > 1e-3, key


def test_names_differ_and_all_of_them_are_in_the_numbers():
    assert set(PREDICTORS) <= set(describe_policy(SKILLS, policy(SKILLS)))
    assert len(PREDICTORS) == len(SIGNALS) * len(HEADROOMS) + len(SIGNALS) + len(HEADROOMS) + len(NULLS) + 1
    assert len(set(PREDICTORS.values())) == len(PREDICTORS)


def test_a_policy_with_even_chances_of_two_numbers_by_hand():
    world = skills(2, 2, "say")  # the answer is 0, 1 after every prompt
    network = transformer(world)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 0.0, -60.0]))
    numbers = describe_policy(world, network)
    assert numbers["J"] == pytest.approx(0.25, rel=1e-12)
    assert numbers["H"] == pytest.approx(np.log(2), rel=1e-12)
    assert numbers["power"] == pytest.approx(0, abs=1e-12)  # all words of the policy have the same probability
    assert numbers["pass_at_k"] == pytest.approx(1 - 0.75**8, rel=1e-12)
    assert numbers["rest"] == pytest.approx(0.75, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value"), [("k", 1), ("k", 0), ("eps", 0.0), ("eps", -1.0), ("alpha", 1.0), ("alpha", 0.5)]
)
def test_what_defines_no_headroom_is_refused(name, value):
    with refused(name):
        Definitions(**{name: value})


def test_the_best_return_is_that_of_the_best_word_of_each_prompt_where_tokens_lead_by_chance_too():
    world = several_prompts()
    with torch.no_grad():
        spoken = words(grow(world, policy(world)))
    gap = (spoken.returns.max(-1).values - (spoken.p * spoken.returns).sum(-1)) @ world.weights
    assert describe_policy(world, policy(world))["rest"] == pytest.approx(float(gap), rel=1e-12)


def test_pass_at_k_and_spread_count_what_is_drawn_where_tokens_lead_by_chance(rng):
    """A noisy verifier: whatever is said, the reward of 1 is drawn with probability 0.8 or 0.3; words alone know only means."""
    P, r = torch.zeros(3, 2, 3), torch.zeros(2, 3, 2)
    P[0, 0], P[0, 1] = torch.tensor([0.0, 0.8, 0.2]), torch.tensor([0.0, 0.3, 0.7])
    P[1, :, 1] = P[2, :, 2] = r[1, 1] = 1.0
    world = TokenMDP(P, r, [[0]], [0], 2)
    network = policy(world)
    numbers = describe_policy(world, network, Definitions(k=4))
    with torch.no_grad():
        first = float(grow(world, network).levels[0].pi[0, 0])
    success = 0.8 * first + 0.3 * (1 - first)
    assert numbers["J"] == pytest.approx(success, rel=1e-7)
    assert numbers["pass_at_k"] == pytest.approx(1 - (1 - success) ** 4, rel=1e-7)
    assert numbers["spread"] == pytest.approx(success * (1 - success), rel=1e-7)
    assert numbers["rest"] == pytest.approx(0.8 - success, rel=1e-7), "no policy gets more than 0.8"
    drawn = sample_completions(world, network, torch.zeros(30_000, dtype=torch.int64), 1, rng).rewards.sum(1)
    assert_mean_within((drawn - success) ** 2, numbers["spread"])
    assert differs_by((drawn - success) ** 2, 0.25 * first * (1 - first)), "the control: the spread of the means"


def test_worlds_with_a_readout_or_too_large_are_refused():
    with refused("world"):
        describe_policy(with_readout(SKILLS), policy(SKILLS))
    with refused("horizon=2"):
        describe_policy(SKILLS, policy(SKILLS), budget=1000)


def test_a_perfect_readers_return_by_hand():
    """The right word of two tokens is chosen, or guessed among the two numbers; then kept, or replaced by itself among four.

    The mean is over the prompts that are shown, so the coverage has no effect where all prompts are alike.
    """
    whole, some = (Corpus(SKILLS, best_words(SKILLS), 0.7, 0.1, coverage) for coverage in (1.0, 0.5))
    assert reader_return(some) == pytest.approx(reader_return(whole), rel=1e-12)
    for quality, noise in ((1.0, 0.0), (0.5, 0.0), (1.0, 0.2), (0.6, 0.2)):
        right, guessed = (1 - noise) + noise / 4, (1 - noise) / 2 + noise / 4
        mean = reader_return(Corpus(SKILLS, best_words(SKILLS), quality, noise))
        assert mean == pytest.approx(quality * right**2 + (1 - quality) * guessed**2, rel=1e-12)


@pytest.mark.parametrize("name", ["skills, uneven", "stop, uneven"])
def test_the_cap_and_the_returns_of_single_skills_count_prompts_by_their_weights(name):
    """Of the prompts with one first token each counts by its share of that skill's weight, not of all the weight."""
    world, (_, rows) = WORLDS[name], expected(name, Definitions())
    numbers, w = describe_policy(world, policy(world)), world.weights.numpy()
    for key in ("alignment", "cap", "sd"):
        column = np.array([row[key] for row in rows])
        assert numbers[key] == pytest.approx(float(w @ column), rel=1e-9)
        assert abs(numbers[key] / column.mean() - 1) > 1e-3, "the control: every prompt alike"
    V, first = np.array([row["V"] for row in rows]), world.prompts[:, 0].numpy()
    for skill in np.unique(first):
        own = first == skill
        assert numbers[f"skill {skill}"] == pytest.approx((w * V)[own].sum() / w[own].sum(), rel=1e-9)
    assert name != "skills, uneven" or abs(numbers["skill 2"] / V[first == 2].mean() - 1) > 1e-3, "the control"


def test_a_perfect_readers_return_counts_the_prompts_that_are_shown_by_their_weights():
    """Half of the answers are taught wrong, so that prompts differ: every document's chance written out word by word."""
    world, answers = WORLDS["skills, uneven"], best_words(SKILLS).clone()
    answers[::2] = 1 - answers[::2]
    corpus, truth = Corpus(world, answers, 0.7, 0.1, coverage=0.5, seed=1), {"weights": 0.0, "alike": 0.0, "all": 0.0}
    total = dict.fromkeys(truth, 0.0)
    for i, (right, taught) in enumerate(zip(best_words(SKILLS).tolist(), answers.tolist(), strict=True)):
        V = 0.0
        for word in itertools.product(range(4), repeat=2):
            learned, guessed = 1.0, 1.0
            for token, wanted in zip(word, taught, strict=True):
                learned *= 0.9 * (token == wanted) + 0.1 / 4
                guessed *= 0.9 * (token < 2) / 2 + 0.1 / 4
            V += (0.7 * learned + 0.3 * guessed) * (list(word) == right)
        shown, weight = bool(corpus.shown[i]), UNEVEN[i]
        for name, share in {"weights": shown * weight, "alike": float(shown), "all": weight}.items():
            truth[name], total[name] = truth[name] + share * V, total[name] + share
    assert 0 < int(corpus.shown.sum()) < 8
    assert reader_return(corpus) == pytest.approx(truth["weights"] / total["weights"], rel=1e-12)
    for name in ("alike", "all"):
        assert abs(truth[name] / total[name] / reader_return(corpus) - 1) > 1e-2, f"the control: {name}"
