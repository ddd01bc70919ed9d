"""What every refusal owes its reader: one line that begins with the name of the argument."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from envs.world import InputError


@contextmanager
def refused(argument: str) -> Iterator[None]:
    """The body must raise InputError, in one line that begins with `argument`."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{argument} "), message
