"""The theory page: what it links to exists, claims cite sections that it has, and the numbers that it tells are right."""

import ast
import math
import re
from pathlib import Path

import pytest
import torch

from theory.groups.binary_rewards import arcsine, grpo_kappa, grpo_objective
from theory.tokens.costates import SURROGATES
from theory.tokens.softmax_bounds import entropy, gini

ROOT = Path(__file__).resolve().parents[2]
THEORY = ROOT / "theory"
PAGE = (THEORY / "README.md").read_text()
CODE = ("envs", "theory", "agents", "figures")
OWN_TESTS = "the tests of that module"


def top_level(path):
    """Names that a module defines: functions, classes, assignments."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def links(text):
    """(name, path) of every link on a name in code."""
    return re.findall(r"\[`([^`]+)`\]\(([^)#]+)\)", text)


def is_claim(path):
    return (ROOT / "figures" / "claims") in path.parents


def broken(text):
    """Links whose file does not exist, or does not define the name; a claim's source is read and not imported."""
    for name, target in links(text):
        path = (THEORY / target).resolve()
        if not path.is_file():
            yield name, target
        elif is_claim(path):
            if name != path.stem or f'name="{name}"' not in path.read_text():
                yield name, target
        elif name not in top_level(path):
            yield name, target


def missing_paths(text):
    """Paths in backticks without a link that lead nowhere, from the root or from the page's folder."""
    named = re.findall(r"`([\w./]+(?:\.py|\.md|/))`", text)
    return [path for path in named if not (ROOT / path).exists() and not (THEORY / path).exists()]


def sections(text):
    return {int(number) for number in re.findall(r"^## (\d+)\. ", text, re.M)}


def cited(source):
    """Numbers of the sections that a source text cites; a string may go on in the next line."""
    joined = re.sub(r'"\s*\n\s*f?r?"|\s*\n\s*', " ", source)
    citations = re.findall(r"theory\s+page,?\s+sections?((?:[\s,]|and|\d)+)", joined)
    return {int(number) for group in citations for number in re.findall(r"\d+", group)}


def tables(text, head):
    """Cells of the rows below every table head that begins with `head`."""
    for table in re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        for row in table.splitlines():
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def identifiers():
    """Every name that the code defines, binds, takes or reads, and `Class.attribute` of its classes."""
    known = set()
    for path in (path for package in CODE[:3] for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            known |= {getattr(node, field) for field in ("name", "id", "attr", "arg") if hasattr(node, field)}
            if isinstance(node, ast.ClassDef):
                names = [getattr(part, "name", None) or getattr(part, "target", None) for part in node.body]
                known |= {f"{node.name}.{getattr(name, 'id', name)}" for name in names if name}
    return known


def test_every_linked_name_is_defined_where_its_link_leads():
    assert len(links(PAGE)) > 90
    assert list(broken(PAGE)) == []
    assert missing_paths(PAGE) == []


@pytest.mark.parametrize(
    "planted",
    [
        "[`std_factor`](groups/binary_rewards.py)",
        "[`grpo_kappa`](groups/binary_groups.py)",
        "[`kappa`](groups/binary_rewards.py)",
        "[`costate_means`](../figures/claims/continuous/costate_mean.py)",
        "[`chaos`](../figures/claims/tokens/chaos.py)",
    ],
)
def test_a_link_that_leads_astray_would_be_seen(planted):
    assert list(broken(planted))
    assert not list(broken("[`grpo_kappa`](groups/binary_rewards.py)"))
    assert missing_paths("`theory/tokens/no_such.py`, `tokens/error_split.py` and `theory/tokens/`") == [
        "theory/tokens/no_such.py"
    ]


def test_every_section_that_the_code_cites_is_a_heading():
    sources = {str(p.relative_to(ROOT)): p.read_text() for package in CODE for p in (ROOT / package).rglob("*.py")}
    citations = {name: cited(source) for name, source in sources.items()}
    assert sum(name.startswith("figures/claims/") and bool(numbers) for name, numbers in citations.items()) > 10
    assert {name: numbers - sections(PAGE) for name, numbers in citations.items() if numbers - sections(PAGE)} == {}


def test_citations_are_read_whole_and_a_missing_section_would_be_seen():
    assert cited('source="our theory page section 1 (the paper gives none)"') == {1}
    assert cited('source="A, B; theory "\n    "page section 7, and more"') == {7}
    assert cited("# theory page sections 3 and 4; in 2020") == {3, 4}
    assert cited('source="ours, section 5"') == set()
    assert sections("## 1. One\n### 2. Two\n## 3 Three\n## Notation") == {1}
    assert sections(PAGE) == {1, 2, 3, 4, 5, 6}


def test_every_statement_names_what_computes_it_and_what_judges_it():
    rows = list(tables(PAGE, "statement"))
    assert len(rows) > 30
    for statement, computed, judged in rows:
        places = [(THEORY / target).resolve() for _, target in links(computed)]
        assert places, statement
        if judged == OWN_TESTS:
            own = [path.relative_to(THEORY) for path in places if THEORY in path.parents]
            assert own, statement
            for path in own:
                assert (ROOT / "tests" / "theory" / path.parent / f"test_{path.stem}.py").is_file(), path
        else:
            assert all(is_claim((THEORY / target).resolve()) for _, target in links(judged)), statement
            assert links(judged), statement


def test_the_code_names_of_the_notation_are_names_in_the_code():
    known, rows = identifiers(), list(tables(PAGE, "symbol"))
    named = {name for _, code, *_ in rows for name in re.findall(r"`([^`]+)`", code)}
    assert len(named) > 60
    assert named - known == set()
    assert {"Signal.costate", "Signal.snr", "grpo_kappa"} <= named
    assert not {"no_such_name", "Signal.no_such_name"} & known


def test_the_costates_are_listed_by_the_names_of_the_code():
    assert [re.findall(r"`(\w+)`", code)[0] for _, code, *_ in tables(PAGE, "costate")] == list(SURROGATES)


def test_links_within_the_page_lead_to_headings():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert len(wanted) == 7
    assert wanted <= anchors


def one_nat(family, most):
    """The member of a family p(t), 0 <= t <= most, whose entropy is 1 nat; the entropy rises in t."""
    low, high = 0.0, most
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(entropy(family(middle))) < 1 else (low, middle)
    return family(low)


def leading_token(t, V=50_000):
    """One token of probability 1 - t, all others alike."""
    return torch.cat([torch.tensor([1 - t]), torch.full((V - 1,), t / (V - 1))]).double()


def two_alike(t):
    """Two tokens alike and a third of probability t."""
    return torch.tensor([(1 - t) / 2, (1 - t) / 2, t], dtype=torch.float64)


@pytest.mark.parametrize(("family", "most"), [(leading_token, 0.5), (two_alike, 1 / 3)])
def test_the_range_of_the_gini_index_at_one_nat_is_the_one_that_is_told(family, most):
    p = one_nat(family, most)
    assert float(entropy(p)) == pytest.approx(1.0, abs=1e-6)
    assert f"{float(gini(p)):.3f}" in re.search(r"G runs from[^.]*\.\d+[^.]*\.\d+", PAGE)[0]
    assert f"1 - e^{{-1}} = {1 - math.exp(-1):.3f}" in PAGE


@pytest.mark.parametrize("P", [0.1, 0.3, 0.8])
def test_the_limits_of_the_objective_and_of_its_slope_are_those_that_are_told(P):
    zeta = -float(re.search(r"zeta\(1/2\) = -([\d.]+\d)", PAGE)[1])
    assert "zeta(1/2) / sqrt G + (1 - 2P) / (4 G sqrt(P(1-P)))" in PAGE
    G, at, sd = 512, torch.tensor(P, dtype=torch.float64), math.sqrt(P * (1 - P))
    error = float(grpo_objective(at, G) - arcsine(at))
    assert error == pytest.approx(zeta / math.sqrt(G) + (1 - 2 * P) / (4 * G * sd), abs=0.3 * G**-1.5)
    assert abs(error - zeta / math.sqrt(G)) < 1 / G < abs(error) / 10
    assert float(grpo_kappa(at, G)) == pytest.approx(1 / sd - 1 / (8 * G * sd**3), abs=20 / G**2)
    whole = float(grpo_objective(torch.ones_like(at), G))
    assert whole == pytest.approx(math.pi + 2 * zeta / math.sqrt(G), abs=G**-1.5)
