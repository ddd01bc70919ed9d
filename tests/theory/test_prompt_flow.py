"""Flows at prompts by second roads: finite differences, enumeration of whole contexts, search for the best law."""

import itertools
import math

import pytest
import torch
from scipy.optimize import minimize

from envs.token_tasks import garnet, sum_and_stop
from tests.envs.refusals import refused
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts, transformer
from theory.differences import central_gradient
from theory.prompt_flow import prompt_flow, step_efficiency
from theory.tokens.tree_gradients import path_surrogate

close = torch.testing.assert_close
WORLDS = {
    "several": several_prompts(2),
    "stop": sum_and_stop(2, 3),
    "garnet": garnet(V=2, horizon=3, gamma=0.9, seed=1),
}


def sharp(world, seed=1):
    """A policy whose tokens differ in probability."""
    policy = transformer(world, seed=seed)
    with torch.no_grad():
        policy.head.weight *= 4
    return policy


@torch.no_grad()
def law(world, policy, i, delta, site="embedding"):
    """Probability and mean return of every word of prompt i, whole contexts, one word at a time."""
    prompt, words = world.prompts[i], list(itertools.product(range(world.V), repeat=world.horizon))
    p, R = [], []
    for word in words:
        context = torch.cat([prompt, torch.tensor(word)])[None]
        x = policy.embed(context)
        probe = torch.zeros_like(x)
        probe[0, len(prompt) - 1] = delta
        log_pi = torch.log_softmax(policy(x, {site: probe})[0], -1)
        belief, chance, total, done = world.start_belief(torch.tensor([i]))[0], 0.0, 0.0, False
        for k, token in enumerate(word):
            chance += float(log_pi[len(prompt) - 1 + k, token]) if not done else -math.log(world.V)
            total += world.gamma**k * float(belief @ world.r[k][:, token])
            belief = belief @ world.P[:, token]
            done = done or token == world.end
        p.append(chance)
        R.append(total)
    return torch.tensor(p, dtype=torch.float64).exp(), torch.tensor(R, dtype=torch.float64)


@pytest.mark.parametrize("site", ["embedding", "layer1"])
@pytest.mark.parametrize("name", WORLDS)
def test_values_divergences_and_steps_are_those_of_enumeration(name, site):
    world, policy = WORLDS[name], sharp(WORLDS[name])
    path = prompt_flow(world, policy, site, rate=0.5, steps=3)
    for i in range(len(world.prompts)):
        ref, R = law(world, policy, i, torch.zeros(8).double(), site)
        for k in range(4):
            p, _ = law(world, policy, i, path.delta[k, i], site)
            close(path.value[k, i], p @ R, rtol=1e-10, atol=1e-12)
            close(path.kl[k, i], (p * (p / ref).log()).sum(), rtol=1e-8, atol=1e-12)
        slope = central_gradient(lambda d, i=i, R=R: law(world, policy, i, d, site)[0] @ R, path.delta[1, i])
        close((path.delta[2, i] - path.delta[1, i]) / 0.5, slope, rtol=1e-6, atol=1e-9)
    assert bool((path.value.diff(dim=0) > 0).all())


@pytest.mark.parametrize("name", WORLDS)
def test_no_law_within_the_divergence_earns_more(name):
    """The headroom by a search over all tilts and by random laws inside the ball."""
    world, policy = WORLDS[name], sharp(WORLDS[name])
    path = prompt_flow(world, policy, "embedding", rate=0.7, steps=2)
    ref, R = law(world, policy, 0, torch.zeros(8).double())
    eps, room = float(path.kl[-1, 0]), float(path.headroom[-1, 0])

    def parts(z):
        q = torch.softmax(ref.log() + torch.from_numpy(z), 0)
        return float((q - ref) @ R), float((q * (q / ref).log()).sum())

    limit = {"type": "ineq", "fun": lambda z: eps - parts(z)[1]}
    found = minimize(
        lambda z: -parts(z)[0], 0.01 * R.numpy(), constraints=[limit], options={"ftol": 1e-13, "maxiter": 400}
    )
    assert -found.fun == pytest.approx(room, rel=1e-4)
    assert float(path.efficiency[-1, 0]) == pytest.approx(float(path.gain[-1, 0]) / room)
    assert bool((path.efficiency <= 1).all())


@pytest.mark.parametrize("site", ["embedding", "layer2"])
@pytest.mark.parametrize("name", WORLDS)
def test_the_first_step_has_the_efficiency_of_its_formula(name, site):
    """Fact 6: by two small steps extrapolated, and by scores that are finite differences."""
    world, policy = WORLDS[name], sharp(WORLDS[name])
    first, best = step_efficiency(world, policy, site)
    one, half = (prompt_flow(world, policy, site, x, 1).efficiency[1] for x in (2e-3, 1e-3))
    close(2 * half - one, first, rtol=1e-4, atol=1e-5)
    assert bool((first <= best + 1e-12).all())
    ref, R = law(world, policy, 0, torch.zeros(8).double(), site)
    steps = 1e-5 * torch.eye(8).double()
    psi = torch.stack(
        [(law(world, policy, 0, e, site)[0].log() - law(world, policy, 0, -e, site)[0].log()) / 2e-5 for e in steps], 1
    )
    excess = R - ref @ R
    g, fisher = (ref * excess) @ psi, psi.mT @ (ref[:, None] * psi)
    sd = (ref @ excess.square()).sqrt()
    close(first[0], g.square().sum() / (sd * (g @ fisher @ g).sqrt()), rtol=1e-6, atol=1e-8)
    close(best[0], (g @ torch.linalg.pinv(fisher, rtol=1e-8, hermitian=True) @ g).sqrt() / sd, rtol=1e-5, atol=1e-6)
    root = ref.sqrt()
    left = torch.linalg.lstsq(root[:, None] * psi, (root * excess)[:, None], rcond=1e-7, driver="gelsd").solution
    within = (root[:, None] * psi @ left)[:, 0].norm() / sd
    close(best[0], within, rtol=1e-5, atol=1e-6)


def test_the_best_shift_has_the_whole_headroom_where_scores_span_the_returns():
    """One choice of two tokens has one score: every step has efficiency 1. Many words of few directions do not."""
    choice = garnet(V=2, horizon=1, seed=3)
    path = prompt_flow(choice, sharp(choice), rate=0.3, steps=3)
    close(path.efficiency, torch.ones_like(path.efficiency), rtol=0, atol=1e-6)
    long = sum_and_stop(2, 4)
    assert float(step_efficiency(long, sharp(long), "embedding")[1]) < 0.99


def test_the_path_costate_alone_moves_nothing_and_a_negative_rate_descends():
    world, policy = WORLDS["garnet"], sharp(WORLDS["garnet"])
    still = prompt_flow(world, policy, rate=1.0, steps=2, surrogate=path_surrogate)
    assert float(still.delta.abs().max()) == 0
    assert float(still.kl.max()) == 0
    close(still.efficiency, still.first_order.expand(3, -1))
    assert bool((prompt_flow(world, policy, rate=-0.5, steps=2).value.diff(dim=0) < 0).all())


def test_the_environments_words_do_not_count_and_weights_do_not_matter():
    world = talking()
    path = prompt_flow(world, sharp(world), rate=0.5, steps=3)
    assert bool((path.kl[1:] >= 0).all())
    assert bool((path.efficiency <= 1).all())
    assert bool((path.value.diff(dim=0) >= 0).all())
    several = WORLDS["several"]
    even = type(several)(several.P, several.r, several.prompts, several.starts, several.horizon, several.gamma)
    close(prompt_flow(several, sharp(several)).delta, prompt_flow(even, sharp(even)).delta)


def test_the_frame_has_a_row_for_each_step_and_prompt():
    path = prompt_flow(WORLDS["several"], sharp(WORLDS["several"]), steps=2)
    frame = path.frame()
    assert list(frame.columns) == ["step", "prompt", "value", "gain", "kl", "headroom", "efficiency"]
    own = frame[(frame["step"] == 2) & (frame["prompt"] == 1)]
    assert own["gain"].item() == pytest.approx(float(path.value[2, 1] - path.value[0, 1]))
    assert repr(path).startswith("PromptFlow(")


def test_a_return_without_spread_has_no_efficiency():
    world = WORLDS["garnet"]
    flat = type(world)(world.P, 0 * world.r, world.prompts, world.starts, world.horizon, world.gamma)
    assert bool(step_efficiency(flat, sharp(flat), "embedding")[0].isnan().all())


def test_what_is_refused():
    world = WORLDS["stop"]
    for name, options in {"site": {"site": "layer9"}, "rate": {"rate": float("nan")}, "steps": {"steps": 0}}.items():
        with refused(name):
            prompt_flow(world, transformer(world), **options)
