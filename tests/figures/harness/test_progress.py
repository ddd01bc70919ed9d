"""The forecast from earlier records, and the one progress display, on a terminal and elsewhere."""

import io
import json
import re
from dataclasses import dataclass, replace

from figures.harness import progress as module
from figures.harness.forecast import Forecast
from figures.harness.progress import Progress
from figures.harness.records import Point, save_record


@dataclass(frozen=True)
class ToySetting:
    x: int


POINTS = [Point("toy" if i < 3 else "other_claim", ToySetting(i), 0, "cpu", "code") for i in range(4)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def forecast(*seconds):
    return Forecast({point.id: s for point, s in zip(POINTS, seconds, strict=True)})


def test_a_forecast_takes_the_latest_seconds_of_the_same_setting_whatever_seed_and_code(tmp_path):
    for i, point in enumerate(POINTS[:2]):
        save_record(replace(point, seed=9, code="old"), tmp_path, [], 10.0 + i)
    known = Forecast.from_records(POINTS, tmp_path)
    assert [known.of(point) for point in POINTS] == [10.0, 11.0, None, None]
    assert known.describe(2) == "about 11 s with 2 jobs for 2 of them, not known yet for 2"
    save_record(POINTS[0], tmp_path, [], 400.0)
    assert Forecast.from_records(POINTS[:2], tmp_path).describe(1) == "about 7 min with 1 jobs"


def test_a_forecast_without_earlier_records_says_that_it_is_not_known(tmp_path):
    assert "not known yet (nobody has measured" in Forecast.from_records(POINTS, tmp_path).describe(2)
    assert Forecast({}).describe(2) == "nothing to run"


def test_another_device_and_a_damaged_record_do_not_count(tmp_path):
    save_record(replace(POINTS[0], device="cuda"), tmp_path, [], 10.0)
    save_record(POINTS[1], tmp_path, [], 10.0)
    path = POINTS[1].path(tmp_path)
    path.write_text(path.read_text()[:-30])
    path.with_name("x.json").write_text(json.dumps([1]))
    assert not any(Forecast.from_records(POINTS, tmp_path).seconds.values())


def shown(stream):
    """The lines that a terminal would show, one after the other."""
    return [line for line in re.split(r"[\r\n]", stream.getvalue()) if line.strip()]


def test_a_terminal_shows_one_bar_of_80_columns_with_the_claim_that_runs():
    stream = Terminal()
    with Progress(POINTS, POINTS[1:], forecast(1.0, 2.0, 3.0, 4.0), jobs=1, stream=stream) as display:
        for point in POINTS[1:]:
            display.finished(point, 5.0)
    lines = shown(stream)
    assert all(len(line) <= 80 for line in lines)
    assert stream.getvalue().count("\n") <= 1
    assert "1/4 points" in lines[0]
    assert "9 s left" in lines[0]
    assert "toy" in lines[0]
    assert any("other_claim" in line for line in lines)
    assert "4/4 points" in lines[-1]


def test_elsewhere_it_prints_plain_lines_and_few_of_them(monkeypatch):
    clock = iter(float(i) for i in range(100))
    monkeypatch.setattr(module.time, "monotonic", lambda: 7 * next(clock))
    stream = io.StringIO()
    with Progress(POINTS, POINTS, forecast(None, None, None, None), jobs=1, stream=stream) as display:
        for point in POINTS:
            display.finished(point, 5.0)
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert 1 <= len(lines) <= 3
    assert lines[-1].startswith("costate: 4/4 points, done in")


def test_time_left_without_a_forecast_comes_from_finished_points_of_the_same_claim():
    """A claim of which nothing is known yet is not guessed from another one."""
    display = Progress(POINTS, POINTS, forecast(None, None, None, None), jobs=2, stream=io.StringIO())
    assert display._time_left() == "time left not known yet"
    display.finished(POINTS[0], 30.0)
    assert display._time_left() == "at least 30 s left"
    display.finished(POINTS[3], 4.0)
    assert display._time_left() == "30 s left"
    assert Progress(POINTS, POINTS, forecast(None, 1.0, 1.0, 2.0), 1, io.StringIO())._time_left() == "at least 4 s left"


def test_the_time_left_follows_the_pace_of_this_run():
    display = Progress(POINTS, POINTS, forecast(2.0, 4.0, 6.0, 8.0), jobs=1, stream=io.StringIO())
    assert display._time_left() == "20 s left"
    display.finished(POINTS[0], 6.0)  # three times as long as was forecast
    assert display._time_left() == "54 s left"
