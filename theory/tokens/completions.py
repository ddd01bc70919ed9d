"""All completions of a prompt with their probabilities and rewards, from the prefix tree.

A *word* is a sequence of tokens of the world's horizon. Where tokens lead by chance, one word can be paid in several ways: a
*completion* is a word together with the abstract states on its way, and has the rewards that are drawn with these. The words
hold the environment's tokens too, where it speaks: `span` has them, `mask` has the policy's own alone.

Theory page, section 4: "Rewards that are drawn".
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import Tree
from theory.tokens.softmax_bounds import entropy, log_softmax
from theory.tokens.tree_size import DEFAULT_BUDGET


@short_repr
@dataclass(frozen=True)
class Words:
    """All W words of every prompt: their tokens, probabilities and mean rewards, constants.

    `rewards` is what each step adds to the return, `gamma^k rbar_k`, in expectation over the abstract states given the
    tokens before it. Words that differ only after an end token are separate rows, equal in everything else.

    Attributes:
        tokens: of every step.
        rewards: what every step adds to the return, discounted.
        span: True for the tokens of the completion, up to the end token.
        mask: True for those of them that the policy says.
        log_probs: log pi of every token, the environment's among them.
        log_law: logarithm of the chance of every token: log pi, or that of the environment's law where it speaks.
    """

    tokens: Int[Tensor, "prompts W H"]
    rewards: Float[Tensor, "prompts W H"]
    span: Bool[Tensor, "prompts W H"]
    mask: Bool[Tensor, "prompts W H"]
    log_probs: Float[Tensor, "prompts W H"]
    log_law: Float[Tensor, "prompts W H"]

    @cached_property
    def p(self) -> Float[Tensor, "prompts W"]:
        """Probability of every word."""
        return self.log_law.sum(-1).exp()

    @property
    def returns(self) -> Float[Tensor, "prompts W"]:
        """`E[R | word]`; where the environment speaks, each reward given the tokens up to it, as later ones may tell more."""
        return self.rewards.sum(-1)


@short_repr
@dataclass(frozen=True)
class Completions:
    """All L completions of every prompt as they are drawn, words and states: what each step adds to the return, constants.

    Where tokens lead to one state for sure and the policy alone speaks, these are the words. Else a word has a row for
    every path of states that some prompt allows, in adjacent rows.

    Attributes:
        tokens: of each row's word.
        p: probability of word and states together; 0 for a path that the prompt does not allow.
        given: probability of the states given the word.
        rewards: `gamma^k r_k` along the states.
        span: True for the tokens of the row's word, up to the end token.
        mask: True for those of them that the policy says.
        log_probs: log pi of every token of the row's word.
        word: each row's word, 0 ... W - 1, the same for every prompt.
        words: W.
    """

    tokens: Int[Tensor, "prompts L H"]
    p: Float[Tensor, "prompts L"]
    given: Float[Tensor, "prompts L"]
    rewards: Float[Tensor, "prompts L H"]
    span: Bool[Tensor, "prompts L H"]
    mask: Bool[Tensor, "prompts L H"]
    log_probs: Float[Tensor, "prompts L H"]
    word: Int[Tensor, "L"]
    words: int

    @property
    def returns(self) -> Float[Tensor, "prompts L"]:
        """`R = sum_k gamma^k r_k`."""
        return self.rewards.sum(-1)

    def success(self) -> Float[Tensor, "prompts"]:
        """Success probability P of every prompt.

        Returns:
            A probability for each prompt.

        Raises:
            InputError: a return is neither 0 nor 1.
        """
        check_binary("rewards", self.given, self.rewards)
        return (self.p * self.returns).sum(-1)

    def over_states(self, x: Float[Tensor, "prompts L *rest"]) -> Float[Tensor, "prompts W *rest"]:
        """The mean over the states, given the word, of a number of every row.

        Args:
            x: one entry for every row; further axes are kept.

        Returns:
            One entry for every word.
        """
        weights = self.given.reshape(*self.given.shape, *[1] * (x.ndim - 2))
        total = x.new_zeros(len(x), self.words, *x.shape[2:])
        return total.index_add_(1, self.word, weights.to(x) * x)


def check_binary(name: str, given: Float[Tensor, "prompts L"], rewards: Float[Tensor, "prompts L H"]) -> None:
    """Refuse rewards (or signals) whose sum is neither 0 nor 1 in some completion that is possible.

    Args:
        name: what the numbers are called in the error.
        given: probability of the states of every completion given its word; where it is 0 the completion does not
            count.
        rewards: of every step.

    Raises:
        InputError: a sum is neither 0 nor 1.
    """
    R = rewards.sum(-1)[given > 0]
    if not bool(((R - R.round()).abs() < 1e-9).all() and (R > -0.5).all() and (R < 1.5).all()):
        raise InputError(f"{name} are not binary: only sums of 0 and 1 have a success probability")


def words(tree: Tree) -> Words:
    """The words of a tree with every token followed (alpha = 1).

    Args:
        tree: with every token followed.

    Returns:
        The words of every prompt.

    Raises:
        InputError: the world pays a hidden readout.
    """
    world, prompts = tree.world, len(tree.levels[0].reach)
    _check_paid_by_tables(world)
    count = tree.levels[-1].tokens.numel()
    tokens = torch.stack([_along(level.tokens, count) for level in tree.levels], -1)
    discount = [world.gamma**k for k in range(world.horizon)]
    by_level = [_along(level.rewards.detach(), count) * g for level, g in zip(tree.levels, discount, strict=True)]
    rewards = torch.stack(by_level, -1)
    log_probs, span = completion_log_probs(tree).detach(), world.mask(tokens)
    log_law, mask = log_probs, span
    if world.speech is not None:
        log_law = _log_probs(tree, [level.logits for level in tree.levels]).detach()
        mask = span & torch.stack([_along(level.own, count) for level in tree.levels], -1)
    tokens, rewards, span, mask = (x.unflatten(0, (prompts, -1)) for x in (tokens, rewards * span, span, mask))
    return Words(tokens, rewards, span, mask, log_probs, log_law)


def completions(tree: Tree, budget: int = DEFAULT_BUDGET) -> Completions:
    """The completions of a tree with every token followed (alpha = 1).

    Args:
        tree: with every token followed.
        budget: bytes that words and states may need.

    Returns:
        The completions of every prompt.

    Raises:
        InputError: the world pays a hidden readout, or words and states need more than `budget` bytes (seen before they are
            allocated).
    """
    spoken = words(tree)
    if tree.world.deterministic and tree.world.speech is None:
        whole = torch.arange(spoken.p.shape[1], device=spoken.p.device)
        sure = torch.ones_like(spoken.p)
        return Completions(
            spoken.tokens, spoken.p, sure, spoken.rewards, spoken.span, spoken.mask, spoken.log_probs, whole, len(whole)
        )
    word, given, rewards = state_paths(tree.world, budget)
    rewards, given = rewards.to(spoken.rewards), given.to(spoken.p)
    tokens, span, mask, log_probs = (x[:, word] for x in (spoken.tokens, spoken.span, spoken.mask, spoken.log_probs))
    return Completions(
        tokens, spoken.p[:, word] * given, given, rewards * span, span, mask, log_probs, word, spoken.p.shape[1]
    )


def state_paths(
    world: TokenMDP, budget: int = DEFAULT_BUDGET
) -> tuple[Int[Tensor, "L"], Float[Tensor, "prompts L"], Float[Tensor, "prompts L H"]]:
    """All words with all paths of abstract states: the words, the paths' probabilities given them, and `gamma^k r_k`.

    Rows are in the order of the words. The states after the last token pay nothing and are left out. Where the
    environment speaks, its tokens tell of its states: a path's probability is that of path and tokens, divided by the
    sum over the word's paths. A word that the environment can say after no prompt is left out.

    Args:
        world: the token world.
        budget: bytes that words and states may need.

    Returns:
        The word of each row, the probability of its path given the word, and the discounted rewards along it.

    Raises:
        InputError: words and states need more than `budget` bytes (seen before they are allocated).
    """
    successor, chance = _successors(world)
    ways_from = (chance > 0).sum(-1).amax(-1)  # (S,)
    state, given, word = world.starts[:, None], world.P.new_ones(len(world.prompts), 1), world.starts.new_zeros(1)
    rewards, tokens = list[Tensor](), torch.arange(world.V, device=world.P.device)
    for k in range(world.horizon):
        ways = int(ways_from[state[given > 0]].max()) if k + 1 < world.horizon else 1
        _check_rows(world, state.shape[1] * world.V * ways, budget)
        paid = world.gamma**k * world.r[k][state]  # (prompts, rows, V)
        share = chance[state][..., :ways] if k + 1 < world.horizon else torch.ones_like(paid)[..., None]
        share = share * _said(world)[state][..., None]
        given = (given[:, :, None, None] * share).flatten(1)
        after = successor[state][..., :ways].flatten(1)
        word = (word[:, None, None] * world.V + tokens[:, None]).expand(-1, -1, ways).flatten()
        rewards = [x.repeat_interleave(world.V * ways, 1) for x in rewards]
        rewards.append(paid.repeat_interleave(ways, -1).flatten(1))
        possible = (given > 0).any(0)
        state, given, word = after[:, possible], given[:, possible], word[possible]
        rewards = [x[:, possible] for x in rewards]
    order = word.sort(stable=True).indices
    word, given = word[order], given[:, order]
    if world.speech is not None:
        of_word = torch.zeros_like(given).index_add_(1, torch.unique_consecutive(word, return_inverse=True)[1], given)
        total = of_word[:, torch.unique_consecutive(word, return_inverse=True)[1]]
        given = given / torch.where(total > 0, total, 1.0)
    return word, given, torch.stack(rewards, -1)[:, order]


def _said(world: TokenMDP) -> Float[Tensor, "S V"]:
    """Chance of every token that the environment says in a state; 1 where the policy speaks."""
    if world.speech is None:
        return torch.ones_like(world.r[0])
    return torch.where(world.speaking[:, None], world.speech, 1.0)


def drawn_signal(world: TokenMDP, name: str, budget: int = DEFAULT_BUDGET) -> Float[Tensor, "prompts L"]:
    """A signal of the world for every row of `completions`.

    Args:
        world: the token world.
        name: of the signal.
        budget: bytes that words and states may need.

    Returns:
        The sum of the signal along each completion.

    Raises:
        InputError: the world has no such signal.
    """
    return state_paths(world.paying(name), budget)[2].sum(-1)


def _successors(world: TokenMDP) -> tuple[Int[Tensor, "S V B"], Float[Tensor, "S V B"]]:
    """States that a token may lead to, and their probabilities; those of probability > 0 come first."""
    possible = world.P > 0
    order = possible.long().sort(dim=-1, descending=True, stable=True).indices[..., : int(possible.sum(-1).max())]
    return order, world.P.gather(-1, order)


def _check_rows(world: TokenMDP, rows: int, budget: int) -> None:
    needed = 8 * len(world.prompts) * rows * (4 * world.horizon + 6)
    if needed > budget:
        raise InputError(
            f"horizon={world.horizon} with V={world.V} and tokens that lead by chance makes {rows:.4g} completions of a "
            f"prompt, about {needed / 2**30:.3g} GiB of {budget / 2**30:.3g} allowed: take a smaller world"
        )


def _check_paid_by_tables(world: TokenMDP) -> None:
    if world.readout is not None:
        raise InputError("world pays a hidden readout, which no group of rewards holds: use a world without it")


def completion_log_probs(tree: Tree) -> Float[Tensor, "prompts W H"]:
    """`log pi` of every token of every word, whoever says it and after an end token too; attached to autograd's graph.

    Args:
        tree: with every token followed.

    Returns:
        Log-probabilities in nats.
    """
    return _log_probs(tree, [level.policy_logits for level in tree.levels])


def _log_probs(tree: Tree, logits: list[Tensor]) -> Float[Tensor, "prompts W H"]:
    """Log-probabilities of every token of every word under laws with these logits, level by level."""
    count, prompts = tree.levels[-1].tokens.numel(), len(tree.levels[0].reach)
    log_pi = [log_softmax(z).gather(1, level.tokens) for z, level in zip(logits, tree.levels, strict=True)]
    log_probs: Tensor = torch.stack([_along(x, count) for x in log_pi], -1).unflatten(0, (prompts, -1))
    return log_probs


def _along(x: Tensor, count: int) -> Tensor:
    """A number of every edge of a level, repeated for those of the `count` words that take the edge."""
    repeated: Tensor = x.flatten().repeat_interleave(count // x.numel())
    return repeated


def mean_entropy(tree: Tree) -> Float[Tensor, ""]:
    """Mean entropy in nats over the steps of a completion at which the policy speaks.

    Args:
        tree: with every token followed.

    Returns:
        One number, a constant.
    """
    alive = torch.ones_like(tree.levels[0].reach)
    total, steps = torch.zeros_like(tree.J), torch.zeros_like(tree.J)
    for level in tree.levels:
        weight = level.reach * alive * level.own
        total, steps = total + weight @ entropy(level.pi.detach()), steps + weight.sum()
        if tree.world.end is not None:
            alive = (alive[:, None] * (level.tokens != tree.world.end)).flatten()
        else:
            alive = alive.repeat_interleave(tree.world.V)
    return total / steps


def prefixes_alive(tree: Tree) -> list[Float[Tensor, "N"]]:
    """1 for prefixes after which the policy speaks, 0 after an end token and at the environment's turns, level by level.

    Args:
        tree: prefix tree with every token followed.

    Returns:
        One tensor of zeros and ones for each level.

    Raises:
        InputError: the tree's world pays a hidden readout.
    """
    mask = words(tree).mask.flatten(0, 1).to(tree.levels[0].reach)
    return [mask[:: len(mask) // len(level.reach), k] for k, level in enumerate(tree.levels)]
