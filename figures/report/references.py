"""The works of the paper's reference list, and the claims that run each of them here."""

from dataclasses import dataclass
from typing import Any

from figures.harness.judge import Verdict
from figures.harness.registry import CLAIM_NAMES


@dataclass(frozen=True)
class Work:
    """One entry of the reference list.

    Attributes:
        number: its number there.
        what: the method, with its source where that is known.
        claims: names of the claims that run it, the main one first; those that are not written yet are left out.
        note: what else is to be said.
    """

    number: int
    what: str
    claims: tuple[str, ...] = ()
    note: str = ""


WORKS = (
    Work(1, "Power sampling: sampling from a power of the policy", ("power_sampling",)),
    Work(2, "Dayan and Singh 1996: merits, advantages and curl", ("update_is_a_gradient",)),
    Work(3, "GRPO (arXiv:2402.03300)", ("actor_update_is_value_gradient", "grpo_arcsine", "normalisation_breaks")),
    Work(4, "Value-gradient learning (Fairbank and Alonso 2012)", ("value_gradient_learning", "greedy_value_gradient")),
    Work(
        5,
        "Stochastic backpropagation; stochastic value gradients",
        ("stochastic_value_gradients", "score_equals_pathwise", "estimator_variance"),
    ),
    Work(
        6,
        "Stochastic computation graphs; DiCE (arXiv:1802.05098)",
        ("surrogate_hessian", "score_costate_unbiased", "estimator_catalogue"),
    ),
    Work(7, "GAE: generalised advantage estimation", ("gae_meets_vgl", "critic_or_not")),
    Work(8, "InstructGPT (arXiv:2203.02155)", ("kl_optimum", "kl_estimators")),
    Work(9, "PPO (arXiv:1707.06347)", ("critic_or_not", "off_policy_steps")),
    Work(10, "REINFORCE", ("score_costate_unbiased", "estimator_variance")),
    Work(11, "The policy-gradient theorem", ("score_equals_pathwise", "bellman_costate")),
    Work(
        12,
        "not known",
        (),
        "The entry cannot be read in our source. The list is in order of citation, so that its place says nothing either.",
    ),
    Work(13, "GRPO as a U-statistic (arXiv:2603.01162)", ("u_statistic",)),
    Work(14, "Reinforcement pre-training", ("next_token_reward",)),
    Work(15, "SofT-GRPO and soft tokens (arXiv:2511.06411)", ("soft_thoughts", "gumbel_bridge", "relaxed_costates")),
    Work(
        16,
        "On-policy distillation and repairs of off-policy GRPO (arXiv:2606.19348)",
        ("on_policy_distillation", "off_policy_masks"),
        "Of its methods these two have an exact object; keeping the routing of a mixture of experts, and generative reward "
        "models, have none.",
    ),
    Work(17, "Value-gradient flow", ("value_gradient_flow",)),
)
_MISSING = "No claim runs it yet."


def reference_rows(verdicts: list[Verdict]) -> list[dict[str, Any]]:
    """Rows of the table of works: what each is, and its claims with their outcomes in these verdicts.

    Args:
        verdicts: of a run.

    Returns:
        For every work `number`, `what`, `claims` (pairs of a name and an outcome) and `note`.
    """
    outcomes = {verdict.claim: verdict.outcome for verdict in verdicts}
    rows = []
    for work in WORKS:
        there = [name for name in work.claims if name in CLAIM_NAMES]
        claims = [(name, outcomes.get(name, "not checked")) for name in there]
        note = work.note or ("" if there else _MISSING)
        rows.append({"number": work.number, "what": work.what, "claims": claims, "note": note})
    return rows
