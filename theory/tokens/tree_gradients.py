"""One backward pass through a prefix tree: the parameter gradient and the value gradients of all nodes together.

A *surrogate* is a scalar of the tree whose weights are constants and whose derivatives are the wanted ones, in the parameters
as in every node's leaf. A leaf moves only its own node's value, so the slope in the leaf, divided by `gamma^k` and by the
node's probability, is the value gradient of the node. `tree_gradients` does this subtree by subtree, so that memory is bounded
by the largest chunk and not by the tree.

Theory page, section 3: "The empirical costates E1 to E5".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import names
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.differences import flat_parameters
from theory.tokens.environment import paid
from theory.tokens.prefix_frames import joined, last_position, numbered, prefix_frame
from theory.tokens.prefix_tree import Level, Mix, Roots, Tree, edge_values, grow, possible_log_probs, prefix_roots
from theory.tokens.tree_size import DEFAULT_BUDGET, bytes_per_node, node_count

Surrogate = Callable[[Tree], Tensor]
DEFAULT_CHUNK = 2**28  # bytes at a time: larger pieces are slower, not faster


def path_surrogate(tree: Tree, own_token_averaged: bool = False) -> Float[Tensor, ""]:
    """Surrogate of the attention costate E1: its gradient is the mean slope of the realised reward at fixed tokens c.

    `sum_k gamma^k sum_edges weight rbar(b, u)` with constant weights. With `own_token_averaged` each step's table
    reward is replaced by its average over the step's own token, `b' r pi` (E1b); later steps still see the sampled
    token.

    Args:
        tree: with every token followed, or with samples.
        own_token_averaged: whether each table reward is averaged over its own token.

    Returns:
        A scalar; only its derivatives are meant.
    """
    total = torch.zeros_like(tree.levels[0].reach[0])
    for k, level in enumerate(tree.levels):
        rewards = (level.share * level.rewards).sum(-1)
        if own_token_averaged:
            table = paid(tree.world, k, level.belief, level.heard, level.u)
            rewards = rewards - (level.share * table).sum(-1) + _own_token_averaged(tree.world, k, level)
        total = total + tree.world.gamma**k * (level.reach @ rewards)
    return total


def _own_token_averaged(world: TokenMDP, k: int, level: Level) -> Float[Tensor, "N"]:
    """The table reward of every node, averaged over its token: `b' r pi`, or `sum_z b(z) sum_a speech(z, a) r(z, a)`."""
    table, top = level.belief @ world.r[k], level.pi.detach().argmax(-1, keepdim=True)
    usual = table.gather(-1, top)
    # the slope of `pi (r - r_top)` keeps its digits where one token has almost all of the probability
    average: Tensor = (level.pi * (table - usual)).sum(-1) + usual[:, 0]
    if world.speech is None:
        return average
    return torch.where(level.own, average, level.belief @ (world.speech * world.r[k]).sum(-1))


def score_surrogate(tree: Tree, baseline: bool = True) -> Float[Tensor, ""]:
    """Surrogate of the score costate E2: its gradient is the mean slope of `sum_k gamma^k (Q - b) log pi(c_k)`.

    Q is the return after the token as a constant: exact in a whole tree, the realised return-to-go in a sample. The
    baseline b is the node's V where all edges are followed, else 0; it does not change the mean. The environment's
    tokens count with the logarithm of its law, which no parameter moves at alpha = 1.

    Args:
        tree: with every token followed, or with samples.
        baseline: whether V is subtracted where all edges are followed.

    Returns:
        A scalar; only its derivatives are meant.
    """
    total = torch.zeros_like(tree.levels[0].reach[0])
    for k, (level, Q, V) in enumerate(zip(tree.levels, tree.Q, tree.V, strict=True)):
        advantage = Q - V[:, None] if baseline and Q.shape[1] > 1 else Q
        log_pi = possible_log_probs(level.logits).gather(1, level.tokens)
        total = total + tree.world.gamma**k * (level.reach @ (level.share * advantage * log_pi).sum(-1))
    return total


def total_surrogate(tree: Tree) -> Float[Tensor, ""]:
    """Sum of the two surrogates: its gradient is that of the expected return, for every alpha.

    Args:
        tree: with every token followed, or with samples.

    Returns:
        A scalar; only its derivatives are meant.
    """
    return path_surrogate(tree) + score_surrogate(tree)


def node_gradients(tree: Tree, surrogate: Float[Tensor, ""], site: str) -> list[Float[Tensor, "N positions D"]]:
    """Slope of the surrogate in every node's leaf, divided by `gamma^k` and by the node's probability.

    A surrogate that does not depend on the leaves has slope 0 (E1 of a token reward at alpha = 1). For a node whose
    probability is 0, or so small that the slope has no digits left, the result is NaN, never 0.

    Args:
        tree: the tree of the surrogate, grown with this site.
        surrogate: a scalar of the tree.
        site: where in the network the leaves are.

    Returns:
        One tensor for each level.

    Raises:
        InputError: the tree has no leaves at this site.
    """
    if site not in tree.levels[0].leaves:
        raise InputError(f"site {site!r} has no leaves in this tree; it was grown with {list(tree.levels[0].leaves)}")
    leaves = [level.leaves[site] for level in tree.levels]
    slopes = _slopes(surrogate, leaves, keep=True)
    return [
        _per_node(slope, tree.world.gamma**k, level.reach)
        for k, (slope, level) in enumerate(zip(slopes, tree.levels, strict=True))
    ]


def _slopes(loss: Tensor, inputs: Sequence[Tensor], keep: bool = False) -> tuple[Tensor, ...]:
    """Derivatives of the loss; 0 where the loss does not depend on an input."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(loss, list(inputs), retain_graph=keep, allow_unused=True, materialize_grads=True)


def _per_node(slope: Tensor, discount: float, reach: Tensor) -> Tensor:
    """Slope of a node's own value; NaN where the node's probability is too small."""
    limits = torch.finfo(reach.dtype)
    weight = (discount * reach)[:, None, None]
    return torch.where(weight > limits.tiny / limits.eps, slope / weight, torch.nan)


@dataclass(frozen=True)
class TreeGradients:
    """Exact answers at every prefix of a tree.

    Attributes:
        J: expected return.
        V: value of every prefix; `V[k]` has one entry for each of the N_k prefixes with k tokens.
        parameters: gradient of the surrogate, one tensor for each parameter, in their order.
        costates: by site and level the value gradients (N_k, positions, D); NaN where the probability of the prefix is
            too small.
    """

    J: Float[Tensor, ""]
    V: list[Tensor]
    parameters: tuple[Tensor, ...]
    costates: dict[str, list[Tensor]]

    def __repr__(self) -> str:
        sites = f", sites: {', '.join(self.costates)}" if self.costates else ""
        kind = "" if self.J.dtype == torch.float64 else f", {str(self.J.dtype).removeprefix('torch.')}"
        return f"TreeGradients(J={float(self.J):.4g}, {sum(map(len, self.V))} prefixes{sites}{kind})"

    def frame(self, components: bool = False) -> pd.DataFrame:
        """One row for each prefix.

        Args:
            components: whether the entries of every value gradient get columns `SITE.0`, `SITE.1`, ... of their own.

        Returns:
            Columns `level`, `prompt`, `tokens`, `V`, and for each site the norm of the value gradient at the prefix's last
            position.
        """
        frame = prefix_frame(self.V)
        frame["V"] = joined(self.V).numpy()
        for site, levels in self.costates.items():
            costates = last_position(levels)
            frame[site] = costates.norm(dim=1).numpy()
            if components:
                frame = frame.join(numbered(site, costates))
        return frame

    @property
    def flat(self) -> Float[Tensor, "parameters"]:
        """The parameter gradient as one vector."""
        return flat_parameters(self.parameters)


def tree_gradients(
    world: TokenMDP,
    policy: TokenPolicy,
    mix: Mix | float = 1.0,
    sites: str | Sequence[str] = (),
    surrogate: Surrogate = total_surrogate,
    budget: int = DEFAULT_BUDGET,
    chunk: int = DEFAULT_CHUNK,
) -> TreeGradients:
    """J, parameter gradient and value gradient of every prefix, in about `chunk` bytes of memory where possible.

    The levels above a cut, the trunk, are one tree. The subtrees below the cut are grown and differentiated a chunk at
    a time, each from its prefixes as if they were prompts. The slopes that a chunk's backward pass finds at those
    prefixes (in their embeddings, beliefs and ancestors' leaves) and the values of its roots are then carried through
    the trunk. Every prefix runs forward once; only the contexts at the cut are read again. If `chunk` is too small for
    any cut, the cut that needs least memory is taken.

    Args:
        world: the token world.
        policy: over its tokens.
        mix: the rule for the next input, or alpha (see `grow`).
        sites: places in the network where value gradients are taken, one name or several.
        surrogate: tree -> scalar.
        budget: bytes that may be needed in all.
        chunk: bytes that a chunk may need.

    Returns:
        J, V, the parameter gradient and the costates of every prefix, all constants.

    Raises:
        InputError: even the best cut needs more than the budget.
    """
    sites = names(sites)
    budget_left = budget - _answer_bytes(world, policy, sites)
    cut, rows = _plan(world, policy, min(chunk, budget_left), budget_left)
    if cut == 0:
        tree = grow(world, policy, mix, sites, budget=budget)
        return whole_tree_gradients(tree, policy, sites, surrogate(tree))
    trunk = grow(world.first(cut), policy, mix, sites, budget=budget)
    roots, sums = prefix_roots(trunk, policy, cut), _Sums(world, policy, trunk, sites)
    x, belief, reach = roots.x.detach(), roots.belief.detach(), roots.reach
    pulls = [torch.zeros_like(x), torch.zeros_like(belief)]
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        piece = Roots(x[part].clone().requires_grad_(), belief[part].clone().requires_grad_(), reach[part], cut)
        tree = grow(world, policy, mix, sites, budget=budget, roots=piece)
        at_cut = sums.add(tree, world.gamma**cut * surrogate(tree), [piece.x, piece.belief], start)
        for pull, slope in zip(pulls, at_cut, strict=True):
            pull[part] = slope
    V, Q = edge_values(trunk.world, trunk.levels, torch.cat(sums.V[cut]))
    carried = (pulls[0] * roots.x).sum() + (pulls[1] * roots.belief).sum()
    return sums.close(replace(trunk, V=V, Q=Q), surrogate, carried)


def whole_tree_gradients(
    tree: Tree, policy: TokenPolicy, sites: Sequence[str], loss: Float[Tensor, ""], keep: bool = False
) -> TreeGradients:
    """Gradients of any scalar `loss` of a tree in one piece.

    Args:
        tree: grown in one piece.
        policy: the policy that it was grown with.
        sites: places where it has leaves.
        loss: a scalar of the tree.
        keep: whether the graph stays, for a further loss.

    Returns:
        The gradients of the loss; J and V are those of the tree.
    """
    parameters, H = list(policy.parameters()), len(tree.levels)
    leaves = [level.leaves[site] for site in sites for level in tree.levels]
    slopes = _slopes(loss, parameters + leaves, keep)
    own = slopes[len(parameters) :]
    costates = {
        site: [_per_node(own[i * H + k], tree.world.gamma**k, level.reach) for k, level in enumerate(tree.levels)]
        for i, site in enumerate(sites)
    }
    return TreeGradients(tree.J.detach(), tree.V, slopes[: len(parameters)], costates)


class _Sums:
    """Running sums of slopes in the parameters, in the trunk's leaves and in each chunk's own nodes."""

    def __init__(self, world: TokenMDP, policy: TokenPolicy, trunk: Tree, sites: Sequence[str]):
        self.gamma, self.trunk, self.sites, self.branches = world.gamma, trunk, sites, world.V
        self.parameters = list(policy.parameters())
        self.slopes = [torch.zeros_like(p) for p in self.parameters]
        self.trunk_leaves = [level.leaves[site] for site in sites for level in trunk.levels]
        self.trunk_slopes = [torch.zeros_like(leaf) for leaf in self.trunk_leaves]
        self.V: list[list[Tensor]] = [[] for _ in range(world.horizon)]
        self.costates: dict[str, list[list[Tensor]]] = {site: [[] for _ in range(world.horizon)] for site in sites}

    def add(self, tree: Tree, loss: Tensor, cut: list[Tensor], start: int) -> tuple[Tensor, ...]:
        """Differentiate a chunk; return its slopes in the tensors at the cut."""
        depth, H = len(self.trunk.levels), len(tree.levels)
        leaves = [level.leaves[site] for site in self.sites for level in tree.levels]
        slopes = _slopes(loss, [*self.parameters, *leaves, *cut])
        for total, slope in zip(self.slopes, slopes, strict=False):
            total += slope
        own = slopes[len(self.parameters) : len(slopes) - len(cut)]
        for k, level in enumerate(tree.levels):
            self.V[depth + k].append(tree.V[k])
            for i, site in enumerate(self.sites):
                slope = own[i * H + k][:, -1:]
                self.costates[site][depth + k].append(_per_node(slope, self.gamma ** (depth + k), level.reach))
        for i in range(len(self.sites)):
            self._to_ancestors(own[i * H][:, :-1], i, start)
        return slopes[len(slopes) - len(cut) :]

    def _to_ancestors(self, slope: Tensor, i: int, start: int) -> None:
        """Add a chunk's slopes at the earlier positions of its contexts to the ancestors' leaves at those positions."""
        depth, nodes, position = len(self.trunk.levels), torch.arange(start, start + len(slope), device=slope.device), 0
        for j in range(depth):
            total = self.trunk_slopes[i * depth + j]
            width = total.shape[1]
            total.index_add_(0, nodes // self.branches ** (depth - j), slope[:, position : position + width])
            position += width

    def close(self, trunk: Tree, surrogate: Surrogate, carried: Tensor) -> TreeGradients:
        """Add the trunk's own part and return all gradients."""
        slopes = _slopes(surrogate(trunk) + carried, [*self.parameters, *self.trunk_leaves])
        parameters = tuple(a + b for a, b in zip(self.slopes, slopes, strict=False))
        leaves = [a + b for a, b in zip(self.trunk_slopes, slopes[len(self.parameters) :], strict=True)]
        depth = len(trunk.levels)
        costates = {}
        for i, site in enumerate(self.sites):
            above = [
                _per_node(leaves[i * depth + j], self.gamma**j, level.reach) for j, level in enumerate(trunk.levels)
            ]
            costates[site] = above + [torch.cat(parts) for parts in self.costates[site][depth:]]
        V = trunk.V + [torch.cat(parts) for parts in self.V[depth:]]
        return TreeGradients(trunk.levels[0].reach @ V[0], V, parameters, costates)


def _answer_bytes(world: TokenMDP, policy: TokenPolicy, sites: Sequence[str]) -> int:
    """Bytes of the values and value gradients themselves."""
    return 8 * node_count(world) * (1 + len(sites) * getattr(policy, "width", 1))


def _plan(world: TokenMDP, policy: TokenPolicy, chunk: int, budget: int) -> tuple[int, int]:
    """The cut (0 for none) and the number of its prefixes in a chunk.

    The cut is the shallowest that fits into `chunk`, else the one that needs least. If that is not within the budget there is
    no cut, and growing the whole tree raises InputError with the numbers.
    """
    each, H = bytes_per_node(world, policy), world.horizon + (world.readout is not None)
    sizes = [len(world.prompts) * world.V**k for k in range(H)]
    if sum(sizes) * each <= chunk:
        return 0, 0
    trunks = [each * sum(sizes[:cut]) for cut in range(world.horizon)]
    subtrees = [each * sum(world.V**k for k in range(H - cut)) for cut in range(world.horizon)]
    needs = {cut: trunks[cut] + subtrees[cut] for cut in range(1, world.horizon)}
    cut = next((c for c, need in needs.items() if need <= chunk), min(needs, key=lambda c: needs[c], default=0))
    if cut == 0 or needs[cut] > budget:
        return 0, 0
    return cut, min(sizes[cut], max(1, (chunk - trunks[cut]) // subtrees[cut]))
