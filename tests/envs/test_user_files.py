"""A user's own function: taken as it is, found beside its file, and every fault of it one line that names it."""

import os
import socket
import sys

import pytest

from envs.user_files import check_file, load_user_function, users_code
from envs.world import InputError, one_line
from tests.envs.refusals import refused

FILE = """
import helping_costate_tests
from dataclasses import dataclass


@dataclass
class Pair:
    a: int


def build(world, times=1):
    import helping_later_costate_tests as later

    return Pair(helping_costate_tests.two(world) * times + later.one)


def raises(world):
    value = {}
    return value["absent\\n\\x1b[31mred"]


def raises_nothing_known(world):
    class Strange(BaseException):
        pass

    raise Strange


def exits(world):
    raise SystemExit(0)


def takes_none():
    return 3


def refuses(world):
    from envs.world import InputError

    raise InputError("width must be >= 1")


def interrupted(world):
    raise KeyboardInterrupt


def prints(world):
    print("by the user")
    return world


number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file whose helpers lie beside it, named from another folder."""
    (tmp_path / "code").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "code" / "helping_costate_tests.py").write_text("def two(x):\n    return 2 * x\n")
    (tmp_path / "code" / "helping_later_costate_tests.py").write_text("one = 1\n")
    (tmp_path / "code" / "my.py").write_text(FILE)
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield "../code/my.py"
    for name in [name for name in sys.modules if "helping" in name]:
        del sys.modules[name]


def test_a_function_in_a_file_is_taken_with_the_modules_beside_it(own):
    before = list(sys.path)
    build = load_user_function(f"{own}:build")
    assert build(5).a == 11
    assert build(5, times=2).a == 21
    assert sys.path == before
    assert build.__name__ == "build"


def test_a_module_by_its_dotted_name(own, monkeypatch):
    monkeypatch.chdir("../code")
    assert load_user_function("my:build")(1).a == 3
    sys.modules.pop("my")


def fault(spec, *arguments):
    """The one line in which a function, or its file, is refused; it names the file."""
    with pytest.raises(InputError) as caught:
        load_user_function(spec)(*arguments)
    said = str(caught.value)
    assert said.startswith(f"--model {spec.rpartition(':')[0]}")
    assert said.isprintable()
    return said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", "raises KeyError in line 19: 'absent"),
        ("raises_nothing_known", "raises Strange in line 26"),
        ("exits", "calls sys.exit(0)"),
        ("takes_none", "must take one argument, the world"),
        ("refuses", "width must be >= 1"),
        ("number", "is of type int, not a function"),
        ("absent", "function 'absent' is unknown; did you mean"),
        ("biuld", "did you mean build"),
    ],
)
def test_a_function_that_fails_is_named_with_what_it_did(own, name, says):
    assert says in fault(f"{own}:{name}", 1)


BROKEN = {
    "syntax": ("def build(world:\n", "SyntaxError"),
    "null bytes": ("a = 1\0", "null bytes"),
    "raises": ("1 / 0", "raises ZeroDivisionError in line 1"),
    "exits": ("import sys\nsys.exit(0)", "calls sys.exit(0)"),
    "imports what is not there": ("import costate_no_such_module", "costate_no_such_module"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_run_is_named(tmp_path, case):
    text, says = BROKEN[case]
    (tmp_path / "my.py").write_text(text + "\n\ndef build(world):\n    return 1\n")
    assert says in fault(f"{tmp_path / 'my.py'}:build", 1)
    assert not [name for name in sys.modules if str(tmp_path) in name]


@pytest.mark.parametrize(
    "spec", ["my.py", "my.py:", ":build", "./my:build", "", "nowhere.py:build", "no_such_package:b"]
)
def test_what_names_no_function_is_refused(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text("")
    with refused("--model"):
        load_user_function(spec)


def test_the_option_and_the_arguments_are_the_callers(own):
    with pytest.raises(InputError, match=r"^--world .*must take the keywords of --set \(.*gamma"):
        load_user_function(f"{own}:build", "--world", "the keywords of --set")(1, gamma=1)


def test_prints_go_to_stderr_and_control_c_passes(own, capsys):
    assert load_user_function(f"{own}:prints")(4) == 4
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == ("", "by the user\n")
    with pytest.raises(KeyboardInterrupt):
        load_user_function(f"{own}:interrupted")(4)
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"


def test_while_measuring_the_suites_own_refusals_pass_as_they_are():
    for measuring, begin in ((True, "world "), (False, "--model my.py:build: world ")):
        with pytest.raises(InputError) as caught, users_code("my.py:build", "--model", measuring):
            raise InputError("world is too large")
        assert str(caught.value).startswith(begin)


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.py")
    os.symlink("gone", "dangling.py")
    os.symlink("self.py", "self.py")
    os.mkdir("folder.py")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.py")
    (tmp_path / "file.py").write_text("def build(world):\n    return 1\n")
    os.symlink("file.py", "link.py")
    kinds = {"pipe": "a pipe", "dangling": "a link to nothing", "self": "symbolic links", "folder": "a folder"}
    for name, kind in {**kinds, "socket": "a socket", "absent": "No such file"}.items():
        assert kind in fault(f"{name}.py:build", 1)
    server.close()
    assert load_user_function("link.py:build")(1) == 1
    for path, kind in (("/dev/zero", "a device"), ("a" * 5000, "too long"), ("nul\0", "null byte")):
        with pytest.raises(InputError, match=f"^file .*{kind}"):
            check_file(tmp_path / path, "file")


def test_a_line_is_one_line_and_its_middle_is_left_out():
    assert one_line("a\n b\t\x1b[2Jc\u202e\udcff") == r"a b \x1b[2Jc\u202e\udcff"
    assert one_line("Grüße, 世界") == "Grüße, 世界"
    assert one_line("x" * 5000) == "x" * 5000
    assert one_line("begin" + "x" * 500 + "end", 40).startswith("begin")
    assert one_line("begin" + "x" * 500 + "end", 40).endswith("end")


def test_every_refusal_is_one_printable_line_with_its_beginning_and_its_end():
    said = str(InputError(f"K must be a matrix; got {list(range(5000))}\n\x1b[31m: pass one"))
    assert said.startswith("K must be a matrix; got [0, 1, 2")
    assert said.endswith(r"4999] \x1b[31m: pass one")
    assert len(said) < 400
    names = ", ".join(f"claim_{i:02d}_with_a_name" for i in range(40))
    assert str(InputError(f"claim 'x' is unknown; there are {names}")).endswith(names), "a list of names is left whole"
    assert str(InputError("plain")) == "plain"
