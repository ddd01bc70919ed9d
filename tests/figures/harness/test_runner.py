"""Every point is measured with the noise of its own stream, whatever runs beside it or before."""

import json
from dataclasses import dataclass

import pytest
import torch

from figures.harness import runner
from figures.harness.forecast import Forecast
from figures.harness.records import Point
from figures.harness.runner import longest_first, missing, run_missing, run_point


@dataclass(frozen=True)
class ToySetting:
    x: int


POINTS = [Point("toy", ToySetting(x), seed=3, device="cpu", code="c") for x in range(3)]


@pytest.fixture
def drawing(monkeypatch):
    """Claims whose only row is one random number."""

    def measure(setting, rng, device):
        assert torch.get_num_threads() == 1
        return [{"x": setting.x, "number": torch.rand((), generator=rng).item()}]

    monkeypatch.setattr(runner, "measure_of", lambda name: measure)


def numbers(out):
    return [json.loads(point.path(out).read_text())["rows"][0]["number"] for point in POINTS]


def test_a_point_draws_from_its_own_stream(drawing, tmp_path):
    run_missing(POINTS, POINTS, tmp_path, jobs=1)
    streams = [torch.Generator().manual_seed(point.stream) for point in POINTS]
    assert numbers(tmp_path) == [torch.rand((), generator=stream).item() for stream in streams]
    assert len(set(numbers(tmp_path))) == 3  # points of one seed are not correlated


def test_the_order_of_points_changes_nothing_and_the_callers_threads_come_back(drawing, tmp_path):
    threads = torch.get_num_threads()
    run_missing(POINTS, POINTS, tmp_path / "one", jobs=1)
    for point in reversed(POINTS):
        done, seconds = run_point(point, tmp_path / "other")
        assert done is point
        assert seconds >= 0
    assert numbers(tmp_path / "one") == numbers(tmp_path / "other")
    assert torch.get_num_threads() == threads
    assert missing(POINTS, tmp_path / "one") == []


def test_the_longest_points_come_first_and_before_them_those_of_unknown_length():
    forecast = Forecast({POINTS[0].id: 1.0, POINTS[1].id: 5.0, POINTS[2].id: None})
    assert longest_first(POINTS, forecast) == [POINTS[2], POINTS[1], POINTS[0]]
    alike = Forecast({point.id: 1.0 for point in POINTS})
    assert longest_first(POINTS, alike) == POINTS
