"""Rows drawn for training against plain loops: tokens, rewards, masks, groups, log-probabilities, in both kinds of world."""

import numpy as np
import pytest
import torch
from scipy import stats

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer, TransformerCommand
from agents.recipes.advantages import leave_one_out
from agents.recipes.learner import Learner, Penalty
from agents.recipes.learners import LEARNERS, build_learner
from agents.recipes.surrogates import token_mean
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.token_task import TokenTask
from envs.noise import FAMILIES, Noise, draw_noise
from envs.token_tasks import sum_and_stop
from tests.agents.cases import Network, draws, plain_path, return_from, small, world
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within
from tests.theory.token_cases import several_prompts, transformer, with_readout

close = torch.testing.assert_close
STOP, GARNET = sum_and_stop(3, 4, gamma=0.9), several_prompts(3)
WORLDS = pytest.mark.parametrize("token_world", [STOP, GARNET], ids=["an end token", "several prompts"])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(token_world, seeds, prompts=3, group=4):
    """The task's rows, and the networks that drew them."""
    networks = [transformer(token_world, temperature=0.5, seed=seed) for seed in seeds]
    return TokenTask(token_world).draw(Copies(networks), prompts, group, generators(*seeds)), networks


@WORLDS
def test_a_seed_draws_the_same_rows_alone_and_beside_others(token_world):
    together, _ = draw(token_world, (5, 6, 7), prompts=6)
    for i, seed in enumerate((5, 6, 7)):
        alone, _ = draw(token_world, (seed,), prompts=6)
        for name in ("prompt", "mask", "ended", "rewards", "observations"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name
        assert torch.equal(together.seen[0][i], alone.seen[0][0])
        close(together.old[i], alone.old[0], rtol=1e-12, atol=1e-13)
    assert not torch.equal(together.seen[0][0], together.seen[0][1])


def of_states(world, seed, prompts, rows):
    """The uniforms that draw the states: a generator gives the prompts first, then the tokens' uniforms, then these."""
    rng = torch.Generator().manual_seed(seed)
    torch.multinomial(world.weights, prompts, True, generator=rng)
    torch.rand(rows, world.horizon, generator=rng, dtype=torch.float64)
    return torch.rand(rows, world.horizon, generator=rng, dtype=torch.float64).numpy()


@WORLDS
def test_rewards_and_mask_are_those_of_a_loop_over_every_row(token_world):
    rows, _ = draw(token_world, (3, 4), prompts=8)
    uniforms = [of_states(token_world, seed, 8, 32) for seed in (3, 4)]
    known, H = token_world.prompts.shape[1], token_world.horizon
    for i, j in np.ndindex(2, 32):
        context, prompt = rows.seen[0][i, j].tolist(), int(rows.prompt[i, j])
        assert context[:known] == token_world.prompts[prompt].tolist()
        state, over = int(token_world.starts[prompt]), False
        for k, c in enumerate(context[known:]):
            assert bool(rows.mask[i, j, k]) == (not over)
            paid = 0.0 if over else token_world.gamma**k * float(token_world.r[k, state, c])
            assert float(rows.rewards[i, j, k]) == pytest.approx(paid, abs=1e-14)
            below = token_world.P[state, c].numpy().cumsum()
            state, over = int((below <= uniforms[i][j, k]).sum()), over or c == token_world.end
        assert bool(rows.ended[i, j]) == (over or token_world.end is None)
    assert rows.mask.shape == (2, 32, H)
    if token_world.end is not None:  # both kinds of rows are there, ended at the very last step too
        assert bool(rows.ended.any())
        assert not bool(rows.ended.all())
        assert bool((rows.mask[..., -1] & rows.ended).any())


@WORLDS
def test_rows_of_a_group_share_a_prompt_and_groups_are_numbered(token_world):
    rows, _ = draw(token_world, (3, 4), prompts=5, group=3)
    assert rows.group.tolist() == [i for i in range(5) for _ in range(3)]
    by_group = rows.prompt.unflatten(1, (5, 3))
    assert bool((by_group == by_group[..., :1]).all())
    assert len(rows.prompt.unique()) > 1


def test_prompts_come_by_their_weights():
    rows, _ = draw(GARNET, (11,), prompts=4000, group=1)
    assert_mean_within((rows.prompt[0] == 1).double(), 0.7)


def test_a_critic_reads_the_tokens_before_each_step():
    rows, _ = draw(GARNET, (3,))
    assert rows.observations.shape == (1, 12, 4, 3)
    assert torch.equal(rows.observations.argmax(-1), rows.seen[0][..., :-1])
    assert torch.equal(rows.observations.sum(-1), torch.ones(1, 12, 4, dtype=torch.float64))


@WORLDS
def test_log_probabilities_and_entropies_are_those_of_a_loop_and_the_ratio_is_one(token_world):
    rows, networks = draw(token_world, (3, 4))
    known = token_world.prompts.shape[1]
    for i, network in enumerate(networks):
        log_probs, entropy = TokenTask(token_world).log_probs(network, rows.seen[0][i])
        assert log_probs.requires_grad
        assert entropy.requires_grad
        log_probs, entropy = log_probs.detach(), entropy.detach()
        close(log_probs, rows.old[i], rtol=1e-11, atol=1e-12)
        for j, context in enumerate(rows.seen[0][i]):
            for k in range(token_world.horizon):
                pi = torch.softmax(network(network.embed(context[None, : known + k]))[0, -1], -1).detach()
                assert float(log_probs[j, k]) == pytest.approx(float(pi[context[known + k]].log()), abs=1e-11)
                assert float(entropy[j, k]) == pytest.approx(stats.entropy(pi.numpy()), abs=1e-11)
    assert not rows.old.requires_grad


def test_tokens_are_drawn_with_the_policys_probabilities():
    rows, networks = draw(STOP, (3, 4), prompts=1500, group=1)
    for i, network in enumerate(networks):
        pi = torch.softmax(network(network.embed(STOP.prompts[rows.prompt[i]]))[:, -1], -1).detach()
        said = torch.nn.functional.one_hot(rows.seen[0][i, :, 1], STOP.V).double()
        assert_mean_within(said - pi, 0.0)


def test_a_hidden_readout_is_refused():
    with refused("world"):
        TokenTask(with_readout(GARNET))


def test_a_batch_is_one_copys_rows_and_what_goes_with_them():
    rows, _ = draw(STOP, (3, 4), prompts=3, group=2)
    values = draws(2, 6, 4)
    whole, part = rows.batch(1, values=values), rows.batch(1, torch.tensor([4, 5, 0, 1]), values=values, reference=None)
    for name in ("rewards", "mask", "old", "ended"):
        assert torch.equal(getattr(whole, name), getattr(rows, name)[1])
        assert torch.equal(getattr(part, name), getattr(rows, name)[1][[4, 5, 0, 1]])
    assert torch.equal(part.values, values[1][[4, 5, 0, 1]])
    assert part.group.tolist() == [1, 1, 0, 0]
    assert whole.reference is None
    assert part.reference is None


def mixing_score(log_probs, old, advantages, mask):
    """A user's surrogate that mixes groups: centred over the whole batch."""
    return (advantages - advantages.mean()) * log_probs


def mixing_weights(mask, group):
    """A user's normaliser that mixes groups: the longest row of the batch counts."""
    return mask / mask.sum(1).max().double().expand(len(mask), 1)


def mixing_advantage(rewards, mask, group):
    """A user's advantage that mixes groups: the best row of the batch is the baseline."""
    return (rewards.sum(1, keepdim=True) - rewards.sum(1).max()) * mask


OWN = {
    "own advantage": Learner("own", mixing_advantage),
    "own surrogate": Learner("own", leave_one_out, mixing_score),
    "own normaliser": Learner("own", leave_one_out, normalise=mixing_weights),
    "token mean": Learner("own", leave_one_out, normalise=token_mean),
}
EXTRAS = {"kl_loss": Penalty("k3", 0.5), "kl_reward": Penalty("k1", 0.3), "entropy": 0.2}


@pytest.mark.parametrize(
    "name", [*(name for name in LEARNERS if name not in ("value_gradient", "svg", "vgl", "gumbel", "soft_grpo")), *OWN]
)
@pytest.mark.parametrize("part", [slice(None), torch.tensor([6, 7, 8, 0, 1, 2])], ids=["all rows", "a minibatch"])
def test_the_slopes_of_all_copies_together_are_those_of_one_after_the_other(name, part):
    """Also for parts of a user's own, which may mix the groups of a batch and must not meet another copy's rows."""
    learner = OWN[name] if name in OWN else build_learner(name, **EXTRAS)
    rows, _ = draw(STOP, (3, 4, 5), prompts=3, group=3)
    log_probs, entropy = rows.old + 0.3 * draws(*rows.old.shape, seed=1), draws(*rows.old.shape, seed=2)
    fields = {"reference": rows.old + 0.1, "values": draws(*rows.old.shape, seed=3)}
    shown = (log_probs[:, part], entropy[:, part])
    losses, weights, bonus = rows.slopes(learner, *shown, part, fields)
    for i in range(3):
        own = learner.slopes(shown[0][i], shown[1][i], rows.batch(i, part, **fields))
        close(losses[i], own[0].sum(), rtol=1e-12, atol=1e-14)
        close(weights[i], own[1], rtol=1e-12, atol=1e-14)
        assert (bonus is None) == (own[2] is None)
        if bonus is not None:
            close(bonus[i], own[2], rtol=1e-12, atol=1e-14)


def test_a_learner_that_mixes_groups_would_give_other_slopes_if_its_rows_were_joined():
    """The control of the test before this one: joined, every part of a user's own gives something else."""
    rows, _ = draw(STOP, (3, 4, 5), prompts=3, group=3)
    for learner in OWN.values():
        assert not learner.keeps_groups_apart
        joined = learner.slopes(rows.old.flatten(0, 1), None, rows.joined())[1].unflatten(0, (3, -1))
        alone = torch.stack([learner.slopes(rows.old[i], None, rows.batch(i))[1] for i in range(3)])
        assert not torch.allclose(3 * joined, alone, rtol=1e-3)


def commands():
    """One policy of each kind that reads one state, two, or all."""
    network = Transformer(2, inputs=3, width=8, heads=2, length=4, seed=1)
    return {"linear": LinearPolicy(0.4 * draws(2, 3)), "window": Network(window=2), "all": TransformerCommand(network)}


@pytest.mark.parametrize("kind", ["linear", "window", "all"])
def test_commanded_rows_are_the_paths_of_a_loop_on_the_same_noise(kind):
    policy, lq = commands()[kind], world(Q_f=np.diag([1.0, 2.0, 3.0])).to()
    task = CommandTask(lq)
    rows = task.draw(Copies([policy]), 3, 2, generators(9))
    noise = draw_noise(lq, 6, 4, *generators(9))
    noise = Noise(noise.s_0[:3].repeat_interleave(2, 0), noise.xi, noise.w)
    assert rows.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(rows.seen[0][0, 0::2, 0], rows.seen[0][0, 1::2, 0])
    assert len(rows.seen[0][0, :, 0, 0].unique()) == 3
    assert rows.seen[0].shape == (1, 6, 4, 3)
    covariance = lq.S_x.numpy()
    for i in range(6):
        states, means, actions, rewards = plain_path(lq, policy, noise, i)
        rewards = [r.detach() for r in rewards]
        close(rows.seen[0][0, i], torch.stack(states[:-1]).detach())
        close(rows.seen[1][0, i], torch.stack(actions).detach())
        assert float(rows.rewards[0, i].sum()) == pytest.approx(float(return_from(rewards, 0.8)), rel=1e-12)
        assert float(rows.rewards[0, i, 1]) == pytest.approx(0.8 * float(rewards[1]), rel=1e-12)
        for t in range(4):
            gap = (actions[t] - means[t]).detach().numpy()
            truth = stats.multivariate_normal(np.zeros(2), covariance).logpdf(gap)
            assert float(rows.old[0, i, t]) == pytest.approx(truth, rel=1e-9)
    assert bool(rows.mask.all())
    assert bool(rows.ended.all())


SCIPY = {
    "gaussian": stats.norm,
    "laplace": stats.laplace,
    "logistic": stats.logistic,
    "gumbel": stats.gumbel_r,
    "uniform": stats.uniform,
}


def test_a_density_that_jumps_is_refused():
    with refused("noise"):
        CommandTask(small("uniform"))


@pytest.mark.parametrize("noise", [name for name, family in FAMILIES.items() if family.differentiable])
def test_the_density_is_that_of_the_worlds_own_noise(noise):
    task, policy = CommandTask(small(noise)), LinearPolicy([[0.8]])
    rows = task.draw(Copies([policy]), 2, 3, generators(2))
    law = SCIPY[noise](scale=0.5 / SCIPY[noise].std())
    gap = (rows.seen[1] + 0.8 * rows.seen[0])[..., 0]
    close(rows.old, torch.as_tensor(law.logpdf(gap.numpy() + law.mean())), rtol=1e-9, atol=1e-9)


def test_commanding_copies_draw_what_each_draws_alone_and_the_ratio_is_one():
    task, policies = CommandTask(world()), [LinearPolicy(0.4 * draws(2, 3, seed=seed)) for seed in range(3)]
    copies = Copies(policies)
    together = task.draw(copies, 3, 2, generators(1, 2, 3))
    density, entropy = copies.run(task.log_probs, *together.seen)
    close(density.detach(), together.old, rtol=1e-12, atol=1e-12)
    assert not entropy.any()
    for i, policy in enumerate(policies):
        alone = task.draw(Copies([policy]), 3, 2, generators(i + 1))
        for name in ("rewards", "old", "observations", "mask", "ended", "prompt"):
            close(getattr(together, name)[i], getattr(alone, name)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["tokens", "commands"])
def test_drawn_rows_are_constants_and_no_update_reaches_what_drew_them(kind, count):
    """A graph that a row carried would lead back to the policy that drew it."""
    if kind == "tokens":
        task, policies = TokenTask(STOP), [transformer(STOP, seed=seed) for seed in range(count)]
    else:
        task, policies = CommandTask(world()), [LinearPolicy(0.4 * draws(2, 3, seed=seed)) for seed in range(count)]
    copies = Copies(policies)
    rows = task.draw(copies, 2, 2, generators(*range(count)))
    kept = [x for x in (*rows.seen, *vars(rows).values()) if isinstance(x, torch.Tensor)]
    assert len(kept) >= 8
    assert not any(x.requires_grad for x in kept)
    assert copies.run(task.log_probs, *rows.seen)[0].requires_grad, (
        "the control: what is computed from them is no constant"
    )


def test_an_endless_world_is_refused():
    with refused("horizon"):
        CommandTask(small(steps=None))


def test_the_recipes_that_may_take_the_rows_of_all_copies_in_one_call():
    """All but those that look at the whole batch; a part whose mark is forgotten would only make training slow."""
    mixing = [build_learner("reinforce", baseline=True), build_learner("grpo", length="token mean")]
    assert {name for name in LEARNERS if not build_learner(name).keeps_groups_apart} == {"reinforce_pp"}
    assert not any(learner.keeps_groups_apart for learner in mixing)
