"""What a point of the impact study is: a corpus, a network, RL from its checkpoints; and the points of every preset."""

from dataclasses import dataclass, replace

from envs.world import InputError
from figures.harness.claim import Preset
from figures.impact.numbers import SITE
from figures.measures.token_systems import at_least


@dataclass(frozen=True)
class ImpactSetting:
    """A corpus, `seeds` trajectories on it, and RL from every checkpoint.

    Attributes:
        quality, noise, coverage: of the corpus (`envs.corpus`).
        block: points that differ in it have trajectories of other seeds and are alike in all else.
        seeds: trajectories of the point.
        groups: rows of a group; the first is every recipe's, the others are GRPO's alone.
        sgd: whether ascent on the exact gradient is also run with plain SGD, at `sgd_rate`.
        width: of the transformer.
        names, modulus, horizon: of the world of skills.
        updates, checkpoints, batch, pretraining_rate: of pretraining.
        budgets: updates of RL after which the gain is taken, rising.
        rows, rate: completions in an update of RL, and its learning rate.
        site: where the costate is read.
    """

    quality: float = 1.0
    noise: float = 0.0
    coverage: float = 1.0
    block: int = 0
    seeds: int = 4
    groups: tuple[int, ...] = (8,)
    sgd: bool = False
    width: int = 16
    names: str = "say,copy,add"
    modulus: int = 3
    horizon: int = 3
    updates: int = 256
    checkpoints: int = 7
    batch: int = 64
    pretraining_rate: float = 0.005
    budgets: tuple[int, ...] = (6, 12, 24)
    rows: int = 64
    rate: float = 0.001
    sgd_rate: float = 0.05
    site: str = SITE

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        at_least(1, seeds=self.seeds, updates=self.updates)
        at_least(3, checkpoints=self.checkpoints)
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)) or self.budgets[0] < 1:
            raise InputError(f"budgets must be rising whole numbers >= 1, RL updates; got {tuple(self.budgets)}")
        if not self.groups or any(group < 2 or self.rows % group for group in self.groups):
            raise InputError(f"groups must be >= 2 and divide rows={self.rows}; got {tuple(self.groups)}")


def settings(preset: Preset) -> list[ImpactSetting]:
    """A clean and a half-guessed corpus in two blocks each.

    The full preset has more trajectories, other qualities, slips, gaps, a larger network and other skills as well.
    """
    if preset == "full":
        return [replace(setting, block=block) for setting in _full() for block in range(8)]
    if preset == "tiny":
        return [replace(_TINY, groups=(2, 4), sgd=True), replace(_TINY, quality=0.5)]
    clean = [ImpactSetting(block=block, seeds=6, groups=(8, 2, 32), sgd=True) for block in range(2)]
    return clean + [ImpactSetting(quality=0.5, block=block, updates=1024) for block in range(2)]


_TINY = ImpactSetting(
    seeds=2,
    groups=(2,),
    width=4,
    names="copy",
    modulus=2,
    horizon=1,
    updates=9,
    checkpoints=3,
    batch=32,
    pretraining_rate=0.02,
    budgets=(1, 2),
    rate=0.02,
    sgd_rate=0.5,
)


def _full() -> list[ImpactSetting]:
    """One block of the full preset."""
    clean = ImpactSetting(seeds=2, updates=1024, checkpoints=11, budgets=(8, 32, 128), groups=(8, 2, 32), sgd=True)
    kinds = [replace(clean, quality=quality) for quality in (1.0, 0.9)]
    kinds += [replace(clean, quality=quality, updates=4096) for quality in (0.7, 0.5, 0.3)]
    kinds += [replace(clean, noise=0.2), replace(clean, coverage=0.6), replace(clean, width=32)]
    return [*kinds, replace(clean, names="copy,reverse,add,multiply")]
