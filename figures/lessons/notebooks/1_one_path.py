# %% [markdown]
# A [policy](glossary.html#policy) acts in a noisy world: $s_{t+1} = A s_t + B a_t$ with $a_t = -K s_t + \xi_t$. After
# the rollout, autograd can say how the return of *this* path would change if a state had been a little different:
#
# $$\lambda_t = \frac{dR_t}{ds_t}, \qquad R_t = \sum_{k \ge t} \gamma^{k-t} r_k .$$
#
# This is the path's **[costate](glossary.html#costate)**. The **[value gradient](glossary.html#value-gradient)**
# $\nabla V_t(s_t)$ is the derivative of the *expected* return. The costate depends on all the noise that is still to
# come; the value gradient does not.
#
# **Predict before you run.** Draw one path. Is its costate close to the value gradient? And is the mean of many paths'
# costates equal to it, or only close to it as long as the noise is small?

# %%
import costate

# the world of this lesson: change it here
world = costate.world("LQScalar", horizon=12)
K = [[0.6]]  # the policy's gain, a matrix of one entry
paths = costate.sampled_paths(world, K, paths=500, start=[1.0])

# %% alt="Costates of many noisy paths over time, one of them bold, their mean, and the exact value gradient, dashed"
costate.draw_path(paths.costates, paths.gradient).figure

# %% [markdown]
# One path's costate is noisy. The mean lies on the exact value gradient:

# %%
table = paths.frame()
off = ((table["mean"] - table["gradient"]) / table["standard_error"]).abs().max()
print(f"mean of 500 paths: at most {off:.1f} standard errors away from")
print("the exact value gradient")

# %% [markdown]
# With additive noise this is exact, at any size of the noise: $\mathbb{E}\,\lambda_t = \nabla V_t(\mathbb{E}\,s_t)$ in
# this world, because the noise enters by a sum and every derivative passes through it unchanged.
#
# ## In your own trainer
# The backward pass through a rollout gives *one sample* of the value gradient, and the mean over the batch is what the
# optimiser follows. It is unbiased only if the backward pass takes every road that the return takes: the road through
# the dynamics **and** the road through the policy that reads the state. A `detach()` on what the policy reads saves
# memory and cuts the second road.

# %%
cut = costate.sampled_paths(world, K, paths=500, start=[1.0], cut=True)

# %% alt="The same picture with the policy's path cut: the mean of the costates misses the exact value gradient"
costate.draw_path(cut.costates, cut.gradient).figure

# %% [markdown]
# ## Exercise 1
# The mean of the cut costates misses the value gradient at every time but the last, and more paths do not help. Compute
# the exact mean at time 0 of a path that begins in $s = 1$. The mean state follows $\bar s_{t+1} = (A - BK)\,\bar s_t$,
# and with the policy's road cut the recursion is $\mu_t = -2 Q \bar s_t + \gamma A\,\mu_{t+1}$, which ends in
# $\mu_T = -2 Q_f \bar s_T$. The matrices are `world.A`, `world.B`, `world.Q` and `world.Q_f`; the discount is
# `world.gamma`.

# %% tags=["exercise"]
answer = ...
costate.check("1", answer, world=world)
