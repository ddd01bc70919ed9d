"""256 random systems (n = 4, m = 2) in one batched call of the Riccati solver, against 256 calls of one system each.

The single calls take the road that a user takes for one system (endless: scipy). Gains must agree before anything is
timed.
"""

from typing import Any

import torch

from benchmarks.timing import check, interleave, median_ratio, report
from envs.linear_quadratic import LinearQuadratic, random_system
from theory.continuous.riccati import Optimum, riccati

SYSTEMS, ROUNDS, TARGET = 256, 9, 15
MATRICES = ("A", "B", "Q", "R", "Q_f")


def stack(worlds: list[Any]) -> LinearQuadratic:
    """One world whose matrices carry a leading dimension over the systems."""
    matrices: dict[str, Any] = {name: torch.stack([getattr(world, name) for world in worlds]) for name in MATRICES}
    return LinearQuadratic(**matrices, gamma=worlds[0].gamma, horizon=worlds[0].horizon)


def main() -> None:
    """Check, measure and print."""
    for horizon in (50, None):
        worlds = [random_system(4, 2, seed=seed, horizon=horizon).to() for seed in range(SYSTEMS)]
        batch = stack(worlds)

        def together(batch: LinearQuadratic = batch) -> Optimum:
            return riccati(batch)

        def one_by_one(worlds: list[LinearQuadratic] = worlds) -> list[Optimum]:
            return [riccati(world) for world in worlds]

        singles = torch.stack([optimum.K for optimum in one_by_one()], dim=-3)
        check(f"gains, horizon {horizon}", float((together().K - singles).abs().max()), 1e-9)
        seconds = interleave({"batch": together, "single": one_by_one}, ROUNDS)
        report(
            f"riccati, {SYSTEMS} systems, horizon {horizon}: batch against single calls",
            median_ratio(seconds, "single", "batch"),
            TARGET,
        )


if __name__ == "__main__":
    main()
