"""Exact answers of a whole prefix tree against a bare forward and backward pass, and against autograd prefix by prefix.

Everything of a (V, H) world under a transformer of 2 layers and width 64, alpha = 1: J, the parameter gradient and the
value gradient of every prefix at every site, in one go (`whole`: one backward pass; `tree`: subtrees taken in chunks, the
default of `tree_gradients`). Rivals: `bare`, forward and backward of the same network over the same distinct prefixes, level
by level with the same cache, of the plain sum of all logits. `prefixes`: the value of every prefix by enumerating its
continuations, whole contexts in one batch per length, and autograd of it. `thrifty`: one context at a time, but the tree's
own surrogate with the tree's values given for free, and slopes shared with all ancestors. Both are timed on a sample of every
level and scaled up; the root is not counted. All must agree before anything is timed. Memory: peak of a fresh process,
less that of one that has only built the world and the policy.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from agents.policies.transformer import Transformer
from benchmarks.timing import check, interleave, median_ratio, report
from envs.token_mdp import TokenMDP
from envs.token_tasks import garnet
from theory.tokens.prefix_tree import Tree, every_token, grow
from theory.tokens.tree_gradients import tree_gradients

WHOLE = 2**40  # a chunk this large is the tree
SIZES = ((4, 6), (4, 8), (8, 5), (8, 6))  # (V, H)
SITES = ("embedding", "layer1", "layer2")
_SAMPLE = 24  # prefixes of a level that are timed


def build(V: int, H: int) -> tuple[TokenMDP, Transformer]:
    """A stochastic world of dense rewards and the policy."""
    return garnet(V=V, horizon=H, gamma=0.9, seed=1), Transformer(V, width=64, layers=2, heads=4, length=16)


def bare(world: TokenMDP, policy: Transformer) -> None:
    """Every distinct prefix forward once, and one backward pass to the parameters."""
    x, cache, total = policy.embed(world.prompts), None, torch.zeros(())
    for k in range(world.horizon):
        logits, cache = policy.extend(x, cache)
        total = total + logits.sum()
        if k + 1 < world.horizon:
            tokens, _ = every_token(logits)
            x = policy.embed(tokens).flatten(0, 1)[:, None]
    torch.autograd.grad(total, list(policy.parameters()))


class PerPrefix:
    """One context at a time: `sum_a (Q - V) log pi` of one prefix, backwards to the parameters and to all its positions."""

    def __init__(self, world: TokenMDP, policy: Transformer):
        with torch.no_grad():
            self.tree: Tree = grow(world, policy)
        self.world, self.policy, self.parameters = world, policy, list(policy.parameters())

    def slopes(self, k: int, node: int) -> tuple[Tensor, ...]:
        """Slopes in the parameters and in a probe over the whole context at every site."""
        level = self.tree.levels[k]
        x = self.policy.embed(self.context(k, node))[None]
        probes = {site: torch.zeros_like(x, requires_grad=True) for site in SITES}
        log_pi = torch.log_softmax(self.policy(x, probes)[0, -1], -1)
        advantage = self.tree.Q[k][node] - self.tree.V[k][node]
        weight = self.world.gamma**k * level.reach[node] * level.share[node] * advantage
        return torch.autograd.grad(weight @ log_pi, [*self.parameters, *probes.values()])

    def everything(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameter gradient, and the value gradients of all prefixes at the first site, level by level."""
        total = [torch.zeros_like(p) for p in self.parameters]
        costates = [torch.zeros(len(level.x), 64, dtype=total[0].dtype) for level in self.tree.levels]
        for k, level in enumerate(self.tree.levels):
            for node in range(len(level.x)):
                *own, probe, _, _ = self.slopes(k, node)
                for gradient, slope in zip(total, own, strict=True):
                    gradient += slope
                for j in range(k + 1):
                    costates[j][node // self.world.V ** (k - j)] += probe[0, j]
        return total, [c / (self.world.gamma**k * self.tree.levels[k].reach[:, None]) for k, c in enumerate(costates)]

    def context(self, k: int, node: int) -> Tensor:
        """Tokens of a prefix, prompt included."""
        tokens = [node // self.world.V ** (k - 1 - j) % self.world.V for j in range(k)]
        return torch.cat([self.world.prompts[0], torch.tensor(tokens, dtype=torch.int64)])

    def own_value(self, k: int, node: int) -> tuple[Tensor, ...]:
        """The value of one prefix by its own enumeration, and autograd of it at every site of its last position."""
        world, V, start = self.world, self.world.V, self.context(k, node)
        probes = {site: torch.zeros(1, 1, 64, dtype=torch.float64, requires_grad=True) for site in SITES}
        tokens, belief, chance = start[None], self.tree.levels[k].belief[node][None], torch.ones(1, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for step in range(k, world.horizon):
            after = tokens.shape[1] - len(start)
            shift = {
                site: pad(p, (0, 0, len(start) - 1, after)).expand(len(tokens), -1, -1) for site, p in probes.items()
            }
            pi = torch.softmax(self.policy(self.policy.embed(tokens), shift)[:, -1], -1)
            total = total + world.gamma ** (step - k) * (chance * (pi * (belief @ world.r[step])).sum(-1)).sum()
            chance = (chance[:, None] * pi).flatten()
            belief = torch.einsum("nz,zay->nay", belief, world.P).flatten(0, 1)
            tokens = torch.cat([tokens.repeat_interleave(V, 0), torch.arange(V).repeat(len(tokens))[:, None]], 1)
        return torch.autograd.grad(total, list(probes.values()))


def agree() -> None:
    """The rivals compute the same numbers."""
    world, policy = build(3, 4)
    whole, chunks = (tree_gradients(world, policy, 1.0, SITES, chunk=size) for size in (WHOLE, 2**19))
    rival = PerPrefix(world, policy)
    parameters, costates = rival.everything()
    check("chunks, parameters", _gap(whole.parameters, chunks.parameters), 1e-10)
    check("per prefix, parameters", _gap(whole.parameters, parameters), 1e-10)
    check("per prefix, value gradients", _gap([c[:, 0] for c in whole.costates["embedding"]], costates), 1e-10)
    for i, site in enumerate(SITES):
        own = [rival.own_value(k, 0)[i][0] for k in range(world.horizon)]
        check(f"own enumeration at {site}", _gap([c[:1, 0] for c in whole.costates[site]], own), 1e-10)


def _gap(ours: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(ours, others, strict=True))


def time_against_bare(V: int, H: int, rounds: int) -> None:
    """Seconds of the tree, whole and in chunks, over those of the bare pass."""
    world, policy = build(V, H)
    rivals: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(world, policy),
        "whole": lambda: tree_gradients(world, policy, 1.0, SITES, chunk=WHOLE),
        "tree": lambda: tree_gradients(world, policy, 1.0, SITES),
    }
    seconds = interleave(rivals, rounds)
    for name in ("whole", "tree"):
        report(f"({V},{H}) {name} against the bare pass", median_ratio(seconds, name, "bare"), 1.5, at_most=True)
    report(
        f"({V},{H}) tree in chunks against the whole tree", median_ratio(seconds, "tree", "whole"), 1.2, at_most=True
    )


def _one_by_one(run: Callable[[int, int], object], k: int, nodes: range) -> None:
    for node in nodes:
        run(k, node)


def time_against_prefixes(V: int, H: int, rounds: int) -> None:
    """How many times faster than prefix by prefix, either way."""
    world, policy = build(V, H)
    rival = PerPrefix(world, policy)
    sizes = [len(level.x) for level in rival.tree.levels]
    sample = {k: range(0, sizes[k], max(1, sizes[k] // min(_SAMPLE, sizes[k]))) for k in range(1, H)}
    rivals: dict[str, Callable[[], object]] = {"tree": lambda: tree_gradients(world, policy, 1.0, SITES)}
    for k, nodes in sample.items():
        rivals[f"prefixes {k}"] = partial(_one_by_one, rival.own_value, k, nodes)
        rivals[f"thrifty {k}"] = partial(_one_by_one, rival.slopes, k, nodes)
    seconds = interleave(rivals, rounds)
    for name in ("prefixes", "thrifty"):
        ratio = sum(median_ratio(seconds, f"{name} {k}", "tree") * sizes[k] / len(nodes) for k, nodes in sample.items())
        report(f"({V},{H}) tree against autograd per prefix, {name}", ratio)


def peak_bytes() -> int:
    """Largest resident memory of this process so far (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def one_peak(rival: str, V: int, H: int) -> None:
    """Run one rival alone and print the peak."""
    world, policy = build(V, H)
    if rival == "bare":
        bare(world, policy)
    elif rival != "nothing":
        tree_gradients(world, policy, 1.0, SITES, chunk=WHOLE if rival == "whole" else 2**28)
    print(peak_bytes())


def memory(V: int, H: int) -> None:
    """Peaks of fresh processes."""
    peaks = {}
    for rival in ("nothing", "bare", "whole", "tree"):
        command = [sys.executable, "-m", "benchmarks.prefix_tree", rival, str(V), str(H)]
        peaks[rival] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    used = {rival: peak - peaks["nothing"] for rival, peak in peaks.items()}
    print(
        f"({V},{H}) peaks: "
        + ", ".join(f"{rival} {used[rival] / 2**20:.0f} MiB" for rival in ("bare", "whole", "tree"))
    )
    report(f"({V},{H}) memory of the whole tree against the bare pass", used["whole"] / used["bare"], 1.4, at_most=True)
    report(f"({V},{H}) memory in chunks against the whole tree", used["tree"] / used["whole"], 0.6, at_most=True)


def main() -> None:
    """Check, measure and print."""
    if len(sys.argv) == 4:
        one_peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    agree()
    for V, H in SIZES:
        rounds = 3 if (V, H) in ((4, 8), (8, 6)) else 7
        time_against_bare(V, H, rounds)
        time_against_prefixes(V, H, rounds)
    memory(8, 6)


if __name__ == "__main__":
    main()
