# %% [markdown]
# In lesson 4 the backward pass through attention alone (E1) missed the value gradient $\nabla V$. The paper that this
# course examines (*Value-Gradient Hypothesis of RL for LLMs*) says that the error is "controlled by the [sampling
# gap](glossary.html#sampling-gap) and policy [entropy](glossary.html#entropy)". The **entropy**
# $\mathcal H = -\sum_a \pi(a)\, \log\, \pi(a)$ says how undecided a policy is about the next token: 0 if it is certain,
# $\log\, 3$ between three equally likely tokens. (The sampling gap is 0 where probabilities are fed on instead of
# tokens. It stays at its largest here: every token is drawn.)
#
# The error is $\lvert \nabla V - \mathbb{E}\,\mathrm{E1} \rvert$. (Here rewards are paid for drawn tokens, so that E1
# is 0 and the error is all of $\nabla V$.) Take the policy of lesson 4 and lower its entropy in two ways:
#
# - The **temperature** $\tau$ divides all logits: $\pi = \mathrm{softmax}(z / \tau)$.
# - An **offset** is added to the logit of token 0, so that this token becomes more likely everywhere.
#
# **Predict before you run.** As the entropy falls, does the error fall all the way: for both knobs, for one of them, or
# for none? What is the error when the policy is nearly certain?

# %%
import numpy
from matplotlib.figure import Figure

import costate

# the world of this lesson: change it here
world = costate.world("TokenParity", V=3, horizon=3)
sweeps = {}
knobs = {"temperature": numpy.geomspace(3, 0.03, 17), "offset": numpy.linspace(0, 8, 17)}
for knob, values in knobs.items():
    policies = costate.random_policies(world, **{f"{knob}s": values}, width=8, layers=1, heads=2)
    sweeps[knob] = costate.error_split(world, policies, site="embedding")

# %% alt="Error and bound against entropy, for both knobs: as the entropy falls the error first rises, then it falls to 0"
figure = Figure(figsize=(6.6, 3.4), layout="constrained")
figure.suptitle("Lower entropy first means a larger error; the bound follows it")
for panel, (knob, sweep) in zip(figure.subplots(1, 2), sweeps.items(), strict=True):
    mean = sweep.groupby(knob, sort=False).mean()  # over the prompts
    panel.plot(mean["entropy"], mean["error"], ".-", label="error of E1")
    panel.plot(mean["entropy"], mean["tier2"], "--", color="0.4", label="bound")
    panel.set(title=f"by {knob}", xlabel="entropy in nats (falls to the right)", ylim=(0, None))
    panel.invert_xaxis()
    panel.legend(fontsize="small")
figure

# %%
for knob, sweep in sweeps.items():
    mean = sweep.groupby(knob, sort=False).mean()
    first, worst = mean.iloc[0], mean.loc[mean["error"].idxmax()]
    print(f"{knob}: the error becomes {worst['error'] / first['error']:.1f} times as large")
    print(f"    while the entropy falls from {first['entropy']:.2f} to {worst['entropy']:.2f} nats")
least = min(float((sweep["tier2"] / sweep["error"]).min()) for sweep in sweeps.values())
print(f"the bound is at least {least:.2f} times as large as the error")

# %% [markdown]
# Each dot is one policy, exactly computed. The error ends near 0 for both knobs, but on the way it grows, under the
# temperature by far more (mind the two scales).
#
# The dashed [bound](glossary.html#tier) shows why. It is a sum over the steps $j$ of a completion, and each step adds
# the mean of a product of three things:
#
# $$\mathrm{diam}(w_j) \cdot \mathrm{osc}(Q_j) \cdot \min\left(\tfrac14, \tfrac12 \mathrm{gini}(\pi_j)\right).$$
#
# - $\mathrm{diam}(w_j)$: how far apart the slopes of the tokens' logits lie. (The slope of a logit is its derivative
#   with respect to the hidden vector.) The temperature divides the logits, so a low temperature makes this *larger*,
#   like $1/\tau$.
# - $\mathrm{osc}(Q_j)$: what is at stake, the largest expected return after a token minus the smallest. It can grow or
#   shrink when the knob changes what later tokens do.
# - $\mathrm{gini}(\pi_j) = 1 - \sum_a \pi_j(a)^2$: the [probability that two draws differ](glossary.html#gini-index). A
#   small entropy makes this factor small, and this factor alone.
#
# ## In your own trainer
# An entropy curve that falls does not tell you that the policy became easier to differentiate. Sharpening multiplies
# the slope of the logits, and the gradient that passes through the choice of tokens can grow for a long time before it
# vanishes. If you want to know how much a pass through attention alone leaves out, look at all three factors.
#
# ## Exercise 5
# Read the paper's sentence as an inequality with one constant $C$ for the whole world:
#
# $$\text{error} \le C \cdot \min\left(\frac{\mathcal H}{2\, \ln\, 2},\; 1 - e^{-\mathcal H}\right).$$
#
# The minimum on the right is an upper bound on the Gini index of a policy with this entropy, for any number of tokens.
# Each row of `sweeps` (columns `error` and `entropy`) needs a certain $C$. Let $C_0$ be the smallest one that serves
# the policy as it is, without a knob: the row of `sweeps["offset"]` with `offset` 0 (the largest of them, where there
# are several prompts). Let $C$ be the smallest one that serves all rows of both sweeps. What is $C / C_0$?

# %% tags=["exercise"]
answer = ...
costate.check("5", answer, world=world)
