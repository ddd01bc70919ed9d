"""envs/README.md: its worlds are those of the registry, its assumptions those of the claims."""

import inspect
from pathlib import Path

import gymnasium
import pytest

from envs.registry import WORLDS, gymnasium_id, make_world
from envs.world import InputError
from figures.harness.claim import ASSUMPTIONS

PAGE = (Path(__file__).resolve().parents[2] / "envs" / "README.md").read_text()


def test_the_table_of_worlds_is_from_the_registry_and_so_are_gymnasiums_ids():
    """A new world costs no edit here: `costate list` shows it. But what the page says of a world is what the code says."""
    rows = [f"| `{name}` | {entry.description} | `{', '.join(entry.options)}` |" for name, entry in WORLDS.items()]
    table = PAGE[PAGE.index("| id (`costate/") :].split("\n\n")[0].split("\n```")[0].strip().splitlines()
    assert set(table[2:]) <= set(rows)
    assert len(table) > 10
    registered = {name for name in gymnasium.registry if name.startswith("costate/")}
    assert registered == {gymnasium_id(name) for name in (*WORLDS, "World")}


@pytest.mark.parametrize("name", WORLDS)
def test_every_option_of_the_table_is_taken(name):
    """Each with its default value, by the builder itself."""
    entry, world = WORLDS[name], make_world(name)
    parameters = inspect.signature(entry.build).parameters
    for option in entry.options:
        default = parameters[option].default if option in parameters else getattr(world, option, None)
        if default is not None:
            make_world(name, **{option: default})
    with pytest.raises(InputError, match=f"options of world {name}: .*nonsense"):
        make_world(name, nonsense=1)


def test_the_assumptions_of_the_page_are_those_of_the_claims():
    for key, text in ASSUMPTIONS.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {key} |"))
        assert text.replace("`", "") in row.replace("`", "")


def test_the_files_of_the_page_are_those_there_are():
    section = PAGE[PAGE.index("## The files") :]
    folder = Path(__file__).resolve().parents[2] / "envs"
    for path in folder.glob("[a-z]*.py"):
        assert f"`{path.name}`" in section, path.name


def test_a_variant_named_beside_an_assumption_is_a_world_that_says_so():
    for name, entry in WORLDS.items():
        if entry.description.startswith("without A"):
            key = entry.description.split(":")[0].removeprefix("without ")
            (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {key} |")]
            assert f"`{name}`" in row.split("|")[4], (key, name)
