"""Policies: linear, tabular, transformers, any module of a user's, and the entropy knobs."""
