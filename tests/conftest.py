"""Every test runs with shapes checked (jaxtyping + beartype), float64 by default, and no global random state."""

import gc

from tests import typecheck

gc.disable()  # until all modules are loaded: a third of the time of loading them goes into the search for garbage

typecheck.install(["envs", "theory", "agents"])

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_configure(config):
    """The first forward-mode derivative makes torch import a module of its own that torch itself calls deprecated."""
    config.addinivalue_line("filterwarnings", "ignore:.*torch.jit.script.*:DeprecationWarning")


def pytest_collection_finish():
    """What is loaded by now stays: no search for garbage need look at it again."""
    gc.freeze()
    gc.enable()


LONGEST = (
    "test_check.py",
    "test_trainer.py",
    "test_interrupts.py",
    "test_second_device.py",
    "test_documents.py",
    "test_docstrings.py",
    "test_plot.py",
    "test_pages.py",
    "test_own_figures.py",
    "test_packaging.py",
    "test_expected_update.py",
    "test_gradient_arrows.py",
    "test_contributing.py",
    "test_selection.py",
    "test_token_claims.py",
    "test_shown_values.py",
    "test_train.py",
    "test_runs.py",
)  # begun first, so that no worker waits for them


def pytest_collection_modifyitems(items):
    """Begin the files that take longest first, the longest of all at the very beginning."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


def pytest_runtest_setup():
    """In every test the first calls of each function are checked."""
    typecheck.next_test()


@pytest.fixture(autouse=True)
def no_global_random_numbers(request):
    """A test (or the code under it) that draws from a global generator fails, unless it asks for `uses_global_rng`."""
    ours, (_, keys, *rest) = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    yield
    if "uses_global_rng" not in request.fixturenames:
        _, keys_after, *rest_after = np.random.get_state()  # noqa: NPY002
        same = torch.equal(ours, torch.get_rng_state()) and np.array_equal(keys, keys_after) and rest == rest_after
        assert same, "a global random generator was used: pass a generator instead"


@pytest.fixture
def uses_global_rng():
    """For tests of other people's code that draws from global generators (Gymnasium's spaces, say)."""


@pytest.fixture
def unchecked():
    """Calls as a user makes them, without the tests' check of types and shapes."""
    with typecheck.unchecked():
        yield


@pytest.fixture
def rng():
    """A seeded torch generator; noise is an argument everywhere."""
    return torch.Generator().manual_seed(20261123)
