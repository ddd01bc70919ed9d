"""Any causal network over tokens, of embeddings or of token ids, as a policy: for a user's own network."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from agents.policies.feeding import check_ids_alike, coarsest_precision, feeding, logits_of
from agents.policies.knobs import entropy_knobs
from agents.policies.network_checks import check_network
from envs.arguments import as_numbers, short
from envs.world import InputError

Seen = tuple[Tensor, dict[str, Tensor]]  # embeddings (B, T, D) and probes (B, T, width) so far


class SinglePrecision(UserWarning):
    """A network computes in float32 or coarser, and so is everything that is said about it."""


class ModulePolicy(nn.Module):
    """`pi = softmax((network + offset) / temperature)` for any causal network over tokens.

    The network may map embeddings (B, T, D) to logits (B, T, V), or token ids (B, T); or it takes `inputs_embeds` and gives
    `logits`, as the causal language models of Hugging Face do. `extend` keeps no keys and values: it runs whole contexts
    again, which is exact for any network without dropout. A network that computes in float32 is judged in float32, and a
    warning (`SinglePrecision`) says so.

    Args:
        network: the module.
        embedding: the token table (V, D) of a network of embeddings, a parameter (one of the network's, if it is tied) or a
            plain tensor; or the path of the embedding layer of a network of token ids; None for `inputs_embeds`.
        sites: name of a site -> path of a submodule; a probe is added to that submodule's output (to its first entry, if it
            gives several), which must be (B, T, width). The site "embedding" always exists.
        head: path of the submodule that reads the last hidden state.
        temperature: the first entropy knob.
        offset: the second, as in `entropy_knobs`.
        tokens: for a network with a larger vocabulary than the world: which entry of it each of the world's V tokens is. The
            policy is then the network's law given that it says one of these.
        check: whether the network is first tried on a few contexts.

    Raises:
        InputError: knobs, tables, paths, tokens or shapes do not fit, a submodule does not run exactly once in a pass, a
            network of token ids gives other logits for their embeddings, or the network is no function from a context to
            logits (`agents.policies.network_checks`).
    """

    table: Tensor
    offset: Tensor
    tokens: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        embedding: Any = None,
        sites: Mapping[str, str] | None = None,
        head: str | None = None,
        temperature: float = 1.0,
        offset: Any = 0.0,
        *,
        tokens: Any = None,
        check: bool = True,
    ):
        super().__init__()
        _check_kinds(network, sites)
        fed = feeding(network, embedding)
        self.network, self._feed = network, fed.feed
        if isinstance(fed.table, nn.Parameter):
            self.table = fed.table
        else:
            self.register_buffer("table", fed.table)
        self.register_buffer("tokens", None if tokens is None else _vocabulary_entries(tokens, fed.table))
        self.V = len(fed.table) if self.tokens is None else len(self.tokens)
        self.temperature, knob = entropy_knobs(temperature, offset, self.V)
        self.register_buffer("offset", knob.to(fed.table))
        self.width, self._paths = fed.table.shape[1], dict(sites or {})
        self._head = head
        _check_paths(network, self._paths, head)
        if check and not _drops_units(network):
            precision = coarsest_precision(network, fed)
            if fed.reads_ids:
                check_ids_alike(network, fed)
            places = torch.arange(3, device=self.table.device)
            check_network(self, torch.stack([places, places + 1]) % self.V)
            _ = self.numbers_per_position  # measured once, here: copies in torch.func cannot
            _warn_of_precision(precision)

    @cached_property
    def numbers_per_position(self) -> int:
        """How many numbers autograd keeps for each position of a context, measured on a context of two."""
        kept: dict[int, int] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in self.parameters()}

        def count(t: Tensor) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
            return t

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            x = self.table[:1].detach().expand(2, -1)[None].clone().requires_grad_()
            logits = self(x)
        del logits
        return max(self.width, sum(size for place, size in kept.items() if place not in own) // 2)

    @property
    def sites(self) -> tuple[str, ...]:
        """Places where a probe may be added."""
        return ("embedding", *self._paths)

    def embed(self, u: Float[Tensor, "*batch V"] | Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Embeddings of tokens, or `E'u` of relaxed tokens.

        Args:
            u: tokens, or rows of probabilities over the vocabulary.

        Returns:
            One embedding for each.
        """
        rows = self.table if self.tokens is None else self.table[self.tokens]
        return u @ rows if u.is_floating_point() else rows[u]

    def forward(
        self, embeddings: Float[Tensor, "B T D"], probes: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits at every position of whole contexts.

        Args:
            embeddings: of all positions.
            probes: by site a tensor (B, T, width) that is added there.

        Returns:
            Logits of the token after each position.

        Raises:
            InputError: as for the class.
        """
        return self._run(embeddings, probes or {})[0]

    def extend(
        self, x: Float[Tensor, "B T D"], cache: Seen | None = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B V"], Seen]:
        """Logits after the last of the new positions; the cache holds all embeddings and probes so far.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The logits, and the new cache.

        Raises:
            InputError: as for the class.
        """
        seen = _joined(x, cache, probes or {})
        return self._run(*seen)[0][:, -1], seen

    def hidden(
        self, x: Float[Tensor, "B T D"], cache: Seen | None = None, probes: Mapping[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "B width"], Seen]:
        """The last hidden state, which is the input of the submodule `head` at the last position; the cache as in `extend`.

        Args:
            x: embeddings of T new positions.
            cache: what an earlier call returned; None at the beginning.
            probes: by site a tensor that is added there.

        Returns:
            The hidden state, and the new cache.

        Raises:
            InputError: no head was named, or as for the class.
        """
        if self._head is None:
            raise InputError(
                "head must name the submodule that reads the last hidden state: ModulePolicy(..., head=...)"
            )
        seen = _joined(x, cache, probes or {})
        return self._run(*seen)[1][0][:, -1], seen

    def _run(self, x: Tensor, probes: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        _check_sites(probes, self.sites)
        if _drops_units(self.network):
            raise InputError("network drops units at random in its training mode: call network.eval() first")
        with self._hooked(probes) as last_hidden:
            logits = logits_of(self._feed(self.network, x + probes["embedding"] if "embedding" in probes else x))
        wanted = (*x.shape[:2], len(self.table))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"network must map embeddings {tuple(x.shape)} to logits {wanted}; got {got}")
        own = logits if self.tokens is None else logits[..., self.tokens]
        return (own + self.offset) / self.temperature, last_hidden

    @contextmanager
    def _hooked(self, probes: Mapping[str, Tensor]) -> Iterator[list[Tensor]]:
        """Add probes to their submodules' outputs while the network runs; yields the list that will hold the head's input."""
        inputs: list[Tensor] = []
        runs = {site: 0 for site in probes if site != "embedding"}
        modules = {site: self.network.get_submodule(self._paths[site]) for site in runs}
        hooks = [module.register_forward_hook(_adder(site, probes[site], runs)) for site, module in modules.items()]
        if self._head is not None:
            head = self.network.get_submodule(self._head)
            hooks.append(head.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])))
        try:
            yield inputs
        finally:
            for hook in hooks:
                hook.remove()
        runs |= {} if self._head is None else {"head": len(inputs)}
        for site, times in runs.items():
            if times != 1:
                path = self._head if site == "head" else self._paths[site]
                raise InputError(
                    f"submodule {path!r} of {site} ran {times} times, not once: name one that runs once in a pass"
                )


def _vocabulary_entries(tokens: Any, table: Tensor) -> Int[Tensor, "V"]:
    """The entries of the network's vocabulary that the world's tokens are."""
    entries = as_numbers("tokens", tokens).to(table.device)
    if entries.ndim != 1 or not bool(((entries >= 0) & (entries < len(table)) & (entries == entries.round())).all()):
        raise InputError(
            f"tokens must be entries of the network's vocabulary, 0 to {len(table) - 1}; got {short(tokens)}"
        )
    if len(entries.unique()) < len(entries):
        raise InputError(f"tokens must be different entries of the vocabulary; got {short(tokens)}")
    return entries.long()


def _check_kinds(network: Any, sites: Any) -> None:
    if not isinstance(network, nn.Module):
        raise InputError(f"network must be a torch.nn.Module, built already: Network(...); got {short(network)}")
    if sites is not None and not isinstance(sites, Mapping):
        raise InputError(
            "sites must be a dictionary from a name of yours to the path of a submodule, {'layer1': 'blocks.0'} for "
            f"instance; got {short(sites)}"
        )


def _check_paths(network: nn.Module, sites: Mapping[str, str], head: str | None) -> None:
    if "embedding" in sites:
        raise InputError('sites: "embedding" is always there, before the network; give the submodule another name')
    paths = {name for name, _ in network.named_modules()}
    for path in (*sites.values(), *([head] if head else [])):
        if path not in paths:
            raise InputError(
                f"submodule {path!r} does not exist in the network; there are {', '.join(sorted(paths - {''}))}"
            )


def _warn_of_precision(dtype: torch.dtype) -> None:
    if dtype != torch.float64:
        digits = int(-math.log10(torch.finfo(dtype).eps))
        text = f"the network computes, at least in part, in {str(dtype).removeprefix('torch.')}: answers have {digits} digits"
        warnings.warn(
            f"{text} (float64 has 15; network.double() helps where layers allow it)", SinglePrecision, stacklevel=3
        )


def _drops_units(network: nn.Module) -> bool:
    return any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in network.modules())


def _check_sites(probes: Mapping[str, Tensor], sites: tuple[str, ...]) -> None:
    for site in probes:
        if site not in sites:
            raise InputError(f"site {site!r} does not exist; there are {', '.join(sites)}")


def _adder(site: str, probe: Tensor, runs: dict[str, int]) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that adds the probe to the module's output and counts the module's runs."""

    def add(module: nn.Module, arguments: Any, out: Any) -> Any:
        runs[site] += 1
        first = out[0] if isinstance(out, tuple) else out
        if not isinstance(first, Tensor) or first.shape != probe.shape:
            got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
            raise InputError(
                f"site {site!r} must give (batch, time, width) = {tuple(probe.shape)}; its submodule gave {got}"
            )
        return (first + probe, *out[1:]) if isinstance(out, tuple) else first + probe

    return add


def _joined(x: Tensor, cache: Seen | None, probes: Mapping[str, Tensor]) -> Seen:
    """All embeddings and probes so far; those of the cache are repeated for the rows that continue them."""
    if cache is None:
        return x, dict(probes)
    before, old = cache
    times = len(x) // len(before)
    joined = {}
    for site, like in {**old, **probes}.items():
        past = old.get(site, like.new_zeros(len(before), before.shape[1], like.shape[-1]))
        new = probes.get(site, like.new_zeros(len(x), x.shape[1], like.shape[-1]))
        joined[site] = torch.cat([past.repeat_interleave(times, 0), new], 1)
    return torch.cat([before.repeat_interleave(times, 0), x], 1), joined
