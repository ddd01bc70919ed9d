"""The theory page: what it links to exists, claims cite sections that it has, and the numbers that it tells are right."""

import ast
import math
import re
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from latex2mathml.converter import convert

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


GREEK = (
    r"(alpha|beta|gamma|delta|varepsilon|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|omega|pi|rho|varrho|sigma|tau|upsilon|"
    r"phi|varphi|chi|psi|ell|Gamma|Delta|Theta|Lambda|Xi|Omega|Pi|Sigma|Upsilon|Phi|Psi)"
)
ACCENTS = ("hat", "tilde", "bar", "mathbf", "mathcal")
CONSTANTS = {"e", "O"}  # Euler's number; the order of a remainder


def formulas(text):
    """(display, source) of every formula: blocks of ```math, and what stands between dollars outside of code."""
    for source in re.findall(r"^ *```math\n(.*?)^ *```$", text, re.M | re.S):
        yield True, source
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
    for line in re.sub(r"`[^`]*`", "", prose).splitlines():
        yield from ((False, source) for source in re.findall(r"\$([^$]+)\$", line))


def letters(source):
    """Letters of a formula, with their accent; words in roman type, functions and environments are none."""
    source = re.sub(r"\\(begin|end|text|mathrm|operatorname)\s*\{[^}]*\}", " ", source)
    source = re.sub(r"\\mathrm\s*[A-Za-z]|\\mathbb\s*E|\\mathbf\s*1", " ", source)
    for accent, command, plain in re.findall(rf"(?:\\({'|'.join(ACCENTS)})\s*)?(?:\\([A-Za-z]+)|([A-Za-z]))", source):
        name = command or plain
        if plain or re.fullmatch(GREEK, name):
            yield f"{accent} {name}".strip()


def hard_to_render(source, in_table=False):
    """What GitHub's Markdown would read as its own before the formula is seen."""
    patterns = {"escape": r"\\[^A-Za-z]", "emphasis": r"[^A-Za-z0-9]_|\*", "tag": "<", "space": r"^\s|\s$"}
    return [
        name
        for name, pattern in (patterns | ({"bar": r"\|"} if in_table else {})).items()
        if re.search(pattern, source)
    ]


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
    known = identifiers()
    columns = [row[2] for row in tables(PAGE, "letter")] + [row[1] for row in tables(PAGE, "word")]
    named = {name for code in columns for name in re.findall(r"`([^`]+)`", code)}
    assert len(named) > 60
    assert named - known == set()
    assert {"Signal.costate", "Signal.snr", "grpo_kappa"} <= named
    assert not {"no_such_name", "Signal.no_such_name"} & known


def test_every_letter_of_the_notation_is_listed_once_and_means_one_thing():
    rows = [row for row in tables(PAGE, "letter")]
    listed = [
        sorted({letter for _, source in formulas(symbols) for letter in letters(source)}) for _, symbols, *_ in rows
    ]
    names = [name for name, *_ in rows]
    assert len(rows) > 60
    assert len(set(names)) == len(names)
    heads = [next(letters(next(formulas(symbols))[1])) for _, symbols, *_ in rows]
    assert len(set(heads)) == len(heads), "the same letter has two rows"
    assert all(len(row) == 5 for row in rows)
    assert all(row[3] for row in rows)
    assert {"A", "hat A", "mathcal H", "G", "J", "P", "p", "Q", "R", "V", "mathcal V"} <= set(heads)
    assert all(listed)


def test_every_letter_of_a_formula_is_in_the_notation():
    known = {letter for row in tables(PAGE, "letter") for _, source in formulas(row[1]) for letter in letters(source)}
    used = {letter: source for _, source in formulas(PAGE) for letter in letters(source)}
    assert len(list(formulas(PAGE))) > 300
    assert {letter: source for letter, source in used.items() if letter not in known | CONSTANTS} == {}


def test_a_letter_without_a_row_would_be_seen():
    assert set(letters(r"\hat A_i + \mathcal H(\pi) \, \mathrm{gini} + \sum_j H_j")) == {
        *("hat A", "i", "mathcal H", "pi", "j", "H")
    }
    assert "H" not in {letter for _, source in formulas(PAGE) for letter in letters(source)}
    assert set(letters(r"\frac{\mathrm d R_t}{\mathrm d s_t} \text{ for all } \mathbb E[x]")) == {"R", "t", "s", "x"}


def test_github_renders_every_formula():
    """No formula holds what Markdown takes for itself, all dollars pair up in their line, and all braces close."""
    for line in re.sub(r"^ *```.*?^ *```$", "", PAGE, flags=re.M | re.S).splitlines():
        assert re.sub(r"`[^`]*`", "", line).count("$") % 2 == 0, line
        for _, source in formulas(line):
            assert hard_to_render(source, line.startswith("|")) == [], line
    for display, source in formulas(PAGE):
        assert "<math" in convert(source, display="block" if display else "inline")
        depths = list(accumulate({"{": 1, "}": -1}.get(x, 0) for x in re.sub(r"\\[{}]", "", source)))
        assert min(depths) == depths[-1] == 0, source
        assert source.count(r"\left") == source.count(r"\right"), source


@pytest.mark.parametrize("planted", [r"a \, b", r"\bar{s}_t", "a * b", "a < b", " a", r"\{a\}"])
def test_a_formula_that_markdown_would_break_is_seen(planted):
    assert hard_to_render(planted)
    assert hard_to_render("|x|", in_table=True) == ["bar"]
    assert hard_to_render(r"\bar s_t + x_{t+1}") == []


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
    assert f"{float(gini(p)):.3f}" in re.search(r"Gini index runs from[^.]*\.\d+[^.]*\.\d+", PAGE)[0]
    assert f"1 - e^{{-1}} = {1 - math.exp(-1):.3f}" in PAGE


@pytest.mark.parametrize("P", [0.1, 0.3, 0.8])
def test_the_limits_of_the_objective_and_of_its_slope_are_those_that_are_told(P):
    zeta = -float(re.search(r"zeta\(1/2\) = -([\d.]+\d)", PAGE)[1])
    assert r"\frac{\zeta(1/2)}{\sqrt G} + \frac{1 - 2p}{4 G \sqrt{p (1 - p)}}" in PAGE
    G, at, sd = 512, torch.tensor(P, dtype=torch.float64), math.sqrt(P * (1 - P))
    error = float(grpo_objective(at, G) - arcsine(at))
    assert error == pytest.approx(zeta / math.sqrt(G) + (1 - 2 * P) / (4 * G * sd), abs=0.3 * G**-1.5)
    assert abs(error - zeta / math.sqrt(G)) < 1 / G < abs(error) / 10
    assert float(grpo_kappa(at, G)) == pytest.approx(1 / sd - 1 / (8 * G * sd**3), abs=20 / G**2)
    whole = float(grpo_objective(torch.ones_like(at), G))
    assert whole == pytest.approx(math.pi + 2 * zeta / math.sqrt(G), abs=G**-1.5)
