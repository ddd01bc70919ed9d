"""Wheel and sdist: what they hold, and that the wheel works in an empty folder, far from this repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = tuple(name for name in ("costate", "envs", "theory", "agents", "figures") if (ROOT / name).exists())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "gallery", "*.egg-info", "build", "dist", "runs", ".*")
needs_build = pytest.mark.skipif(find_spec("build") is None, reason="build comes with the extra `dev`")


def wanted(root):
    """Every file that the wheel must hold beside its own metadata: sources and data of the packages."""
    files = [path for name in PACKAGES for path in (root / name).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix() for path in files if not {"__pycache__", "gallery"} & set(path.parts)}


def build(source, out, *options):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {path.suffix: path for path in out.iterdir()}


def run(command, cwd):
    """A finished process in a folder, without what this process was told about places of modules."""
    told = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=told, capture_output=True, text=True)


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from the sdist."""
    source = tmp_path_factory.mktemp("source") / "costate-lab"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    return build(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The `bin` of an environment that holds the wheel, and sees this environment's libraries through a .pth file."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = run([*pip, built[".whl"]], folder)
    assert done.returncode == 0, done.stderr
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return folder / "bin"


@needs_build
def test_the_wheel_holds_every_source_and_data_file_the_licence_and_no_test(built):
    held = {name for name in names(built[".whl"]) if ".dist-info/" not in name}
    assert held == wanted(ROOT)
    assert {"figures/report/report.html", "figures/report/style.css", "figures/report/script.js"} <= held
    assert {"theory/README.md", *(f"{name}/py.typed" for name in PACKAGES)} <= held
    assert "figures/explorer/js/main.js" in held
    (licence,) = [name for name in names(built[".whl"]) if name.endswith("/LICENSE")]
    with zipfile.ZipFile(built[".whl"]) as archive:
        assert archive.read(licence).decode() == (ROOT / "LICENSE").read_text()


@needs_build
def test_the_sdist_holds_tests_and_documents_too(built):
    with tarfile.open(built[".gz"]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    documents = {"LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "constraints.txt"}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert held >= wanted(ROOT) | documents | tests


@needs_build
def test_data_left_out_would_be_seen(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(ROOT, broken, ignore=NOT_SOURCE)  # afresh: an earlier build leaves its list of files
    text = (broken / "pyproject.toml").read_text()
    before, _, table = text.partition("[tool.setuptools.package-data]\n")
    (broken / "pyproject.toml").write_text(before + table[table.index("\n[") :])
    wheel = build(broken, tmp_path / "dist", "--wheel")[".whl"]
    lost = wanted(broken) - names(wheel)
    modules = {
        path for path in wanted(broken) if path.endswith((".py", ".pyi", "py.typed")) and "/notebooks/" not in path
    }
    assert lost == wanted(broken) - modules
    assert "figures/report/report.html" in lost


@needs_build
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "usage: costate"),
        (["list"], "bellman_costate"),
        (["check", "bellman_costate", "--preset", "tiny", "--jobs", "1"], "bellman_costate"),
        (["explore"], "explorer.html"),
    ],
)
def test_the_installed_command_works_in_an_empty_folder(installed, tmp_path, arguments, said):
    done = run([installed / "costate", *arguments], tmp_path)
    assert (done.returncode, said in done.stdout) == (0, True), done.stdout + done.stderr
    if "check" in arguments:
        assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000
    if "explore" in arguments:
        assert (tmp_path / "explorer.html").stat().st_size > 50_000


@needs_build
def test_the_installed_packages_are_the_wheel_s_and_say_their_version(installed, tmp_path):
    lines = "import agents, envs, figures, theory, importlib.metadata as m; print(m.version('costate-lab'))"
    files = "print(*(p.__file__ for p in (agents, envs, figures, theory)))"
    done = run([installed / "python", "-c", f"{lines}; {files}"], tmp_path)
    version, places = done.stdout.splitlines()
    assert version == PROJECT["version"]
    assert all(place.startswith(str(installed.parent)) for place in places.split()), places


# What CFF 1.2.0 demands of a file and of each of its references; `type` and `license` have closed lists.
CFF_KEYS = {"cff-version", "message", "title", "authors"}
REFERENCE_KEYS = {"type", "title", "authors"}


def citation_errors(citation, project):
    """What is wrong with a citation file, in words."""
    errors = [f"no {key}" for key in CFF_KEYS - set(citation)]
    for place in [citation, *citation.get("references", [])]:
        named = [{"name"} <= set(a) or {"family-names", "given-names"} <= set(a) for a in place.get("authors", [])]
        errors += [] if named and all(named) else ["an author without a name"]
    for reference in citation.get("references", []):
        errors += [f"a reference without {key}" for key in REFERENCE_KEYS - set(reference)]
    said = {"version": project["version"], "license": project["license"], "cff-version": "1.2.0", "type": "software"}
    errors += [f"{key} is not {value}" for key, value in said.items() if str(citation.get(key)) != value]
    authors = [author.get("name") for author in citation.get("authors", [])]
    return errors + ([] if authors == [a["name"] for a in project["authors"]] else ["other authors than the package"])


def test_the_citation_file_has_what_the_format_demands_and_says_what_the_package_says():
    yaml = pytest.importorskip("yaml", reason="pyyaml comes with the extra `dev`")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation_errors(citation, PROJECT) == []
    (paper,) = citation["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    for wrong in ({"version": "9.9"}, {"authors": [{"alias": "us"}]}, {"license": "GPL-3.0"}, {"references": [{}]}):
        assert citation_errors(citation | wrong, PROJECT) != []
    assert "no message" in citation_errors({k: v for k, v in citation.items() if k != "message"}, PROJECT)


def test_the_changelog_and_the_licence_name_this_version_and_these_authors():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    assert PROJECT["version"] in changelog
    assert PROJECT["authors"][0]["name"] in (ROOT / "LICENSE").read_text()
