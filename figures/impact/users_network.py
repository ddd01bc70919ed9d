"""A user's own network, built by a function of theirs, filled from a checkpoint and tried before it is judged."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.policies.module_policy import ModulePolicy
from agents.policies.network_checks import alike, check_network, read
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.user_files import load_user_function, users_code
from envs.world import InputError
from figures.impact.checkpoint_files import fill

OPTION = "--model"


class UsersNetworks:
    """Builds a user's network for every checkpoint, as a policy over the world's tokens.

    Args:
        spec: "module:function" or "file.py:function"; the function takes the world and returns a policy, or a module from
            embeddings (B, T, D) to logits (B, T, V).
        embedding: name of the parameter of that module which is its table of embeddings.
        site: the submodule at whose output the costate is read; None for the embedding.
        world: the token world.

    Raises:
        InputError: there is no such function.
    """

    def __init__(self, spec: str, embedding: str, site: str | None, world: TokenMDP):
        self.spec, self.embedding, self.site, self.world = spec, embedding, site, world
        self._build: Callable[[TokenMDP], Any] = load_user_function(spec, OPTION)
        self._compared = False

    def guarded(self, measuring: bool = True) -> AbstractContextManager[None]:
        """Where the user's network runs: what it raises is said in one line that names its function."""
        return users_code(self.spec, OPTION, measuring)

    def policy(self, path: Path, state: Mapping[str, Tensor]) -> tuple[Any, str]:
        """The network with a checkpoint's numbers as a policy, and the site where its costate is read.

        Raises:
            InputError: the function or the network fails, the checkpoint or the world does not fit it, or `check_network`
                refuses it.
        """
        policy, site = self._filled(path, state)
        with self.guarded(measuring=False):
            contexts = _contexts(self.world)
            try:
                check_network(policy, contexts)
            except InputError as error:
                raise InputError(f"{error}; seen with {path.name}") from None
            if not self._compared and not alike(
                *(_logits(p, contexts) for p in (policy, self._filled(path, state)[0]))
            ):
                raise InputError(
                    "it draws random numbers that are not in the checkpoint: keep them with register_buffer and save again"
                )
        self._compared = True
        return policy, site

    def _filled(self, path: Path, state: Mapping[str, Tensor]) -> tuple[Any, str]:
        network = self._build(self.world)
        if not isinstance(network, nn.Module):
            raise InputError(f"{OPTION} {self.spec} must give a module or a policy; got {type(network).__name__}")
        with self.guarded():
            fill(path, network.eval(), state)
            if isinstance(network, TokenPolicy):
                return network, self._ready_site(path, network)
            return self._wrapped(path, network)

    def _ready_site(self, path: Path, policy: TokenPolicy) -> str:
        """The site of a policy that needs no wrapping."""
        with self.guarded(measuring=False), torch.no_grad():
            logits, _ = policy.extend(policy.embed(self.world.prompts[:1]), None, {})
        check_vocabulary(path, logits.shape[-1], self.world)
        return self.site or "embedding"

    def _wrapped(self, path: Path, network: nn.Module) -> tuple[ModulePolicy, str]:
        table = dict(network.named_parameters()).get(self.embedding)
        if table is None or table.ndim != 2:
            raise InputError(f"--embedding {self.embedding} is no table of the network; it has {_tables(network)}")
        check_vocabulary(path, len(table), self.world)
        sites = {"layer1": self.site} if self.site else {}
        policy = ModulePolicy(network, table, sites, check=False)  # it is tried below, on the world's contexts
        return policy, "layer1" if self.site else "embedding"


def _tables(network: nn.Module) -> str:
    return ", ".join(name for name, p in network.named_parameters() if p.ndim == 2) or "none"


def check_vocabulary(path: Path, rows: int, world: TokenMDP) -> None:
    """Refuse a network whose table has not one row for each of the world's tokens."""
    if rows != world.V:
        raise InputError(
            f"checkpoint {path} does not fit the world's vocabulary: it embeds {rows} tokens, the world has {world.V}"
        )


def _contexts(world: TokenMDP) -> Tensor:
    """Two contexts, longer than a prompt where the world's are, that hold every token of a small vocabulary."""
    prompt, more = world.prompts[[0, -1]], max(1, world.horizon - 1)
    return torch.cat([prompt, torch.arange(2 * more, device=prompt.device).reshape(2, more) % world.V], 1)


def _logits(policy: Any, contexts: Tensor) -> Tensor:
    with torch.no_grad():
        return read(policy, policy.embed(contexts))
