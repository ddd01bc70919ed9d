"""Claims about critic-free updates (REINFORCE, RLOO, GRPO and their relatives)."""
