"""`costate explore`: the page is written where it is asked for, and wrong requests are refused in one line."""

import pytest

from figures.cli import main
from tests.figures.explorer.runs_folder import runs_folder


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["explore", *map(str, arguments)])
    return stopped.value.code


def test_the_page_is_written_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    assert capsys.readouterr().out == "explorer.html\n"
    assert "There are no records of a pretraining run in runs" in (tmp_path / "explorer.html").read_text()
    runs_folder(tmp_path / "mine")
    assert run("--out", "new/page.html", "--runs", "mine") == 0
    assert "records in mine (preset quick, seed 0)" in (tmp_path / "new" / "page.html").read_text()


def refusal(capsys, *arguments):
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_wrong_requests_are_refused_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "verdicts.json").write_text("{")
    runs_folder(tmp_path / "short", most=2)
    runs_folder(tmp_path / "holes")
    next((tmp_path / "holes").rglob("one.json")).unlink()
    before = sorted(tmp_path.rglob("*"))
    assert "--out . is a folder: name a file" in refusal(capsys, "--out", ".")
    assert "file cannot be written to" in refusal(capsys, "--out", "file/page.html")
    assert "--runs nowhere is no folder" in refusal(capsys, "--runs", "nowhere")
    assert "--runs file is no folder" in refusal(capsys, "--runs", "file")
    assert "has 2 checkpoints of pretraining" in refusal(capsys, "--runs", "short")
    assert "is missing: run `costate check" in refusal(capsys, "--runs", "holes")
    assert "is damaged: run `costate check" in refusal(capsys, "--runs", "damaged")
    assert sorted(tmp_path.rglob("*")) == before
