"""Speed of the vector form of the linear-quadratic worlds, 64 copies, whole episodes with their resets.

Against (a) Gymnasium's SyncVectorEnv over our own single form, and (b) a bare numpy loop that does the same arithmetic
and draws its noise every step: no checks, no infos, no generator per copy. All take the same prepared commands. Seconds
per episode: the shells spend one step more than the bare loop, the one that resets (NEXT_STEP).
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  (registers the ids)
from benchmarks.timing import interleave, median_ratio, report
from envs.linear_quadratic import LinearQuadratic

COPIES, ROUNDS = 64, 25
EPISODES = {"vector": 20, "bare": 20, "sync": 1}  # in one turn: turns of similar length
WORLDS: dict[str, dict[str, Any]] = {
    "costate/LQRandom-v0": {"size": 4},
    "costate/LQDoubleIntegrator-v0": {},
    "costate/LQScalar-v0": {},
}


def shell(env: gymnasium.vector.VectorEnv, commands: np.ndarray, episodes: int) -> Callable[[], object]:
    """Play episodes through Gymnasium; each leaves the next one begun by autoreset."""
    env.reset(seed=0)

    def play() -> None:
        for _ in range(episodes):
            for command in commands:
                env.step(command)
            env.step(commands[0])  # the step that resets

    return play


def bare_loop(world: LinearQuadratic, commands: np.ndarray, episodes: int) -> Callable[[], object]:
    """The same episodes in plain numpy."""
    A, B, Q, R, Q_f = world.A.T.copy(), world.B.T.copy(), world.Q, world.R, world.Q_f
    rng = np.random.default_rng(0)
    dot = np.vecdot

    def play() -> None:
        for _ in range(episodes):
            s = world.m_0 + rng.standard_normal((COPIES, world.n)) @ world.L_0
            for command in commands:
                a = command + rng.standard_normal((COPIES, world.m)) @ world.L_x
                reward = -(dot(s @ Q, s) + dot(a @ R, a))
                s = s @ A + a @ B + rng.standard_normal((COPIES, world.n)) @ world.L_w
            if world.horizon:
                reward = reward - world.gamma * dot(s @ Q_f, s)

    return play


def main() -> None:
    """Measure and print."""
    for name, settings in WORLDS.items():
        vector = gymnasium.make_vec(name, COPIES, **settings)
        single = gymnasium.make_vec(name, COPIES, vectorization_mode="sync", **settings)
        shells: Any = vector.unwrapped
        world = shells.world
        steps = world.horizon or 200
        commands = np.random.default_rng(1).standard_normal((steps, COPIES, world.m))
        rivals = {
            "vector": shell(vector, commands, EPISODES["vector"]),
            "sync": shell(single, commands, EPISODES["sync"]),
            "bare": bare_loop(world, commands, EPISODES["bare"]),
        }
        turns = interleave(rivals, ROUNDS)
        seconds = {rival: [turn / EPISODES[rival] for turn in turns[rival]] for rival in rivals}
        report(f"{name}: vector form against SyncVectorEnv", median_ratio(seconds, "sync", "vector"), 40)
        report(f"{name}: vector form against a bare loop", median_ratio(seconds, "bare", "vector"), 0.85)


if __name__ == "__main__":
    main()
