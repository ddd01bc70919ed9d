# %% [markdown]
# A language model writes a [completion](glossary.html#completion) token by token. Each token is *drawn* from the
# probabilities $\pi(a \mid \text{text so far})$ that the network computes, and the finished completion earns a return
# $R$. The [value](glossary.html#value) $V$ is the expected return.
#
# Add a small vector $\delta$ to the embedding of the prompt's last token, which is the network's first hidden vector
# there. All later probabilities change a little, and so does the value. The **[value
# gradient](glossary.html#value-gradient)** $\nabla V = dV / d\delta$ says how.
#
# Can one backward pass through a sampled completion find it? A drawn token is a whole number. It has no derivative in
# the probabilities from which it was drawn, so one must choose what the backward pass does there. Six choices have
# [names](glossary.html#e1-e1b-e2-e3-e4-e5):
#
# | name | what the backward pass differentiates |
# |---|---|
# | E1 | the return, through attention alone; drawn tokens are constants |
# | E1b | the same, with each reward averaged over the token that earns it |
# | E2 | return times log-probability of the drawn tokens; return and tokens are constants |
# | E3 | the return, with the softmax's slope put in the place of the token's missing one (*straight-through*) |
# | E4 | the return of a rollout that feeds probabilities on instead of tokens (*soft*) |
# | E5 | the return of a rollout that feeds probabilities with random noise on (*Gumbel-softmax*) |
#
# The world is small enough to list every completion: three tokens 0, 1 and 2, of which the last must be the sum of
# those before it modulo 2. The policy is a transformer with random weights.
#
# **Predict before you run.** Which of the six have the mean $\nabla V$ in every world of this kind: none, E2 alone, E3
# alone, E2 and E3, or all but E1?

# %%
import pandas
import torch

import costate

# the world of this lesson: change it here
world = costate.world("TokenParity", V=3, horizon=3)
(policy,) = costate.random_policies(world, width=8, layers=1, heads=2).values()
exact = costate.exact(world, policy, sites="embedding").costates["embedding"]
arrows = {"grad V": exact[0][0, -1]}  # no token written yet, prompt 0, last position
for name in ("E1", "E1b", "E2", "E3", "E4"):
    arrows[name] = costate.expected_costates(world, policy, name, "embedding")[0][0, -1]
rng = torch.Generator().manual_seed(0)
arrows["E5"] = costate.sampled_costates(world, policy, "E5", "embedding", 2000, rng)[0, :, -1]

# %% alt="Six backward passes as arrows beside the exact value gradient: only E2 lies on it"
costate.draw_arrows(arrows).figure

# %% [markdown]
# The dashed arrow is $\nabla V$. The means of E1 to E4 are exact: all completions are enumerated, each with its
# probability. E5 has continuous noise, so it is sampled, and its ellipse shows two standard errors.
#
# - **E1 is 0.** The rewards are paid for tokens. With the tokens held constant, nothing that is left depends on
#   $\delta$.
# - **E1b is too short.** It counts how $\delta$ changes the token for which a reward is paid, the last one here. It
#   misses how $\delta$ changes the tokens before it.
# - **E2 lies on the value gradient.** It must, wherever rewards are paid for tokens. The value is
#   $V = \sum_o \pi(o) R(o)$, a sum over completions $o$, and its derivative is
#   $\sum_o \pi(o)\, R(o)\, \frac{d}{d\delta} \log\, \pi(o)$, the mean of E2.
# - **E4 and E5** differentiate another return, the one of relaxed tokens.
# - **E3** comes close here. Does it in other worlds?

# %%
table = pandas.DataFrame()
suite = {"TokenParity": {"V": 3}, "TokenArithmetic": {"modulus": 3}, "TokenLock": {"V": 3}}
for name, sizes in suite.items():
    other = costate.world(name, horizon=3, **sizes)
    (mind,) = costate.random_policies(other, width=8, layers=1, heads=2).values()
    target = costate.exact(other, mind, sites="embedding").costates["embedding"][0][0, -1]
    for kind in ("E2", "E3"):
        mean = costate.expected_costates(other, mind, kind, "embedding")[0][0, -1]
        table.loc[name, f"length of {kind} / length of grad V"] = float(mean.norm() / target.norm())
table.round(2)

# %% [markdown]
# No: its error depends on the world. Straight-through needs the slope of the return between two tokens, where no return
# is defined. It is exact only if the return is linear in every single token, and where a network reads its earlier
# tokens the return is not linear in them.
#
# ## In your own trainer
# "Backpropagate through the rollout" can mean any of the six. Policy-gradient training differentiates log-probabilities
# and never the reward, so any program that returns a number can be the reward. Straight-through, soft and Gumbel passes
# need a reward that accepts mixtures of tokens, and even then their mean is not $\nabla V$.
#
# ## Exercise 4a
# Build the backward pass of a policy gradient yourself. Below are all completions of prompt 0 (`words`), their returns,
# and the log-probability of each of their tokens, with a zero tensor (`probe`) added at the prompt's last position.
# Combine them into a loss whose gradient in `probe` is the mean of E2, and compute this gradient with
# `torch.autograd.grad`. Think of how often a completion occurs when the policy draws it, and of what must be held
# constant (`detach`).

# %%
words = torch.cartesian_prod(*[torch.arange(world.V)] * world.horizon)
tokens = torch.cat([world.prompts[:1].expand(len(words), -1), words], 1)
last = world.prompts.shape[1] - 1  # the prompt's last position
probe = torch.zeros(policy.width, dtype=torch.float64, requires_grad=True)
at_last = torch.arange(tokens.shape[1] - 1) == last
probes = (at_last[None, :, None] * probe).expand(len(words), -1, -1)
logits = policy(policy.embed(tokens[:, :-1]), {"embedding": probes})[:, last:]
log_pi = logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]  # of every completion's tokens

belief, returns = world.start_belief(0).expand(len(words), -1), torch.zeros(len(words))
for t, said in enumerate(torch.nn.functional.one_hot(words, world.V).double().unbind(1)):
    returns = returns + world.gamma**t * world.reward(t, belief, said)
    belief = world.step(belief, said)

# %% tags=["exercise"]
answer = ...
costate.check("4a", answer, world=world)

# %% [markdown]
# ## Exercise 4b
# GRPO draws several completions of one prompt, gives the completion $i$ the advantage $\hat A_i$ (its return minus the
# mean return of the group, divided by their standard deviation), and follows the gradient of $\sum_i \hat A_i \sum_t
# \log\, \pi(a_{i,t})$ with $\hat A_i$ held constant. Which of E1, E1b, E2, E3, E4 and E5 is its backward pass? Answer
# with the name, `"E1"` for instance. (What the division does is the question of lesson 6.)

# %% tags=["exercise"]
answer = ...
costate.check("4b", answer)
