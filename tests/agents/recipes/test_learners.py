"""The named recipes through a real tiny policy: loss, weights, KL places, entropy bonus, dropped rows, refusals."""

import functools
import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.policies.transformer import Transformer
from agents.recipes import surrogates
from agents.recipes.batch import Batch
from agents.recipes.learners import LEARNERS, Learner, Penalty, build_learner, dapo, grpo, gspo, ppo, reinforce, rloo
from tests.agents.cases import draws
from tests.envs.refusals import refused

close = torch.testing.assert_close
LENGTHS, GROUP = [3, 1, 2, 3, 2, 1, 3], torch.tensor([0, 1, 0, 1, 1, 0, 1])
MASK = torch.tensor([[t < n for t in range(3)] for n in LENGTHS])
TOKENS = torch.tensor([[0, 1, 2], [2, 0, 0], [1, 2, 0], [0, 0, 1], [1, 2, 1], [2, 2, 2], [1, 0, 2]])
ENDED = torch.tensor([False, True, True, False, True, True, True])
VARIANTS = {
    **{name: (name, {}) for name in LEARNERS if name not in ("svg", "vgl", "gumbel")},
    "reinforce to go with a baseline": ("reinforce", {"baseline": True, "to_go": True}),
    "grpo, sample std, token mean": ("grpo", {"std": "sample", "length": "token mean", "eps": 0.1}),
    "grpo without std": ("grpo", {"std": "none"}),
    "dapo without truncated rows": ("dapo", {"drop_truncated": True}),
    "k3 in the loss, k1 in the reward": ("grpo", {"kl_loss": Penalty("k3", 0.7), "kl_reward": Penalty("k1", 0.4)}),
    "rho k3 in the loss and the off-policy mask": (
        "grpo",
        {"kl_loss": Penalty("k3", 0.7, importance=True), "off_policy_delta": 0.01},
    ),
    "k2 in the loss and a bonus": ("rloo", {"kl_loss": Penalty("k2", 0.7), "entropy": 0.3}),
}
EACH = pytest.mark.parametrize("name", VARIANTS)


def build(name):
    kind, options = VARIANTS[name]
    return build_learner(kind, **options)


def policy():
    return Transformer(3, width=4, layers=1, heads=1, length=4, temperature=0.5, seed=3)


def said(network):
    """log pi of the tokens and the entropies of all steps (7, 3), whole contexts behind prompt 0."""
    context = torch.cat([torch.zeros(7, 1, dtype=torch.int64), TOKENS[:, :-1]], 1)
    log_pi = torch.log_softmax(network(network.embed(context)), -1)
    return log_pi.gather(-1, TOKENS[..., None])[..., 0], -(log_pi.exp() * log_pi).sum(-1)


def batch(seed=0, off=0.0, **changes):
    """Dense rewards and everything a learner may ask for; `off` moves the old policy from the current one."""
    log_probs = said(policy())[0].detach()
    given = {
        "rewards": draws(7, 3, seed=seed) * MASK,
        "mask": MASK,
        "group": GROUP,
        "old": log_probs + off * draws(7, 3, seed=seed + 1),
        "reference": log_probs + 0.5 * draws(7, 3, seed=seed + 2),
        "values": draws(7, 3, seed=seed + 3),
        "ended": ENDED,
    }
    return Batch(**given | changes)


@functools.cache
def scores():
    """Gradients of every log pi and every entropy in the parameters, (7, 3, parameters) each, one at a time."""
    network, gradients = policy(), []
    for table in said(network):
        rows = [
            torch.autograd.grad(x, network.parameters(), retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in table.flatten()
        ]
        gradients.append(torch.stack([parameters_to_vector(row) for row in rows]).unflatten(0, (7, 3)))
    return gradients


@EACH
@pytest.mark.parametrize("off", [0.0, 0.3])
def test_a_losss_gradient_through_a_policy_is_the_sum_of_the_weights_times_the_scores(name, off):
    learner, network, given = build(name), policy(), batch(off=off)
    log_probs, entropy = said(network)
    parameters = list(network.parameters())
    loss = learner.loss(log_probs, entropy, given)
    gradient = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    more = {field: getattr(given, field) for field in ("old", "reference", "values", "ended")}
    weights, bonus = learner(given.rewards, MASK, GROUP, log_probs=log_probs.detach(), **more)
    total = torch.zeros_like(parameters_to_vector(gradient))
    for score, slopes in zip(scores(), (weights, bonus), strict=True):
        for i, n in enumerate(LENGTHS):
            if slopes is not None:
                total -= slopes[i, :n] @ score[i, :n]
    close(parameters_to_vector(gradient), total, rtol=1e-9, atol=1e-12)
    assert float(total.norm()) > 1e-3
    assert (bonus is None) == (learner.entropy == 0)


@EACH
def test_a_losss_slopes_are_central_differences_of_the_loss(name):
    learner, given, h = build(name), batch(off=0.3), 1e-6
    log_probs, entropy = (x.detach() for x in said(policy()))
    losses, weights, bonus = learner.slopes(log_probs, entropy, given)
    at = lambda lp, H: float(learner.loss(lp, H, given))  # noqa: E731
    assert float(losses.sum()) == at(log_probs, entropy)
    for seed in range(5):
        way = draws(7, 3, seed=seed)
        by_hand = (at(log_probs + h * way, entropy) - at(log_probs - h * way, entropy)) / (2 * h)
        if name != "cispo":  # its weight moves with log_probs and must show no gradient
            assert float((weights * way).sum()) == pytest.approx(-by_hand, rel=1e-6, abs=1e-8)
        by_hand = (at(log_probs, entropy + h * way) - at(log_probs, entropy - h * way)) / (2 * h)
        assert (0.0 if bonus is None else float((bonus * way).sum())) == pytest.approx(-by_hand, rel=1e-6, abs=1e-8)


def kl_terms(x):
    """By the definitions, of x = log pi - log pi_ref."""
    return {"k1": x, "k2": x * x / 2, "k3": math.exp(-x) - 1 + x}


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_loss_with_kl_in_both_places_and_a_bonus_is_that_of_a_plain_loop(estimator):
    """REINFORCE to go: `-mean over groups of the mean over rows of sum_t (A log pi - beta k + eta H)`."""
    learner = build_learner(
        "reinforce", kl_reward=Penalty(estimator, 0.4), kl_loss=Penalty(estimator, 0.7), entropy=0.3, to_go=True
    )
    given = batch(off=0.3)
    log_probs, entropy = (x.detach() for x in said(policy()))
    total = 0.0
    for i, n in enumerate(LENGTHS):
        paid = [
            float(given.rewards[i, t]) - 0.4 * kl_terms(float(given.old[i, t] - given.reference[i, t]))[estimator]
            for t in range(n)
        ]
        for t in range(n):
            now = kl_terms(float(log_probs[i, t] - given.reference[i, t]))[estimator]
            term = sum(paid[t:]) * float(log_probs[i, t]) - 0.7 * now + 0.3 * float(entropy[i, t])
            total -= term / (2 * sum(int(g) == int(GROUP[i]) for g in GROUP))
    assert float(learner.loss(log_probs, entropy, given)) == pytest.approx(total, rel=1e-12)


def test_ppos_advantages_are_the_recursion_on_the_batchs_values():
    given, lam = batch(), 0.6
    advantages = ppo(lam).advantages(given, given.old)
    for i, n in enumerate(LENGTHS):
        V, A = [*given.values[i, :n].tolist(), 0.0], 0.0
        for t in reversed(range(n)):
            A = float(given.rewards[i, t]) + V[t + 1] - V[t] + lam * A
            assert float(advantages[i, t]) == pytest.approx(A, rel=1e-12)


@EACH
def test_rows_in_another_order_make_the_same_loss(name):
    learner, given = build(name), batch(off=0.3)
    log_probs, entropy = said(policy())
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    moved = {field: None if x is None else x[order] for field, x in given.__dict__.items()}
    swapped = {**moved, "group": 1 - moved["group"]}
    loss = learner.loss(log_probs, entropy, given)
    for other in (moved, swapped):
        close(learner.loss(log_probs[order], entropy[order], Batch(**other)), loss, rtol=1e-12, atol=1e-12)


@EACH
def test_what_stands_after_the_end_of_a_row_is_not_in_the_loss(name):
    learner, given = build(name), batch(off=0.3)
    log_probs, entropy = (x.detach() for x in said(policy()))
    junk = lambda x: torch.where(MASK, x, -3.0)  # noqa: E731
    changed = batch(off=0.3, **{field: junk(getattr(given, field)) for field in ("old", "reference", "values")})
    losses, weights, bonus = learner.slopes(log_probs, entropy, given)
    other = learner.slopes(junk(log_probs), junk(entropy), changed)
    close(other[0], losses)
    close(other[1], weights)
    assert bool((weights[~MASK] == 0).all())
    assert bonus is None or bool((bonus[~MASK] == 0).all())


@pytest.mark.parametrize("surrogate", [surrogates.score, surrogates.importance, surrogates.clipped()])
def test_an_advantage_that_carries_a_graph_is_a_constant(surrogate):
    """An advantage of the policy's own log-probabilities, or of a critic's parameter, moves neither by the loss."""
    log_probs, critic = said(policy())[0].detach().requires_grad_(), torch.tensor(1.5, requires_grad=True)

    def advantage(rewards, mask, group):
        return (critic * rewards + log_probs**2) * mask

    constant = ((1.5 * batch().rewards + log_probs**2) * MASK).detach()
    own, plain = Learner("own", advantage, surrogate), Learner("plain", lambda *_: constant, surrogate)
    assert not own.advantages(batch(), batch().old).requires_grad
    slopes = [torch.autograd.grad(learner.loss(log_probs, None, batch()), log_probs)[0] for learner in (own, plain)]
    close(slopes[0], slopes[1], rtol=0, atol=0)
    close(own.slopes(log_probs, None, batch())[1], -slopes[1])
    assert not own.loss(log_probs.detach(), None, batch()).requires_grad


def test_without_old_log_probabilities_the_ratio_is_one():
    log_probs = said(policy())[0].detach()
    for learner in (grpo(), gspo(), ppo()):
        fresh = learner.slopes(log_probs, None, batch(old=None))
        close(fresh[1], learner.slopes(log_probs, None, batch())[1])
        weights, _ = learner(batch().rewards, MASK, GROUP, values=batch().values)
        close(weights, fresh[1])
        assert not torch.allclose(learner.slopes(log_probs, None, batch(off=0.5))[1], fresh[1])


def test_rows_that_were_cut_leave_the_loss_and_change_no_other_rows_weight_where_their_tokens_are_counted():
    given = batch()
    dropping = build_learner("dapo", drop_truncated=True, count_dropped=True)
    kept, whole = (learner(given.rewards, MASK, GROUP, ended=ENDED)[0] for learner in (dropping, dapo()))
    assert bool((kept[~ENDED] == 0).all())
    assert bool((whole[~ENDED][MASK[~ENDED]] != 0).all())
    close(kept[ENDED], whole[ENDED], rtol=0, atol=0)


def test_dropped_tokens_leave_the_denominator_and_dropped_rewards_the_comparison_if_asked():
    """By hand: GRPO's advantages of one group of three rows of two, one and three tokens; the last was cut."""
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    mask = torch.arange(3) < torch.tensor([[2], [1], [3]])
    ended, group = torch.tensor([True, True, False]), torch.zeros(3, dtype=torch.int64)

    def weights(name="dr_grpo", **options):
        return build_learner(name, drop_truncated=True, **options)(rewards, mask, group, ended=ended)[0]

    A = torch.tensor([1 - 5 / 3, 0 - 5 / 3, 0.0], dtype=torch.float64)[:, None] * mask
    close(weights(), A / 3)  # rows are counted, tokens are not
    token_mean = {"name": "grpo", "std": "none", "length": "group token mean"}
    close(weights(**token_mean), A / 3)  # three tokens are kept
    close(weights(**token_mean, count_dropped=True), A / 6)
    alone = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64)[:, None] * mask
    close(weights(compare_dropped=False), alone / 3)
    close(weights("rloo", compare_dropped=False), 2 * alone / 3)
    for lonely in (torch.tensor([True, False, False]), torch.zeros(3, dtype=torch.bool)):
        learner = build_learner("grpo", drop_truncated=True, compare_dropped=False, length="group token mean")
        assert bool((learner(rewards, mask, group, ended=lonely)[0] == 0).all())


def test_a_group_of_which_one_row_is_kept_weighs_nothing_where_rows_are_compared():
    rewards, mask = torch.tensor([[1.0], [0.0], [3.0], [1.0]], dtype=torch.float64), torch.ones(4, 1, dtype=torch.bool)
    group, ended = torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, True])
    learner = build_learner("rloo", drop_truncated=True, compare_dropped=False)
    weights = learner(rewards, mask, group, ended=ended)[0][:, 0]
    assert weights.tolist() == pytest.approx([0.0, 0.0, 2 / 4, -2 / 4])


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_pp_whitens_over_all_tokens_of_the_batch_by_hand(baseline):
    """Two groups of two rows of two, one, two and two tokens: rewards to go, or returns less the group's mean."""
    rewards = torch.tensor([[1.0, 2.0], [4.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    mask, group = torch.tensor([[True, True], [True, False], [True, True], [True, True]]), torch.tensor([0, 0, 1, 1])
    to_go = [[3.0, 2.0], [4.0], [1.0, 1.0], [0.0, 0.0]]
    centred = [[-0.5, -0.5], [0.5], [0.5, 0.5], [-0.5, -0.5]]
    tokens = [x for row in (centred if baseline else to_go) for x in row]
    mean = sum(tokens) / 7
    std = (sum((x - mean) ** 2 for x in tokens) / 7) ** 0.5
    weights = build_learner("reinforce_pp", baseline=baseline)(rewards, mask, group)[0]
    assert weights[mask].tolist() == pytest.approx([(x - mean) / std / 7 for x in tokens])
    assert not bool(weights[~mask].any())


def test_rows_are_cut_in_no_world_without_an_end_token():
    given, whole = batch(), dapo()(batch().rewards, MASK, GROUP)[0]
    unsaid = dapo(drop_truncated=True)(given.rewards, MASK, GROUP)[0]  # no end token in this world: none was cut
    close(unsaid, whole, rtol=0, atol=0)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_reference_that_differs_by_the_rounding_of_a_pass_makes_no_penalty(estimator):
    """A std would make weights of order one of such differences, where all rewards of a group are equal."""
    old = -1 - draws(7, 3, seed=1).abs()
    near = old * (1 + 4e-16 * torch.sign(draws(7, 3, seed=2)))
    learner = build_learner("grpo", kl_reward=Penalty(estimator, 0.7))
    assert not torch.equal(near, old)
    for reference, silent in ((near, True), (old * (1 + 1e-6), False)):
        given = batch(rewards=torch.zeros(7, 3, dtype=torch.float64), old=old, reference=reference)
        assert bool((learner.slopes(old, None, given)[1] == 0).all()) == silent


def test_a_bonus_raises_the_entropy_and_a_penalty_pulls_to_the_reference():
    """Where nothing is paid a step down the loss does just what the term asks for."""
    network, given = policy(), batch(rewards=torch.zeros(7, 3, dtype=torch.float64))
    inside = lambda x: float(x[MASK].detach().sum())  # noqa: E731
    for options, measure, sign in [
        ({"entropy": 1.0}, lambda lp, h: inside(h), 1),
        ({"kl_loss": Penalty("k2", 1.0)}, lambda lp, h: inside((lp - given.reference) ** 2), -1),
    ]:
        learner, network = build_learner("rloo", **options), policy()
        before = said(network)
        learner.loss(*before, given).backward()
        with torch.no_grad():
            for p in network.parameters():
                p -= 1e-3 * (0 if p.grad is None else p.grad)
        assert sign * (measure(*said(network)) - measure(*before)) > 0


@pytest.mark.parametrize("place", ["kl_reward", "kl_loss"])
def test_a_penalty_without_a_reference_is_refused(place):
    learner = build_learner("grpo", **{place: Penalty("k3", 0.1)})
    assert learner.needs_reference
    with refused("reference"):
        learner.loss(torch.zeros(7, 3, dtype=torch.float64), None, batch(reference=None))
    assert not build_learner("grpo").needs_reference


def test_a_critic_or_a_bonus_without_what_it_needs_is_refused():
    log_probs = torch.zeros(7, 3, dtype=torch.float64)
    with refused("values"):
        ppo().loss(log_probs, None, batch(values=None))
    with refused("entropy"):
        build_learner("rloo", entropy=0.1).loss(log_probs, None, batch())
    with refused("group 0"):
        rloo().loss(log_probs, None, batch(group=torch.arange(7)))


def test_an_unknown_learner_is_answered_with_the_near_names_and_so_is_an_unknown_option():
    with refused("learner 'grppo'"):
        build_learner("grppo")
    for name, near in [("grppo", "grpo"), ("rlo", "rloo"), ("reinforced", "reinforce"), ("xyzzy", "value_gradient")]:
        with pytest.raises(ValueError, match=near):
            build_learner(name)
    with pytest.raises(ValueError, match="learner 'grpo': option 'low' is unknown; did you mean "):
        build_learner("grpo", low=0.1)
    with pytest.raises(ValueError, match="learner 'rloo': option 'clip' is unknown; did you mean "):
        build_learner("rloo", clip=0.2)
    with pytest.raises(ValueError, match="option 'lenght' is unknown; did you mean length"):
        build_learner("grpo", lenght="row sum")


@pytest.mark.parametrize(
    ("argument", "request_"),
    [
        ("std", lambda: grpo(std="own")),
        ("length", lambda: grpo(length="tokens")),
        ("eps", lambda: grpo(eps=-1.0)),
        ("low", lambda: grpo(clip=-0.1)),
        ("high", lambda: dapo(high=math.nan)),
        ("critic", lambda: ppo(critic="none")),
        ("lam", lambda: ppo(lam=1.5)),
        ("entropy", lambda: build_learner("rloo", entropy=-0.1)),
        ("entropy", lambda: build_learner("rloo", entropy=math.nan)),
        ("estimator", lambda: Penalty("k4", 0.1)),
        ("beta", lambda: Penalty("k1", -0.1)),
        ("beta", lambda: Penalty("k1", math.nan)),
    ],
)
def test_options_outside_their_range_are_refused(argument, request_):
    with refused(argument):
        request_()


def test_a_builder_is_what_its_name_says():
    """The whole batch of rewards equal: with a baseline nothing is learnt, without one all tokens are pushed up."""
    ones = torch.zeros(7, 3, dtype=torch.float64).index_fill_(1, torch.tensor([0]), 1.0)
    weighted = [name for name in LEARNERS if build_learner(name).pathwise is None]
    weights = {name: build_learner(name)(ones, MASK, GROUP, values=0 * ones)[0] for name in weighted}
    assert set(LEARNERS) - set(weighted) == {"svg", "vgl", "gumbel"}
    with refused("learner 'svg'"):
        build_learner("svg")(ones, MASK, GROUP)
    for name in ("rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"):
        assert float(weights[name].abs().max()) < 1e-15, name
    for name in ("reinforce", "value_gradient"):
        close(
            weights[name].sum(1),
            torch.tensor([n / (2 * [3, 4][g]) for n, g in zip(LENGTHS, GROUP, strict=True)]).double(),
        )
    assert [name for name in LEARNERS if build_learner(name).exact] == ["value_gradient"]
    assert [name for name in LEARNERS if build_learner(name).critic] == ["ppo", "vgl"]
    assert {bool(reinforce(baseline=b)(ones, MASK, GROUP)[0].any()) for b in (True, False)} == {True, False}


@pytest.mark.parametrize(
    "theirs",
    [
        lambda r, m, g: r.sum(1),
        lambda r, m, g: r * math.nan,
        lambda r, m, g: r.abs().clamp(min=1e-300) * math.inf,
        lambda r, m, g: r.numpy(),
        lambda r, m, g: r[:, :1],
    ],
)
def test_somebody_elses_advantage_must_be_one_finite_number_a_step(theirs):
    rewards = torch.ones(4, 4, dtype=torch.float64)
    with refused("advantage"):
        Learner("mine", theirs)(rewards, rewards > 0, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"value_gradient", "ppo", "svg", "vgl", "gumbel"}))
@pytest.mark.parametrize("place", ["reward", "loss"])
def test_what_stands_behind_the_end_of_a_row_does_not_count(name, place):
    mine = build_learner(name, **{f"kl_{place}": Penalty("k3", 0.1)})
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    table = -torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    weights = []
    for behind in (-1.0, -math.inf, math.nan):
        tables = {
            name: torch.where(mask, table * k, behind)
            for name, k in (("log_probs", 1.0), ("old", 1.1), ("reference", 0.7))
        }
        weights.append(mine(rewards, mask, torch.zeros(2, dtype=torch.int64), **tables)[0])
    assert weights[0].isfinite().all()
    assert weights[0][0, 2] == 0
    assert all(torch.equal(weights[0], other) for other in weights)


def test_rho_k3_has_token_by_token_the_slope_of_k2_times_a_constant_rho():
    given = batch(off=0.4)
    log_probs = said(policy())[0].detach()

    def slopes(**penalty):
        learner = build_learner("reinforce", kl_loss=Penalty(beta=0.7, **penalty))
        silent = Batch(0 * given.rewards, MASK, GROUP, given.old, given.reference)
        return learner.slopes(log_probs, None, silent)[1]

    rho = torch.where(MASK, log_probs - given.old, 0.0).exp()
    close(slopes(estimator="k3", importance=True), rho * slopes(estimator="k2"), rtol=1e-12, atol=1e-14)
    others = [slopes(estimator="k3"), rho * slopes(estimator="k3"), slopes(estimator="k2", importance=True)]
    assert all(not torch.allclose(slopes(estimator="k3", importance=True), other, rtol=1e-2) for other in others)
    with refused("log_rho"):
        Penalty("k3", 0.1, importance=True)(log_probs)
    with refused("kl_reward"):
        build_learner("grpo", kl_reward=Penalty("k3", 0.1, importance=True))


def test_the_off_policy_mask_leaves_out_the_surrogate_alone():
    given, log_probs = batch(off=0.4), said(policy())[0].detach()
    learner = build_learner("grpo", off_policy_delta=0.05, kl_loss=Penalty("k2", 0.3))
    bare = build_learner("grpo", kl_loss=Penalty("k2", 0.3))
    kl = build_learner("grpo", kl_loss=Penalty("k2", 0.3), eps=1e12)  # advantages of 0
    weights, whole, alone = (x.slopes(log_probs, None, given)[1] for x in (learner, bare, kl))
    A = learner.advantages(given, given.old)
    away = torch.where(MASK, given.old - log_probs, 0.0).sum(1) / MASK.sum(1)
    dropped = (A < 0) & (away > 0.05)[:, None] & MASK
    assert 0 < int(dropped.sum()) < int(MASK.sum())
    close(weights, torch.where(dropped, alone, whole), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(weights, whole, rtol=1e-3)
    for bad in (0, -0.1):
        with refused("off_policy_delta"):
            build_learner("dapo", off_policy_delta=bad)
