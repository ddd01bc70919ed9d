import json
from dataclasses import dataclass, replace

import pytest

from envs.world import InputError
from figures.harness.claim import knob
from figures.harness.records import Point, check_writable, load_record, save_record, write_atomically


@dataclass(frozen=True)
class Setting:
    x: float
    name: str = "a"


POINT = Point("toy", Setting(0.5), seed=3, device="cpu", code="c")
ROWS = [{"part": "p", "measured": 0.1 + 0.2}]


def test_a_record_comes_back_as_it_was_written(tmp_path):
    assert load_record(POINT, tmp_path) is None
    save_record(POINT, tmp_path, ROWS, 1.0)
    record = load_record(POINT, tmp_path)
    assert record["rows"] == ROWS
    assert (record["seed"], record["setting"]) == (3, {"x": 0.5, "name": "a"})
    assert {"torch", "numpy", "python"} <= set(record["versions"])
    assert record["revision"]


@pytest.mark.parametrize(
    "other",
    [
        replace(POINT, setting=Setting(0.25)),
        replace(POINT, seed=4),
        replace(POINT, device="cuda"),
        replace(POINT, code="d"),
        replace(POINT, claim="toy2"),
    ],
)
def test_anything_that_decides_the_numbers_makes_another_record(tmp_path, other):
    save_record(POINT, tmp_path, ROWS, 1.0)
    assert load_record(other, tmp_path) is None


def test_the_random_stream_depends_on_claim_setting_and_seed_and_on_nothing_else():
    assert POINT.stream == replace(POINT, code="d", device="cuda").stream
    streams = {p.stream for p in (POINT, replace(POINT, seed=4), replace(POINT, setting=Setting(0.25)))}
    assert len(streams) == 3


def test_a_knob_at_its_default_names_another_record_and_the_same_random_stream(tmp_path):
    @dataclass(frozen=True)
    class WithKnob(Setting):
        taus: tuple[float, ...] = knob((0.1, 1.0))
        plain: int = 1

    @dataclass(frozen=True)
    class Without(Setting):
        plain: int = 1

    old = replace(POINT, setting=Without(0.5))
    still, moved, other = (replace(POINT, setting=WithKnob(0.5, **own)) for own in ({}, {"taus": (0.1,)}, {"plain": 2}))
    assert still.stream == old.stream == replace(POINT, setting=WithKnob(0.5, taus=(0.1, 1.0))).stream
    assert still.id != old.id
    assert len({still.stream, moved.stream, other.stream}) == 3
    assert still.key["setting"]["taus"] == (0.1, 1.0)


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[: len(text) // 2], lambda text: "", lambda text: text.replace("0.3", "0.4"), lambda _: "[]"],
)
def test_a_damaged_record_is_named(tmp_path, damage):
    save_record(POINT, tmp_path, ROWS, 1.0)
    path = POINT.path(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=POINT.id):
        load_record(POINT, tmp_path)


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_record(POINT, tmp_path, [{"measured": float("nan")}], 1.0)
    assert not POINT.path(tmp_path).exists()


def test_a_write_that_breaks_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        check_writable(tmp_path / "file" / "below")


def test_records_are_plain_json(tmp_path):
    save_record(POINT, tmp_path, ROWS, 1.0)
    assert json.loads(POINT.path(tmp_path).read_text())["claim"] == "toy"
