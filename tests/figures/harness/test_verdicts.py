"""`verdicts.json` and the rows behind it, with verdicts made by hand: no claim is run."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from envs.world import InputError
from figures.harness.claim import Claim, Part
from figures.harness.judge import Run, judge
from figures.harness.records import save_record
from figures.harness.registry import CLAIM_NAMES
from figures.harness.rows import at_most, equals, report
from figures.harness.verdicts import (
    OWN,
    _own_outcomes,
    judge_claim,
    read_verdicts,
    stored_rows,
    table,
    with_settings,
    write_rows,
    write_verdicts,
)
from tests.figures.harness.test_records import POINT

RUN = Run("quick", "cpu", 3, [{"x": 1}], ["records/a.json"], {"torch": "2"}, "abc")


def claim(name, **parts):
    texts = (name, "s", "x", "source", ("A1",), "here", "there", "read")
    made = tuple(Part(part, role, outcome) for part, (role, outcome) in parts.items())
    return Claim(*texts, made, lambda p: [], lambda s, r, d: [], lambda r, f: None)


def verdict(name, measured=0.0):
    judged = judge(claim(name, own=("claim", "holds")), pd.DataFrame(equals("own", measured, 0.0, tolerance=1e-9)))
    return replace(judged, run=RUN)


def test_verdicts_are_kept_in_the_claims_order_and_a_claim_has_one(tmp_path):
    late, early = CLAIM_NAMES[3], CLAIM_NAMES[0]
    write_verdicts(tmp_path, [verdict(late)])
    write_verdicts(tmp_path, [verdict(early)])
    assert [v.claim for v in read_verdicts(tmp_path)] == [early, late]
    write_verdicts(tmp_path, [verdict(late, 5.0)])  # judged again
    assert [(v.claim, v.outcome) for v in read_verdicts(tmp_path)] == [(early, "holds"), (late, "fails")]
    again = [v.to_json() for v in read_verdicts(tmp_path)]
    assert again == json.loads((tmp_path / "verdicts.json").read_text())


def test_a_verdict_on_a_claim_that_is_no_more_is_left_out(tmp_path):
    write_verdicts(tmp_path, [verdict(CLAIM_NAMES[0])])
    path = tmp_path / "verdicts.json"
    path.write_text(path.read_text().replace(CLAIM_NAMES[0], "a claim of old"))
    assert read_verdicts(tmp_path) == []


def test_a_folder_without_verdicts_is_refused_where_they_are_needed(tmp_path):
    assert read_verdicts(tmp_path, missing_ok=True) == []
    with pytest.raises(InputError, match="costate check"):
        read_verdicts(tmp_path)


@pytest.mark.parametrize("text", ["", "[{", "[1]", "[{}]", "{}x", '{"parts": 1}', "7"])
def test_damaged_verdicts_are_refused_or_set_aside(tmp_path, capsys, text):
    path = tmp_path / "verdicts.json"
    path.write_text(text)
    with pytest.raises(InputError, match="damaged"):
        read_verdicts(tmp_path)
    assert path.read_text() == text, "reading leaves the file"
    assert capsys.readouterr().err == ""
    assert read_verdicts(tmp_path, missing_ok=True) == []
    assert "verdicts.damaged" in capsys.readouterr().err
    assert (tmp_path / "verdicts.damaged").read_text() == text
    assert not path.exists()


def test_the_rows_behind_a_verdict_are_those_of_all_its_records(tmp_path):
    points = [POINT, replace(POINT, seed=4)]
    for i, point in enumerate(points):
        save_record(point, tmp_path, equals("own", float(i), 0.0), 1.0)
    names = [point.path(tmp_path).relative_to(tmp_path).as_posix() for point in points]
    judged = replace(verdict(CLAIM_NAMES[0]), run=replace(RUN, records=names))
    assert stored_rows(judged, tmp_path)["measured"].tolist() == [0.0, 1.0]
    assert pd.read_csv(write_rows(judged, tmp_path))["run_seed"].tolist() == [3, 4]
    points[1].path(tmp_path).unlink()
    with pytest.raises(InputError, match=points[1].id):
        stored_rows(judged, tmp_path)


def test_part_of_a_claim_is_judged_on_the_parts_that_have_judged_rows(tmp_path):
    save_record(POINT, tmp_path, [*equals("own", 0.0, 0.0), *report("more", 1.0)], 1.0)
    whole = claim("toy", own=("claim", "holds"), more=("claim", "holds"))
    parted = judge_claim(whole, [POINT], tmp_path, "tiny", partial=True)
    assert (parted.outcome, list(parted.parts)) == ("holds", ["own"])
    assert (parted.run.seed, parted.run.records) == (3, [POINT.path(tmp_path).relative_to(tmp_path).as_posix()])
    assert judge_claim(whole, [POINT], tmp_path, "tiny").outcome == "undecided"
    empty = judge_claim(claim("toy", own=("control", "holds")), [POINT], tmp_path, "tiny", partial=True)
    assert (empty.outcome, empty.headline, empty.unexpected) == ("not judged", {}, False)
    assert "not judged on this subset: no part of the claim is left" in table([empty])


def test_on_a_subset_the_whole_is_that_of_the_preset_that_ran(tmp_path):
    save_record(POINT, tmp_path, equals("own", 0.0, 0.0), 1.0)
    other = replace(POINT.setting, x=0.75)
    one = replace(
        claim("toy", own=("claim", "holds")),
        settings=lambda preset: [POINT.setting] if preset == "tiny" else [POINT.setting, other],
    )
    subsets = [judge_claim(one, [POINT], tmp_path, preset, partial=True).subset for preset in ("tiny", "quick", "full")]
    assert subsets == [False, True, True]


def test_the_rows_of_a_study_stand_beside_those_of_the_claim(tmp_path, monkeypatch):
    save_record(POINT, tmp_path, equals("own", 2.0, 0.0), 1.0)
    name = POINT.path(tmp_path).relative_to(tmp_path).as_posix()
    judged = replace(verdict(CLAIM_NAMES[0]), run=replace(RUN, records=[name]))
    doubled = replace(
        claim("a_claim", own=("claim", "holds")),
        study="its_study",
        derive=lambda stored: stored.assign(measured=2 * stored["measured"]),
    )
    monkeypatch.setattr("figures.harness.verdicts.load_claim", lambda _: doubled)
    path = write_rows(judged, tmp_path)
    assert path == tmp_path / "rows" / "a_claim.csv"
    assert pd.read_csv(path)["measured"].tolist() == [4.0]
    assert pd.read_csv(path.with_name("its_study.csv"))["measured"].tolist() == [2.0]


def test_rows_have_their_settings_fields_and_keep_their_own_columns():
    setting = {"tau": 0.5, "alphas": [0.2, 1.0], "seed": 4}
    records = [{"seed": 3, "setting": setting, "rows": [{"measured": 1.0, "seed": 9}, {"measured": 2.0}]}]
    rows = with_settings([*records, {"seed": 5, "setting": {**setting, "alphas": []}, "rows": [{"measured": 3.0}]}])
    assert rows["run_seed"].tolist() == [3, 3, 5]
    assert rows["seed"].tolist() == [9, 4, 4]
    assert rows["alphas"].tolist() == ["0.2,1", "0.2,1", ""]


def test_reported_rows_of_a_users_own_system_do_not_decide():
    labels = {"system": OWN}
    rows = [*at_most("p", 0.0, 1.0, labels=labels), *report("p", 9.0, labels=labels), *report("q", 9.0, labels=labels)]
    assert _own_outcomes(pd.DataFrame(rows)) == {"p": "holds"}


def test_the_table_tells_what_is_not_as_documented_and_what_the_own_system_does():
    good, bad = verdict(CLAIM_NAMES[0]), verdict(CLAIM_NAMES[1], 5.0)
    text = table([good, replace(bad, own_system={"p": "fails"})]).splitlines()
    assert [text[i].split()[:4] for i in (1, 3)] == [
        [good.claim, "holds", "holds:", "yes"],
        [bad.claim, "fails", "holds:", "NO"],
    ]
    assert [line.strip() for line in (text[2], *text[4:])] == ["s", "s", bad.reason, "own system alone: p: fails"]


@pytest.mark.parametrize("number", [0.0, 1.0, -1.234567e-10, 1.23456e-100, -123456789.0, 5 / 3])
@pytest.mark.parametrize("name", ["actor_update_is_value_gradient", "chaos"])
def test_the_table_fits_80_columns_whatever_the_numbers(name, number):
    known = {**verdict(CLAIM_NAMES[0]).headline, "measured": number, "target": -number, "standard_error": abs(number)}
    long = replace(
        verdict(name), headline=known, outcome="undecided", as_documented=False, reason="'part' fails; " * 30
    )
    long = replace(long, statement="word " * 40, own_system={f"part {i}": "undecided" for i in range(9)})
    lines = table([long]).splitlines()
    assert max(map(len, lines)) <= 80
    measured, target, error = (float(x) for x in lines[1].split()[-3:])
    assert measured == pytest.approx(number, rel=0.05)
    assert (target, error) == pytest.approx((-number, abs(number)), rel=0.06)
    assert "word word" in lines[2]
    assert sum(line.count("'part'") for line in lines) == 30
    assert " ".join(" ".join(lines).split()).count("undecided") == 10


def test_a_headline_without_numbers_shows_a_dash():
    lines = table([replace(verdict(CLAIM_NAMES[0]), headline={})]).splitlines()
    assert lines[1].split()[-3:] == ["-", "-", "-"]
