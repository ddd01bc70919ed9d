"""Worlds whose exact answers are known. Importing this package registers their Gymnasium ids (`envs.registry`)."""

from envs.registry import register

register()
