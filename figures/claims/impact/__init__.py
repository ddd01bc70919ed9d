"""Claims about the gain of RL along pretraining."""
