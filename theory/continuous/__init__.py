"""Exact answers in linear-quadratic worlds and in the worlds that break one of their assumptions."""
