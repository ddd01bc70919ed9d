# %% [markdown]
# A trainer without a critic draws a **[group](glossary.html#group)** of $G$ completions of one prompt, pays each a
# reward $R_i$, and gives each an **[advantage](glossary.html#advantage)** $\hat A_i$: its reward, compared with the
# rewards of the group. One update is
#
# $$\frac{1}{G} \sum_i \hat A_i \, \nabla \log \pi(o_i),$$
#
# where $\pi(o_i)$ is the probability of completion $o_i$. The recipes differ in the advantage:
#
# | recipe | advantage |
# |---|---|
# | REINFORCE | $R_i$ itself |
# | RLOO | $R_i$ minus the mean of the *other* rewards |
# | Dr. GRPO | $R_i$ minus the mean of *all* rewards of the group, its own included |
# | GRPO | the same, divided by the standard deviation of the group's rewards |
#
# One update is random. Its mean is not: in a small world every possible group can be listed, weighted with its
# probability, and added up. This is what `costate.expected_update` does.
#
# The mean update is compared with the exact gradient at every **[prefix](glossary.html#prefix-tree)** (the tokens so
# far). There the **[value gradient](glossary.html#value-gradient)** $\nabla V$ says how the expected reward would
# change with the hidden state of the network (lesson 4). Here it is the hidden state after the first layer, the
# [site](glossary.html#site) `layer1`.
#
# In the world of this lesson the policy writes three tokens. The reward is 1 if the last token is right (it must say
# whether the sum of the others is odd), and 0 otherwise.
#
# **Predict before you run.** For which of RLOO, Dr. GRPO and GRPO does the mean update point along the value gradient:
# for RLOO alone, for all but GRPO (a standard deviation is not linear), or for all three? Where it does, is the ratio
# of their lengths the same at every prefix?

# %%
import pandas as pd
import torch
from matplotlib.figure import Figure

import costate

# the world of this lesson: change it here
world = costate.world("TokenParity", V=3, horizon=3)
(policy,) = costate.random_policies(world).values()  # a small transformer that has learned nothing yet
recipes = {
    "GRPO": costate.grpo(length="row sum"),  # its division by the length waits for lesson 8
    "RLOO": costate.rloo(),
    "Dr. GRPO": costate.dr_grpo(),
}
updates = {}
for name, recipe in recipes.items():
    updates[name] = costate.expected_update(world, policy, recipe, group=4, sites="layer1")

# %% alt="Components of the mean update against those of the value gradient: one straight line through 0 for each recipe"
figure = Figure(figsize=(5.4, 3.8), layout="constrained")
axes = figure.subplots()
for look, (name, update) in zip(("o", "^", "s"), updates.items(), strict=True):
    truth, mean = update.truth.costates["layer1"], update.mean.costates["layer1"]
    true, got = (torch.cat([level.flatten() for level in levels]) for levels in (truth, mean))
    axes.plot(true, got, look, markersize=4, label=f"{name}: slope {update.alignment.scale:.2f}")
axes.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=1, label="slope 1")
axes.set_xlabel("a component of the value gradient, at any prefix")
axes.set_ylabel("the same component of the mean update")
axes.set_title("Each recipe has one factor, the same at every prefix")
axes.legend()
figure

# %%
for name, update in updates.items():
    kappa = update.frame()["layer1.scale"]  # one row for each prefix
    print(f"{name:8}  {len(kappa)} prefixes, kappa {kappa.min():.6f} to {kappa.max():.6f}")

# %% [markdown]
# All three point along the value gradient. The only difference is one factor, called **[kappa](glossary.html#kappa)**:
#
# $$\mathbb{E}[\text{update}] = \kappa \, \nabla J, \qquad
# \kappa = \frac{\mathrm{Cov}(\hat A_1, R_1)}{\mathrm{Var}(R_1)}.$$
#
# Here is why. Keep row 1 as it is and average its advantage over the other rows. The mean has two values, one for the
# reward 0 and one for the reward 1, so it can be written as $a + \kappa R_1$ with two constants. The constant $a$ adds
# nothing, because $\mathbb{E}\,\nabla \log \pi = 0$. What remains is $\kappa$ times REINFORCE, and REINFORCE has the
# mean $\nabla J$. For RLOO and Dr. GRPO this holds for any rewards; with the division by a standard deviation it needs
# rewards of 0 and 1.
#
# Kappa depends on the group size, and for GRPO on the probability $p$ of a success too:

# %%
groups = (2, 4, 8, 16)
table = pd.DataFrame(index=[f"G = {group}" for group in groups])
for name, recipe in recipes.items():
    means = [costate.expected_update(world, policy, recipe, group) for group in groups]
    table[name] = [mean.alignment.scale for mean in means]
table.round(3)

# %%
for p in (costate.exact(world, policy).J, torch.tensor(0.01)):
    print(f"GRPO at G = 16 has kappa {costate.grpo_kappa(p, 16):.2f} at p = {p:.2f}")

# %% [markdown]
# ## In your own trainer
# - Kappa is a hidden learning rate. If you change from RLOO to GRPO, or change $G$, the size of the step changes too.
#   A comparison of recipes at one learning rate compares these factors first.
# - With Dr. GRPO the factor is $(G-1)/G$ and depends on nothing else. With GRPO every prompt has a factor of its own,
#   and it changes while the policy learns. What this does to several prompts is lesson 7.
# - Adam divides by the recent size of the gradient. That hides a factor that all prompts share and that stays as it is,
#   but not one that differs from prompt to prompt.
# - All this is about the mean of the first step after a draw, without a length factor. Lesson 8 is about lengths.
#
# ## Exercise 6
# A colleague mixes two recipes: the baseline of RLOO (the mean of the *other* rewards) and the division of GRPO (the
# population standard deviation of *all* rewards of the group; a group of equal rewards has advantage 0). What is kappa
# of this mixture at $G = 4$ in the world above?
#
# Two ways lead there: the formula with Cov and Var, summed over the number of successes in a group; or an advantage of
# your own, `costate.Learner("mixture", advantage)`, given to `costate.expected_update`. The function
# `advantage(rewards, mask, group)` gets tensors of shape (rows, tokens), (rows, tokens) and (rows,), and returns one
# advantage for every token.

# %% tags=["exercise"]
answer = ...
costate.check("6", answer, world=world)
