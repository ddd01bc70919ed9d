"""Costs: what records say, what drawing took, and the table that ships and is written by a command."""

import json
import os
from dataclasses import replace

import pytest

from benchmarks.claim_costs import gathered
from figures.harness import forecast as module
from figures.harness.costs import Costs, in_words, measured, presets_of, remember_drawing, setting_key, shipped
from figures.harness.forecast import Forecast
from figures.harness.records import save_record
from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.harness.runner import plan
from tests.figures.harness.test_progress import POINTS


def key(point):
    return setting_key(point.claim, point.device, point.key["setting"])


@pytest.fixture
def table(monkeypatch):
    """A shipped table that knows two of the points."""
    known = Costs(points={key(POINTS[0]): 10.0, key(POINTS[3]): 40.0}, machine="an abacus", date="1642-01-01")
    known.drawing = {"toy": 4.0, "other_claim": 6.0, "questions": 10.0, "report": 2.0}
    monkeypatch.setattr(module, "shipped", lambda: known)
    return known


def test_a_key_names_the_setting_whatever_seed_and_code():
    assert key(POINTS[0]) == key(replace(POINTS[0], seed=5, code="other"))
    assert len({key(point) for point in (*POINTS, replace(POINTS[0], device="cuda"))}) == 5


def test_the_latest_record_counts_and_damaged_ones_do_not(tmp_path):
    save_record(POINTS[0], tmp_path, [], 3.0)
    save_record(replace(POINTS[0], seed=1), tmp_path, [], 5.0)
    for age, point in ((100, POINTS[0]), (50, replace(POINTS[0], seed=1))):
        os.utime(point.path(tmp_path), (10**9 - age, 10**9 - age))
    (tmp_path / "records" / "toy" / "x.json").write_text("[1]")
    (tmp_path / "records" / "toy" / "y.json").write_text("{")
    assert measured(tmp_path).points == {key(POINTS[0]): 5.0}
    assert measured(tmp_path, ["other_claim"]).points == {}


def test_drawing_is_remembered_part_by_part(tmp_path):
    remember_drawing(tmp_path, {"toy": 1.0, "questions": 2.0})
    remember_drawing(tmp_path, {"toy": 3.0, "report": 0.5})
    costs = measured(tmp_path)
    assert costs.of_drawing(["toy"]) == pytest.approx(5.5)
    assert costs.of_drawing(["toy", "other_claim"]) is None
    (tmp_path / "drawing.json").write_text("[1")
    assert measured(tmp_path).drawing == {}


def test_an_empty_folder_is_forecast_from_the_shipped_table(tmp_path, table):
    known = Forecast.from_records(POINTS, tmp_path, ["toy", "other_claim"])
    assert [known.of(point) for point in POINTS] == [10.0, None, None, 40.0]
    assert known.describe(2) == (
        "about 40 s with 2 jobs for 2 of them, not known yet for 2; figures and report about 11 s "
        "(by the times of another machine: an abacus)"
    )
    both = Forecast.from_records([POINTS[0], POINTS[3]], tmp_path, ["toy", "other_claim"])
    assert (
        both.describe(1)
        == "about 72 s with 1 jobs with figures and report (by the times of another machine: an abacus)"
    )
    assert "about 50 s with 1 jobs (by" in Forecast.from_records([POINTS[0], POINTS[3]], tmp_path).describe(1)
    assert "nobody has measured" in Forecast.from_records(POINTS[1:3], tmp_path).describe(1)


def test_the_table_is_scaled_by_what_this_machine_took(tmp_path, table):
    save_record(POINTS[0], tmp_path, [], 30.0)  # three times as long as the table says
    known = Forecast.from_records([POINTS[3]], tmp_path, ["other_claim"])
    assert known.of(POINTS[3]) == pytest.approx(120.0)
    assert known.drawing == pytest.approx(3 * 18.0)
    remember_drawing(tmp_path, {"other_claim": 1.0, "questions": 1.0, "report": 1.0})
    assert Forecast.from_records([POINTS[3]], tmp_path, ["other_claim"]).drawing == pytest.approx(3.0)


def test_what_this_folder_knows_needs_no_table(tmp_path, table):
    save_record(POINTS[0], tmp_path, [], 30.0)
    known = Forecast.from_records(POINTS[:1], tmp_path)
    assert (known.of(POINTS[0]), known.elsewhere) == (30.0, "")


def test_a_run_takes_at_least_as_long_as_its_longest_point():
    assert Forecast({"a": 100.0, "b": 2.0}).describe(4) == "about 100 s with 4 jobs"


def test_the_written_table_holds_what_was_measured(tmp_path):
    claim = load_claim("costate_recursion")
    points = plan([claim], "quick", 3, "cpu")
    for i, point in enumerate(points):
        save_record(point, tmp_path, [], 1.5 + i)
    remember_drawing(tmp_path, {claim.name: 0.25})
    costs = gathered([tmp_path])
    assert costs.presets["quick"] == {claim.name: sum(1.5 + i for i in range(len(points)))}
    assert costs.points == {key(point): 1.5 + i for i, point in enumerate(points)}
    assert costs.drawing == {claim.name: 0.25}
    assert "cores" in costs.machine
    assert Costs(**json.loads(json.dumps(vars(costs)))) == costs
    points[0].path(tmp_path).unlink()
    assert "quick" not in gathered([tmp_path]).presets, "a part of the points is not the claim"


def test_the_cost_of_a_claim_is_the_sum_over_the_records_of_its_verdict(tmp_path):
    for i, point in enumerate(POINTS):
        save_record(point, tmp_path, [], 1.5 + i)
    run = {
        "preset": "quick",
        "records": [point.path(tmp_path).relative_to(tmp_path).as_posix() for point in POINTS[:2]],
    }
    (tmp_path / "verdicts.json").write_text(json.dumps([{"claim": "toy", "run": run}, {"claim": "x"}, 3]))
    assert presets_of(tmp_path) == {"quick": {"toy": 4.0}}
    POINTS[0].path(tmp_path).unlink()
    assert presets_of(tmp_path) == {}
    assert presets_of(tmp_path / "nowhere") == {}


def test_the_shipped_table_knows_nearly_all_claims_and_names_its_machine():
    costs = shipped()
    for known in (costs.presets["quick"], costs.drawing):  # a new claim is known when the table is written again
        assert len(set(CLAIM_NAMES) & set(known)) >= 0.9 * len(CLAIM_NAMES)
    assert {"questions", "report"} <= set(costs.drawing)
    assert costs.machine
    assert costs.date
    assert all(seconds >= 0 for seconds in costs.points.values())


def test_times_in_words():
    assert [in_words(x) for x in (0.01, 59.6, 179, 600)] == ["1 s", "60 s", "179 s", "10 min"]


def test_drawing_alone_may_come_from_another_machine_and_is_shared_by_the_jobs(tmp_path, table):
    save_record(POINTS[0], tmp_path, [], 10.0)
    known = Forecast.from_records(POINTS[:1], tmp_path, ["toy"])  # the point is known here, its figure is not
    assert (known.of(POINTS[0]), known.drawing, known.elsewhere) == (10.0, 16.0, "an abacus")
    assert known.describe(4).startswith("about 14 s with 4 jobs with figures and report (by the times")
    remember_drawing(tmp_path, {"toy": 4.0, "questions": 10.0, "report": 2.0})
    assert Forecast.from_records(POINTS[:1], tmp_path, ["toy"]).describe(4) == (
        "about 14 s with 4 jobs with figures and report"
    )
