# %% [markdown]
# Completions have different lengths: a completion $o$ ends where the policy writes the **[end
# token](glossary.html#end-token)**, and has $|o|$ tokens. A loss adds up the terms of all tokens and then divides by
# something, the **[normaliser](glossary.html#normaliser)**:
#
# | normaliser | the terms of one row are | used by |
# |---|---|---|
# | row sum | added up | REINFORCE, RLOO, Dr. GRPO |
# | row mean | added up and divided by the row's own length | GRPO |
# | group token mean | added up and divided by the mean length of the group | DAPO |
#
# All three run, and the reward rises with all three. The question is whether the mean update still points along the
# gradient of the expected reward, $\nabla J$. The [advantage](glossary.html#advantage) here is the reward minus the
# mean of the group, so that nothing but the normaliser differs. Its mean update with the row sum is
# $\kappa \, \nabla J$, with the factor [kappa](glossary.html#kappa) of lesson 6.
#
# In the world of this lesson the policy writes numbers and then the end token, at most four tokens in all. The reward
# is 1 if it ends in time and the sum of its numbers is odd, and 0 otherwise.
#
# **Predict before you run.** Which of the three still point along $\nabla J$ when lengths vary: all, two, or one? And
# how large is the angle where they do not: a few degrees, or more than 30?

# %%
import torch

import costate

# the world of this lesson: change it here
world = costate.world("TokenSumAndStop", horizon=4)
(policy,) = costate.random_policies(world).values()
G = 4
kappa = (G - 1) / G  # of a baseline that is the group's mean: lesson 6
arrows: dict[str, torch.Tensor] = {}
for name in ("row sum", "row mean", "group token mean"):
    update = costate.expected_update(world, policy, costate.grpo(std="none", length=name), G)
    angle = torch.tensor(update.alignment.cosine).clamp(max=1).acos().rad2deg()
    print(f"{name:16} {angle:3.0f} degrees from the gradient")
    arrows |= {"grad J": update.truth.flat, name: update.mean.flat / kappa}

# %% alt="The gradient and three mean updates as arrows; the row sum alone lies on the gradient"
costate.draw_arrows(arrows, width=4.6).figure

# %% [markdown]
# The row sum is on the gradient. The row mean is far away from it, and no learning rate mends that.
#
# Lesson 6 says why. The mean weight of a row is $a + \kappa R$ with a constant $a \lt 0$, and the constant has no
# effect, because $\mathbb{E}\,\nabla \log \pi = 0$. Divided by the row's length it is $a / |o| + \kappa R / |o|$. Now
# the first part depends on the row and no longer vanishes: a failure is punished less the longer it is, so the update
# favours *longer failures*. The group token mean has the same flaw in a milder form, because the row's own length is
# only a part of the group's.
#
# Where all completions have one length, each of the three is a multiple of the row sum:

# %%
one_length = costate.world("TokenParity", V=3, horizon=3)
(another,) = costate.random_policies(one_length).values()
for name in ("row sum", "row mean", "group token mean"):
    recipe = costate.grpo(std="none", length=name)
    update = costate.expected_update(one_length, another, recipe, G)
    print(f"{name:16} cosine {update.alignment.cosine:.6f}")

# %% [markdown]
# ## In your own trainer
# Read what your loss divides by, and say it in your paper. A division by a constant (the longest length allowed, for
# instance) is a row sum with another learning rate.
#
# A loss that is slightly wrong gives no error message and still learns. `costate.expected_update` takes any loss: it
# needs the derivative of the loss with respect to every log-probability, which autograd gives in one line. Here is a
# GRPO loss as one might write it, with a row sum, and with **one silent bug**. The letters name its parts.


# %%
def grpo_loss(log_probs, old, rewards, mask, clip=0.2, eps=1e-6):
    """All arguments are (rows, tokens), group by group; the mask is True up to the end token."""
    mask = mask.reshape(-1, G, mask.shape[1])  # (groups, rows of a group, tokens)
    rewards, log_probs, old = (x.reshape(mask.shape) for x in (rewards, log_probs, old))
    # A: what a row is paid, told to each of its tokens
    R = rewards.sum(2, keepdim=True).expand(mask.shape)
    # B: the baseline, a mean over the group
    baseline = (R * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True)
    # C: the standard deviation of the group's rewards
    spread = R.std(1, correction=0, keepdim=True)
    # D: the advantage
    advantage = (R - baseline) / (spread + eps)
    # E: PPO's clip of the ratio to the policy that drew the rows
    ratio = (log_probs - old).exp()
    terms = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    # F: the sum over the tokens of a row, without what follows its end
    rows = (terms * mask).sum(2)
    # G: the mean over rows and groups
    return -rows.mean()


def mean_update(loss, world, policy):
    def weights(rewards, mask, group, **others):
        log_probs = torch.zeros_like(rewards, requires_grad=True)
        slopes = torch.autograd.grad(loss(log_probs, log_probs.detach(), rewards, mask), log_probs)
        return -slopes[0], None  # no entropy bonus

    return costate.expected_update(world, policy, weights, G)


# %%
for name, where in {"one length": (one_length, another), "lengths vary": (world, policy)}.items():
    cosine = mean_update(grpo_loss, *where).alignment.cosine
    print(f"{name:12} cosine {cosine:.4f}")

# %% [markdown]
# These are cosines of the mean update with the gradient. A test with completions of one length does not see the bug.
# With lengths that vary, the mean update is no longer a multiple of $\nabla J$, although this loss divides by no
# length at all.
#
# ## Exercise 8a
# Which part has the bug? Change one part at a time and measure again. The answer is its letter.

# %% tags=["exercise"]
answer = ...
costate.check("8a", answer)

# %% [markdown]
# ## Exercise 8b
# Repair it. What is kappa of the repaired loss in `world` (`.alignment.scale`)?

# %% tags=["exercise"]
answer = ...
costate.check("8b", answer, world=world)
