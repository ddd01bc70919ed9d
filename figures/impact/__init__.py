"""The impact study: pretraining runs, RL from their checkpoints, and what predicts its gain."""
