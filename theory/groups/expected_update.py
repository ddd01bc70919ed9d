"""The exact mean of a critic-free update: its parameter gradient, and its costate at every prefix.

A *recipe* is a plain callable `recipe(rewards, mask, group, **fields) -> (weights, entropy weights or None)`, all (rows, T).
Its update is `sum_it w_it grad log pi(c_it) + u_it grad H_it` with these weights w and u. A recipe sees a completion only
through its rewards, its mask and the fields that it takes, so completions that agree in these are one *outcome*. Where tokens
lead by chance, the rewards are those that are drawn with the states: a completion is a word with the states on its way.

The mean weight W of a row with a given outcome is a sum over all groups (`theory.groups.outcomes`), or over all batches of
several groups where the recipe mixes them (`theory.groups.batches`). The mean update is then
`sum_o p(o) sum_t W_t(o) grad log pi(c_t)`, which is the gradient of a surrogate on the prefix tree. A recipe that ignores the
mask gives weights to the environment's tokens too, and what this does to the mean is shown.
For binary rewards `theory.groups.binary_rewards` has the same means in closed form.

Theory page, section 4: "Exact means of any recipe".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from envs.arguments import names, short
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.groups.batches import PromptOutcomes, mean_weights
from theory.groups.binary_rewards import Alignment, alignment
from theory.groups.outcomes import Recipe, distinct_outcomes, further_fields
from theory.groups.targets import Target, checked_value
from theory.tokens.completions import completions, words
from theory.tokens.prefix_frames import joined, last_position, numbered, prefix_frame
from theory.tokens.prefix_tree import Level, Tree, grow
from theory.tokens.softmax_bounds import entropy, log_softmax
from theory.tokens.tree_gradients import TreeGradients, score_surrogate, whole_tree_gradients
from theory.tokens.tree_size import DEFAULT_BUDGET


@short_repr
@dataclass(frozen=True)
class ExpectedUpdate:
    """The mean update and the gradient of what it is meant to climb.

    Attributes:
        mean: the mean update, with costates at every prefix.
        truth: the gradient of the target, likewise.
        weights: `weights[k]` (N_k, C) is E[w_t | prefix, token] of every edge of level k.
        value: the target's value; J where none was given.
    """

    mean: TreeGradients
    truth: TreeGradients
    weights: list[Tensor]
    value: Float[Tensor, ""]

    @property
    def J(self) -> Float[Tensor, ""]:
        """Expected return."""
        return self.truth.J

    @property
    def alignment(self) -> Alignment:
        """Cosine, scale (kappa, where the two are parallel) and bias of the mean's parameter gradient against the truth's."""
        return alignment(self.mean, self.truth)

    def frame(self) -> pd.DataFrame:
        """One row for each prefix: how the mean update's costate stands to the truth's.

        Returns:
            Columns `level`, `prompt` and `tokens`, `weight.0`, `weight.1`, ... (the mean weight of each token there), and for
            each site `SITE.cosine`, `SITE.scale` and `SITE.bias`, NaN where the truth is 0.
        """
        frame = prefix_frame(self.truth.V, self.weights[0].shape[1]).join(numbered("weight", joined(self.weights)))
        for site, costates in self.truth.costates.items():
            pairs = zip(last_position(self.mean.costates[site]), last_position(costates), strict=True)
            stands = pd.DataFrame([alignment(x, y) for x, y in pairs])
            frame = frame.join(stands.add_prefix(f"{site}."))
        return frame


def expected_update(
    world: TokenMDP,
    policy: TokenPolicy,
    recipe: Recipe,
    group: int,
    sites: str | Sequence[str] = (),
    *,
    behaviour: TokenPolicy | None = None,
    reference: TokenPolicy | None = None,
    values: Sequence[Tensor] | None = None,
    prompts: int | Sequence[int] | None = None,
    target: Target | None = None,
    budget: int = DEFAULT_BUDGET,
) -> ExpectedUpdate:
    """The exact mean of a recipe's update of `policy`, beside the exact gradient.

    The recipe gets the field `ended` where the world has an end token, `span` where the environment speaks (True for
    all tokens of the completion; the mask has the policy's alone), the world's signals that it asks for by name
    (`theory.groups.outcomes.further_fields`), and more fields as said below. Every further field makes more outcomes;
    in the end every completion is one.

    Args:
        world: a token world small enough for its prefix tree.
        policy: the policy that is updated.
        recipe: as in the module's docstring. The weights of a batch are an average: of B rows each has its own, over B.
        group: G, the rows of each prompt.
        sites: where costates are read at every prefix, one name or several; they are divided by `gamma^k P(prefix)`, as
            value gradients are.
        behaviour: the policy that draws the rows, by default `policy`; with it the recipe gets `log_probs` and `old`.
        reference: the policy of a KL penalty; with it the recipe gets `log_probs`, `old` and `reference`.
        values: a critic's V_k of every node, level by level, as in `Tree.V`; the recipe gets `values`, which are `gamma^k V_k`.
        prompts: the groups of a batch, for a recipe that mixes them: a number of prompts that are drawn by the world's weights,
            or the indices of the prompts that a batch always holds. A recipe that weighs every group by itself needs none.
        target: whose gradient is the truth, by default the expected return; others are in `theory.groups.targets`.
        budget: bytes that the multisets, or the prefixes, may take.

    Returns:
        The mean update and the true gradient, both with costates at the sites.

    Raises:
        InputError: the group is below 1, the target is not one finite number, the recipe mixes the groups of a batch and
            `prompts` is missing, or more than `budget` bytes or too many batches would be needed (seen before anything is
            allocated).
    """
    if not callable(recipe):
        raise InputError(
            f"recipe must be a function of rewards, mask and group, grpo() for instance; got {short(recipe)}"
        )
    sites = names(sites)
    tree = grow(world, policy, 1.0, sites, budget=budget)
    with torch.no_grad():
        drawn = tree if behaviour is None else grow(world, behaviour, budget=budget)
        compared = None if reference is None else words(grow(world, reference, budget=budget))
    rows = completions(drawn, budget)
    fields = {"rewards": rows.rewards, "mask": rows.mask}
    if behaviour is not None or reference is not None:
        fields |= {"log_probs": words(tree).log_probs[:, rows.word], "old": rows.log_probs}
    if compared is not None:
        fields["reference"] = compared.log_probs[:, rows.word]
    if values is not None:
        fields["values"] = _along_words(tree, values)[:, rows.word]
    fields |= further_fields(recipe, tree.world, rows, budget)
    weights = _row_weights(recipe, rows.p, fields, world.weights, group, prompts, budget)
    edges, bonus = (None if w is None else _edge_means(drawn, rows.over_states(w)) for w in weights)
    assert edges is not None
    mean = whole_tree_gradients(tree, policy, sites, _surrogate(tree, drawn, edges, bonus), keep=True)
    climbed = score_surrogate(tree) if target is None else checked_value(target, tree)
    truth = whole_tree_gradients(tree, policy, sites, climbed)
    return ExpectedUpdate(mean, truth, edges, truth.J if target is None else climbed.detach())


def _along_words(tree: Tree, values: Sequence[Tensor]) -> Float[Tensor, "prompts W H"]:
    """`gamma^k V_k` of a critic at every prefix of every word."""
    count, prompts = tree.levels[-1].tokens.numel(), len(tree.levels[0].reach)
    columns = [tree.world.gamma**k * V.detach().repeat_interleave(count // len(V)) for k, V in enumerate(values)]
    return torch.stack(columns, -1).reshape(prompts, -1, len(columns))


def _row_weights(
    recipe: Recipe,
    p: Float[Tensor, "prompts L"],
    fields: dict[str, Tensor],
    weights: Float[Tensor, "prompts"],
    group: int,
    prompts: int | Sequence[int] | None,
    budget: int,
) -> tuple[Tensor, Tensor | None]:
    """Mean weights (prompts, L, H) of all completions, by way of their outcomes; in float64, whatever the policy is in."""
    fields = {name: x.double() if x.is_floating_point() else x for name, x in fields.items()}
    index, outcomes = list[Tensor](), list[PromptOutcomes]()
    for i, chances in enumerate(p.double()):
        of, own = distinct_outcomes({name: field[i] for name, field in fields.items()})
        index.append(of)
        outcomes.append(PromptOutcomes(chances.new_zeros(len(own["mask"])).index_add_(0, of, chances), own))
    means = mean_weights(recipe, outcomes, weights.to(p).double(), group, prompts, budget)
    mean = torch.stack([w[of] for of, (w, _) in zip(index, means, strict=True)])
    bonuses = [u[of] for of, (_, u) in zip(index, means, strict=True) if u is not None]
    return mean, torch.stack(bonuses) if bonuses else None


def _edge_means(tree: Tree, leaves: Float[Tensor, "prompts W H"]) -> list[Float[Tensor, "N C"]]:
    """For every edge of level k the mean of column k over the words through that edge."""
    rest, means = leaves.flatten(0, 1), list[Tensor]()
    for k in reversed(range(len(tree.levels))):
        shape = tree.levels[k].share.shape
        means.insert(0, rest[:, k].reshape(shape))
        rest = (tree.levels[k].share[..., None] * rest.reshape(*shape, -1)).sum(1)
    return means


def _surrogate(tree: Tree, drawn: Tree, weights: list[Tensor], bonus: list[Tensor] | None) -> Float[Tensor, ""]:
    """`sum_k sum_edges P(edge) W log pi + sum_k sum_nodes P(node) U H(pi)`; P is that of the policy that draws the rows."""
    total = torch.zeros_like(tree.levels[0].reach[0]).double()
    for k, (level, source) in enumerate(zip(tree.levels, drawn.levels, strict=True)):
        log_pi = log_softmax(level.policy_logits).gather(1, level.tokens)
        reach = source.reach.double()
        weight = weights[k] if source is not level else weights[k] - _of_likeliest(level, weights[k])
        total = total + reach @ (source.share * weight * log_pi).sum(-1)
        if bonus is not None:
            total = total + reach @ (
                (source.share * bonus[k]).sum(-1) * entropy(torch.softmax(level.policy_logits, -1))
            )
    return total


def _of_likeliest(level: Level, weights: Float[Tensor, "N C"]) -> Float[Tensor, "N 1"]:
    """The weight of every node's likeliest token, where the policy draws it.

    Subtracted from all weights of the node it changes no mean, as `E grad log pi = 0`, and leaves digits where all are nearly
    alike.
    """
    own = weights.gather(1, level.share.argmax(1, keepdim=True))
    return torch.where(level.own[:, None], own, 0.0)
