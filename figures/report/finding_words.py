"""The record of a finding in words."""

from typing import NamedTuple


class Found(NamedTuple):
    """The finding as one sentence, and what more there is to know of it."""

    says: str
    more: str
