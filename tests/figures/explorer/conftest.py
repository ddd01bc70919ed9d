"""A folder of results for the explorer's tests."""

import pytest

from tests.figures.explorer.runs_folder import runs_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results that hold a made-up impact study; the tests only read them."""
    out = tmp_path_factory.mktemp("explorer") / "runs"
    runs_folder(out)
    return out
