"""`costate plot`: draw the figures again, from the records alone, as the report or as a paper needs them."""

import argparse
from functools import partial
from pathlib import Path

from figures.commands.defaults import DEFAULT_OUT
from figures.commands.options import number
from figures.drawing.figures import WIDTH
from figures.drawing.frame import USUAL
from figures.drawing.style_sheet import read_style
from figures.harness.records import check_writable, write_atomically
from figures.harness.verdicts import verdicts_of
from figures.report.pictures import Look, author_figures, check_formats, draw_claim

_FOLDER = "plots"  # what the report embeds lies in figures/ and stays as it is


def add_options(parser: argparse.ArgumentParser) -> None:
    """The claims, where their results are, and how an author wants the figures."""
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="claims (default: all that were checked)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (default: runs)")
    own = parser.add_argument_group("for a paper or a talk", f"with any of these the figures go to DIR/{_FOLDER}")
    own.add_argument("--format", metavar="LIST", help="png, svg and pdf, with commas (default: png,svg)")
    inches = partial(number, 1.0, 100.0)
    own.add_argument("--width", type=inches, metavar="INCHES", help=f"of the figure (default: {WIDTH:g})")
    own.add_argument("--height", type=inches, metavar="INCHES", help="default: suits the width")
    own.add_argument("--dpi", type=partial(number, 10.0, 2400.0), metavar="N", help="of PNG (default: 1100 / width)")
    own.add_argument("--no-title", action="store_true", help="nothing above the panels")
    own.add_argument("--no-verdict", action="store_true", help="the title without the verdict")
    own.add_argument("--no-caption", action="store_true", help="nothing below the panels")
    own.add_argument("--style", metavar="FILE", help="a Matplotlib style sheet, laid over ours")
    own.add_argument("--palette", metavar="LIST", help="colours with commas, or the name of a palette of seaborn")
    own.add_argument("--by", metavar="FIELD", help="one figure for each value of a column of the rows")


def run(options: argparse.Namespace) -> int:
    """Draw the named claims, or all that were checked."""
    chosen, formats = _look(options), check_formats(options.format or ",".join(USUAL))
    verdicts = verdicts_of(options.claims, options.out)
    if chosen is None:
        check_writable(options.out)
        for verdict in verdicts:
            draw_claim(verdict, options.out)
        print(f"{len(verdicts)} figures (PNG and SVG) are in {options.out / 'figures'}")
        return 0
    files: dict[str, bytes] = {}
    for verdict in verdicts:
        files |= author_figures(verdict, options.out, formats, chosen, options.by)
    check_writable(options.out, (_FOLDER,))
    for name, content in files.items():
        write_atomically(options.out / _FOLDER / name, content)
    kinds = " and ".join(name.upper() for name in formats)
    print(f"{len(files) // len(formats)} figures ({kinds}) are in {options.out / _FOLDER}")
    return 0


def _look(options: argparse.Namespace) -> Look | None:
    """What the author chose; None where nothing was. Wrong styles and colours are refused here."""
    words = (options.format, options.width, options.height, options.dpi, options.style, options.palette, options.by)
    flags = (options.no_title, options.no_verdict, options.no_caption)
    if not any(flags) and all(word is None for word in words):
        return None
    palette = options.palette
    look = Look(
        width=options.width or WIDTH,
        height=options.height,
        title=not options.no_title,
        verdict=not options.no_verdict,
        caption=not options.no_caption,
        style=None if options.style is None else read_style(options.style),
        palette=palette.split(",") if palette and ("," in palette or palette.startswith("#")) else palette,
        dpi=options.dpi,
    )
    with look.context():
        return look
