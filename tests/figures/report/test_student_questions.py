"""The numbers that answer the questions after the lessons, each by another road, and the places that show the questions."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from markupsafe import escape
from scipy.integrate import quad

from agents.policies.transformer import Transformer
from envs.registry import make_world
from figures.harness.code import ROOT
from figures.harness.registry import CLAIM_NAMES
from figures.lessons.asked import as_markdown, as_page
from figures.lessons.catalogue import LESSONS
from figures.pages.glossary import linker, terms, write_glossary
from figures.report.questions import questions
from tests.figures.lessons.listed_groups import kappa_by_listing
from tests.figures.report.made_up_results import PLAIN, page_of, verdict


def numbers(start, what=""):
    """All numbers in the lines of a question whose names begin so."""
    (asked,) = [q for q in questions() if q.question.startswith(start)]
    values = [value for name, value in asked.numbers if name.startswith(what)]
    assert values
    return [float(x) for value in values for x in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", value)]


# --- lessons 1 to 3 ---


def mean_costates(gain=0.4, start=2.0, steps=8):
    """`E lambda_0` with and without the policy's path, one number at a time."""
    world = make_world("LQScalar", horizon=steps)
    A, B, Q, R, Q_f = (float(np.asarray(getattr(world, name)).squeeze()) for name in ("A", "B", "Q", "R", "Q_f"))
    s = [start * (A - B * gain) ** t for t in range(steps + 1)]
    whole = cut = -2 * Q_f * s[-1]
    for state in reversed(s[:-1]):
        whole = -2 * (Q + R * gain**2) * state + world.gamma * (A - B * gain) * whole
        cut = -2 * Q * state + world.gamma * A * cut
    return whole, cut


def test_the_means_of_whole_and_cut_costates_by_their_recursions():
    whole, cut = mean_costates()
    (mean,) = numbers("My one costate", "mean of lambda_0")
    _, error = numbers("My one costate", "standard deviation")
    assert abs(mean - whole) < 4 * error < abs(mean - cut)
    means, errors = numbers("I detached", "mean"), numbers("I detached", "standard errors")
    assert all(abs(m - x) < 4 * e for m, x, e in zip(means, (whole, cut), errors, strict=True))


def test_costates_are_the_returns_of_sampled_paths():
    world = make_world("TokenGarnet", V=3, states=4, horizon=5, gamma=0.8)
    rng, paths = torch.Generator().manual_seed(1), 20_000
    found = numbers("Is a costate V")
    for start in range(4):
        s, total = torch.full((paths,), start), torch.zeros(paths, dtype=torch.float64)
        for t in range(5):
            a = torch.randint(3, (paths,), generator=rng)
            total += world.gamma**t * world.r[t][s, a]
            s = torch.multinomial(world.P[s, a], 1, generator=rng)[:, 0]
        off = [abs(float(total.mean()) - x) / float(total.std() / paths**0.5) for x in found]
        assert off[start] < 4
        assert max(off) > 4, "the control: another state"


def test_the_lock_opens_for_one_word():
    (value,) = numbers("My world jumps", "lock")
    (chance,) = numbers("My world jumps", "chance")
    assert value == chance == pytest.approx(3**-4, rel=1e-3)


def chaotic_paths(T, beta=2.5, paths=200_000):
    """Backprop and REINFORCE of sampled paths."""
    world, rng = make_world("ChaoticMap", beta=beta, horizon=T), np.random.default_rng(7)
    s, slope, score = np.full(paths, world.start), np.zeros(paths), np.zeros(paths)
    for _ in range(T):
        xi = world.sd * rng.standard_normal(paths)
        s, slope, score = beta * np.sin(s) + 1 + xi, beta * np.cos(s) * slope + 1, score + xi / world.sd**2
    return -np.sin(s) * slope, np.cos(s) * score


def test_sampled_spreads_in_chaos():
    """Standard deviations of heavy tails: 10 % at T = 5."""
    for T, tolerance in ((1, 0.02), (5, 0.1)):
        sampled = [x.std() for x in chaotic_paths(T)]
        assert numbers("Why is backprop", f"T = {T}:") == pytest.approx(sampled, rel=tolerance)
    assert numbers("Why is backprop", "T = 5:") != pytest.approx([x.std() for x in chaotic_paths(5, 0.5)], rel=0.1)
    backprop, reinforce = numbers("Why is backprop", "T = 20:")
    assert backprop > 1000 * reinforce


def test_the_mean_of_clipped_paths_and_the_gradient_by_the_score():
    backprop, reinforce = chaotic_paths(20)
    clipped = np.clip(backprop, -1, 1)
    mean, error = numbers("I clip", "mean")
    assert abs(clipped.mean() - mean) < 4 * error
    (exact,) = numbers("I clip", "exact")
    assert abs(reinforce.mean() - exact) < 4 * reinforce.std() / len(reinforce) ** 0.5
    assert abs(exact - mean) > 8 * error, "the answer says that they differ"


# --- lessons 4 and 5: all completions, listed ---


def listed(world, temperature=1.0):
    """Probability, return, and slope of log p of every completion, in the embedding of the prompt's last token."""
    policy = Transformer(world.V, length=world.longest, width=8, layers=1, heads=2, temperature=temperature)
    words = torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))
    tokens = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)[:, :-1]
    last, delta = world.prompts.shape[1] - 1, torch.zeros(8, dtype=torch.float64, requires_grad=True)
    x = policy.embed(tokens)
    x = torch.stack([x[:, t] + delta * (t == last) for t in range(x.shape[1])], 1)
    law = policy(x)[:, last:].log_softmax(-1)
    log_p = law.gather(-1, words[..., None])[..., 0].sum(1)
    slopes = torch.stack([torch.autograd.grad(each, delta, retain_graph=True)[0] for each in log_p])
    state, R = world.start_belief(0).expand(len(words), -1), torch.zeros(len(words), dtype=torch.float64)
    for t, token in enumerate(words.T):
        R = R + torch.stack([s @ world.r[t][:, a] for s, a in zip(state, token, strict=True)])
        state = torch.stack([s @ world.P[:, a] for s, a in zip(state, token, strict=True)])
    p = log_p.detach().exp()
    entropy = float(p @ -(law.exp() * law).nansum(-1).mean(1).detach())
    return p, R, slopes, entropy


def parity(temperature=1.0):
    return listed(make_world("TokenParity", V=3, horizon=3), temperature)


def gradient(p, R, slopes):
    return (p * R) @ slopes


def test_the_value_gradient_that_E1_misses():
    p, R, slopes, _ = parity()
    assert numbers("Why is the E1 arrow", "parity") == [0]
    assert numbers("Why is the E1 arrow", "length of grad V") == pytest.approx(
        [float(gradient(p, R, slopes).norm())], rel=1e-3
    )


def test_straight_through_misses_as_far_as_its_own_backward_pass_says():
    """E3 by hand in the parity world: one-hot tokens forward, the softmax's slope backward, averaged over completions."""
    world = make_world("TokenParity", V=3, horizon=3)
    policy = Transformer(world.V, length=world.longest, width=8, layers=1, heads=2)
    delta, total = torch.zeros(8, dtype=torch.float64, requires_grad=True), 0
    last = world.prompts.shape[1] - 1
    for word in itertools.product(range(3), repeat=3):
        x, belief, log_p, R = [policy.embed(world.prompts[:1])[0, i] for i in range(last + 1)], None, 0, 0
        x[last], belief = x[last] + delta, world.start_belief(0)[None]
        for t, token in enumerate(word):
            pi = policy(torch.stack(x)[None])[0, -1].softmax(-1)
            log_p = log_p + pi[token].log()
            said = torch.nn.functional.one_hot(torch.tensor(token), 3).double() + pi - pi.detach()
            R = R + world.reward(t, belief, said[None])[0]
            belief = world.step(belief, said[None])
            read = said @ policy.embed(torch.arange(3)[:, None])[:, 0]
            x.append(read)
        total = total + log_p.exp().detach() * torch.autograd.grad(R, delta)[0]
    truth = gradient(*parity()[:3])
    found = numbers("Straight-through", "TokenParity")
    assert found == pytest.approx([float((total - truth).norm() / truth.norm())], rel=1e-3)
    assert max(numbers("Straight-through")) > 10 * found[0], "the answer says that it depends on the world"


def test_the_noise_of_one_completion():
    p, R, slopes, _ = parity()
    terms_ = (R - p @ R)[:, None] * slopes
    noise = float((p @ (terms_ - p @ terms_).square().sum(1)) ** 0.5)
    ratio, many = numbers("E2 has the right mean")
    assert ratio == pytest.approx(float(gradient(p, R, slopes).norm()) / noise, rel=1e-3)
    assert many == pytest.approx(ratio**-2, rel=1e-3)


def test_entropy_and_error_at_each_temperature():
    for tau in (1, 0.3, 0.1):
        p, R, slopes, entropy = parity(tau)
        size = float(gradient(p, R, slopes).norm())
        H, error, bound = numbers("Why does low entropy", f"temperature {tau:g}:")
        assert (H, error) == pytest.approx((entropy, size), rel=1e-3)
        assert bound >= error
        if tau != 0.3:
            assert numbers("In the end the error", f"temperature {tau:g}:") == pytest.approx((size, 1), rel=1e-3)


# --- lessons 6 to 9: all groups, listed ---


def grpo(R):
    return 0.0 if R.std() == 0 else (R[0] - R.mean()) / R.std()


def test_kappas_by_listing_groups():
    p, R, *_ = listed_by_default("TokenParity", V=3, horizon=3)
    kappa = kappa_by_listing(float(p @ R), 4, grpo)
    (asked,) = [q for q in questions() if q.question.startswith("Kappa is")]
    assert asked.question == f"Kappa is {kappa / 3:.2f}: is my GRPO wrong?"
    assert numbers("Kappa is", "the same kappa") == pytest.approx([kappa], rel=1e-3)
    assert numbers("Kappa is", "parity") == pytest.approx([kappa / 3, 1], rel=1e-3)
    for G in (2, 8):
        listed_ = kappa_by_listing(0.3, G, lambda R: R[0] - R.mean())
        assert numbers("Kappa is", f"Dr. GRPO, G = {G}") == pytest.approx([listed_], rel=1e-3)
    hard, even = kappa_by_listing(0.02, 8, grpo), kappa_by_listing(0.5, 8, grpo)
    assert numbers("I use Adam") == pytest.approx([hard, even, hard / even], rel=1e-3)
    for x in (0.02, 0.5, 0.98):
        share = 1 - x**8 - (1 - x) ** 8
        assert numbers("Why does GRPO push", f"p = {x:g},") == pytest.approx(
            [kappa_by_listing(x, 8, grpo), share], rel=1e-3
        )


def test_the_objective_is_the_integral_of_kappa():
    def c(p):  # groups with k successes of 16: k (16 - k) of them differ
        chance = [math.comb(16, k) * p**k * (1 - p) ** (16 - k) for k in range(17)]
        return sum(chance[k] * math.sqrt(k * (16 - k)) / 16 for k in range(17)) / (p * (1 - p))

    whole = quad(c, 0, 1)[0]
    shares = [quad(c, 0, p)[0] / whole for p in (0.05, 0.25, 0.5, 0.95)]
    assert numbers("Does GRPO optimise") == pytest.approx(shares, rel=1e-3)


def listed_by_default(name, **sizes):
    """Probabilities and returns of the completions of a world of one prompt, by the network on whole contexts."""
    world = make_world(name, **sizes)
    policy = Transformer(world.V, length=world.longest)
    words = torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))
    contexts = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)
    logits = policy(policy.embed(contexts[:, :-1]))[:, -world.horizon :]
    log_p = logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]
    mask = world.mask(words)
    R = torch.stack([_paid(world, word) for word in words])
    return log_p.sum(1).exp().detach(), R, log_p, mask, policy


def _paid(world, word):
    state, total = world.start_belief(0), 0.0
    for t, token in enumerate(word):
        total = total + state @ world.r[t][:, token]
        state = state @ world.P[:, token]
    return total


def test_cosines_of_the_normalisers_by_sampled_groups():
    """2000 sampled groups of four, weights by hand; the sampled direction is off by its noise alone."""
    p, R, log_p, mask, policy = listed_by_default("TokenSumAndStop", horizon=4)
    length = mask.sum(1).double()
    parameters = list(policy.parameters())

    def flat(loss):
        slopes = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return torch.cat([g.flatten() for g in slopes if g is not None])

    truth = flat((p * R * (log_p * mask).sum(1)).sum())
    rng, groups = torch.Generator().manual_seed(0), 100_000
    drawn = torch.multinomial(p, 4 * groups, replacement=True, generator=rng).reshape(groups, 4)
    A = R[drawn] - R[drawn].mean(1, keepdim=True)
    by = {
        "row sum": torch.ones_like(A),
        "row mean": length[drawn],
        "group token mean": length[drawn].mean(1, keepdim=True).expand_as(A),
    }
    for name, divisor in by.items():
        weight = torch.zeros(len(p), dtype=torch.float64).index_add_(0, drawn.flatten(), (A / divisor).flatten())
        update = flat((weight * (log_p * mask).sum(1)).sum())
        cosine = float(update @ truth / update.norm() / truth.norm())
        (found,) = numbers("Every normaliser", f"{name},")
        assert found == pytest.approx(cosine, abs=0.02), name
    assert numbers("Every normaliser", "row mean")[0] < 0.9


def test_rows_of_one_length_change_the_scale_alone():
    scales = {"row sum": 0.75, "row mean": 0.25, "group token mean": 0.25}
    for name, scale in scales.items():
        assert numbers("All my completions", f"parity of 3 tokens, {name}")[-2:] == pytest.approx([scale, 1], abs=1e-3)


def test_headroom_and_silent_groups_by_drawing():
    right = np.random.default_rng(3).random((200_000, 8))
    for p in (0.001, 0.1, 0.5, 0.9, 0.999):
        tries = right < p
        headroom, sd = numbers("Why not begin RL", f"success probability {p:g}:")
        assert headroom == pytest.approx(tries.any(1).mean() - tries[:, 0].mean(), abs=0.005)
        assert sd == pytest.approx(tries[:, 0].std(), abs=0.005)
    assert numbers("Can RL teach", "success probability 0:") == [0]
    assert numbers("Can RL teach", "success probability 0.001:") == pytest.approx([1 - 0.999**8], rel=1e-3)


# --- the places that show them ---


def test_every_lesson_has_two_questions_and_every_link_leads_somewhere(tmp_path):
    own = Counter(q.lesson for q in questions() if not q.run)
    assert min(own[lesson.number] for lesson in LESSONS) >= 2
    write_glossary(tmp_path, {})
    places = set(re.findall(r'<h3 id="([^"]+)"', (tmp_path / "glossary.html").read_text()))
    assert set(terms().values()) == places
    page = as_page(questions(), LESSONS)
    assert set(re.findall(r"glossary\.html#([\w-]+)", page)) <= places
    assert {claim for q in questions() for claim in q.claims} <= set(CLAIM_NAMES)
    assert all(q.claims and q.terms and q.numbers for q in questions())
    assert set(re.findall(r'href="(\d[^"]+)"', page)) == {f"{lesson.stem}.html" for lesson in LESSONS}


def test_readme_lessons_and_report_show_the_same_questions(tmp_path):
    readme = (ROOT / "figures" / "README.md").read_text()
    shown = readme.split("writes them -->\n")[1].split("<!-- questions end")[0]
    assert shown == as_markdown(questions()), "python -m figures.lessons.asked prints the list"
    assert shown != as_markdown(questions()[1:])
    lessons = as_page(questions(), LESSONS)
    report = page_of([verdict(PLAIN[0])], tmp_path).read_text()
    for page in (lessons, report):
        titles = re.findall(r'class="question">\n<h3>(.*?)</h3>', page)
        assert sorted(titles) == sorted(str(escape(q.question)) for q in questions())


def test_terms_of_the_report_lead_to_its_own_glossary(tmp_path):
    report = page_of([verdict(PLAIN[0])], tmp_path).read_text()
    links = re.findall(r'<a class="term" href="#(word-[\w-]+)">(.*?)</a>', report)
    assert ("word-costate", "costate") in links
    places = set(re.findall(r'<h3 id="(word-[^"]+)"', report))
    assert {place for place, _ in links} <= places
    assert len(places) == len(set(terms().values()))


def test_a_term_links_once_as_a_whole_word_and_text_stays_text():
    link = linker("#")
    first = link("Kappas & <b>: costate-like, E1b")
    assert (
        first
        == '<a class="term" href="#kappa">Kappas</a> &amp; &lt;b&gt;: costate-like, <a class="term" href="#'
        + (terms()["E1b"] + '">E1b</a>')
    )
    assert link("kappa again") == "kappa again"
    assert link("a claim of value") == "a claim of value", "everyday words"
