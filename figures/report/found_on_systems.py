"""What the documented outcomes of the claims on systems of the reference list mean, in words, as in `figures.report.found`."""

from figures.report.finding_words import Found

ON_SYSTEMS = {
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
        "turns the update wherever a token is rarer than e^-3, and the mean score of its clamped noise is not 0.",
    ),
}
