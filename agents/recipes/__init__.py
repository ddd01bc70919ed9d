"""Critic-free recipes: advantage x surrogate x normaliser, and the batch that they are computed from."""
