"""The relaxed costates E3, E4, E5: what each is exact for, and that it is biased beyond."""

import pytest
import torch
from torch import nn

from envs.token_tasks import garnet
from tests.oracles import differs_by
from tests.theory.token_cases import Recomputing, Recurrent, several_prompts, transformer, value_differences
from theory.tokens.costates import expected_costates, sampled_costates

close = torch.testing.assert_close
SITES = ("embedding", "layer1", "layer2")


@pytest.mark.parametrize("site", SITES)
def test_soft_is_the_value_gradient_of_the_deterministic_rollout(site):
    world = several_prompts()
    policy = transformer(world, seed=3)
    costates = expected_costates(world, policy, "soft", site)
    for k, level in enumerate(costates):
        truth = value_differences(world, policy, 0.0, site, k)[
            :: world.V**k
        ]  # all nodes of a prompt are one at alpha 0
        close(level, truth, rtol=1e-6, atol=1e-9)
    assert float((costates[0] - value_differences(world, policy, 1.0, site)).norm()) > 1e-3 * float(costates[0].norm())


class PromptOnly(Recomputing):
    """Logits from the prompt and the position alone: the return is multi-affine in the tokens."""

    def extend(self, x, cache=None, probes=None):
        prompt, step = (x + (probes or {}).get("embedding", 0.0), 0) if cache is None else cache
        prompt = prompt.repeat_interleave(len(x) // len(prompt), 0)
        return self.network(prompt)[:, -1] * (1 + 0.5 * step), (prompt, step + 1)


class Linear(nn.Module):
    """Prompt reads as in any network; afterwards the next *probabilities* are linear in the last token (at power 1)."""

    sites = ("embedding",)

    def __init__(self, V, power=1):
        super().__init__()
        self.power = power
        rng = torch.Generator().manual_seed(5)
        draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
        self.first, self.next = nn.Parameter(draw(V, V)), torch.softmax(2 * draw(V, V), -1)

    def embed(self, u):
        return u if u.is_floating_point() else torch.eye(len(self.first), dtype=torch.float64)[u]

    def extend(self, x, cache=None, probes=None):
        x = x + (probes or {}).get("embedding", 0.0)
        last = x[:, -1]
        return torch.tanh(x.sum(1) @ self.first) if cache is None else self.power * (last @ self.next).log(), True


def bias(world, policy, costate, site="embedding"):
    truth = expected_costates(world, policy, "total", site, 1.0)[0]
    return float((expected_costates(world, policy, costate, site, 1.0)[0] - truth).norm() / truth.norm())


ONE_STEP, THREE_STEPS = garnet(V=3, horizon=1, seed=2), garnet(V=3, horizon=3, gamma=0.9, seed=1)
QUADRATIC = garnet(V=3, horizon=2, seed=2)


@pytest.mark.parametrize("costate", ["straight_through", "reinmax"])
def test_straight_through_rules_are_exact_for_multi_affine_returns(costate):
    assert bias(ONE_STEP, transformer(ONE_STEP, seed=3), costate, "layer1") < 1e-12
    assert bias(THREE_STEPS, PromptOnly(Recurrent(3)), costate) < 1e-12


@pytest.mark.parametrize("costate", ["straight_through", "reinmax"])
def test_straight_through_rules_are_biased_in_general(costate):
    assert bias(THREE_STEPS, transformer(THREE_STEPS, seed=3), costate, "layer1") > 1e-3
    assert bias(THREE_STEPS, Recomputing(Recurrent(3)), costate) > 1e-2


def test_reinmax_and_not_straight_through_is_exact_for_a_return_quadratic_in_one_token():
    assert bias(QUADRATIC, Linear(3), "reinmax") < 1e-12
    assert bias(QUADRATIC, Linear(3), "straight_through") > 1e-3
    assert bias(QUADRATIC, Linear(3, power=3), "reinmax") > 1e-3, "the control: what is not quadratic is beyond it"


def relaxed_return(world, policy, deltas, noise, tau_g):
    """The Gumbel-softmax rollout of each sample under the same noise, (M, prompts, samples); whole contexts, no cache."""
    M, N = len(deltas), noise.shape[1]
    x = policy.embed(world.prompts).repeat_interleave(N // len(world.prompts), 0).repeat(M, 1, 1)
    belief = torch.eye(world.S, dtype=x.dtype)[world.starts].repeat_interleave(N // len(world.prompts), 0).repeat(M, 1)
    probe, total = deltas.repeat_interleave(N, 0), 0.0
    for k in range(world.horizon):
        logits = policy(x, {"layer1": nn.functional.pad(probe, (0, 0, 0, k))})[:, -1]
        u = torch.softmax((logits - (-noise[k].log()).log().repeat(M, 1)) / tau_g, -1)
        total = total + world.gamma**k * torch.einsum("nz,za,na->n", belief, world.r[k], u)
        belief = torch.einsum("nz,zay,na->ny", belief, world.P, u)
        x = torch.cat([x, policy.embed(u)[:, None]], 1)
    return total.reshape(M, len(world.prompts), -1)


@pytest.mark.parametrize("tau_g", [0.5, 2.0])
@torch.no_grad()
def test_gumbel_is_the_slope_of_its_own_relaxed_return_under_the_same_noise(tau_g):
    world = several_prompts()
    policy, seeded = transformer(world, temperature=0.7, seed=3), lambda: torch.Generator().manual_seed(9)
    with torch.enable_grad():
        costates = sampled_costates(world, policy, "gumbel", "layer1", 5, seeded(), tau_g=tau_g)
    rng = seeded()
    noise = torch.stack([torch.rand(10, 1, 3, generator=rng, dtype=torch.float64)[:, 0] for _ in range(2)])
    axes = 1e-5 * torch.eye(16, dtype=torch.float64).unflatten(1, (2, 8))
    up, down = (relaxed_return(world, policy, shift, noise, tau_g) for shift in (axes, -axes))
    slopes = ((up - down) / 2e-5).movedim(0, -1).unflatten(-1, (2, 8))
    close(costates, slopes, rtol=1e-6, atol=1e-9)
    up, down = (relaxed_return(world, policy, shift, noise.flip(0), tau_g) for shift in (axes, -axes))
    assert float((costates - ((up - down) / 2e-5).movedim(0, -1).unflatten(-1, (2, 8))).norm()) > 1e-2 * float(
        costates.norm()
    )


def test_gumbel_tends_to_straight_tokens_only_as_tau_falls(rng):
    """Warm Gumbel tokens are far from one-hot; its mean is not the value gradient."""
    world = THREE_STEPS
    policy = Recomputing(Recurrent(3))
    samples = sampled_costates(world, policy, "gumbel", "embedding", 2000, rng, tau_g=2.0)[0]
    assert differs_by(samples, value_differences(world, policy, 1.0, "embedding")[0])
