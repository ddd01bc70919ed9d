"""Exact answers about groups of completions: the mean and the variance of any critic-free update, and what it climbs."""
