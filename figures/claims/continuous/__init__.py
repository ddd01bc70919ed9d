"""Claims about differentiable rollouts with additive noise."""
