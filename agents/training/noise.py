"""Streams of random numbers that have nothing in common: of a network's start, of what it reads, of what it samples."""

import hashlib

import torch

_READ = 4  # bytes of a seed that torch's generator on the CPU reads: seeds that differ by 2^32 give the same numbers


def noise_of(purpose: str, seed: int) -> torch.Generator:
    """A generator on the CPU whose numbers depend on the purpose and on the seed.

    A network is drawn from `manual_seed(seed)`. Noise that were drawn from the same state would depend on where the network
    starts, and so would noise at `seed + 2**32`. Here purpose and seed are hashed (SHA-256) to the 32 bits that torch reads.

    Args:
        purpose: what the numbers are for, "rollouts" for instance.
        seed: any whole number.

    Returns:
        The generator, at its start.
    """
    hashed = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(hashed[:_READ], "big"))
