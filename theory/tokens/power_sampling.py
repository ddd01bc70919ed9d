"""Power sampling: the law `p^alpha / Z` of whole texts, and the Metropolis-Hastings chain that draws from it, as matrices.

A *text* is what was said up to the end token, or up to the end of a block of tokens. A step of the chain takes a position m of
the text x, each with chance `1 / |x|`, and redraws what follows by the policy at temperature `1 / alpha`, whose law of a token
is `q = pi^alpha / Z_a` with `Z_a = sum pi^alpha`. Likelihoods drop out of the ratio by which the new text y is accepted:

`p^alpha(y) q(x) / (p^alpha(x) q(y)) = prod_{m < t < |y|} Z_a(y_<t) / prod_{m < t < |x|} Z_a(x_<t)`.

Theory page, section 6: "Power sampling".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.arguments import check_bytes, whole
from envs.record import short_repr
from envs.world import InputError
from theory.tokens.prefix_tree import Tree
from theory.tokens.softmax_bounds import log_softmax
from theory.tokens.tilted_laws import TiltedLaw, check_power, locally, tilted_law

END_RULES = ("hastings", "no factor", "cut")
Acceptance = Callable[[Tensor], Tensor]  # logarithm of the ratio -> chance that the new text is accepted
_FORBIDDEN = -1e4  # stands for log 0, so that differences of sums stay numbers


@short_repr
@dataclass(frozen=True)
class Texts:
    """The W different texts of every prompt within a block's end, those that say the end token too early or too late left out.

    Attributes:
        tokens: of every text, -1 after its last one.
        length: number of tokens, the end token included.
        ended: True where the text says the end token.
        log_pi: log-probability of every token, 0 after the last one.
        log_Z: logarithm of `Z_a` before every token, 0 after the last one.
        alpha: the power.
    """

    tokens: Int[Tensor, "W T"]
    length: Int[Tensor, "W"]
    ended: Bool[Tensor, "W"]
    log_pi: Float[Tensor, "prompts W T"]
    log_Z: Float[Tensor, "prompts W T"]
    alpha: float

    @property
    def finished(self) -> Bool[Tensor, "W"]:
        """True for texts that say the end token or fill the block."""
        return self.ended | (self.length == self.tokens.shape[1])

    @property
    def log_q(self) -> Float[Tensor, "prompts W T"]:
        """Log-probability of every token at temperature 1 / alpha."""
        return self.alpha * self.log_pi - self.log_Z

    @property
    def power(self) -> Float[Tensor, "prompts W"]:
        """`p^alpha / Z` of finished texts, and 0 for others."""
        log_p = self.alpha * self.log_pi.sum(-1)
        return torch.softmax(log_p.masked_fill(~self.finished, -torch.inf), -1)

    @property
    def cold(self) -> Float[Tensor, "prompts W"]:
        """Probability of finished texts at temperature 1 / alpha, and 0 for others."""
        return self.log_q.sum(-1).exp() * self.finished


def texts(tree: Tree, alpha: float, block_end: int | None = None, unfinished: bool = False) -> Texts:
    """The texts of a tree's first tokens, with their probabilities.

    Args:
        tree: of the policy, with every token followed.
        alpha: the power, > 0.
        block_end: tokens of the longest text; None for the world's horizon.
        unfinished: whether texts without an end token that do not fill the block are listed too; they come last.

    Returns:
        The texts.

    Raises:
        InputError: alpha is no finite number > 0, there is no such block, or the environment speaks.
    """
    check_power(alpha)
    world = tree.world
    T = world.horizon if block_end is None else whole("block_end", block_end, 1)
    if world.horizon < T:
        raise InputError(f"block_end must lie in 1 ... {world.horizon}, the world's horizon; got {block_end}")
    if world.speech is not None:
        raise InputError("world must be one in which the policy alone speaks: power sampling redraws all that follows")
    word, length, ended = _kinds(tree, T, unfinished)
    place = torch.arange(T, device=length.device)
    log_pi, log_Z = (x[:, word].masked_fill(place >= length[:, None], 0.0) for x in _along_words(tree, alpha, T))
    tokens = _words(world.V, T, length.device)[word].masked_fill(place >= length[:, None], -1)
    return Texts(tokens, length, ended, log_pi, log_Z, float(alpha))


def _words(V: int, T: int, device: torch.device) -> Int[Tensor, "words T"]:
    """All V^T words, in the order of the prefix tree."""
    return torch.cartesian_prod(*[torch.arange(V, device=device)] * T).reshape(-1, T)


def _kinds(tree: Tree, T: int, unfinished: bool) -> tuple[Tensor, Tensor, Tensor]:
    """For every text a word that begins with it, its length, and whether it says the end token."""
    world = tree.world
    said = _words(world.V, T, tree.levels[0].pi.device)
    mask = world.mask(said)
    length = mask.sum(-1)
    ended = torch.zeros_like(length, dtype=torch.bool) if world.end is None else (said == world.end).any(-1)
    if world.end is None:
        return torch.arange(len(said), device=length.device), length, ended
    word = (mask | (said == world.end)).all(-1).nonzero()[:, 0]
    length, ended = length[word], ended[word]
    if not unfinished:
        return word, length, ended
    longer = ended & (length > 1)  # without its end token such a text is an unfinished one
    rest = (word[longer], length[longer] - 1, torch.zeros_like(ended[longer]))
    both = (torch.cat(pair) for pair in zip((word, length, ended), rest, strict=True))
    return next(both), next(both), next(both)


def _along_words(tree: Tree, alpha: float, T: int) -> tuple[Float[Tensor, "P words T"], Float[Tensor, "P words T"]]:
    """`log pi` of every token of all words, and `log Z_a` before it, in float64."""
    V, prompts = tree.world.V, len(tree.levels[0].reach)
    log_pi, log_Z = list[Tensor](), list[Tensor]()
    for k, level in enumerate(tree.levels[:T]):
        own = log_softmax(level.logits.detach().double())
        Z = torch.logsumexp(alpha * own, -1)
        log_pi.append(own.clamp(min=_FORBIDDEN).reshape(prompts, -1).repeat_interleave(V ** (T - k - 1), 1))
        log_Z.append(Z.reshape(prompts, -1).repeat_interleave(V ** (T - k), 1))
    return torch.stack(log_pi, -1), torch.stack(log_Z, -1)


def temperature_law(tree: Tree, alpha: float) -> TiltedLaw:
    """The policy at temperature `1 / alpha`, token by token; `log_Z` holds the logarithm of `Z_a = sum pi^alpha`.

    Args:
        tree: of the policy, with every token followed.
        alpha: the power, > 0.

    Returns:
        The law.

    Raises:
        InputError: alpha is no finite number > 0, or the tree's world pays a hidden readout.
    """
    check_power(alpha)
    return tilted_law(tree, [alpha * log_softmax(level.logits) for level in tree.levels], locally)


def metropolis(log_ratio: Tensor) -> Tensor:
    """`min(1, ratio)`, the chance that a new text is accepted.

    Args:
        log_ratio: logarithms of the ratios.

    Returns:
        The chances.
    """
    return log_ratio.clamp(max=0.0).exp()


def chain(
    tree: Tree, alpha: float, block_end: int, end_rule: str = "hastings", accept: Acceptance = metropolis
) -> Float[Tensor, "prompts W W"]:
    """`K[x, y]`, the chance that one step leads from text x to text y of `texts(tree, alpha, block_end)`.

    Lengths vary where an end token exists. The position m is then drawn from `|x|` positions on the way there and from `|y|` on
    the way back, so that the ratio has the factor `|x| / |y|`: with it `p^alpha / Z` is stationary. End rules:

    - "hastings": with this factor;
    - "no factor": without it, wrong where lengths vary;
    - "cut": the rule of the published code of power sampling (aakaran/reasoning-with-sampling, read at 720a8e9; its issue 10
      describes it): the new text has at most `|x|` tokens, and the old text counts up to the length of the new one. Its
      texts are `texts(..., unfinished=True)`, as a redrawn text may stop at `|x|` tokens without an end token.

    Args:
        tree: of the policy, with every token followed.
        alpha: the power, > 0.
        block_end: tokens of the longest text.
        end_rule: one of `END_RULES`.
        accept: chance of a new text by the logarithm of its ratio.

    Returns:
        One matrix for every prompt, rows of sum 1.

    Raises:
        InputError: there is no such rule, the matrix is too large, or what `texts` refuses.
    """
    check_end_rule(end_rule)
    return chain_of(texts(tree, alpha, block_end, end_rule == "cut"), end_rule, accept)


def check_end_rule(end_rule: str) -> None:
    """Refuse an unknown rule.

    Args:
        end_rule: what the user gave.

    Raises:
        InputError: it is none of `END_RULES`.
    """
    if end_rule not in END_RULES:
        raise InputError(f"end_rule must be one of {', '.join(END_RULES)}; got {end_rule!r}")


def chain_of(among: Texts, end_rule: str = "hastings", accept: Acceptance = metropolis) -> Float[Tensor, "prompts W W"]:
    """The matrix of `chain`, of texts at hand.

    Args:
        among: all texts, with the unfinished ones for the rule "cut".
        end_rule: one of `END_RULES`.
        accept: chance of a new text by the logarithm of its ratio.

    Returns:
        One matrix for every prompt, rows of sum 1.

    Raises:
        InputError: the matrix is too large.
    """
    length, W = among.length, len(among.length)
    check_bytes(48 * len(among.log_pi) * W**2, f"block_end makes {W} texts", "take a smaller block or vocabulary")
    shorter = torch.minimum(length[:, None], length)
    reached = torch.ones_like(shorter, dtype=torch.bool)
    if end_rule == "cut":
        reached = (length <= length[:, None]) & (among.ended | (length == length[:, None]))
    L = length.to(among.log_Z)
    factor = (L[:, None] / L).log() if end_rule == "hastings" else torch.zeros_like(L[:, None] * L)
    Z, q = (_sums(x) for x in (among.log_Z, among.log_q))
    whole_x = Z.gather(2, (shorter if end_rule == "cut" else length[:, None].expand(W, W)).expand(len(Z), W, W))
    K = torch.zeros_like(whole_x)
    for m in range(among.tokens.shape[1]):
        on = (length > m) & ((length > m)[:, None] & reached & _same_until(among.tokens, m))
        after = min(m + 1, among.tokens.shape[1])
        log_ratio = _last(Z, length)[:, None] - Z[:, None, :, after] - (whole_x - Z[:, :, None, after]) + factor
        redrawn = (_last(q, length) - q[..., m]).exp()[:, None]
        K += torch.where(on, redrawn * accept(log_ratio) / length[:, None], 0.0)
    return K + torch.diag_embed(1 - K.sum(-1))


def _sums(x: Float[Tensor, "P W T"]) -> Float[Tensor, "P W _"]:
    """Sums over the first 0, 1, ..., T tokens."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


def _last(sums: Float[Tensor, "P W _"], length: Int[Tensor, "W"]) -> Float[Tensor, "P W"]:
    """The sum over all tokens of each text."""
    return sums.gather(2, length[None, :, None].expand(len(sums), -1, 1))[..., 0]


def _same_until(tokens: Int[Tensor, "W T"], m: int) -> Bool[Tensor, "W W"]:
    """Which texts have their first m tokens in common."""
    return (tokens[:, None, :m] == tokens[None, :, :m]).all(-1)


def block_ends(horizon: int, block: int) -> list[int]:
    """`block, 2 block, ...` up to the horizon, which is the last one.

    Args:
        horizon: tokens of the longest text.
        block: tokens of a block.

    Returns:
        The ends of the blocks.

    Raises:
        InputError: block is no whole number >= 1.
    """
    return [*range(whole("block", block, 1), horizon, block), horizon]


def algorithm_law(
    tree: Tree, alpha: float, B: int, N: int, end_rule: str = "hastings", accept: Acceptance = metropolis
) -> Float[Tensor, "prompts W"]:
    """The law of the texts that power sampling returns: its matrices applied one after the other.

    Each block extends the text by B tokens at temperature `1 / alpha`, then N steps of its chain follow. Under the rule "cut" a
    text that says the end token is returned at the end of its block, as the published code does; its texts are those of
    `texts(tree, alpha, unfinished=True)`.

    Args:
        tree: of the policy, with every token followed.
        alpha: the power, > 0.
        B: tokens of a block; with the horizon or more there is one block.
        N: steps of the chain in each block.
        end_rule: one of `END_RULES`.
        accept: chance of a new text by the logarithm of its ratio.

    Returns:
        Probabilities of `texts(tree, alpha)`.

    Raises:
        InputError: B < 1, N < 0, or what `chain` refuses.
    """
    *_, last = block_stages(tree, alpha, B, N, end_rule, accept)
    return last.after(N)


@short_repr
@dataclass(frozen=True)
class Stage:
    """One block of power sampling, after its extension and before the steps of its chain.

    Attributes:
        texts: of the block.
        law: probabilities of the texts that the chain goes on from.
        returned: under the rule "cut", those of texts that were returned before this block; else 0.
        K: chances of one step.
    """

    texts: Texts
    law: Float[Tensor, "prompts W"]
    returned: Float[Tensor, "prompts W"]
    K: Float[Tensor, "prompts W W"]

    def after(self, N: int) -> Float[Tensor, "prompts W"]:
        """The law of the texts after N steps, those that were returned among them.

        Args:
            N: number of steps.

        Returns:
            Probabilities of sum 1.
        """
        return self.returned + _steps(self.law, self.K, N)


def block_stages(
    tree: Tree, alpha: float, B: int, N: int, end_rule: str = "hastings", accept: Acceptance = metropolis
) -> Iterator[Stage]:
    """The blocks of power sampling, one after the other; arguments and errors are those of `algorithm_law`.

    Args:
        tree: of the policy, with every token followed.
        alpha: the power, > 0.
        B: tokens of a block.
        N: steps of the chain in each block before the last one.
        end_rule: one of `END_RULES`.
        accept: chance of a new text by the logarithm of its ratio.

    Yields:
        Every block.

    Raises:
        InputError: as `algorithm_law`.
    """
    check_end_rule(end_rule)
    known, done, N = None, 0, whole("N", N, 0)
    law = torch.ones(len(tree.levels[0].reach), 1, dtype=torch.float64, device=tree.levels[0].pi.device)
    returned = torch.zeros_like(law)
    for end in block_ends(tree.world.horizon, B):
        among = texts(tree, alpha, end, end_rule == "cut")
        if end_rule == "cut" and known is not None:
            returned, law = returned + law * known.ended, law * ~known.ended
        grown = _extension(known, among, end - done)
        law, returned = (torch.einsum("pw,pwx->px", x, grown) for x in (law, returned))
        stage = Stage(among, law, returned, chain_of(among, end_rule, accept))
        yield stage
        law = _steps(law, stage.K, N)
        known, done = among, end


def _steps(law: Float[Tensor, "P W"], K: Float[Tensor, "P W W"], N: int) -> Float[Tensor, "P W"]:
    """The law after N steps."""
    after: Tensor = (law[:, None] @ torch.linalg.matrix_power(K, N))[:, 0]
    return after


def _extension(known: Texts | None, among: Texts, more: int) -> Float[Tensor, "P W_old W"]:
    """Chance that each known text (None: the empty one) becomes each longer one by `more` tokens at temperature 1 / alpha."""
    T, length = among.tokens.shape[1], among.length
    old = torch.zeros(1, dtype=torch.int64, device=length.device) if known is None else known.length
    over = torch.zeros(1, dtype=torch.bool, device=length.device) if known is None else known.ended
    start = among.tokens.new_full((1, T), -1) if known is None else known.tokens
    start = torch.nn.functional.pad(start, (0, T - start.shape[1]), value=-1)
    begins = ((start[:, None] == among.tokens) | (start[:, None] == -1)).all(-1)
    most = (old + more).clamp(max=T)[:, None]
    full = (length <= most) & (among.ended | (length == most)) & (length > old[:, None])
    kept = (length == old[:, None]) & among.ended
    sums = _sums(among.log_q)
    at_old = sums.gather(2, torch.minimum(old[:, None], length).expand(len(sums), -1, -1).mT).mT
    chance = (_last(sums, length)[:, None] - at_old).exp()
    return torch.where(begins & torch.where(over[:, None], kept, full), chance, 0.0)


def spectral_gap(K: Float[Tensor, "*prompts W W"], law: Float[Tensor, "*prompts W"]) -> Float[Tensor, "*prompts"]:
    """1 minus the second largest eigenvalue of a reversible chain, among the texts that its law gives.

    Args:
        K: chances of its steps.
        law: with which it is reversible: `law[x] K[x, y] = law[y] K[y, x]`.

    Returns:
        The gap; 1 where the law gives one text alone.

    Raises:
        InputError: K is not reversible with this law.
    """
    flow = law[..., None] * K
    if not torch.allclose(flow, flow.mT, rtol=0, atol=1e-9):
        raise InputError("law must be one with which K is reversible: law[x] K[x, y] = law[y] K[y, x]")
    given = (law > 0).to(K)
    symmetric = (K * K.mT).sqrt() * given[..., None] * given[..., None, :]  # that of the chain, by reversibility
    largest: Tensor = torch.linalg.eigvalsh(symmetric)
    return 1 - (largest[..., -2] if K.shape[-1] > 1 else torch.zeros_like(largest[..., -1]))


def gap_bound(among: Texts) -> Float[Tensor, "prompts"]:
    """The upper bound of the chain's spectral gap by functions f of the first token, which only `m = 0` can change.

    The least `min_a E[(f - a)^2 / |x|] / Var f` over f, under `p^alpha / Z`: `1 / T` where all texts have T tokens.

    Args:
        among: all finished texts.

    Returns:
        The bound; 1 where the first token is certain.
    """
    law, V = among.power, int(among.tokens[:, 0].max()) + 1
    first = torch.nn.functional.one_hot(among.tokens[:, 0], V).to(law)
    return torch.stack([_least_ratio(p @ first, (p / among.length) @ first) for p in law])


def _least_ratio(p: Float[Tensor, "V"], n: Float[Tensor, "V"]) -> Float[Tensor, ""]:
    """The least `min_a sum n (f - a)^2 / (sum p f^2 - (sum p f)^2)` over f that are not constant."""
    p, n = p[p > 0], n[p > 0]
    if len(p) < 2:
        return torch.ones_like(p[0])
    top, bottom = (torch.diag(x) - torch.outer(x, x) / x.sum() for x in (n, p))
    L = torch.linalg.cholesky(bottom[1:, 1:])  # f of one token is 0, as constants do not matter
    half = torch.linalg.solve_triangular(L, top[1:, 1:], upper=False)
    least: Tensor = torch.linalg.eigvalsh(torch.linalg.solve_triangular(L, half.mT, upper=False))[0]
    return least
