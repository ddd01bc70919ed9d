"""Sampling: the differentiable rollout, token completions and what they pay, and the two gradient estimators."""
