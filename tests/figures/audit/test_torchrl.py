"""torchrl's losses through the adapter, against brute force over all ordered groups through its loss and its distribution."""

import itertools
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import sum_and_stop
from envs.world import InputError
from figures.audit.adapters import build
from figures.audit.exact import mean_field
from figures.audit.probes import probe
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow

pytestmark = [
    pytest.mark.skipif(find_spec("torchrl") is None, reason="torchrl is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
WORLD = sum_and_stop(2, 2)


class Speaker(nn.Module):
    """An actor whose distribution is the library's own, over logits of a table."""

    in_keys = ("tokens",)
    dist: Any = None

    def get_dist(self, tensordict: Any, **_: Any) -> Any:
        return self.dist

    _get_sft_dist = get_dist


def brute_force(name: str, policy: PrefixTable, group: int, **options: Any) -> Tensor:
    """Advantages by hand, the loss of the library, one ordered group after another."""
    from tensordict import TensorDict
    from torchrl.modules.distributions.discrete import LLMMaskedCategorical
    from torchrl.objectives import llm

    loss = getattr(llm, name)(Speaker(), entropy_bonus=False, **options)
    with torch.no_grad():
        table = words(grow(WORLD, policy))
    tokens, mask, R = table.tokens[0], table.mask[0], table.rewards[0].sum(-1)
    total = torch.zeros_like(policy.logits)
    for index in map(list, itertools.product(range(len(tokens)), repeat=group)):
        if R[index].std() == 0:
            continue  # all advantages are 0
        A = (R[index] - R[index].mean()) / R[index].std().clamp_min(1e-6)
        contexts = torch.cat([WORLD.prompts[0].expand(group, -1), tokens[index]], 1)
        z = policy(policy.embed(contexts[:, :-1]))[:, -tokens.shape[1] :]
        loss.actor_network.dist = LLMMaskedCategorical(logits=z, mask=mask[index])
        given = {"tokens": {"full": tokens[index]}, "log_probs": {"full": table.log_probs[0][index]}}
        answer = loss(TensorDict(given | {"advantage": A[:, None, None]}, [group]))
        slope = torch.autograd.grad(answer.loss_objective, [policy.logits])[0]
        total -= table.p[0][index].prod() * slope
    return total.flatten()


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "grpo": ("GRPOLoss", "grpo", {}),
    "grpo, by prompt": ("GRPOLoss", "grpo", {"aggregation": "prompt_mean"}),
    "dapo": ("DAPO", "dapo", {"clip_epsilon": (0.2, 0.28)}),
    "cispo": ("CISPOLoss", "cispo", {}),
}


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_is_that_of_all_ordered_groups(case: str, group: int) -> None:
    of, name, options = CASES[case]
    policy = PrefixTable(WORLD, seed=1)
    expected = brute_force(of, policy, group, **options)
    found = mean_field(build(f"torchrl:{name}", options), WORLD, policy, group=group, bonus=False)
    assert float((found - expected).norm() / expected.norm()) < 1e-7  # torchrl keeps its clip bounds in float32
    other = {"aggregation": "token_mean" if "aggregation" in options else "prompt_mean"}
    wrong = mean_field(build(f"torchrl:{name}", options | other), WORLD, policy, group=group, bonus=False)
    assert float((wrong - expected).norm() / expected.norm()) > 1e-2


def test_rows_of_two_groups_may_be_mixed() -> None:
    subject, rows = build("torchrl:grpo", {}), probe(2, 4)
    index = torch.tensor([4, 0, 5, 1, 6, 2, 7, 3])
    expected = subject.slopes(rows).weights[index]
    assert torch.allclose(subject.slopes(rows.take(index)).weights, expected, atol=1e-12)
    assert not torch.allclose(subject.slopes(rows.take(index)).weights, expected.flip(0), atol=1e-3)


def test_a_wrong_name_or_option_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="loss 'ppo' is unknown"):
        build("torchrl:ppo", {})
    with pytest.raises(InputError, match="option 'beta' is unknown"):
        build("torchrl:grpo", {"beta": 0.1})
