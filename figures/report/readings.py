"""What the paper's abstract says, how this suite reads each sentence, and the claim that judges each reading."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One reading of one sentence.

    Attributes:
        sentence: what the abstract says, as summarised here; the readings of one sentence stand next to each other.
        reading: the statement that can be judged; it is what the claim states, in the words of the sentence.
        claim: name of the claim.
    """

    sentence: str
    reading: str
    claim: str


_ROLLOUT = (
    "In a differentiable rollout with additive noise, the actor's backward pass propagates costates, and their "
    "conditional expectation is the value gradient."
)
_ATTENTION = (
    "In a transformer over tokens, autodiff through attention gives empirical costates that approximate this signal,"
)
_CONTROLLED = "... with an error controlled by the sampling gap and policy entropy."
_CRITIC_FREE = "This explains why critic-free methods such as GRPO work: the actor update is like a value gradient."
_IMPACT = (
    "The impact of RL is the value-gradient signal times the reachable reward headroom, a criterion for when along "
    "pretraining RL is most effective."
)

READINGS = (
    Reading(_ROLLOUT, "Backpropagation computes the adjoint recursion.", "costate_recursion"),
    Reading(_ROLLOUT, "The mean costate is the value gradient at every time and state.", "costate_mean"),
    Reading(_ROLLOUT, "The same for a transformer with a Gaussian head.", "transformer_in_lq"),
    Reading(_ROLLOUT, "The parameter gradient built from costates is the policy gradient.", "score_equals_pathwise"),
    Reading(_ROLLOUT, "It is also true where an assumption is removed.", "assumption_removed"),
    Reading(_ATTENTION, "E1 or E1b (sampled tokens held constant) is the value gradient.", "attention_costate_biased"),
    Reading(_ATTENTION, "E2 (backward pass of the actor's surrogate) is the value gradient.", "score_costate_unbiased"),
    Reading(_ATTENTION, "E3, E4 and E5 (relaxed tokens) are the value gradient.", "relaxed_costates"),
    Reading(_ATTENTION, "Attention in the backward pass carries what dynamics carry elsewhere.", "attention_transport"),
    Reading(_CONTROLLED, "The error is a known sum of covariances.", "error_split"),
    Reading(_CONTROLLED, "One constant for a world bounds the error by gap and entropy alone.", "error_map"),
    Reading(_CONTROLLED, "Lower entropy means a smaller error.", "entropy_knobs"),
    Reading(_CONTROLLED, "Gap and entropy bound it, with the diameter and the range of values kept.", "error_bound"),
    Reading(_CONTROLLED, "That bound holds at every size of the vocabulary.", "large_vocabulary"),
    Reading(_CRITIC_FREE, "The mean update is kappa times the value gradient.", "actor_update_is_value_gradient"),
    Reading(_CRITIC_FREE, "The same under any normalisation.", "normalisation_breaks"),
    Reading(_CRITIC_FREE, "The same at every inner step on one batch.", "off_policy_steps"),
    Reading(_CRITIC_FREE, "The same with GRPO's KL term.", "kl_estimators"),
    Reading(_CRITIC_FREE, "No critic is needed at equal samples.", "critic_or_not"),
    Reading(_IMPACT, "Signal-to-noise times headroom predicts the gain better than its factors.", "impact_product"),
    Reading(_IMPACT, "The gain peaks in mid-pretraining.", "impact_inverted_u"),
    Reading(_IMPACT, "Corpus and budget move the peak.", "what_moves_the_peak"),
    Reading(_IMPACT, "The signal is more than the spread of rewards.", "signal_cap"),
)
