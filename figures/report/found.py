"""What each claim's documented outcome means, in words: shown in FINDINGS.md where the verdict is the documented one.

Measured numbers do not stand here: they come from the verdict and its records.
"""

from typing import NamedTuple


class Found(NamedTuple):
    """The finding as one sentence, and what more there is to know of it."""

    says: str
    more: str


FOUND = {
    "costate_mean": Found(
        "The expected costate is the value gradient, at every time and state.",
        "This holds in all linear-quadratic systems of the suite, finite and endless, under Gaussian and Laplace noise.",
    ),
    "costate_covariance": Found(
        "The covariance of the costate has a closed form.",
        "At the optimal gain action noise has no effect on the costate.",
    ),
    "costate_recursion": Found(
        "Autograd's costate, the adjoint recursion and finite differences agree on every path.",
        "The derivatives must be total: without the policy's slope the recursion gives another number.",
    ),
    "score_equals_pathwise": Found(
        "The score function and the pathwise estimator have the same mean, the policy gradient.",
        "Under uniform noise, whose density jumps (no A3), the score function is wrong and the pathwise estimator is right.",
    ),
    "estimator_variance": Found(
        "A perfect critic matters less than the choice of the estimator.",
        "A perfect critic in the place of the sampled costate saves little of the variance in most systems. The score function "
        "in the place of the pathwise gradient costs far more than that.",
    ),
    "assumption_removed": Found(
        "Without its assumptions the expected costate is not the value gradient.",
        "Without A1: a step in the reward makes the costate exactly 0, whatever the value gradient is. Straight-through "
        "rounding is nearly right while the quantum is small against the noise and wrong when it is large; its error is not "
        "monotone in the quantum. Noise that scales with the state does no harm as long as autograd may differentiate through "
        "the scale: what is needed is the total derivative (A5). Additive noise (A2) is the case in which there is no such "
        "path.",
    ),
    "chaos": Found(
        "In a chaotic map the pathwise gradient stays unbiased and becomes useless.",
        "Its standard deviation grows exponentially with the horizon, even where the typical path contracts, because rare "
        "stretched paths dominate the variance.",
    ),
    "attention_path": Found(
        "The costate of an attention policy is the sum of a dynamics path and an attention path.",
        "With attention to the past closed to autograd the mean is another, known quantity.",
    ),
    "transformer_in_lq": Found(
        "The expected costate of a transformer's rollout is the value gradient, attention included.",
        "The transformer has a Gaussian head and acts in the scalar world; the exact value comes from quadrature.",
    ),
    "bellman_costate": Found(
        "On the simplex of abstract states the costate recursion is the Bellman equation.",
        "The costate is then the table of values.",
    ),
    "score_costate_unbiased": Found(
        "The score costate E2, the actor's own backward pass, is the value gradient.",
        "This holds at every prefix, layer and entropy, for a token reward at alpha = 1.",
    ),
    "attention_costate_biased": Found(
        "Autodiff through attention alone (E1 and E1b) is not the value gradient.",
        "E1 of a token reward is exactly 0. E1b, which averages each token's own reward, is exact one step before the end; "
        "further away it misses much of the gradient, and most where rewards come at the end. With a hidden readout, where E1 "
        "has a literal meaning, E1 is wrong too.",
    ),
    "error_split": Found(
        "What the attention costate misses is a sum of covariances, exactly.",
        "This is an identity at every alpha, temperature and offset.",
    ),
    "error_bound": Found(
        "The bound on the error of the attention costate is never exceeded.",
        "The bound multiplies the diameter of the logits' slopes, the range of the values and a function of the Gini index. "
        "Half of its constant is refuted.",
    ),
    "entropy_knobs": Found(
        "Lower entropy does not mean a smaller error of the attention costate.",
        "Lowering the entropy raises the error of many policies before it falls, both by temperature and by an offset. This is "
        "so for E1 with a hidden readout, and for the value gradient itself, which is what E1 misses of a token reward. The "
        "bound ranks the error better than entropy does, by far where temperature lowers it.",
    ),
    "attention_transport": Found(
        "With all attention edges closed to autograd, the prompt keeps the covariance of its own step and nothing else.",
        "What attention had carried there is a part of the value gradient that depends on the world, and nothing where only "
        "the first token counts. One token later it can be most of the gradient.",
    ),
    "relaxed_costates": Found(
        "The relaxed costates E3, E4 and E5 are not the value gradient: they trade bias for spread.",
        "Straight-through and ReinMax are biased most at low temperature, and less when they are fed half-mixed tokens. All "
        "are exact where one token decides.",
    ),
    "error_map": Found(
        "Sampling gap and entropy alone do not control the error of the attention costate.",
        "No constant for a world that is fitted to random policies serves policies that are sharpened by temperature or "
        "trained, whether the costate is E1 at alpha < 1, E1b, or E1 with a hidden readout. The missing factor is the diameter "
        "of the slopes times the range of the values; the bound that has it is never exceeded.",
    ),
    "large_vocabulary": Found(
        "The diameter bound holds at every size of the vocabulary, but probabilities alone do not set the error.",
        "The same rewards dealt to other tokens change the error many times over. Two clusters of tokens attain the bound at "
        "every size, so no smaller constant can do; the spectral norm of the softmax's Jacobian in its place is refuted. The "
        "error falls with the size where rewards have nothing to do with the embeddings, and does not where they follow them. "
        "The product of spectral norms grows with the size.",
    ),
    "actor_update_is_value_gradient": Found(
        "A critic-free update is kappa times the value gradient, at every prefix, layer and entropy.",
        "This holds for every recipe under its assumptions, and in the linear-quadratic world as well (RLOO, Dr. GRPO). With "
        "the past detached, with std and dense rewards, or with another recipe's kappa it does not.",
    ),
    "normalisation_breaks": Found(
        "A factor 1/|o|, a token mean, std with dense rewards, a clip after several steps or k3 in the loss each bend the "
        "update away from the gradient.",
        "The factor 1/|o| can turn the update against the gradient. It makes failures longer; successes get shorter where "
        "every completion is free, but seldom in a network whose completions share parameters.",
    ),
    "grpo_arcsine": Found(
        "GRPO with std climbs F_G, the integral of its kappa, and 2 arcsin sqrt(p) only in the limit of large groups.",
        "The two objectives differ by zeta(1/2) / sqrt(G) to leading order. The weight of a prompt has an error of order 1/G "
        "at a fixed success probability and saturates where success is rarer than 1/G. In groups of two and three the weight "
        "is the same for all prompts.",
    ),
    "u_statistic": Found(
        "The group update is a U-statistic, and its variance is the oracle's plus a term of order 1/G^2.",
        "Where success is rare, REINFORCE without a baseline has less variance than RLOO with small groups; where rewards are "
        "dense, the baseline pays.",
    ),
    "off_policy_steps": Found(
        "Later inner steps on one batch do not follow the gradient.",
        "While nothing is clipped the direction is nearly right. Once the clip has silenced the rows that did better than "
        "their group, the other rows pull back, and the mean update can point against the gradient.",
    ),
    "kl_estimators": Found(
        "k3 in the loss does not follow the gradient of KL(pi || ref).",
        "Its mean gradient is that of KL(ref || pi) at the visited prefixes. Only k1 in the reward follows the gradient of "
        "KL(pi || ref) at any distance. k1 in the loss does nothing. k2 and k3 in the reward have no first-order signal near "
        "the reference, and further away they can raise the divergence.",
    ),
    "batch_split": Found(
        "Gradients of equal parts that are cut between groups add up to the gradient of the batch, for group-wise recipes.",
        "A token mean over the batch depends on the cut, on average too: its length bias falls like one over the number of "
        "groups in a (micro-)batch. Row sums and row means do not depend on the cut, as long as every part holds the same "
        "number of whole groups.",
    ),
    "critic_or_not": Found(
        "At equal samples RLOO is not far behind PPO with a learned critic.",
        "The budgets are small, with one untuned learning rate for all. An exact critic is worth a good deal where rewards are "
        "sparse, and little where they are dense.",
    ),
    "impact_inverted_u": Found(
        "RL gains most in mid-pretraining, if the corpus teaches all that is needed.",
        "The gain is small from the first draw and nearly nothing from the last checkpoint. Where half of the corpus's answers "
        "are guesses the gain is still large at the last checkpoint.",
    ),
    "impact_product": Found(
        "Signal-to-noise times (pass@k - pass@1) predicts the gain of GRPO better than its factors and the null models.",
        "This is measured in one family of tasks with small networks and Adam. The bare norm of the value gradient is no "
        "criterion there.",
    ),
    "signal_cap": Found(
        "The signal at a prompt is capped by the spread of its rewards, and it is not that spread alone.",
        "The share of the cap that is used rises while the network learns to read the prompt.",
    ),
    "what_moves_the_peak": Found(
        "A worse corpus moves the peak of RL's gain later, and a larger budget moves it earlier.",
        "Larger groups, with as many rows in an update, move it little.",
    ),
    "value_gradient_learning": Found(
        "Value-gradient learning under a fixed policy learns the value gradient, whatever lambda is.",
        "Lambda trades the bias of a wrong critic against the variance of the target. VGL(1) converges from any law of states. "
        "VGL(0) can diverge off-policy, and on-policy with a weight Omega, where the closed loop is far from normal; a change "
        "of units is enough for that.",
    ),
    "greedy_value_gradient": Found(
        "Value-gradient learning under its own greedy policy can diverge, at lambda = 0 and at lambda = 1.",
        "One problem makes VGL(0) diverge and VGL(1) converge, another the reverse. With the greedy weight Omega* VGL(1) is "
        "backpropagation through the return: its mean update is the gradient of the return, and it diverges in no problem.",
    ),
    "update_is_a_gradient": Found(
        "Losses at visited prefixes and the factor 1/|o| are gradients of nothing.",
        "REINFORCE, RLOO, GRPO with std for rewards of 0 and 1 and k1 in the reward climb an objective: the Jacobian of their "
        "mean update is symmetric. k2 and k3 in the loss, an entropy bonus and on-policy distillation hold the chances of "
        "the prefixes fixed, and beyond one step their Jacobian is not symmetric. 1/|o| has the same defect where lengths "
        "vary.",
    ),
    "kl_optimum": Found(
        "k1 in the reward ends at InstructGPT's optimum, and k3 in the loss, which GRPO uses, ends elsewhere.",
        "The end of k3 in the loss is a rational tilt of the reference, b ref / (b + V - Q), in the place of the exponential "
        "one.",
    ),
    "on_policy_distillation": Found(
        "On-policy distillation from several teachers does not end at the minimiser of its objective.",
        "It ends at the product of the teachers normalised token by token. The minimiser is their product over whole "
        "completions; k1 of the teachers in the reward ends there. With one teacher both are the teacher.",
    ),
    "surrogate_hessian": Found(
        "Differentiating the actor's surrogate twice does not give the Hessian; differentiating DiCE twice does.",
        "The surrogate holds values constant, so what is left of its Hessian is the curvature of the log-probabilities. It "
        "moves with the baseline, and for a table with the value baseline it is exactly 0.",
    ),
    "gae_meets_vgl": Found(
        "GAE and value-gradient learning follow the same gradient, whatever the critic, and a wrong one biases them alike.",
        "At lambda = 1 the critic does not bias them. In token worlds the bias is a polynomial in lambda, and an error that "
        "depends on time alone, even a constant, biases GAE where an end token exists.",
    ),
    "stochastic_value_gradients": Found(
        "SVG(0), SVG(1) and SVG(inf) have one mean, and every sampled step adds variance.",
        "Their covariances have closed forms. With a wrong model none of them is the value gradient: to first order the error "
        "on imagined paths is twice the symmetric part of the error on real paths, and the latter has a curl besides, so "
        "it is the gradient of nothing. Price's theorem for the variance of the noise needs Gaussian noise or a quadratic "
        "function; Bonnet's for the mean holds under every noise.",
    ),
    "off_policy_masks": Found(
        "Of DeepSeek's repairs the ratio in the KL term and the kept sets of top-p are exact; the off-policy mask is not.",
        "On stale rows the mask turns some updates nearer to the gradient and others away from it: it drops rows with a "
        "negative advantage alone. A small limit on rows that are hardly stale costs most.",
    ),
    "estimator_catalogue": Found(
        "Two completions drawn without replacement, with the baseline of the pair, never vary more than RLOO.",
        "All estimators of the catalogue are unbiased: at two evaluations they differ in variance alone. The unordered set "
        "with its baseline has RLOO's kernel with a weight below one half. Where one completion has nearly all of the "
        "probability it saves nearly all of the variance, and so does sum and sample; where none has, little is saved, and the "
        "set can do better without its baseline. On one bit DisARM varies less than RLOO, and not at all at p = 1/2. REBAR "
        "needs a good weight: at weight 1 and a low temperature it varies more than REINFORCE.",
    ),
    "value_gradient_flow": Found(
        "The transport budget of value-gradient flow bounds the Wasserstein distance and not the KL divergence.",
        "In Gaussian laws the flow is nearly the best transport at its distance, and it is the KL-regularised optimum for no "
        "beta: in one direction its covariance times that of the reference is the square of the KL-regularised one. At a "
        "prompt it gains less than the KL ball would allow at the same divergence. The official code "
        "(ryanxhr/vgf, commit 97465e5) moves particles by Adam, and the paper by plain steps. With Adam the step size and the "
        "number of steps bound how far a coordinate can move, alpha has no effect on one particle, and repulsion moves the "
        "mean of the particles.",
    ),
    "power_sampling": Found(
        "Power sampling draws whole texts from p^alpha / Z, which is not sampling at a low temperature.",
        "Metropolis-Hastings steps lead there from temperature 1 / alpha, with sums over the next token alone. Where texts may "
        "end, the steps need the factor |x| / |y|; the published code's end-token rule ends at another law.",
    ),
    "next_token_reward": Found(
        "Next-token rewards do not teach the corpus: RPT ends at its likeliest token.",
        "On the way its update can point against the likelihood's gradient. RLOO and GRPO with groups of two and three end "
        "there as well, and GRPO with large groups does if and only if the square of the largest frequency is at least the sum "
        "of the squares of the others. An advantage divided by the group's mean climbs a truncated log-likelihood, and in "
        "large groups it follows the likelihood itself.",
    ),
    "gumbel_bridge": Found(
        "Gumbel noise on logits turns tokens into a smooth rollout whose two gradients agree at every temperature.",
        "Toward sampled tokens the bias vanishes, and the spread of backpropagation grows without limit. Against REINFORCE "
        "with the value as baseline it has the smaller spread only above a temperature at which it is already biased. The "
        "three scores (of the noise, of the relaxed token, of the sampled token) have one mean and do not become one another.",
    ),
    "soft_thoughts": Found(
        "With its whole noise density SofT-GRPO is the additive-noise policy of the theorem; the form of its code is not.",
        "Its mean update is then GRPO's factor times the gradient of the success probability, and small noise tends to sampled "
        "tokens. Gaussian noise on embeddings tends to the rollout at alpha = 0 instead. The code's mean over likely tokens "
        "turns the update wherever a token is rarer than e^-3, and its clamped noise has a score of mean 0.01.",
    ),
}
