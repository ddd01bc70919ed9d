"""Workers are kept for the next call, which may come from another folder."""

import os
import time

from figures.harness.workers import in_workers


def test_relative_paths_mean_the_callers_folder_also_where_workers_are_kept(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        seen = set(in_workers(2, os.path.realpath, ["a", "b"]))
        assert seen == {os.path.realpath(tmp_path / name / item) for item in "ab"}


def test_the_cores_are_shared_and_one_item_needs_no_worker():
    cores = str(max(1, (os.cpu_count() or 1) // 2))
    assert list(in_workers(2, _variable, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])) == [cores, cores]
    here = os.getpid()
    pids = {items: set(in_workers(2, _process, range(items))) for items in (1, 2)}
    assert pids[1] == {here}
    assert here not in pids[2]
    assert set(in_workers(1, _process, range(3))) == {here}


def _variable(name):
    return os.environ.get(name)


def _process(item):
    return os.getpid()


_HELD = []


def _grow(size):
    """A worker that keeps what it has once used, as ours do on purpose."""
    _HELD.append(bytearray(size))
    _HELD[-1][::4096] = b"x" * len(_HELD[-1][::4096])
    time.sleep(1.1)  # loky looks at memory once a second
    return os.getpid()


def test_a_worker_that_has_grown_is_not_ended(recwarn):
    workers = set(in_workers(2, _grow, [1, 4 * 10**8, 4 * 10**8, 1, 1, 1]))
    assert len(workers) == 2
    assert [str(w.message) for w in recwarn if "worker stopped" in str(w.message)] == []
