"""One folder of results holds one run: one seed, one preset, one device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.world import InputError
from figures.harness.claim import PRESETS, Preset
from figures.harness.costs import stored_verdicts


def refuse_mixture(out: Path, claims: Sequence[str], preset: Preset, seed: int, device: str) -> None:
    """Refuse a run whose verdicts would stand beside, or in the place of, those of another run.

    A larger preset may follow a smaller one where it judges every claim again that the folder has a verdict on.

    Raises:
        InputError: the folder holds verdicts of another seed, device or preset; the message says which, and what to do.
    """
    for verdict in stored_verdicts(out):
        there = verdict.get("run")
        if not isinstance(there, dict) or _fits(there, verdict.get("claim") in claims, preset, seed, device):
            continue
        other = f"{out}-seed{seed}" if there.get("seed") != seed else f"{out}-{preset}-{device}"
        raise InputError(
            f"--out {out} holds verdicts of seed {there.get('seed')}, preset {there.get('preset')}, on "
            f"{there.get('device')}; this run has seed {seed}, preset {preset}, on {device}: name another folder, "
            f"--out {other} for instance, or remove {out / 'verdicts.json'}"
        )


def _fits(there: dict[str, Any], judged_again: bool, preset: Preset, seed: int, device: str) -> bool:
    if (there.get("seed"), there.get("device")) != (seed, device):
        return False
    known = there.get("preset")
    larger = known in PRESETS and PRESETS.index(known) < PRESETS.index(preset)
    return known == preset or (larger and judged_again)
