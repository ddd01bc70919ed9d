"""TRL's losses through the adapter, against brute force over all ordered groups through a model's forward and backward pass."""

import itertools
from collections.abc import Sequence
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

pytestmark = [
    pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("uses_global_rng"),  # a trainer seeds it
]
WORLD = sum_and_stop(2, 2)
PAID = {(2,): 0.0, (1, 2): 1.0}  # the prompt asks for the sum 1
SAID = [(2,), *itertools.product((0, 1), (0, 1, 2))]


def sharpened(name: str, **options: Any) -> Any:
    """The adapter, on a model that is far from uniform and without dropout."""
    subject = build(f"trl:{name}", options)
    rng = torch.Generator().manual_seed(0)
    for module in subject.trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for x in subject.trainer.model.parameters():
        x.data = torch.randn(x.shape, generator=rng)
    return subject


def logits_of(trainer: Any) -> Tensor:
    """The model's logits after every prefix, in the order of `PrefixTable`."""
    first = trainer.model(input_ids=torch.tensor([[1]])).logits[:, -1]
    second = trainer.model(input_ids=torch.tensor([[1, 0], [1, 1], [1, 2]])).logits[:, -1]
    return torch.cat([first, second])


def flat(model: nn.Module) -> Tensor:
    return torch.cat(
        [torch.zeros(x.numel()) if x.grad is None else x.grad.flatten() for x in model.parameters()]
    ).double()


def real(trainer: Any, words: list[tuple[int, ...]], prompt: Sequence[int] = (1,), multiple: int = 1) -> Tensor:
    """Minus the gradient of the model's parameters: the trainer's own rewards, forward passes and loss."""
    shown: list[Any] = [[list(prompt)] * len(words), [list(word) for word in words], ["b"] * len(words)]
    grpo = type(trainer).__name__ == "GRPOTrainer"
    answer = (*shown[:2], None, shown[2], None, {}, None, None) if grpo else tuple(shown)
    trainer._generate = lambda prompts: answer
    trainer.reward_funcs = [lambda completion_ids, **_: [PAID.get(tuple(ids), 0.0) for ids in completion_ids]]
    trainer.num_generations, trainer.pad_to_multiple_of = len(words), multiple
    trainer.args.steps_per_generation = trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._generate_and_score_completions([{"prompt": "b"}] * len(words))
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    return -flat(trainer.model)


def brute_force(trainer: Any, group: int) -> Tensor:
    with torch.no_grad():
        log_pi = torch.log_softmax(logits_of(trainer).double(), -1)
    chance = {
        word: float(log_pi[0, word[0]] + (log_pi[1 + word[0], word[1]] if len(word) > 1 else 0.0)) for word in SAID
    }
    total = torch.zeros(1, dtype=torch.float64)
    for words in itertools.product(SAID, repeat=group):
        if len({PAID.get(word, 0.0) for word in words}) > 1:  # others have advantages of 0
            p = torch.tensor(sum(chance[word] for word in words), dtype=torch.float64).exp()
            total = total + p * real(trainer, list(words))
    return total


def by_audit(subject: Any, group: int) -> Tensor:
    """The exact mean in the logits, by this suite, through the model's Jacobian."""
    z = logits_of(subject.trainer)
    mean = mean_field(subject, WORLD, PrefixTable(WORLD, z.detach().double()), group=group)
    subject.trainer.model.zero_grad()
    (z * mean.reshape(z.shape).to(z)).sum().backward()
    return flat(subject.trainer.model)


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


CASES = {
    "rloo": ("rloo", {}),
    "grpo": ("grpo", {"loss_type": "grpo"}),
    "dapo": ("grpo", {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dr_grpo": ("grpo", {"loss_type": "dr_grpo", "scale_rewards": "none", "max_completion_length": 2}),
}


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_is_that_of_all_ordered_groups_through_a_real_model(case: str, group: int) -> None:
    name, options = CASES[case]
    subject = sharpened(name, **options)
    expected = brute_force(subject.trainer, group)
    assert off(by_audit(subject, group), expected) < 1e-5
    other = sharpened(name, **(options | {"mask_truncated_completions": True}))
    assert off(by_audit(other, group), expected) > 1e-2, "truncated rows left out must be seen"


def test_columns_of_padding_change_nothing_in_a_real_model() -> None:
    trainer = sharpened("grpo", loss_type="dapo").trainer
    words, prompt = [(2,), (1, 2), (0, 1)], [1, 0, 0, 1]
    narrow, wide = (real(trainer, words, prompt, multiple) for multiple in (1, 4))  # the prompt fills four columns
    assert off(wide, narrow) < 1e-5
    assert off(real(trainer, words, [1]), narrow) > 1e-2


@pytest.mark.parametrize(("loss_type", "same"), [("grpo", True), ("dapo", True), ("bnpo", False)])
def test_micro_batches_are_accumulation_steps(loss_type: str, same: bool) -> None:
    subject, rows = build("trl:grpo", {"loss_type": loss_type}), probe(3, 4)
    parts = list(torch.arange(12).split(3))
    assert torch.allclose(subject.slopes(rows, parts).weights, subject.slopes(rows).weights, atol=1e-12) is same


def test_a_wrong_name_or_option_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="loss 'ppo' is unknown"):
        build("trl:ppo", {})
    with pytest.raises(InputError, match="option 'loss_type' is unknown"):
        build("trl:rloo", {"loss_type": "dapo"})
