"""The page: parts, titles, relations, links, what the filter looks at; whatever came out."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from envs.world import InputError
from figures.harness.judge import NOT_JUDGED
from figures.harness.registry import CLAIMS, TITLES, load_claim, module_name
from figures.report.report import write_report
from figures.report.sections import controls, split_formula
from figures.report.titles import title
from tests.figures.report.made_up_results import PLAIN, drawn_folder, made_wrong, not_judged, page_of, verdict

WRONG, SUBSET, LEAST = "error_split", "costate_mean", "error_bound"


class Page(HTMLParser):
    """Elements with their attributes, and the text below each article."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.articles, self._article = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "article":
            self._article = dict(attrs)["id"]
            self.articles[self._article] = ""

    def handle_endtag(self, tag):
        self._article = None if tag == "article" else self._article

    def handle_data(self, data):
        if self._article:
            self.articles[self._article] += data

    def having(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def verdicts():
    odd = {WRONG: made_wrong(WRONG), SUBSET: not_judged(SUBSET), LEAST: verdict(LEAST, "at least")}
    return [odd.get(name) or verdict(name, "equals") for name in reversed(PLAIN)]


@pytest.fixture(scope="module")
def path(verdicts, tmp_path_factory):
    return page_of(verdicts, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text())


def told(page, name):
    return " ".join(page.articles[name].split())


def test_claims_stand_in_their_parts_in_the_documented_order(page):
    order = [
        a["id"]
        for t, a in page.elements
        if (t == "article" and a["class"] == "claim") or a.get("id", "")[:5] == "part-"
    ]
    wanted = []
    for part, names in CLAIMS.items():
        there = [name for name in names if name in PLAIN]
        wanted += [f"part-{part}", *there] if there else []
    assert order == wanted
    assert len([name for name in order if name[:5] == "part-"]) == len(CLAIMS)


def test_the_headings_are_those_of_the_parts(path):
    text = path.read_text()
    for part, heading in TITLES.items():
        assert f'<h2 id="part-{part}">{heading}</h2>' in text


def test_titles_are_true_whatever_came_out(page, verdicts):
    for v in verdicts:
        assert told(page, v.claim).startswith(title(v))
        assert f"Claim: “{v.statement}”" in told(page, v.claim)
    assert f'The statement "{load_claim(WRONG).statement}" fails ✗ fails not as documented' in told(page, WRONG)
    assert "was not judged on these settings – not judged (on a subset of its settings)" in told(page, SUBSET)
    assert "not as documented" not in told(page, SUBSET).split("Claim:")[0]


def test_the_relation_is_told_in_words_and_nothing_is_called_exact(page):
    assert "at least" in told(page, LEAST)
    assert "equals" not in told(page, LEAST)
    assert "equals" in told(page, "costate_recursion")
    assert not any("exact" in text for tag, text in headers(page))


def headers(page):
    """Columns of the tables: their scope and what stacked rows show in their place."""
    return [(tag, a.get("data-label", "")) for tag, a in page.elements if tag in ("th", "td")]


def test_the_filter_finds_outcome_standing_and_controls_at_all_three_places(page, verdicts):
    for v in verdicts:
        found = [a for _, a in page.elements if a.get("data-claim") == v.claim]
        assert len(found) == 3  # in the contents, in the table, in its section
        for a in found:
            assert a["data-outcome"] == v.outcome
            assert a["data-documented"] == ("no" if v.claim == WRONG else "yes")
            assert (a["data-controls"] or "").split() == list(controls(v))
    outcomes = {a["value"] for a in page.having("input", name="outcome")}
    known = {word for value in outcomes for word in value.split(",")}
    assert {"holds", "fails", "undecided", NOT_JUDGED, "unexpected"} <= known


def test_a_control_is_fails_holds_or_off():
    claim = load_claim(WRONG)
    (control,) = [part for part in claim.parts if part.role == "control"]
    assert controls(verdict(WRONG)) == (control.documented,) == ("fails",)
    assert controls(verdict(WRONG, wrong=(control.name,))) == ("off",)


def problems(page, folder):
    """Links that lead nowhere: to a place in the page, or to a file beside it."""
    places = [a["id"] for _, a in page.elements if "id" in a]
    twice = {f"#{name} twice" for name in places if places.count(name) > 1}
    links = {a["href"] for _, a in page.elements if "href" in a}
    there = {link for link in links if link[:1] == "#" and link[1:] in places} | {
        link for link in links if link[:1] != "#" and not Path(link).is_absolute() and (folder / link).is_file()
    }
    return twice | (links - there)


def test_every_link_leads_somewhere_and_needs_no_network(path, page):
    assert problems(page, path.parent) == set()
    assert problems(Page(path.read_text().replace('id="h-bug"', 'id="gone"')), path.parent) == {"#h-bug"}
    for name in PLAIN:
        assert page.having("a", href=f"rows/{name}.csv")
        assert page.having("a", href=f"figures/{name}.svg")
        assert module_name(name).replace(".", "/") + ".py" in told(page, name)
        assert f"costate plot {name} --out" in told(page, name)
    outside = re.findall(r"""(?:src|href)=["'](?!data:|#|%23|rows/|figures/)[^"']*""", path.read_text())
    assert outside == []


def test_a_file_that_is_not_there_is_not_linked(verdicts, tmp_path):
    few = [v for v in verdicts if v.claim in (WRONG, SUBSET)]
    out = drawn_folder(tmp_path, few)
    (out / "rows" / f"{few[0].claim}.csv").unlink()
    page = Page(write_report(few, out).read_text())
    assert not page.having("a", href=f"rows/{few[0].claim}.csv")
    assert page.having("a", href=f"rows/{few[1].claim}.csv")


@pytest.mark.parametrize("damaged", ["<svg", '<svg xmlns="http://www.w3.org/2000/svg" height="10in"/>'])
def test_a_figure_that_somebody_else_wrote_is_one_line(verdicts, tmp_path, damaged):
    few = [v for v in verdicts if v.claim == WRONG]
    out = drawn_folder(tmp_path, few)
    (out / "figures" / f"{WRONG}.svg").write_text(damaged)
    with pytest.raises(InputError, match=rf"{WRONG}.svg is no figure of ours: run `costate plot {WRONG}"):
        write_report(few, out)
    assert not (out / "report.html").exists()


def test_what_a_screen_reader_needs(page):
    assert page.having("html", lang="en")
    assert page.having("main", id="main")
    assert page.having("a", href="#main")
    assert page.having("nav")[0]["aria-label"]
    assert page.having("span", id="shown", role="status")[0]["aria-live"] == "polite"
    tables = page.having("table")
    assert len(tables) == len([t for t, _ in page.elements if t == "caption"]) > len(PLAIN)
    assert all(a.get("scope") in ("col", "row", "rowgroup") or a.get("role") == "rowheader" for a in page.having("th"))
    assert len([t for t, _ in page.elements if t == "figcaption"]) == len(page.having("figure")) == len(PLAIN)
    assert all(0 < len(a["alt"]) < 120 for a in page.having("img"))


def test_is_this_a_bug_stands_before_the_claims(path):
    text = path.read_text()
    short, overview, full = (text.index(mark) for mark in ('id="h-bug"', 'id="overview"', 'id="is-this-a-bug"'))
    assert short < overview < text.index('class="claim"') < full


def test_a_run_stands_once_and_a_tiny_one_says_that_it_says_nothing(path, verdicts, tmp_path):
    assert path.read_text().count("<dd>quick</dd>") == 1
    assert "too few samples" not in path.read_text()
    tiny = [type(v)(**{**vars(v), "run": type(v.run)(**{**vars(v.run), "preset": "tiny"})}) for v in verdicts[:1]]
    assert "too few samples for a verdict" in page_of(tiny, tmp_path).read_text()


def test_formulas_that_stand_side_by_side_are_taken_apart_but_not_inside_braces():
    assert split_formula(r"a = b, \qquad c = d") == ["a = b,", "c = d"]
    assert split_formula(r"a \quad b") == [r"a \quad b"]
    assert split_formula(r"\frac{a \qquad b}{c}") == [r"\frac{a \qquad b}{c}"]


def test_words_of_a_claim_cannot_become_markup(verdicts, tmp_path):
    odd = verdict(WRONG, statement='<script>alert("x")</script>', as_documented=False, outcome="fails")
    text = page_of([odd], tmp_path).read_text()
    assert "<script>alert" not in text
    assert '<script>alert("x")</script>' in html.unescape(text)
