"""The README's commands, names and pictures are those of the code; `tests/test_documents.py` runs the other pages."""

import re
from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(name):
    """The fenced block that follows a marker."""
    return re.search(rf"<!-- command: {name} -->\n```\n(.*?)```", README, re.S).group(1).strip().splitlines()


def test_both_commands_install_with_the_constraints_into_a_virtual_environment():
    for name in ("check", "test"):
        lines = block(name)
        assert lines[0] == "python3 -m venv .venv"
        assert lines[1].startswith(".venv/bin/pip install -c constraints.txt -e ")
    assert block("check")[2] == ".venv/bin/costate check"
    assert block("test")[2] == ".venv/bin/python -m pytest"


def test_the_folders_of_the_tree_are_those_there_are():
    tree = README[README.index("envs/         WORLDS") : README.index("Inside `figures/` a folder")]
    for package in ("envs", "theory", "agents", "figures"):
        block = tree[tree.index(f"\n{package}/" if package != "envs" else "envs/") :]
        block = re.split(r"\n(?=\w)", block.lstrip("\n"))[0]
        named = set(re.findall(r"^  (\w+)/", block, re.M))
        there = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert named == there


def test_ci_takes_its_test_command_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "command: test" in script
    assert "README.md" in script
    assert "ruff check" in script
    assert "mypy" in script


def test_the_python_of_the_readme_runs(rng, uses_global_rng):
    """All blocks, one after the other, on a network of the form that they name."""
    network = nn.Sequential()
    network.embedding = nn.Embedding(4, 8)
    network.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)])
    network.lm_head = nn.Linear(8, 4)
    network = network.double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=rng)

    def forward(embeddings):
        causal = nn.Transformer.generate_square_subsequent_mask(embeddings.shape[1]).to(embeddings)
        return network.lm_head(network.blocks[0](embeddings, causal))

    network.forward = forward
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    names = {"network": network}
    first = blocks[0].replace("parity(V=2, horizon=5)", "parity(V=4, horizon=2)")
    exec(first + blocks[1].replace("modulus=2", "modulus=3") + blocks[2], names)
    assert names["exact"].J > 0
    assert names["cosine"] < 1 - 1e-6
    assert names["cosine_to_its_own"] == pytest.approx(1, abs=1e-12)
    assert names["cosine_to_J"] < 1 - 1e-4


def test_every_picture_that_a_page_shows_is_there_and_the_gallery_holds_no_other():
    shown = {
        page: re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / page).read_text())
        for page in ("README.md", "figures/FINDINGS.md")
    }
    paths = {((ROOT / page).parent / picture).resolve() for page, pictures in shown.items() for picture in pictures}
    assert len(paths) >= 11
    assert all(path.is_file() for path in paths)
    assert {path for path in (ROOT / "figures" / "gallery").iterdir()} <= paths


def test_the_constraints_pin_torch_and_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    for name in re.findall(r'^\s+"([a-z0-9-]+)>=', project, re.M):
        assert name in pinned, name
