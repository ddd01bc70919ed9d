# %% [markdown]
# There are two ways to estimate the derivative of an expected return $\mathbb{E} R$ with respect to a parameter
# $\theta$ of the policy:
#
# - **Backprop** (the [pathwise](glossary.html#pathwise-gradient) estimator): hold the noise of a path fixed and
#   differentiate its return through all steps, $dR / d\theta$. This is what lesson 1 did for the state.
# - **REINFORCE** (the [score function](glossary.html#score) estimator): do not differentiate the world at all. Multiply
#   the return by $\sum_t \frac{d}{d\theta} \log\, \pi(a_t)$, which says how much more likely the path's actions become
#   as $\theta$ grows.
#
# Both have the same mean, the true gradient. They differ in how widely single paths scatter around it. If the standard
# deviation is ten times as large, it takes a hundred times as many paths for the same precision.
#
# The world is a map on a circle: $s_{t+1} = \beta\, \sin(s_t) + a_t$ with $a_t = \theta + \xi_t$, Gaussian noise
# $\xi_t$ of standard deviation $\sigma$, and a return $R = \cos(s_T)$ that is paid at the end. With a small $\beta$ the
# map is *tame*: two nearby states come closer. With a large $\beta$ it is [chaotic](glossary.html#chaos): their
# distance is multiplied from step to step.
#
# **Predict before you run.** Which estimator has the smaller standard deviation in the tame map, and which in the
# chaotic one? How does each change as the horizon $T$ grows?

# %%
import torch
from matplotlib.figure import Figure

import costate

# the worlds of this lesson: change them here
tame = costate.world("ChaoticMap", beta=0.5, horizon=20)
chaotic = costate.world("ChaoticMap", beta=2.5, horizon=20)
worlds = {"tame": tame, "chaotic": chaotic}
theta = 1.0
exact = {name: costate.exact(world, theta) for name, world in worlds.items()}

# %%
paths, rng = 2000, torch.Generator().manual_seed(0)
spreads = {name: torch.zeros(world.horizon, 2) for name, world in worlds.items()}
for name, world in worlds.items():
    for T in range(1, world.horizon + 1):
        xi = world.sd * torch.randn(paths, T, generator=rng)
        knob = torch.full((paths,), theta, requires_grad=True)  # theta, one copy for each path
        s = torch.full((paths,), world.start)
        for t in range(T):
            s = world.beta * torch.sin(s) + knob + xi[:, t]
        backprop = torch.autograd.grad(torch.cos(s).sum(), knob)[0]
        reinforce = torch.cos(s.detach()) * (xi / world.sd**2).sum(1)
        spreads[name][T - 1] = torch.stack([backprop.std(), reinforce.std()])

# %% [markdown]
# The score of one action is $\frac{d}{d\theta} \log\, \pi(a_t) = \xi_t / \sigma^2$, because $a_t$ is Gaussian around
# $\theta$. For this world `costate.exact` knows the standard deviations of both estimators without sampling. They are
# the dashed lines; the dots are sampled.

# %% alt="Standard deviation against the horizon. Tame map: backprop lies far below REINFORCE. Chaotic map: it crosses it"
figure = Figure(figsize=(6.6, 3.6), layout="constrained")
figure.suptitle("Backprop scatters less, until chaos multiplies it")
for panel, (name, world) in zip(figure.subplots(1, 2, sharey=True), worlds.items(), strict=True):
    steps, both = range(1, world.horizon + 1), exact[name]
    lines = {"backprop": both.pathwise_sd, "REINFORCE": both.score_sd}
    for i, (label, sd) in enumerate(lines.items()):
        panel.plot(steps, spreads[name][:, i], "o", color=f"C{i}", ms=4, label=label)
        panel.plot(steps, sd, "--", color=f"C{i}", label="exact")
    panel.set(title=f"{name}: beta = {world.beta:g}", xlabel="horizon T", yscale="log")
figure.axes[0].set_ylabel("standard deviation of one path")
figure.axes[1].legend(fontsize="small")
figure

# %%
said = []
for name, world in worlds.items():
    ratio = float(exact[name].pathwise_sd[-1] / exact[name].score_sd[-1])
    loser, factor = ("backprop", ratio**2) if ratio > 1 else ("REINFORCE", ratio**-2)
    said.append(f"{name}, T = {world.horizon}: {loser} needs {factor:,.0f} times as many paths")
print("\n".join(said))

# %% [markdown]
# REINFORCE adds one score for each step, so its standard deviation grows like $\sqrt T$ in both maps. Backprop
# multiplies by one derivative $\beta\, \cos(s_t)$ at each step. In the tame map the product shrinks, and only the last
# few steps matter. In the chaotic map it grows exponentially with the horizon.
#
# ## In your own trainer
# Where you can differentiate the world (a simulator, a learned world model, a denoising chain), backprop is the better
# choice as long as the product of the step derivatives stays near 1 or below. Watch the norm of the gradient against
# the horizon: if it doubles every few steps, shorten the horizon, or take the score function. Clipping makes the steps
# smaller, but it does not bring back the true gradient.
#
# A language model draws tokens, and no derivative passes through them (lesson 4). It is left with the score function,
# whose noise grows slowly with the length of the completion. Baselines and groups of completions are there to reduce
# it.
#
# ## Exercise 3
# Take a map between the two: `costate.world("ChaoticMap", beta=2.0, horizon=30)`, with the same $\theta = 1$. Which is
# the first horizon at which REINFORCE has a smaller standard deviation than backprop? Use the exact standard
# deviations: the sampled ones are too uncertain to tell neighbouring horizons apart.

# %% tags=["exercise"]
answer = ...
costate.check("3", answer)
