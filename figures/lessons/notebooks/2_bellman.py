# %% [markdown]
# Lesson 1 took the [costate](glossary.html#costate) of a state that is a vector of numbers. What is a costate where the
# state is one of a short list, $s = 0, 1, \dots, S - 1$? A state cannot be "a little different" there. But the
# *probabilities* of the states can. They are called the **[belief](glossary.html#belief)** $b_t$, a row of $S$ numbers,
# and they change smoothly from step to step:
#
# $$b_{t+1}(s') = \sum_{s, a} b_t(s)\, \pi(a \mid s)\, P(s' \mid s, a).$$
#
# Here $\pi(a \mid s)$ is the policy, the probability that it chooses the token $a$ in the state $s$, and
# $P(s' \mid s, a)$ is the probability that this leads to the state $s'$. With rewards $r_t(s, a)$ and a discount
# $\gamma$, the expected return from time $t$ on is
#
# $$R_t = \sum_{k \ge t} \gamma^{k-t} \sum_{s, a} b_k(s)\, \pi(a \mid s)\, r_k(s, a).$$
#
# The costate is the derivative of the return, as before: $\lambda_t = dR_t / db_t$. It has one entry for each state,
# and one backward pass computes all of them.
#
# **Predict before you run.** What is the entry of $\lambda_t$ for the state $s$?
#
# - The reward of the state $s$ at time $t$ alone.
# - The expected return of a path that is in the state $s$ at time $t$.
# - Neither: it depends on the belief at which the derivative is taken.

# %%
import torch
from matplotlib.figure import Figure

import costate

# the world of this lesson: change it here
world = costate.world("TokenGarnet", V=2, states=3, horizon=8, gamma=0.9)
costate.check("2", world=world)  # refuses a world of another kind
rng = torch.Generator().manual_seed(0)
pi = torch.randn(world.S, world.V, generator=rng).double().softmax(-1)  # a random policy


def costates_at(belief: torch.Tensor) -> torch.Tensor:
    beliefs, total = [belief.requires_grad_()], torch.zeros(())
    for t in range(world.horizon):
        both = beliefs[t][:, None] * pi  # probability of state s and token a
        total = total + world.gamma**t * (both * world.r[t]).sum()
        beliefs.append(torch.einsum("sa,say->y", both, world.P))
    slopes = torch.autograd.grad(total, beliefs[:-1])
    return torch.stack([slope / world.gamma**t for t, slope in enumerate(slopes)])


even, certain = torch.full((world.S,), 1 / world.S).double(), torch.eye(world.S).double()[0]
costates = costates_at(even)

# %% [markdown]
# The classical way to the expected return from a state is the **Bellman equation**. It goes from the last step
# backwards, and it knows nothing of beliefs and derivatives:
#
# $$V_t(s) = \sum_a \pi(a \mid s) \left[ r_t(s, a) + \gamma \sum_{s'} P(s' \mid s, a)\, V_{t+1}(s') \right].$$

# %%
values = [torch.zeros(world.S).double()]
for t in reversed(range(world.horizon)):
    values.insert(0, (pi * (world.r[t] + world.gamma * world.P @ values[0])).sum(-1))

# %% alt="Dots, the costate of every state over time, lie on dashed lines, the Bellman values of the states"
axis = Figure(figsize=(6.4, 3.6), layout="constrained").subplots()
for s in range(min(world.S, 6)):
    line = [float(value[s]) for value in values[:-1]]
    axis.plot(line, "--", color=f"C{s}", label=f"Bellman value of state {s}")
    axis.plot(costates[:, s], "o", color=f"C{s}", label=f"costate of state {s}")
axis.set(title="The costate of every state is its Bellman value", xlabel="time t")
axis.set_ylabel("expected return from t on")
axis.legend(fontsize="small")
axis.figure

# %% [markdown]
# Every dot lies on its line. Does it matter at which belief the derivative was taken?

# %%
off = (costates - torch.stack(values[:-1])).abs().max()
moved = (costates - costates_at(certain)).abs().max()
print(f"largest gap between costate and Bellman value: {off:.0e}")
print(f"largest change if the path surely begins in state 0: {moved:.0e}")

# %% [markdown]
# Both are rounding errors. The return is linear in the belief, so its derivative is the same at every belief. The
# backward pass of one step, written by hand, is
#
# $$\lambda_t = r_\pi + \gamma P_\pi\, \lambda_{t+1},$$
#
# with the mean reward $r_\pi(s) = \sum_a \pi(a \mid s)\, r_t(s, a)$ and the mean transition
# $P_\pi(s' \mid s) = \sum_a \pi(a \mid s)\, P(s' \mid s, a)$. This is the Bellman equation. Dynamic programming is
# backpropagation through the belief.
#
# ## In your own trainer
# A critic $V(s)$ is a learned costate of this kind. Its regression target $r + \gamma V(s')$ is one sampled step of the
# backward pass. Trainers without a critic ([critic-free](glossary.html#critic-free): REINFORCE, GRPO) do without the
# recursion: they put the sampled return of the whole path in the place of $\lambda$.
#
# A language model has no list of states, only a hidden vector. There the costate is again a derivative with respect to
# a vector, as in lesson 1: its mean is not $V$ but the [value gradient](glossary.html#value-gradient) $\nabla V$.
# Lesson 4 is about it.
#
# ## Exercise 2
# Optimal control judges an action by the *Hamiltonian*: what the action earns now, plus the discounted costate of the
# next time, averaged over the states to which the action leads. Compute the Hamiltonian of time 0 for every state and
# token from `costates`, `world.r`, `world.P` and `world.gamma`: one row for each state, one column for each token. By
# which name does reinforcement learning know it?

# %% tags=["exercise"]
answer = ...
costate.check("2", answer, world=world)
