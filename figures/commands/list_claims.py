"""`costate list`: the claims, what is documented of each, the assumptions, and the worlds with their options."""

import argparse

from envs.registry import WORLDS
from figures.harness.claim import ASSUMPTIONS
from figures.harness.registry import load_claims


def add_options(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Print them."""
    for claim in load_claims([]):
        print(f"{claim.name:<30} {claim.documented:<6} {' '.join(claim.assumptions):<15} {claim.statement}")
    print("\nassumptions")
    for key, text in ASSUMPTIONS.items():
        print(f"  {key}  {text}")
    print("\nworlds")
    for name, entry in WORLDS.items():
        print(f"  {name:<20} {entry.description}\n  {'':<20} {', '.join(entry.options)}")
    return 0
