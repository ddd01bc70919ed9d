"""Workers are kept for the next call, which may come from another folder."""

import os

from figures.harness.workers import in_workers


def test_relative_paths_mean_the_callers_folder_also_where_workers_are_kept(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        seen = set(in_workers(2, os.path.realpath, ["a", "b"]))
        assert seen == {os.path.realpath(tmp_path / name / item) for item in "ab"}
