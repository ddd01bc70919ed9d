# %% [markdown]
# GRPO divides the advantages of a group by the standard deviation of the group's rewards. For one prompt this changes
# the length of the mean update by a factor, **[kappa](glossary.html#kappa)** (lesson 6), and not its direction. A
# trainer has many prompts, and they differ in the probability $p$ that a completion is right: some are solved half of
# the time, some hardly ever.
#
# The expected reward is $J$, the mean of $p$ over the prompts. Rewards are 0 and 1. A group whose rewards are all equal
# gets no advantage at all: it is **[silent](glossary.html#group)**.
#
# In the world of this lesson each of eight prompts asks for its own word of three letters.
#
# **Predict before you run.** Compared with the gradient of $J$, does GRPO count a prompt that is hardly ever solved
# more, less, or just as much? Is your answer the same for groups of 2 and groups of 16?

# %%
from dataclasses import replace

import pandas as pd
import torch
from matplotlib.figure import Figure

import costate

# the world of this lesson: change it here
world = costate.world("TokenCopy", V=2, length=3)
(policy,) = costate.random_policies(world).values()
true = costate.exact(world, policy)
p = true.V[0]  # success probability of every prompt
print("p of the prompts:", *(f"{chance:.2f}" for chance in sorted(p)))
grpo = costate.grpo(length="row sum")  # its division by the length is lesson 8
means = {G: costate.expected_update(world, policy, grpo, G).mean for G in (2, 4, 8, 16)}
print("GRPO and the gradient of J:")
for G, mean in means.items():
    print(f"G = {G:2}: cosine {costate.alignment(mean, true).cosine:.4f}")

# %% [markdown]
# With two rows GRPO follows the gradient of $J$. The larger the group, the further away it points. So it climbs
# something else.
#
# Each prompt has a kappa of its own, which depends on its $p$ and on $G$. It is written $c_G(p)$, and
# `costate.grpo_kappa` computes it. The mean update is then $\sum_x c_G(p_x) \nabla p_x$ over the prompts $x$ (divided
# by their number), and this is the gradient of
#
# $$\sum_x F_G(p_x), \qquad F_G(p) = \int_0^p c_G(p')\, \mathrm dp'.$$
#
# For large groups $c_G(p)$ tends to $1 / \sqrt{p (1 - p)}$, and $F_G$ to the **[arcsine
# objective](glossary.html#arcsine-objective)** $2 \arcsin \sqrt p$.

# %% alt="What GRPO climbs against the success probability, for three group sizes, and the arcsine, dashed"
figure = Figure(figsize=(5.4, 3.8), layout="constrained")
axes = figure.subplots()
chances = torch.linspace(0, 1, 201, dtype=torch.float64)
for group in (2, 8, 64):
    axes.plot(chances, costate.grpo_objective(chances, group), label=f"G = {group}")
axes.plot(chances, 2 * chances.sqrt().arcsin(), "k--", label="2 arcsin of the root of p")
axes.set_xlabel("p, success probability of a prompt")
axes.set_ylabel("F, what GRPO climbs")
axes.set_title("Large groups: steep where p is near 0 or 1")
axes.legend()
figure

# %% [markdown]
# The slope of the curve is the weight of a prompt. At $G = 2$ it is the same everywhere, so GRPO climbs $J$. At large
# $G$ prompts that are almost never solved, and prompts that are almost always solved, count more than those in
# between.
#
# If this is right, then GRPO follows the gradient of $J$ in a world where the prompts come with other frequencies:

# %%
print("GRPO and the gradient of J in the reweighted world:")
for G, mean in means.items():
    weights = world.weights * costate.grpo_kappa(p, G)
    other = replace(world, weights=weights / weights.sum())
    cosine = costate.alignment(mean, costate.exact(other, policy)).cosine
    print(f"G = {G:2}: cosine {cosine:.6f}")

# %% [markdown]
# ## In your own trainer
# The weight of a hard prompt does not come evenly. Most of its groups are silent, and the few others have a large
# advantage. At $G = 8$:

# %%
chance, G = torch.tensor([0.001, 0.02, 0.1, 0.5, 0.98], dtype=torch.float64), 8
columns = {
    "p": chance,
    "weight in GRPO": costate.grpo_kappa(chance, G),
    "weight at large G": 1 / (chance * (1 - chance)).sqrt(),
    "share of silent groups": chance**G + (1 - chance) ** G,
}
pd.DataFrame({name: column.tolist() for name, column in columns.items()}).round(3)

# %% [markdown]
# - The weight saturates at $\sqrt{G - 1}$. The arcsine promises more, but a prompt with $p$ far below $1/G$ would need
#   larger groups to get it.
# - Look at the share of silent groups beside the reward. If it rises, then the effective batch shrinks.
# - A mean reward that goes up more slowly than with Dr. GRPO need not be a bug: GRPO spends a part of its step on rare
#   successes and on the last failures.
#
# ## Exercise 7a
# *Dynamic sampling* (DAPO) throws silent groups away and draws again, until a group is not silent. What is then the
# factor kappa of a prompt with $p = 0.02$ at $G = 8$? The standard deviation is the population's.

# %% tags=["exercise"]
answer = ...
costate.check("7a", answer)

# %% [markdown]
# ## Exercise 7b
# What is the smallest group at which no more than half of the groups of a prompt with $p = 0.02$ are silent?

# %% tags=["exercise"]
answer = ...
costate.check("7b", answer)
