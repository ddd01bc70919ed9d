"""Runs that several claims share: measured once, kept as records, and judged by each claim in its own way."""
