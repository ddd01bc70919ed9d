"""Exact answers about groups of completions: mean and variance of any critic-free update, and the objective it ascends."""
