"""Several copies of one network run together: each with parameters of its own, one batched call for all (`torch.func`)."""

import copy
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from agents.training.stacked_transformer import StackedTransformer, can_be_stacked
from envs.policy import ContextPolicy
from envs.world import InputError


class Copies:
    """S networks of one kind. One network alone is run as it is; several share a call, vmapped over stacked parameters.

    Where torch has no batched form of a network's operations they are run one after the other.

    `parameters` are leaves for any optimiser: (S, ...) each, or the network's own where S = 1. An elementwise optimiser
    treats every copy as if it were alone.

    Args:
        networks: S of them; the first one is run, and must not be used elsewhere.

    Raises:
        InputError: there is no network, or they differ in more than the values of their parameters.
    """

    @classmethod
    def of(cls, networks: Sequence[Any]) -> "Copies":
        """Copies that leave the networks given as they are: the one that is run is copied, and stacking copies parameters.

        Args:
            networks: S of them.

        Returns:
            Copies with parameters of their own.

        Raises:
            InputError: as for the class.
        """
        return cls([*map(copy.deepcopy, networks[:1]), *networks[1:]])

    def __init__(self, networks: list[Any]):
        if not networks:
            raise InputError("networks must hold at least one network")
        self.count, self.network, self.batched = len(networks), networks[0], True
        names = [[(name, p.shape) for name, p in network.named_parameters()] for network in networks]
        if any(other != names[0] for other in names) or not names[0]:
            raise InputError("networks must have parameters, the same names and shapes in each")
        if not all(_alike(network, networks[0]) for network in networks[1:]):
            raise InputError(
                "networks may differ in their parameters only: the same buffers, temperature, top_p and precision in each"
            )
        if self.count > 1:
            self.values, _ = stack_module_state(networks)
        else:
            self.values = dict(self.network.named_parameters())

    @property
    def parameters(self) -> list[Tensor]:
        """The leaves, in the order of the network's own parameters."""
        return list(self.values.values())

    @property
    def like(self) -> Tensor:
        """A tensor of the networks' device and dtype."""
        return self.parameters[0]

    def run(self, function: Callable[..., Any], *given: Tensor) -> Any:
        """`function(network, *given)` for every copy; tensors in and out carry the copies on their first axis.

        Under `vmap` nothing that `function` calls can look at a number, so NaN is looked for here.

        Args:
            function: of a network and tensors; it gives a tensor or a tuple of them.
            given: tensors whose first axis are the copies.

        Returns:
            What the function gives, the copies on the first axis.

        Raises:
            InputError: a number of a copy is NaN.
        """
        out = self._run(function, *given)
        self.refuse_nan(*(out if isinstance(out, tuple) else (out,)))
        return out

    def logits(self, tokens: Int[Tensor, "S rows T"], steps: int, group: int = 1) -> Float[Tensor, "S rows steps V"]:
        """Logits at the last `steps` positions of every copy's contexts; several plain Transformers run in a faster pass.

        Args:
            tokens: contexts of every copy.
            steps: how many positions.
            group: in so many consecutive rows the first `T - steps + 1` tokens are the same.

        Returns:
            The logits, with their gradient; NaN where a network gives NaN.
        """
        if self.count > 1 and can_be_stacked(self.network):
            return StackedTransformer(self.network, self.values).logits(tokens, steps, group)
        logits: Tensor = self._run(partial(_last_logits, steps=steps), tokens)
        return logits

    def refuse_nan(self, *numbers: Tensor) -> None:
        """Check what was computed from all copies.

        Args:
            numbers: tensors of any shapes whose first axis are the copies.

        Raises:
            InputError: a number of a copy is NaN.
        """
        bad = torch.stack([x.detach().isnan().reshape(self.count, -1).any(1) for x in numbers]).any(0)
        if bool(bad.any()):
            which = int(bad.nonzero()[0])
            raise InputError(
                f"network {which} of {self.count}, counted from 0, gives NaN: its logits or parameters are NaN or infinite"
            )

    def _run(self, function: Callable[..., Any], *given: Tensor) -> Any:
        if self.count == 1:
            out = function(self.network, *(x[0] for x in given))
            return tuple(x[None] for x in out) if isinstance(out, tuple) else out[None]
        call = _Call(self.network, function)

        def inner(values: dict[str, Tensor], *rest: Tensor) -> Any:
            return functional_call(call, {f"network.{k}": v for k, v in values.items()}, rest)

        if self.batched:
            try:
                with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batched form and would be looped over
                    return vmap(inner)(self.values, *given)
            except RuntimeError as error:
                if not re.search("vmap|[Bb]atching rule", str(error)):
                    raise
                self.batched = False  # some networks, recurrent ones for instance, have no batched form
        each = [inner({k: v[i] for k, v in self.values.items()}, *(x[i] for x in given)) for i in range(self.count)]
        if isinstance(each[0], tuple):
            return tuple(torch.stack(parts) for parts in zip(*each, strict=True))
        return torch.stack(each)

    def networks(self) -> list[Any]:
        """Networks of their own, with the parameters of the copies as they are now.

        Returns:
            S networks.
        """
        return [self._copy_of(index) for index in range(self.count)]

    def _copy_of(self, index: int) -> Any:
        return copy.deepcopy(self.network) if self.count == 1 else self.network_of(index)

    def network_of(self, index: int) -> Any:
        """Return the network if S = 1, else a copy that holds the parameters of copy `index`.

        Args:
            index: of the copy.

        Returns:
            A network; where S = 1 it is the one that is run.
        """
        if self.count == 1:
            return self.network
        single = copy.deepcopy(self.network)
        with torch.no_grad():
            for name, p in single.named_parameters():
                p.copy_(self.values[name][index])
        return single

    def frozen(self, dtype: torch.dtype | None = None) -> "Copies":
        """The same parameters as constants that later updates do not reach, in another precision if asked.

        Args:
            dtype: another precision; None for the same.

        Returns:
            The constants.
        """
        return Copies([network.to(dtype).requires_grad_(False) for network in self.networks()])

    def flattened(self, tensors: list[Tensor]) -> Float[Tensor, "S numbers"]:
        """Tensors shaped like the parameters, one long row a copy.

        Args:
            tensors: one for each parameter, in their order.

        Returns:
            One row for each copy.
        """
        return torch.cat([x.detach().reshape(self.count, -1) for x in tensors], 1)


def _last_logits(network: ContextPolicy, tokens: Tensor, steps: int) -> Tensor:
    return network(network.embed(tokens), {})[:, -steps:]


def _alike(one: Any, other: Any) -> bool:
    """Whether two networks differ at most in the values of their parameters."""
    pairs = list(zip(one.named_buffers(), other.named_buffers(), strict=False))
    same = all(a == b and x.shape == y.shape and bool((x == y).all()) for (a, x), (b, y) in pairs)
    dtypes = [{p.dtype for p in network.parameters()} for network in (one, other)]
    knobs = [[getattr(network, name, 1.0) for name in ("temperature", "top_p")] for network in (one, other)]
    return type(one) is type(other) and same and dtypes[0] == dtypes[1] and knobs[0] == knobs[1]


class _Call(nn.Module):
    """A function of a network as a module, which is what `functional_call` takes."""

    def __init__(self, network: Any, function: Callable[..., Any]):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *given: Tensor) -> Any:
        return self.function(self.network, *given)
