# %% [markdown]
# A network is first **pretrained**: it reads prompts with their answers and learns to predict the next token. Then
# comes reinforcement learning (RL): it answers by itself and is paid 1 for a right answer, 0 for a wrong one. RL may
# start from any **checkpoint** of the pretraining. From which one does it pay most?
#
# Two things must be there for RL to gain anything:
#
# - a **[signal](glossary.html#signal)**. Here it is the signal-to-noise ratio of a prompt: the length of the value
#   gradient $\nabla V$ (lesson 4), divided by the spread of what one completion says about it;
# - **[headroom](glossary.html#headroom)**, room for improvement that is within reach. Here it is
#   [pass@8](glossary.html#passk) minus pass@1: how much more often one of 8 answers is right than a single answer.
#
# The paper's hypothesis is that the gain is their product. (Its own formula was not available here; these definitions
# are ours.) In the world of this lesson a prompt names a skill (say, copy or add) and two numbers.
#
# **Predict before you run.** After a short RL run of one fixed length, which checkpoint gains most: the first, which
# has everything to learn; the last, which has learned most; or one in between? And which one gains most when half of
# the answers in the corpus are guesses?

# %%
import pandas as pd
from matplotlib.figure import Figure

import costate

# the world of this lesson: change it here
world = costate.world("TokenSkills", modulus=3, horizon=2, names="say,copy,add")


def known_before(policy):
    """What is known of a checkpoint before any RL, as means over the prompts."""
    p = costate.exact(world, policy).V[0]  # success probability of every prompt
    signal = costate.signal(world, policy, "layer1").snr  # in the state after the first layer
    headroom = (1 - (1 - p) ** 8) - p
    known = {"success": p, "signal": signal, "headroom": headroom, "predicted": signal * headroom}
    return {name: float(world.weights @ number) for name, number in known.items()}


# %%
paths = {"clean": costate.pretrain(world), "half guessed": costate.pretrain(world, quality=0.5)}
places = [(corpus, tokens) for corpus, path in paths.items() for tokens in path]
starts = [policy for path in paths.values() for policy in path.values()]
table = pd.DataFrame([known_before(policy) for policy in starts])
table.index = pd.MultiIndex.from_tuples(places, names=["corpus", "tokens"])

# %% [markdown]
# The column `predicted` is the product of signal and headroom, known before any RL. Now comes RL: GRPO from every
# checkpoint, 24 updates each. The gain is exact, because in a world as small as this the expected reward of a network
# can be computed.

# %%
rl = costate.train(
    world, "grpo", seeds=len(starts), policies=starts, steps=24, every=24, prompts=8, rate=0.001, progress=False
)
reward = rl.frame().pivot(index="seed", columns="step", values="J")
table["gain"] = (reward[24] - reward[0]).to_numpy()

# %% alt="Predicted and measured gain of RL against the tokens of pretraining, for a clean and for a half-guessed corpus"
figure = Figure(figsize=(5.8, 3.6), layout="constrained")
figure.suptitle("The prediction peaks where the gain peaks")
titles = {"predicted": "predicted: signal x headroom", "gain": "measured: gain of RL"}
for axes, (column, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
    for corpus in paths:
        axes.plot(table.loc[corpus].index, table.loc[corpus][column], "o-", label=corpus)
    axes.set_xscale("symlog", linthresh=1000)
    axes.set_xticks([0, 1_000, 10_000, 100_000], ["0", "1k", "10k", "100k"])
    axes.set_xlabel("tokens of pretraining")
    axes.set_title(title, fontsize="medium")
axes.legend()
figure

# %%
for corpus in paths:
    peak = table.loc[corpus].idxmax()
    print(f"{corpus:12} peak at {peak['predicted']} predicted, {peak['gain']} measured")
table.loc["clean"].round(3)

# %% [markdown]
# On the clean corpus the gain has its peak on the way. At first the right answers hardly ever occur, so that there is
# little signal; in the end there is nothing left to gain. With a corpus of which half is guessed, pretraining cannot
# teach everything. RL still pays after all the pretraining that was done here.
#
# One short run from each checkpoint is noisy, and one network proves nothing. The claims named at the top of this page
# judge many networks, and they compare the product with simpler numbers, such as the standard deviation of the reward:

# %%
table["sd of reward"] = (table["success"] * (1 - table["success"])) ** 0.5
print("rank correlation with the gain, all checkpoints of both corpora:")
table.corr(method="spearman")["gain"].drop("gain").round(2).to_frame("gain")

# %% [markdown]
# ## In your own trainer
# - RL needs neither the newest checkpoint nor the best one by its own score. Look for one that answers rightly now and
#   then (signal) and rightly in one of eight tries much more often (headroom).
# - Both can be measured before any RL: draw eight answers for each of some hundred prompts.
# - A number as simple as the standard deviation of the reward may predict the gain about as well. `costate impact`
#   shows all these numbers for a folder of your own checkpoints.
#
# ## Exercise 9
# Take the checkpoint of the *clean* corpus (`costate.pretrain(world)`) that has read 20480 tokens. What is its headroom
# with 4 tries in the place of 8, pass@4 minus pass@1, as a mean over the prompts?

# %% tags=["exercise"]
answer = ...
costate.check("9", answer, world=world)
