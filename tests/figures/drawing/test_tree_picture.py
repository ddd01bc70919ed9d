"""`draw_tree` against a brute-force enumeration of completions over whole contexts: V, Q, pi, returns, what is left out."""

import itertools

import pytest
import torch
from matplotlib.figure import Figure

import costate
from figures.drawing.likely_prefixes import likely_prefixes
from tests.figures.drawing.readable import colliding, unreadable
from theory.tokens.prefix_tree import grow, one_token

REWARDS = torch.tensor([[0.3, -1.0, 0.2], [0.0, 2.0, 0.7], [0.1, 0.1, -0.4]], dtype=torch.float64)


def policy_of(world, temperature=0.4, seed=0):
    length = world.prompts.shape[1] + world.horizon
    return costate.Transformer(world.V, width=8, length=length, temperature=temperature, seed=seed)


def law(world, policy, prompt, tokens):
    """The policy's probabilities from the whole context."""
    context = torch.cat([world.prompts[prompt], torch.tensor(tokens, dtype=torch.int64)])
    return torch.softmax(policy(policy.embed(context[None]))[0, -1].detach(), -1)


def completions(world, policy, prompt=0):
    """Finished answer -> (probability, return), each once, by following single beliefs through the world's tables."""
    found, laws = {}, {}
    for tokens in itertools.product(range(world.V), repeat=world.horizon):
        said = tokens[: tokens.index(world.end) + 1] if world.end in tokens else tokens
        belief, chance, total = world.start_belief(prompt), 1.0, 0.0
        for k, token in enumerate(said):
            if said[:k] not in laws:
                laws[said[:k]] = law(world, policy, prompt, said[:k])
            chance *= float(laws[said[:k]][token])
            total += world.gamma**k * float(belief @ world.r[k, :, token])
            belief = belief @ world.P[:, token]
        found[said] = chance, total
    return found


def value(found, prefix, gamma):
    """V of a prefix: the mean return of what begins with it, seen from it, rewards before it left out."""
    rows = [row for tokens, row in found.items() if tokens[: len(prefix)] == prefix]
    return sum(p * R for p, R in rows) / sum(p for p, _ in rows) / gamma ** len(prefix)


def text(axis, gid):
    (found,) = [text.get_text() for text in axis.texts if text.get_gid() == gid]
    return found


def key(axis):
    return axis.texts[-1].get_text().replace("\n", " ").replace("\u00a0", " ")


def test_every_number_on_it_is_that_of_brute_force():
    world = costate.TokenMDP.from_rewards(REWARDS, gamma=0.8)
    policy = policy_of(world)
    axis, found = costate.draw_tree(costate.prefix_tree(world, policy)), completions(world, policy)
    assert text(axis, "V") == f"{value(found, (), 0.8):.2f}"
    wrong = 0
    for a in range(3):
        below = law(world, policy, 0, (a,))
        after = float(below @ REWARDS[a])
        assert text(axis, f"V-{a}") == f"{after:.2f}"
        assert text(axis, f"Q-{a}") == f"Q {0.8 * after:.2f}"
        assert text(axis, f"pi-{a}").split() == [str(a), "$\\pi$", f"{float(law(world, policy, 0, ())[a]):.2f}"]
        for b in range(3):
            assert text(axis, f"Q-{a}-{b}") == f"Q {float(REWARDS[a, b]):.2f}"
            assert text(axis, f"V-{a}-{b}") == f"{0.8 * float(REWARDS[a, b]):.2f}"
            wrong += text(axis, f"V-{a}-{b}") == f"{float(REWARDS[b, a]):.2f}"
    assert wrong < 4, "the control: the transposed table is another world"
    assert "All 9 possible completions." in key(axis)
    assert len([one for one in axis.texts if (one.get_gid() or "").startswith("V")]) == 13


@pytest.mark.parametrize("name", ["TokenSumAndStop", "TokenGarnet", "TokenParity"])
def test_what_is_kept_are_the_likeliest_completions(name):
    """Worlds with an end token, with transitions by chance and rewards at every step, and with neither."""
    world = costate.world(name)
    world = world.first(4) if world.horizon > 4 else world
    policy, prompt = policy_of(world, seed=3), len(world.prompts) - 1
    found = completions(world, policy, prompt)
    shown = likely_prefixes(costate.prefix_tree(world, policy), prompt, None, 7)
    likeliest = sorted(found, key=lambda tokens: -found[tokens][0])[:7]
    assert shown.ends == sorted(likeliest)
    assert shown.of == len(found)
    assert shown.probability == pytest.approx(sum(found[tokens][0] for tokens in likeliest))
    assert shown.probability < 0.999
    for tokens, node in shown.nodes.items():
        if tokens in found:
            assert node.finished
            assert (node.probability, node.value) == pytest.approx(found[tokens])
            continue
        chance = sum(p for other, (p, _) in found.items() if other[: len(tokens)] == tokens)
        assert node.probability == pytest.approx(chance)
        following = {other[len(tokens)] for other in found if other[: len(tokens)] == tokens}
        assert node.cut == any((*tokens, token) not in shown.nodes for token in following)
    if name != "TokenGarnet":  # all is paid at the end
        for tokens, node in shown.nodes.items():
            assert tokens in found or node.value == pytest.approx(value(found, tokens, world.gamma))
    assert not any(tokens[:-1].count(world.end) for tokens in shown.nodes if world.end is not None)


def test_a_large_tree_says_how_much_of_it_is_shown():
    world = costate.world("TokenParity", V=3, horizon=5)
    policy = policy_of(world, temperature=0.3)
    axis, found = costate.draw_tree(costate.prefix_tree(world, policy), most=12, width=10), completions(world, policy)
    share = 100 * sum(sorted((p for p, _ in found.values()), reverse=True)[:12])
    assert f"12 likeliest of 243 completions, {share:.0f} % of the probability" in key(axis)
    assert 5 < share < 99
    other = costate.draw_tree(costate.prefix_tree(world, policy), most=5, width=10)
    assert f"{share:.0f} %" not in key(other)
    beginnings = costate.draw_tree(costate.prefix_tree(world, policy), depth=2)
    assert "All 9 possible beginnings of 2 tokens." in key(beginnings)
    assert {(one.get_gid() or "").count("-") for one in beginnings.texts if (one.get_gid() or "").startswith("V")} == {
        0,
        1,
        2,
    }


def test_where_the_environment_speaks_its_chances_stand_and_impossible_tokens_do_not():
    world = costate.world("TokenOracle")
    axis = costate.draw_tree(costate.prefix_tree(world, policy_of(world)), width=8)
    asked = [one for one in axis.texts if (one.get_gid() or "").startswith("pi-")]
    spoken = [one.get_text() for one in asked if "$p$" in one.get_text()]
    assert spoken
    assert len(spoken) < len(asked)
    assert all(one.split()[-1] in ("0.50", "1.00") for one in spoken), "the oracle tells the truth or says nothing"
    assert "Square: the environment speaks" in key(axis)
    shapes = {type(one.get_bbox_patch().get_boxstyle()).__name__ for one in axis.texts if one.get_bbox_patch()}
    assert shapes == {"Round", "Square"}
    chances = [
        node.share for node in likely_prefixes(costate.prefix_tree(world, policy_of(world)), 0, None, 40).nodes.values()
    ]
    assert min(chances) > 0


def test_names_of_tokens_small_numbers_and_values_that_are_all_alike():
    world = costate.TokenMDP.from_rewards(REWARDS * 1e-3)
    axis = costate.draw_tree(costate.prefix_tree(world, policy_of(world)), names=["left", "right", "stop"])
    assert text(axis, "pi-1").startswith("right ")
    assert text(axis, "V-1-1") == "0.0020"
    assert not any("-0.0000" in one.get_text() for one in axis.texts)
    flat = costate.TokenMDP.from_rewards(REWARDS * 0)
    assert text(costate.draw_tree(costate.prefix_tree(flat, policy_of(flat))), "V") == "0.00"
    large = costate.TokenMDP.from_rewards(REWARDS * 1e6)
    assert text(costate.draw_tree(costate.prefix_tree(large, policy_of(large))), "V-1-1") == "2.0e+06"


@pytest.mark.parametrize("width", [3.3, 10.0])
@pytest.mark.parametrize("name", ["table", "TokenSumAndStop", "TokenOracle", "peaked"])
def test_no_text_stands_on_another(name, width):
    world = costate.world(name) if name.startswith("Token") else costate.TokenMDP.from_rewards(REWARDS)
    tree = costate.prefix_tree(world, policy_of(world, temperature=0.02 if name == "peaked" else 0.4))
    axis = costate.draw_tree(tree, width=width)
    assert axis.figure.get_figwidth() == width
    assert unreadable(axis.figure) == []
    assert colliding(axis) == []
    sizes = {one.get_fontsize() for one in axis.texts}
    assert min(sizes) >= 4.5
    for one in axis.texts:
        one.set_fontsize(1.8 * one.get_fontsize())
    assert len(colliding(axis)) > 3, "the control: larger text would collide"


def test_small_axes_show_fewer_completions():
    world = costate.world("TokenParity", V=2, horizon=4)
    tree = costate.prefix_tree(world, policy_of(world))
    axis = costate.draw_tree(tree, ax=Figure(figsize=(5, 2)).subplots())
    count = int(key(axis).split(" likeliest of 16")[0].split()[-1])
    assert 2 <= count < 16
    assert colliding(axis) == []
    with pytest.raises(costate.InputError, match="give higher axes, or a most below 16"):
        costate.draw_tree(tree, ax=Figure(figsize=(5, 2)).subplots(), most=16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": 1}, "prompt 1 does not exist"),
        ({"most": 0}, "most must be a whole number >= 1"),
        ({"most": 41}, "at most 40"),
        ({"depth": 0}, "depth must be a whole number >= 1"),
        ({"names": ["a"]}, "one for each of the 3 tokens"),
        ({"width": 1.2}, "give wider axes, or a depth below 2"),
        ({"ax": "mine"}, "ax must be plain axes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(options, said):
    world = costate.TokenMDP.from_rewards(REWARDS)
    with pytest.raises(costate.InputError, match=said) as refused:
        costate.draw_tree(costate.prefix_tree(world, policy_of(world)), **options)
    assert "\n" not in str(refused.value)


def test_trees_that_are_none_are_refused():
    world = costate.TokenMDP.from_rewards(REWARDS)
    sampled = grow(world, policy_of(world), choose=one_token(torch.Generator().manual_seed(0)), copies=4)
    for tree, said in ((sampled, "must follow every token"), (world, "costate.prefix_tree")):
        with pytest.raises(costate.InputError, match=said):
            costate.draw_tree(tree)
    with pytest.raises(costate.InputError, match="must be a TokenMDP"):
        costate.prefix_tree(costate.world("LQScalar"), policy_of(world))
    with pytest.raises(costate.InputError, match="policy must be one over tokens"):
        costate.prefix_tree(world, 3)
