"""The training loop against the same steps by hand, against exact means, against itself stopped, and its records."""

import copy
import io
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer
from agents.recipes.learners import LEARNERS, Penalty, build_learner
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.settings import SamplerMismatch, TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.linear_quadratic import scalar
from envs.token_tasks import garnet, sum_and_stop
from figures.measures.oracles import CommandOracle, TokenOracle
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by, numerical_gradient
from tests.theory.token_cases import several_prompts
from theory.continuous.lq_gradients import expected_return
from theory.groups.expected_update import expected_update
from theory.groups.targets import kl_regularised, max_at_k, target_gradients
from theory.tokens.exact_ascent import exact_ascent
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
STOP, GARNET, LQ = sum_and_stop(3, 3, gamma=0.9), several_prompts(), scalar(horizon=3, gamma=0.9)
TASKS = {"tokens": (TokenTask(STOP), TokenOracle(STOP)), "commands": (CommandTask(LQ), CommandOracle(LQ))}
ALL = {"kl_reward": Penalty("k1", 0.3), "kl_loss": Penalty("k3", 0.5), "entropy": 0.2}
EXTRAS = {"plain": {}, "all": ALL, "both": {**ALL, "entropy": 0.0}} | {name: {name: ALL[name]} for name in ALL}
MORE = {"tokens": "all", "commands": "both"}  # the noise's entropy is tried by itself
RECIPES = {name: (name, {}) for name in LEARNERS if name not in ("svg", "vgl", "gumbel", "soft_grpo")} | {
    "exact critic": ("ppo", {"critic": "exact", "lam": 1.0}),
    "exact critic, short": ("ppo", {"critic": "exact", "lam": 0.5}),  # knows nothing of a penalty in the reward
    "truncated rows out": ("dapo", {"drop_truncated": True}),
}
EACH, KINDS = pytest.mark.parametrize("recipe", RECIPES), pytest.mark.parametrize("kind", TASKS)
PASSES = TrainingSettings(steps=2, prompts=4, group=3, epochs=2, minibatches=2, rate=0.05)


def learner(recipe, extra="plain"):
    (name, options), more = RECIPES[recipe], dict(EXTRAS[extra])
    if recipe in (
        "exact critic, short",
        "maxrl",
    ):  # the latter divides by the mean of returns, which must not be negative
        more.pop("kl_reward", None)
    return build_learner(name, **options, **more)


def policy(kind, seed=0):
    if kind == "commands":
        return LinearPolicy(0.2 * draws(1, 1, seed=seed))
    return Transformer(4, width=4, layers=1, heads=1, length=4, temperature=0.5, seed=seed)


def critic(kind, seed=0):
    return Transformer(1, 1 if kind == "commands" else 4, width=4, layers=1, heads=1, length=4, seed=50 + seed)


def trainer(kind, recipe, setting, seeds=(0,), extra="plain", policies=None, **more):
    task, oracle = TASKS[kind]
    made = [policy(kind, seed) for seed in seeds] if policies is None else policies
    critics = [critic(kind, seed) for seed in seeds]
    chosen = recipe if not isinstance(recipe, str) else learner(recipe, extra)
    given = {"task": task, "oracle": oracle, "critics": critics} | more
    return Trainer(learner=chosen, policies=made, seeds=list(seeds), setting=setting, **given)


def is_refused(kind, recipe):
    """Whether the world's costs keep the recipe from being trained there: then it must say so."""
    if (kind, recipe) != ("commands", "maxrl"):
        return False
    with refused("rewards"):
        trainer(kind, recipe, PASSES)
    return True


def values_by_hand(network, rows, task):
    seen = network(network.embedding(rows.observations[0]))
    return seen[:, seen.shape[1] - task.steps :, 0]


def by_hand(kind, recipe, setting, seed, extra):
    """The same steps with nothing of the trainer: the task's rows, the learner's loss, autograd, torch.optim."""
    (task, oracle), network, value = TASKS[kind], policy(kind, seed), critic(kind, seed)
    start, noise, mine = copy.deepcopy(network), noise_of("rollouts", seed), learner(recipe, extra)
    shuffle = torch.Generator().manual_seed(0)
    actor = torch.optim.Adam(network.parameters(), lr=setting.rate)
    teacher = torch.optim.Adam(value.parameters(), lr=setting.critic_rate)
    for _ in range(setting.steps):
        rows, more = task.draw(Copies([network]), setting.prompts, setting.group, [noise]), {}
        if mine.critic is not None:
            exact = mine.critic == "exact"
            values = oracle.values(Copies([network]), rows)[0] if exact else values_by_hand(value, rows, task)
            more["values"] = values.detach()[None]
        more["reference"] = task.log_probs(start, *(x[0] for x in rows.seen))[0].detach()[None]
        for _ in range(setting.epochs):
            order = torch.randperm(setting.prompts, generator=shuffle) if setting.minibatches > 1 else torch.arange(4)
            for groups in order.chunk(setting.minibatches):
                part = torch.tensor([int(g) * setting.group + i for g in groups for i in range(setting.group)])
                log_probs, entropy = task.log_probs(network, *(x[0][part] for x in rows.seen))
                actor.zero_grad()
                mine.loss(log_probs, entropy, rows.batch(0, part, **more)).backward()
                actor.step()
        paid = rows.rewards[0]
        if mine.kl_reward is not None:
            paid = paid - 0.3 * (rows.old[0] - more["reference"][0]) * rows.mask[0]
        for _ in range(setting.critic_epochs if mine.critic == "learned" else 0):
            values, lost, count = values_by_hand(value, rows, task), 0.0, 0
            for i, t in rows.mask[0].nonzero().tolist():
                lost, count = lost + (values[i, t] - paid[i, t:].sum()) ** 2, count + 1
            teacher.zero_grad()
            (lost / count).backward()
            teacher.step()
    return network, value


def vector(network):
    return parameters_to_vector(network.parameters()).detach()


@EACH
@pytest.mark.parametrize(("kind", "extended"), [("tokens", False), ("tokens", True), ("commands", True)])
def test_steps_of_every_recipe_are_those_written_out_by_hand(kind, recipe, extended):
    extra = MORE[kind] if extended else "plain"
    if is_refused(kind, recipe):
        return
    if recipe == "value_gradient":  # it samples nothing, and no penalty reaches it
        assert_exact_ascent(kind, extra)
        return
    run, (network, value) = trainer(kind, recipe, PASSES, (1,), extra), by_hand(kind, recipe, PASSES, 1, extra)
    list(run.run())
    close(vector(run.actor.network), vector(network), rtol=1e-8, atol=1e-8)
    assert float((vector(network) - vector(policy(kind, 1))).abs().max()) > 1e-4
    if run.critic is not None:
        close(vector(run.critic.network), vector(value), rtol=1e-8, atol=1e-8)


def assert_exact_ascent(kind, extra):
    run = trainer(kind, "value_gradient", PASSES, (1,), extra)
    before = copy.deepcopy(run.actor.network)
    list(run.run())
    if kind == "tokens":
        (truth,) = exact_ascent(STOP, before, (2,), 0.05)
    else:
        truth, J = before, lambda K: float(expected_return(LQ, torch.as_tensor(K)))
        optimiser = torch.optim.Adam(truth.parameters(), lr=0.05)
        for _ in range(2):
            truth.K.grad = -torch.as_tensor(numerical_gradient(J, truth.K.detach().numpy()))
            optimiser.step()
    close(vector(run.actor.network), vector(truth), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("extra", ["kl_reward", "kl_loss", "entropy"])
def test_each_extra_term_alone_is_that_of_the_loss_and_moves_the_policy(extra):
    several = replace(PASSES, steps=3)  # at the first step policy and reference are one: a penalty in the reward is 0
    run, plain = trainer("tokens", "grpo", several, (1,), extra), trainer("tokens", "grpo", several, (1,))
    list(run.run()), list(plain.run())
    close(vector(run.actor.network), vector(by_hand("tokens", "grpo", several, 1, extra)[0]), rtol=1e-7, atol=1e-7)
    assert float((vector(run.actor.network) - vector(plain.actor.network)).abs().max()) > 1e-3


def elsewhere(run):
    """The reference moved away from the policy: at the same place a penalty is rounding, which no two roads share."""
    with torch.no_grad():
        for p in run.reference.parameters if run.reference else []:
            p *= 0.7
    return run


@pytest.mark.parametrize("recipe", ["rloo", "grpo"])
def test_a_penalty_against_the_policy_itself_changes_nothing(recipe):
    """Before the first step policy and reference are one: k1 is 0, and a group without a signal must stay without one."""
    setting, parameters = TrainingSettings(steps=1, prompts=6, group=2, rate=1.0, optimiser="sgd"), []
    for extra in ("plain", "kl_reward"):
        run = trainer("tokens", recipe, setting, (1,), extra)
        run.step()
        parameters.append(vector(run.actor.network))
    close(parameters[1], parameters[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_an_entropy_bonus_on_noise_that_no_parameter_moves_changes_nothing(seeds):
    runs = [trainer("commands", "rloo", TrainingSettings(steps=2), seeds, extra) for extra in ("plain", "entropy")]
    for run in runs:
        list(run.run())
    close(runs[1].actor.parameters, runs[0].actor.parameters)


@KINDS
@EACH
def test_several_seeds_together_are_each_alone(kind, recipe):
    if is_refused(kind, recipe):
        return
    setting = TrainingSettings(steps=2, prompts=3, group=3, epochs=2, rate=0.02, every=1, max_norm=0.1)
    together = elsewhere(trainer(kind, recipe, setting, (4, 5), MORE[kind]))
    records = list(together.run())
    for i, seed in ((1, 5),):
        alone = elsewhere(trainer(kind, recipe, setting, (seed,), MORE[kind]))
        for mine, own in zip(records, alone.run(), strict=True):
            for name in ("loss", "sampled", "clipped", "silent", "J", "entropy", "cosine"):
                close(getattr(mine, name)[[i]], getattr(own, name), rtol=1e-7, atol=1e-8, equal_nan=True)
        close(vector(together.actor.network_of(i)), vector(alone.actor.network), rtol=1e-7, atol=1e-8)


@KINDS
@pytest.mark.parametrize("seeds", [(4,), (4, 5)])
@pytest.mark.parametrize("recipe", ["ppo", "value_gradient"])
def test_the_policies_given_are_left_alone_and_the_trained_ones_are_handed_out(kind, recipe, seeds):
    """For one policy as for several; what is handed out takes no part in the training that goes on."""
    mine = [policy(kind, seed) for seed in seeds]
    judges = [critic(kind, seed) for seed in seeds]
    before, unlearned = ([vector(network).clone() for network in networks] for networks in (mine, judges))
    setting = TrainingSettings(steps=2, prompts=2, group=2, rate=0.05)
    training = trainer(kind, recipe, setting, seeds, policies=mine, critics=judges)
    training.step()
    early = training.policies
    moved = [vector(network).clone() for network in early]
    list(training.run())
    for network, start, first, later, middle in zip(mine, before, early, training.policies, moved, strict=True):
        assert type(later) is type(network)
        assert torch.equal(vector(network), start)
        assert torch.equal(vector(first), middle)
        assert not torch.equal(middle, start)
        assert not torch.equal(vector(later), middle)
    assert all(torch.equal(vector(network), start) for network, start in zip(judges, unlearned, strict=True))


@KINDS
@EACH
def test_every_recipe_improves_the_return(kind, recipe):
    if is_refused(kind, recipe):
        return
    setting = TrainingSettings(steps=20, prompts=4, group=8, rate=0.02 if kind == "tokens" else 0.05, every=20)
    easy, more = garnet(V=3, states=3, horizon=2, seed=1), {}  # dense rewards, one prompt
    if kind == "tokens":
        made = [[Transformer(V, own, width=8, layers=1, heads=2, length=4, seed=1)] for V, own in ((3, None), (1, 3))]
        more = dict(
            zip(("policies", "critics", "task", "oracle"), (*made, TokenTask(easy), TokenOracle(easy)), strict=True)
        )
    first, *_, last = trainer(kind, recipe, setting, (1,), **more).run()
    assert bool((last.J > first.J + 0.15).all())
    assert (first.step, last.step, last.rows) == (0, 20, 0 if recipe == "value_gradient" else 20 * 32)


def tensors(x):
    if isinstance(x, dict):
        return [t for key in x for t in tensors(x[key])]
    if isinstance(x, list):
        return [t for y in x for t in tensors(y)]
    return [torch.as_tensor(x)] if isinstance(x, torch.Tensor | int | float) else []


def same_record(a, b):
    return all(
        torch.equal(torch.as_tensor(x).nan_to_num(nan=-77), torch.as_tensor(b.__dict__[name]).nan_to_num(nan=-77))
        for name, x in a.__dict__.items()
    )


@KINDS
@pytest.mark.parametrize("seeds", [(3,), (3, 4, 5)])
def test_stopped_and_resumed_is_the_same_to_the_bit(kind, seeds):
    setting = TrainingSettings(steps=4, prompts=4, group=3, epochs=2, minibatches=2, rate=0.02, every=2)
    whole, before = (trainer(kind, "ppo", setting, seeds, MORE[kind]) for _ in range(2))
    records, start = list(whole.run()), [before.step() for _ in range(2)]
    buffer = io.BytesIO()
    torch.save(before.state(), buffer)
    before.step()  # what comes after the state was taken must not reach it
    buffer.seek(0)
    others = [policy(kind, seed + 20) for seed in seeds]
    after = trainer(kind, "ppo", setting, seeds, MORE[kind], policies=others)
    after.step()
    after.restore(torch.load(buffer, weights_only=True))
    again = start + list(after.run())
    assert len(records) == len(again) == 5
    assert all(same_record(a, b) for a, b in zip(records, again, strict=True))
    one, other = tensors(whole.state()), tensors(after.state())
    assert len(one) == len(other) > 10
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_a_state_is_no_view_of_the_parameters():
    run = trainer("tokens", "rloo", TrainingSettings(steps=3), (1, 2))
    state = run.state()
    kept = [p.clone() for p in state["actor"]]
    run.step()
    assert all(torch.equal(p, q) for p, q in zip(kept, state["actor"], strict=True))


@KINDS
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_a_state_kept_in_memory_leads_to_the_same_numbers_as_often_as_it_is_restored(kind, seeds):
    """Adam's moments are changed in place: neither the run that gave the state nor one that took it may reach them."""
    run = trainer(kind, "ppo", TrainingSettings(steps=4, prompts=2, group=2, rate=0.02), seeds, MORE[kind])
    run.step()
    state, ends = run.state(), []
    kept = [x.clone() for x in tensors(state)]
    for _ in range(3):
        list(run.run())
        ends.append(run.actor.flattened(run.actor.parameters))
        run.restore(state)
    assert all(torch.equal(x, y) for x, y in zip(kept, tensors(state), strict=True))
    assert torch.equal(ends[1], ends[0])
    assert torch.equal(ends[2], ends[0])
    assert not torch.equal(run.actor.flattened(run.actor.parameters), ends[0])


@KINDS
def test_recorded_return_entropy_and_cosine_are_computed_directly(kind):
    task, _ = TASKS[kind]
    run = trainer(kind, "dr_grpo", TrainingSettings(steps=3, prompts=3, every=2), (1, 2))
    before, noise = ([policy(kind, seed) for seed in (1, 2)], [noise_of("rollouts", s) for s in (1, 2)])
    first, second, third = run.step(), run.step(), run.step()
    assert bool(second.J.isnan().all() and second.cosine.isnan().all() and third.J.isfinite().all())
    assert [x.rows for x in (first, second, third)] == [0, 24, 48]
    for i, network in enumerate(before):
        J = grow(STOP, network).J if kind == "tokens" else expected_return(LQ, network.K.detach())
        assert float(first.J[i]) == pytest.approx(J.item(), abs=1e-12)
        rows = task.draw(Copies([network]), 3, 8, [noise[i]])
        log_probs, entropy = task.log_probs(network, *(x[0] for x in rows.seen))
        loss = run.learner.loss(log_probs, entropy, rows.batch(0))
        assert float(first.loss[i]) == pytest.approx(loss.item(), rel=1e-9)
        assert float(first.sampled[i]) == pytest.approx(float(rows.rewards[0].sum(1).mean()))
        mine = torch.autograd.grad(-loss, list(network.parameters()))
        truth = TASKS[kind][1].answers(Copies([network]))[2]
        mine, truth = (torch.cat([x.flatten() for x in part]) for part in (mine, truth))
        cosine = torch.nn.functional.cosine_similarity(mine, truth, dim=0)
        assert float(first.cosine[i]) == pytest.approx(float(cosine), abs=1e-9)


@pytest.mark.parametrize("made", [("pkpo", {"k": 3}), ("rloo", {"kl_reward": Penalty("k1", 0.5)})])
def test_the_cosine_to_a_recipes_own_target_is_recorded_beside_that_to_the_return(made):
    """After a step, so that policy and reference differ; the gradients are those of the exact mean's own road."""
    mine, seeds = build_learner(made[0], **made[1]), (1, 2)
    run = trainer("tokens", mine, TrainingSettings(steps=4, prompts=12, group=4, every=2, rate=0.1), seeds)
    starts = [policy("tokens", seed) for seed in seeds]
    run.step()
    assert bool(run.step().target_cosine.isnan().all())
    before, noise = run.policies, [g.get_state() for g in run.noise]
    record = run.step()
    for i, network in enumerate(before):
        generator = torch.Generator()
        generator.set_state(noise[i])
        rows = TASKS["tokens"][0].draw(Copies([network]), 12, 4, [generator])
        log_probs, entropy = TASKS["tokens"][0].log_probs(network, rows.seen[0][0])
        reference = TASKS["tokens"][0].log_probs(starts[i], rows.seen[0][0])[0].detach()[None]
        loss = mine.loss(log_probs, entropy, rows.batch(0, reference=reference))
        own = parameters_to_vector(torch.autograd.grad(-loss, list(network.parameters())))
        target = max_at_k(3) if made[0] == "pkpo" else kl_regularised(starts[i], 0.5)
        truth = target_gradients(STOP, network, target)[1].flat
        cosine = torch.nn.functional.cosine_similarity(own, truth, dim=0)
        assert float(record.target_cosine[i]) == pytest.approx(float(cosine), abs=1e-9)
        assert abs(float(record.cosine[i]) - float(cosine)) > 1e-6, "the control: the return is another target"


def test_no_cosine_to_an_own_target_is_recorded_where_it_is_the_return_or_not_known():
    for kind, mine in (
        ("tokens", build_learner("grpo")),
        ("tokens", build_learner("pkpo", kl_reward=Penalty("k1", 0.1))),
        ("commands", build_learner("pkpo")),
        ("tokens", build_learner("value_gradient")),
    ):
        record = trainer(kind, mine, TrainingSettings(steps=1, prompts=16, group=2)).step()
        assert bool(record.target_cosine.isnan().all())
        assert bool(record.cosine.isfinite().all())
    unknown = trainer("tokens", "pkpo", TrainingSettings(steps=1), oracle=None).step()
    assert bool(unknown.target_cosine.isnan().all())


def test_clip_and_silent_shares_are_counts_by_hand():
    setting = TrainingSettings(steps=1, prompts=4, group=2, epochs=3, rate=0.3)
    once = trainer("tokens", "grpo", TrainingSettings(steps=1, prompts=4, group=2, rate=0.3), (1, 2)).step()
    assert once.clipped.tolist() == [0, 0]
    record = trainer("tokens", "grpo", setting, (1, 2)).step()
    for i, seed in enumerate((1, 2)):
        network = policy("tokens", seed)
        rows = TASKS["tokens"][0].draw(Copies([network]), 4, 2, [noise_of("rollouts", seed)])
        optimiser, silenced = torch.optim.Adam(network.parameters(), lr=0.3), torch.zeros_like(rows.mask[0])
        for _ in range(3):
            log_probs, entropy = TASKS["tokens"][0].log_probs(network, rows.seen[0][0])
            ratio, A = (log_probs - rows.old[0]).exp(), learner("grpo").advantages(rows.batch(0), rows.old[0])
            silenced |= rows.mask[0] & (((ratio > 1.2) & (A > 0)) | ((ratio < 0.8) & (A < 0)))
            optimiser.zero_grad()
            learner("grpo").loss(log_probs, entropy, rows.batch(0)).backward()
            optimiser.step()
        assert float(record.clipped[i]) == pytest.approx(int(silenced.sum()) / int(rows.mask.sum()), abs=1e-7)
        returns = rows.rewards[0].sum(1).unflatten(0, (4, 2))
        assert float(record.silent[i]) == pytest.approx(float((returns[:, 0] == returns[:, 1]).double().mean()))
    assert float(record.clipped.max()) > 0
    assert 0 < float(record.silent.mean()) < 1


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_another_precision_of_the_sampler_is_told_loudly_and_once(seeds):
    own = trainer("tokens", "rloo", TrainingSettings(steps=3), seeds)
    assert float(own.step().ratio_error.max()) < 1e-12
    run = trainer("tokens", "rloo", TrainingSettings(steps=3, sampler="bfloat16"), seeds)
    with pytest.warns(SamplerMismatch, match="sampler and trainer disagree") as told:
        records = [run.step() for _ in range(3)]
    assert len(told) == 1
    assert all(1e-4 < float(x.ratio_error.min()) < 0.5 for x in records)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(trainer("tokens", "rloo", TrainingSettings(steps=2, sampler="float64"), seeds).run())


def test_the_largest_norm_is_each_seeds_own():
    moved = {}
    for limit in (0.0, 0.05, 1e3):
        run = trainer(
            "tokens", "dr_grpo", TrainingSettings(steps=1, rate=1.0, optimiser="sgd", max_norm=limit), (1, 2, 3)
        )
        before = run.actor.flattened(run.actor.parameters).clone()
        run.step()
        moved[limit] = run.actor.flattened(run.actor.parameters) - before
    norms = moved[0.0].norm(dim=1)
    assert len(set(norms.tolist())) == 3
    assert float(norms.min()) > 0.05
    close(moved[1e3], moved[0.0])
    close(moved[0.05], moved[0.0] * (0.05 / norms)[:, None], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recipe", ["grpo", "rloo", "exact critic"])
def test_the_mean_step_is_the_exact_mean_of_the_recipe(recipe):
    network, mine, S = policy("tokens", 3), learner(recipe), 100
    tree = grow(STOP, network)
    more = {"values": tree.V} if mine.critic else {}
    truth = expected_update(STOP, network, mine, 3, **more)
    setting = TrainingSettings(steps=1, prompts=16, group=3, rate=1.0, optimiser="sgd", every=9)
    run = trainer("tokens", mine, setting, tuple(range(S)), policies=[copy.deepcopy(network) for _ in range(S)])
    run.taken = 1  # no exact answers of equal policies
    run.step()
    steps = run.actor.flattened(run.actor.parameters) - vector(network)
    exact, true = (torch.cat([g.flatten() for g in part.parameters]).detach() for part in (truth.mean, truth.truth))
    assert_mean_within(steps, exact, floor=1e-9)
    assert differs_by(steps @ exact, 0.0)
    if recipe == "grpo":  # the control: its mean is not the true gradient
        assert differs_by(steps, true)


def test_what_cannot_be_trained_is_refused():
    for bad in ((1, 1), (1, 2, 3)):
        with refused("seeds"):
            trainer("tokens", "rloo", TrainingSettings(), bad, policies=[policy("tokens"), policy("tokens", 1)])
    for recipe in ("value_gradient", "exact critic"):
        with refused("oracle"):
            trainer("tokens", recipe, TrainingSettings(), oracle=None)
    for critics in (None, [], [critic("tokens")] * 2):
        with refused("critics"):
            trainer("tokens", "ppo", TrainingSettings(), critics=critics)
    names = ("steps", "prompts", "group", "epochs", "minibatches", "critic_epochs", "every", "rate", "critic_rate")
    bad = [(name, 0) for name in names] + [("max_norm", -1.0), ("max_norm", math.nan), ("rate", math.nan)]
    for name, value in [*bad, ("minibatches", 9), ("optimiser", "adamw"), ("sampler", "float16")]:
        with refused(name):
            TrainingSettings(**{name: value})


def test_a_learned_critic_predicts_the_return_less_the_penalty():
    task, setting = TASKS["tokens"][0], TrainingSettings(steps=1, prompts=4, group=2)
    run = trainer("tokens", "ppo", setting, (1,), "kl_reward")
    elsewhere(run)
    rows = run._draw()
    reference = run._reference(rows)
    batch = rows.batch(0, reference=reference)
    paid = run.learner.penalised_rewards(batch, rows.old[0])
    beta = run.learner.kl_reward.beta
    by_loop = rows.rewards[0] - beta * (rows.old[0] - reference[0]) * rows.mask[0]
    torch.testing.assert_close(paid, by_loop)
    assert float((paid - rows.rewards[0]).abs().max()) > 1e-4
    assert task.steps == paid.shape[1]


def test_an_exact_critic_that_does_not_know_the_penalty_is_refused():
    for lam in (0.0, 0.95):
        with refused("critic"):
            trainer("tokens", build_learner("ppo", critic="exact", lam=lam, kl_reward=Penalty("k1", 0.1)), PASSES)
    trainer("tokens", build_learner("ppo", critic="exact", lam=1.0, kl_reward=Penalty("k1", 0.1)), PASSES)


@pytest.mark.parametrize(("name", "options"), [("dr_grpo", {}), ("grpo", {"std": "none"}), ("rloo", {})])
def test_a_group_of_one_is_refused_before_anything_is_drawn(name, options):
    with refused("group"):
        trainer("tokens", build_learner(name, **options), TrainingSettings(steps=1, prompts=4, group=1))


def test_a_baseline_over_the_batch_needs_two_rows_in_every_minibatch():
    with refused("group"):
        trainer(
            "tokens",
            build_learner("reinforce", baseline=True),
            TrainingSettings(steps=1, prompts=4, minibatches=4, group=1),
        )
