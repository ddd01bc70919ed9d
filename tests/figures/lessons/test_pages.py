"""Lessons run in a process of their own and become pages that need no network."""

import json
import pickle
import re
import subprocess
import sys
import time
from html import unescape
from pathlib import Path

import pytest

from figures.cli import main
from figures.harness.registry import load_claim
from figures.lessons import catalogue, pages
from figures.lessons.catalogue import LESSONS, Lesson

pytest.importorskip("jupytext")
pytest.importorskip("nbclient")

from figures.lessons.pages import picture_count, write_index, write_lesson
from figures.lessons.running import Executed, execute, read_lesson

MADE_UP = Lesson(1, "made_up", "Is 1 < 2?", 3, (), ("costate_mean",))
NOTEBOOK = """# %% [markdown]
# Some **prose**, a formula $\\lambda_t$, and
#
# $$\\sum_t \\gamma^t r_t$$
#
# ## A heading

# %%
import os
import time

import pandas as pd
from matplotlib.figure import Figure

time.sleep(1)
print(f"{1 + 1} <b>is not bold</b>", os.environ.get("MARK"))

# %%
pd.DataFrame({"x": [1.5]})

# %% alt="A line that rises"
figure = Figure()
figure.subplots().plot([0, 1])
figure

# %% tags=["exercise"]
answer = ...
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    (folder / "1_made_up.py").write_text(NOTEBOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "NOTEBOOKS", folder)
        patch.setenv("MARK", "kept")
        began = time.perf_counter()
        executed = execute(MADE_UP)
        assert 1 <= executed.seconds <= time.perf_counter() - began
        count = picture_count(executed.notebook)
        patch.setattr(pages, "LESSONS", (MADE_UP,))
        write_lesson(executed, folder / "out")
        write_index({1: executed.seconds}, {1: count}, folder / "out")
    return folder / "out", executed, count


def test_a_page_holds_prose_code_and_outputs(made):
    page = (made[0] / "1_made_up.html").read_text()
    assert "<h1>1. Is 1 &lt; 2?</h1>" in page
    assert "<strong>prose</strong>" in page
    assert page.count("<math ") == 2
    assert 'display="block"' in page
    assert "2 &lt;b&gt;is not bold&lt;/b&gt; kept" in page
    assert re.search(r'<img src="data:image/png;base64,[^"]+" alt="A line that rises">', page)
    assert "<td>1.5</td>" in page
    assert '<div class="exercise">' in page


def test_a_page_needs_no_network(made):
    for name in ("1_made_up.html", "index.html", "glossary.html", "claims.html"):
        page = (made[0] / name).read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
        assert "@import" not in page


def test_links_between_the_pages_lead_somewhere(made):
    for name in ("1_made_up.html", "index.html", "glossary.html", "claims.html"):
        for link in re.findall(r'href="([^"#]+)"', (made[0] / name).read_text()):
            assert (made[0] / link).exists(), link


def test_a_lesson_links_the_claims_that_judge_it(made):
    claims = (made[0] / "claims.html").read_text()
    links = re.findall(r'href="claims.html#(\w+)"', (made[0] / "1_made_up.html").read_text())
    assert links == list(MADE_UP.claims)
    for name in links:
        assert f'id="{name}"' in claims
        assert f"costate check {name}" in claims
        assert load_claim(name).statement in unescape(claims)
    assert 'id="impact_product"' not in claims


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """The pages of all lessons, without outputs: name -> HTML."""
    out = tmp_path_factory.mktemp("prose")
    for lesson in LESSONS:
        write_lesson(Executed(lesson, read_lesson(lesson.path), 0.0), out)
    write_index({}, {}, out)
    return {path.name: path.read_text() for path in out.glob("*.html")}


def glossary_links(page):
    """Place, anchor and text of each link to a term."""
    links = re.finditer(r'<a href="glossary\.html#([^"]+)">(.*?)</a>', page, re.S)
    return [(link.start(), link[1], re.sub(r"\s+", " ", link[2])) for link in links]


def dead_terms(page, glossary):
    return {anchor for _, anchor, _ in glossary_links(page)} - set(re.findall(r'<h3 id="([^"]+)"', glossary))


def linked_late(page):
    """Terms that prose has used before it links them."""
    read = re.sub(r"<(pre|code)>.*?</\1>|<a href=.*?</a>|<[^>]+>", lambda found: " " * len(found[0]), page, flags=re.S)
    body = page.index("Judged by")  # below the title
    used = {text: re.search(rf"\b{text}\b", read[body:place]) for place, _, text in glossary_links(page)}
    return {text for text, found in used.items() if found}


def test_terms_link_to_the_glossary_where_they_are_first_met(prose):
    for lesson in LESSONS:
        page = prose[f"{lesson.stem}.html"]
        links = glossary_links(page)
        assert links, lesson.stem
        assert len({anchor for _, anchor, _ in links}) == len(links), lesson.stem
        assert dead_terms(page, prose["glossary.html"]) == set(), lesson.stem
        assert linked_late(page) == set(), lesson.stem
    page = prose["1_one_path.html"]
    assert dead_terms(page.replace("#costate", "#costates"), prose["glossary.html"]) == {"costates"}
    assert linked_late(page.replace("Judged by", "Judged by a costate")) == {"costate"}


def test_bold_terms_of_the_glossary_are_links(prose):
    terms = {term.lower() for term in re.findall(r'<h3 id="[^"]+">(.*?)</h3>', prose["glossary.html"])}
    assert {"costate", "kappa", "normaliser"} <= terms
    for lesson in LESSONS:
        page = prose[f"{lesson.stem}.html"]
        bold = {text.lower() for text in re.findall(r"<strong>([^<]+)</strong>", page)}
        assert not (bold & terms) - {text for _, _, text in glossary_links(page)}, lesson.stem


def test_the_notebook_has_outputs_and_the_slides_are_pdf(made):
    folder, executed, count = made
    notebook = json.loads((folder / "1_made_up.ipynb").read_text())
    data = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert any("image/png" in each for each in data)
    assert not any("application/pdf" in each for each in data)
    assert count == 1
    assert (folder / "slides" / "1_made_up_1.pdf").read_bytes().startswith(b"%PDF")
    assert executed.seconds > 0


def test_a_lesson_can_be_executed_by_a_worker(made):
    again = pickle.loads(pickle.dumps(made[1]))
    assert (again.lesson, again.notebook) == (MADE_UP, made[1].notebook)
    assert pickle.loads(pickle.dumps(execute)) is execute


def test_the_index_tells_the_lecturer_what_there_is(made):
    page = (made[0] / "index.html").read_text()
    assert "Is 1 &lt; 2?</a>" in page
    assert f"{made[1].seconds:.0f}</td>" in page
    assert 'href="questions.html"' in page


def test_a_page_states_the_time_that_its_cells_took(made):
    page = (made[0] / "1_made_up.html").read_text()
    assert f"ran in {made[1].seconds:.0f} seconds" in page


def test_lines_of_code_wrap_behind_their_indent_and_copy_as_they_are():
    source = 'def f(x):\n\n    """Says\n    more."""\n    return "<a>"'
    html = pages._highlighted(source)
    assert re.findall(r"--in: (\d+)ch", html) == ["0", "0", "4", "4", "4"]
    assert unescape(re.sub("<[^>]+>", "", html)) == source + "\n"


def test_an_error_in_a_cell_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "1_made_up.py").write_text("# %%\nraise RuntimeError('planted')\n")
    monkeypatch.setattr(catalogue, "NOTEBOOKS", tmp_path)
    with pytest.raises(Exception, match="planted"):
        execute(MADE_UP)


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["lessons", *map(str, arguments)])
    return stopped.value.code, capsys.readouterr().err


def test_refusals_are_one_line_and_write_nothing(capsys, tmp_path, monkeypatch):
    code, said = refusal(capsys, 10, "--out", tmp_path / "out")
    assert (code, said) == (2, "costate: lesson 10 does not exist: give numbers from 1 to 9\n")
    (tmp_path / "file").touch()
    code, said = refusal(capsys, 1, "--out", tmp_path / "file")
    assert code == 2
    assert said.count("\n") == 1
    monkeypatch.setitem(sys.modules, "jupytext", None)
    code, said = refusal(capsys, 1, "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'costate-lab[lessons]'" in said
    assert not (tmp_path / "out").exists()


# The other lessons run cell by cell in the tests of their own; all nine from end to end in `.ci/run`.
FROM_END_TO_END = [lesson for lesson in LESSONS if lesson.number == 1]


def test_lessons_run_from_end_to_end(tmp_path):
    """The command as a user types it."""
    numbers = [str(lesson.number) for lesson in FROM_END_TO_END]
    command = [sys.executable, "-m", "figures", "lessons", *numbers, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in tmp_path.glob("?_*.html")} == {lesson.stem for lesson in FROM_END_TO_END}
    index = (tmp_path / "index.html").read_text()
    for lesson in FROM_END_TO_END:
        page = (tmp_path / f"{lesson.stem}.html").read_text()
        assert "no answer yet" in page
        (seconds,) = re.findall(r"ran in (\d+) seconds", page)
        assert f'data-label="seconds">{seconds}</td>' in index
        assert (tmp_path / "slides" / f"{lesson.stem}_1.pdf").exists()


def test_every_other_lesson_runs_in_its_own_test():
    folder = Path(__file__).parent
    sources = "".join(path.read_text() for path in folder.glob("test_*.py") if path != Path(__file__))
    run = re.findall(r"(?:run_cells\(|run_path\(str\(chosen_lessons\(\[)(\d)", sources)
    assert {lesson.number for lesson in LESSONS} == {lesson.number for lesson in FROM_END_TO_END} | set(map(int, run))
