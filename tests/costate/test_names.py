"""The face: names, their homes, the time of the import, and folders of the user's that hide ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import costate

ROOT = Path(costate.__file__).parent.parent


def python(code, folder, *options):
    """What a fresh interpreter does with `code` in a folder, our packages on its path."""
    command = [sys.executable, *options, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_every_name_can_be_used_and_is_explained():
    assert 35 <= len(costate.__all__) <= 60  # a face that is read at one sitting
    for name in costate.__all__:
        thing = getattr(costate, name)
        assert name == "__version__" or thing.__doc__
    assert set(dir(costate)) == set(costate.__all__)
    with pytest.raises(AttributeError, match=r"no name 'exat'; there are exact"):
        costate.exat  # noqa: B018
    assert costate.grpo is __import__("agents.recipes.learners", fromlist=["grpo"]).grpo


def test_the_stub_names_what_is_there():
    """Type checkers read the stub; its right-hand sides must be what is imported, under the names that are shown."""
    tree = ast.parse((ROOT / "costate" / "__init__.pyi").read_text())
    for line in (line for line in tree.body if isinstance(line, ast.ImportFrom)):
        module = __import__(line.module, fromlist=[alias.name for alias in line.names])
        for alias in line.names:
            assert alias.asname, "a stub gives on only what is imported `as` a name"
            assert getattr(costate, alias.asname) is getattr(module, alias.name)


def test_the_import_loads_nothing_heavy_and_takes_no_time(tmp_path):
    code = (
        "import time; began = time.perf_counter(); import costate; took = time.perf_counter() - began\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'gymnasium', 'envs', 'theory', 'agents', 'figures'}\n"
        "print(took, sorted(heavy & set(sys.modules)))"
    )
    seconds, loaded = zip(*(python(code, tmp_path).stdout.split(maxsplit=1) for _ in range(3)), strict=True)
    assert min(map(float, seconds)) <= 0.2
    assert set(loaded) == {"[]\n"}


@pytest.mark.parametrize("name", ["envs", "agents", "theory", "figures"])
def test_a_folder_that_hides_ours_is_named_in_one_line(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import costate", tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(
        f"ImportError: costate: the folder {tmp_path / name} hides Costate Lab's own package '{name}'"
    )
    assert "rename it, or start Python in another folder" in last
    again = python(f"import {name}; import costate", tmp_path)
    assert "hides Costate Lab's own package" in again.stderr


def test_folders_that_python_does_not_look_into_hide_nothing(tmp_path):
    for name in ("envs", "agents", "theory", "figures"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    assert python("import costate; costate.world", tmp_path).returncode == 1
    assert python("import costate; costate.world", tmp_path, "-P").returncode == 0


def test_a_module_of_that_name_hides_ours_too_and_a_folder_without_code_does_not(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "data.txt").write_text("")
    assert python("import costate; costate.world", tmp_path).returncode == 0
    (tmp_path / "theory.py").write_text("")
    assert "theory.py hides" in python("import costate", tmp_path).stderr
