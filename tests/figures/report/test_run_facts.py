"""Date, duration and commands of a page come from the records and the verdicts."""

import json
import os
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from figures.cli import whole_parser
from figures.report.run_facts import Measured, commands, common_run, of_run, other_facts
from tests.figures.report.made_up_results import RUN, verdict


def record(out, name, seconds, when):
    path = out / name
    path.write_text(json.dumps({"seconds": seconds}))
    stamp = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
    os.utime(path, (stamp, stamp))
    return name


def test_dates_are_those_of_the_files_and_a_shared_record_counts_once(tmp_path):
    names = [record(tmp_path, f"{i}.json", 100, f"2026-03-04T10:0{i}") for i in range(3)]
    facts = dict(Measured.by([*names, *names], tmp_path).facts())
    assert facts["records written"] == "2026-03-04 10:00 to 10:02 UTC"
    assert facts["duration"] == "5 min of one core, 3 points"
    late = record(tmp_path, "late.json", 1, "2026-03-05T01:00")
    assert "to 2026-03-05 01:00" in dict(Measured.by([*names, late], tmp_path).facts())["records written"]


def test_records_that_are_gone_or_damaged_do_not_count(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    assert Measured.by(["bad.json", "gone.json"], tmp_path).facts() == ()


def test_what_most_share_stands_once_and_the_others_say_what_differs():
    odd = replace(verdict("error_split"), run=replace(RUN, preset="full", device="cuda"))
    usual = [verdict(name) for name in ("costate_recursion", "error_bound")]
    common = common_run([odd, *usual])
    assert common == of_run(RUN)
    assert [other_facts(v, common) for v in usual] == ["", ""]
    assert other_facts(odd, common) == "preset full; device cuda"
    assert common_run([]) == ()


@pytest.mark.parametrize("out", ["runs", "my runs/it's"])
def test_the_commands_are_ones_that_the_program_takes(out):
    parser, _, _ = whole_parser(["plot", "check"])
    told = commands(verdict("error_split"), Path(out))
    options = [parser.parse_args(shlex.split(line)[1:]) for line in told.values()]
    assert [o.command for o in options] == ["plot", "check"]
    assert all(o.claims == ["error_split"] and o.out == Path(out) for o in options)
    assert (options[1].preset, options[1].seed, options[1].device) == ("quick", 0, "cpu")


def test_a_run_on_other_settings_is_not_measured_again_by_a_command_that_would_not_do_it():
    for other in (verdict("error_split", subset=True), verdict("error_split", own_system={"identity": "holds"})):
        assert [line.split()[1] for line in commands(other, Path("runs")).values()] == ["plot"]
