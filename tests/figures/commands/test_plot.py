"""`costate plot` for papers and talks: formats, sizes, fonts, texts; and the page "Figures for LaTeX", command by command."""

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from figures.claims.continuous import costate_mean, costate_recursion
from figures.cli import main
from figures.drawing.frame import picture
from figures.drawing.style import house_style, new_figure
from tests.documents import SMALL

PAGE = Path(__file__).parents[3] / "figures" / "latex"
CLAIM = costate_recursion.CLAIM


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Records of a cheap claim at the preset `tiny`."""
    out = tmp_path_factory.mktemp("plot") / "runs"
    assert run("check", CLAIM.name, "--preset", "tiny", "--jobs", "1", "--out", out) == 0
    return out


def plotted(checked, tmp_path, *options):
    """File name -> content of what the command draws from a copy of the records."""
    out = tmp_path / "runs"
    shutil.copytree(checked, out, dirs_exist_ok=True)
    assert run("plot", CLAIM.name, "--out", out, *options) == 0
    return {path.name: path.read_bytes() for path in (out / "plots").iterdir()}


def size_in_points(svg):
    return [float(re.search(rf'<svg [^>]*?{side}="([\d.]+)pt"', svg, re.S)[1]) for side in ("height", "width")]


def said(svg):
    """All text of an SVG whose text is text."""
    return " ".join(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)).split())


def fonts(pdf):
    """Kinds of fonts that a PDF embeds."""
    return set(re.findall(rb"/Subtype /(Type3|CIDFontType2|TrueType|Type1)\b", pdf))


def test_formats_width_and_texts_are_as_asked(checked, tmp_path):
    files = plotted(checked, tmp_path, "--format", "pdf,svg,png", "--width", "3.3", "--height", "7", "--dpi", "200")
    assert set(files) == {f"{CLAIM.name}.{kind}" for kind in ("pdf", "svg", "png")}
    svg, pdf, png = (files[f"{CLAIM.name}.{kind}"] for kind in ("svg", "pdf", "png"))
    assert size_in_points(svg.decode()) == pytest.approx([7 * 72, 3.3 * 72])
    assert [float(x) for x in re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", pdf).groups()] == pytest.approx(
        [237.6, 504]
    )
    assert [int.from_bytes(png[i : i + 4], "big") for i in (16, 20)] == [660, 1400]
    assert fonts(pdf) == {b"CIDFontType2"}
    for text in (CLAIM.statement, ": holds", CLAIM.how_to_read.split(".")[0], "time t"):
        assert text in said(svg.decode())


@pytest.mark.parametrize("options", [(), ("--width", "5"), ("--by", "system")])
def test_rows_that_a_figure_does_not_take_are_one_line_whatever_is_asked(
    checked, tmp_path, options, monkeypatch, capsys
):
    """A mistake of the program is no matter of the rows: it is not made a line of."""

    def broken(error):
        def draw(rows, figure):
            raise error

        return dataclasses.replace(CLAIM, draw=draw)

    out = tmp_path / "runs"
    shutil.copytree(checked, out)
    monkeypatch.setattr(costate_recursion, "CLAIM", broken(FloatingPointError("no\nscale")))
    assert run("plot", CLAIM.name, "--out", out, *options) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"costate: claim {CLAIM.name} cannot be drawn from .*FloatingPointError.*\n", said)
    assert ("the rows of system" in said) == ("--by" in options)
    monkeypatch.setattr(costate_recursion, "CLAIM", broken(NameError("axes")))
    with pytest.raises(NameError):
        main(["plot", CLAIM.name, "--out", str(out), *options])


def test_the_kind_of_font_would_be_seen():
    with house_style(style={"pdf.fonttype": 3}):
        figure = new_figure(2, 2)
        figure.subplots()
        assert fonts(picture(figure, "pdf")) == {b"Type3"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [((), (1, 1, 1)), (("--no-title",), (0, 0, 1)), (("--no-verdict",), (1, 0, 1)), (("--no-caption",), (1, 1, 0))],
    ids=lambda x: " ".join(map(str, x)),
)
def test_title_verdict_and_caption_can_be_left_out_one_by_one(options, kept, checked, tmp_path):
    files = plotted(checked, tmp_path, "--format", "svg", *options)
    text = said(files[f"{CLAIM.name}.svg"].decode())
    parts = (CLAIM.statement, ": holds", CLAIM.how_to_read.split(".")[0])
    assert tuple(int(part in text) for part in parts) == kept


def test_the_same_records_give_the_same_bytes_and_the_report_keeps_its_figures(checked, tmp_path):
    before = {path: path.read_bytes() for path in (checked / "figures").iterdir()}
    options = ("--format", "pdf,svg,png", "--width", "3.3")
    one, two = (plotted(checked, tmp_path / name, *options) for name in "ab")
    assert one == two
    assert all(len(hashlib.sha256(content).hexdigest()) == 64 for content in one.values())
    assert {p.name: p.read_bytes() for p in (tmp_path / "a/runs/figures").iterdir()} == {
        p.name: b for p, b in before.items()
    }
    wider = plotted(checked, tmp_path / "c", "--format", "pdf,svg,png", "--width", "3.4")
    assert all(wider[name] != content for name, content in one.items())


def test_a_plain_plot_draws_what_check_drew(checked, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(checked, out)
    before = {path.name: path.read_bytes() for path in (out / "figures").iterdir()}
    for path in (out / "figures").iterdir():
        path.unlink()
    assert run("plot", "--out", out) == 0
    assert {path.name: path.read_bytes() for path in (out / "figures").iterdir()} == before
    assert not (out / "plots").exists()


def test_one_figure_for_each_value_of_a_column(checked, tmp_path):
    files = plotted(checked, tmp_path, "--by", "system", "--format", "svg")
    records = [json.loads(path.read_text()) for path in (checked / "records").rglob("*.json")]
    systems = {row["system"] for record in records for row in record["rows"]}
    assert len(files) == len(systems) > 1
    texts = [said(content.decode()) for content in files.values()]
    for system in systems:
        assert sum(f"system {system}, holds in all" in text for text in texts) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--by", "sytem"), "columns part, "),
        (("--by", "measured"), "at most 60"),
        (("--format", "pdf,gif"), "'gif' is unknown; did you mean"),
        (("--format", ","), "--format is empty"),
        (("--width", "0"), "from 1 to 100"),
        (("--width", "nan"), "from 1 to 100"),
        (("--dpi", "x"), "from 10 to 2400"),
        (("--style", "absent.mplstyle"), "is no file"),
        (("--style", "bad.mplstyle"), "font.sise"),
        (("--style", "binary.mplstyle"), "binary.mplstyle"),
        (("--palette", "blue,blu"), "'blu' is no colour"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_what_cannot_be_drawn_is_refused_before_a_file_is_written(
    options, named, checked, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("bad.mplstyle").write_text("font.sise: 3\n")
    Path("binary.mplstyle").write_bytes(bytes(range(256)))
    assert run("plot", "--out", checked, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line
    assert not (checked / "plots").exists()


def test_the_page_for_latex_does_what_it_says(tmp_path, monkeypatch):
    """Every block is saved or run at its smallest size, in its own folder; the example is typeset where there is a TeX."""
    monkeypatch.chdir(tmp_path)
    page = (PAGE / "README.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.S)
    assert [kind for kind, _ in blocks] == ["mplstyle", "sh"]
    Path("serif.mplstyle").write_text(blocks[0][1])
    for line in blocks[1][1].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "costate"
        assert run(*arguments, *SMALL[arguments[0]].split()) == 0, line
    pdfs = {path.name: path.read_bytes() for path in Path("runs/plots").glob("*.pdf")}
    assert set(pdfs) == {"costate_mean.pdf", "costate_recursion.pdf"}
    for content in pdfs.values():
        assert fonts(content) == {b"CIDFontType2"}
        assert b"STIX" in content
    assert len(list(Path("runs/plots").glob("*.png"))) > 1
    example = (PAGE / "example.tex").read_text()
    assert re.findall(r"\\includegraphics\{runs/plots/(.+?)\}", example) == sorted(pdfs)
    assert all(
        option in page for option in ("--format", "--width", "--height", "--style", "--palette", "--by", "--dpi")
    )
    assert costate_mean.CLAIM.name in page
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", str(PAGE / "example.tex")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull" not in done.stdout
        assert all(f"<./runs/plots/{name}>" in done.stdout.replace("\n", "") for name in pdfs)
