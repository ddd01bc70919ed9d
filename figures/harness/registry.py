"""The table of claims, part by part, and of the studies whose points several claims share."""

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names alone must be known at once, without torch
    import torch

    from figures.harness.claim import Claim
    from figures.harness.rows import Row

CLAIMS = {
    "continuous": (
        "costate_mean",
        "costate_covariance",
        "costate_recursion",
        "score_equals_pathwise",
        "estimator_variance",
        "assumption_removed",
        "chaos",
        "attention_path",
        "transformer_in_lq",
    ),
    "tokens": (
        "bellman_costate",
        "score_costate_unbiased",
        "attention_costate_biased",
        "error_split",
        "error_bound",
        "entropy_knobs",
        "attention_transport",
        "relaxed_costates",
        "error_map",
        "large_vocabulary",
    ),
    "critic_free": (
        "actor_update_is_value_gradient",
        "normalisation_breaks",
        "grpo_arcsine",
        "u_statistic",
        "off_policy_steps",
        "kl_estimators",
        "batch_split",
        "critic_or_not",
    ),
    "impact": (
        "impact_inverted_u",
        "impact_product",
        "signal_cap",
        "what_moves_the_peak",
    ),
    "systems": (
        "value_gradient_learning",
        "greedy_value_gradient",
        "gae_meets_vgl",
        "update_is_a_gradient",
        "stochastic_value_gradients",
        "surrogate_hessian",
        "kl_optimum",
        "on_policy_distillation",
        "off_policy_masks",
        "estimator_catalogue",
        "value_gradient_flow",
        "power_sampling",
        "next_token_reward",
        "gumbel_bridge",
        "soft_thoughts",
    ),
}
TITLES = {
    "continuous": "Continuous rollouts",
    "tokens": "Tokens and attention",
    "critic_free": "Critic-free updates",
    "impact": "The impact of RL",
    "systems": "Reference systems",
}
CLAIM_NAMES = tuple(name for names in CLAIMS.values() for name in names)
STUDIES = {"impact_runs": "figures.impact.runs"}  # name -> module with `settings` and `measure`


def module_name(recorded_as: str) -> str:
    """The module that measures the points of a claim or a study."""
    if recorded_as in STUDIES:
        return STUDIES[recorded_as]
    part = next(part for part, names in CLAIMS.items() if recorded_as in names)
    return f"figures.claims.{part}.{recorded_as}"


def measuring_module(recorded_as: str) -> ModuleType:
    """The same, imported."""
    return importlib.import_module(module_name(recorded_as))


def measure_of(recorded_as: str) -> "Callable[[Any, torch.Generator, str], list[Row]]":
    """The function that measures the points of a claim or a study."""
    measure: Callable[[Any, torch.Generator, str], list[Row]] = measuring_module(recorded_as).measure
    return measure


def load_claim(name: str) -> "Claim":
    """The claim called `name`; raises InputError with the near names for an unknown one."""
    from envs.world import unknown

    if name not in CLAIM_NAMES:
        raise unknown("claim", name, CLAIM_NAMES, " `costate list` shows all")
    claim: Claim = measuring_module(name).CLAIM
    return claim


def load_claims(names: Iterable[str]) -> "list[Claim]":
    """All claims named, or all there are, each once and in the documented order."""
    wanted = {name: load_claim(name) for name in names}
    return [wanted.get(name) or load_claim(name) for name in CLAIM_NAMES if not wanted or name in wanted]
