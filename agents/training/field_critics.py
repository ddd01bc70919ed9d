"""Critics that are fields of value gradients, linear or networks: how they are made, what is refused, and their curl."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policies.linear_field import LinearField
from agents.policies.network_field import NetworkField
from agents.recipes.value_gradient_learning import ValueGradientLearning
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.settings import TrainingSettings
from envs.arguments import check_bytes
from envs.world import InputError

States = Callable[[int], Float[Tensor, "rows times n"]]


def build_field(learning: ValueGradientLearning, task: CommandTask, seed: int) -> LinearField | NetworkField:
    """The critic that a learner asks for, zero at the start.

    Args:
        learning: names the kind, and the width of a network.
        task: the world as the loop sees it.
        seed: of a network's hidden layers.

    Returns:
        The field.

    Raises:
        InputError: the network needs more memory than is allowed.
    """
    if learning.critic == "network":
        return NetworkField(task.features, task.steps + 1, learning.width, seed)
    return LinearField(task.features, task.steps + 1)


def curl_of(critic: Copies | None, count: int, states: States) -> Float[Tensor, "S"]:
    """`|X - X'| / |X|` of every copy's field, X its derivatives in the state: 0 for the gradient of a value.

    Both norms are root mean squares over all entries and times. A network's X depends on the state too: there they are also
    taken over states, all of them alike.

    Args:
        critic: the fields, or another critic, or none.
        count: number of copies.
        states: gives the states of a copy by its index; it is called for networks only.

    Returns:
        One number for each copy; 0 where X is 0, NaN where the critic is no field.
    """
    if critic is None or not isinstance(critic.network, LinearField | NetworkField):
        return torch.full((count,), torch.nan, dtype=torch.float64)
    if isinstance(critic.network, LinearField):
        X = torch.stack([field.X.detach() for field in critic.networks()]).double().cpu()
    else:
        X = torch.stack([critic.network_of(i).jacobian(states(i)) for i in range(count)]).double().cpu()
    size = X.flatten(1).norm(dim=1)
    return torch.where(size > 0, (X - X.mT).flatten(1).norm(dim=1) / size.clamp(min=1e-300), 0.0)


def check_fields(
    task: CommandTask,
    learning: ValueGradientLearning,
    setting: TrainingSettings,
    policies: Sequence[nn.Module],
    critics: Sequence[nn.Module] | None,
) -> None:
    """Refuse policies with memory, and critics that are not those of `build_field` or too large for the rows.

    Args:
        task: the world as the loop sees it.
        learning: names the kind of field.
        setting: number of groups and rows.
        policies: the networks.
        critics: the fields.

    Raises:
        InputError: a policy reads more than the last state, a critic is of another kind or size, or the hidden layers along
            all rows need more memory than is allowed.
    """
    if any(getattr(policy, "window", None) != 1 for policy in policies):
        raise InputError(
            "policies must read the current state only (window 1): the targets have no path through memory"
        )
    n, times, width = task.features, task.steps + 1, learning.width
    if learning.critic == "linear":
        fits = all(isinstance(field, LinearField) and field.X.shape == (times, n, n) for field in critics or ())
        wanted = f"LinearField(n={n}, times={times})"
    else:
        fits = all(_is_network(field, n, times, width) for field in critics or ())
        wanted = f"NetworkField(n={n}, times={times}, width={width}, seed=...)"
        rows = len(policies) * setting.prompts * setting.group * times
        remedy = "take a smaller width, fewer prompts (or start states) or a smaller group"
        check_bytes(16 * rows * width, f"width={width} makes layers", remedy)
    if not fits:
        raise InputError(f"critics must be {wanted}, the world's states and times")


def _is_network(field: nn.Module, n: int, times: int, width: int) -> bool:
    return isinstance(field, NetworkField) and (field.n, field.times, field.width) == (n, times, width)
