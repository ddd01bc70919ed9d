"""`costate lessons`: the lessons, executed, as pages, notebooks and slides."""

import argparse
import sys
from functools import partial
from pathlib import Path

from figures.commands.options import default_jobs, whole_number
from figures.harness.records import check_writable
from figures.harness.workers import in_workers
from figures.lessons.catalogue import LESSONS, chosen_lessons
from figures.lessons.pages import picture_count, write_index, write_lesson
from figures.lessons.running import execute, read_lesson

STOPPED = "the lessons that were finished are there"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which lessons, and where they go."""
    text = f"numbers of lessons, 1 to {len(LESSONS)} (default: all)"
    parser.add_argument("lessons", nargs="*", type=partial(whole_number, 1), metavar="N", help=text)
    parser.add_argument("--out", type=Path, default=Path("lessons"), metavar="DIR", help="folder (default: lessons)")
    jobs = partial(whole_number, 1)
    parser.add_argument("--jobs", type=jobs, default=None, metavar="N", help="processes (default: one for each core)")


def run(options: argparse.Namespace) -> int:
    """Execute them, write the pages, and print where the index is."""
    lessons = chosen_lessons(options.lessons)
    for lesson in lessons:
        read_lesson(lesson.path)
    check_writable(options.out, ("slides",))
    seconds, slides = dict[int, float](), dict[int, int]()
    for done in in_workers(options.jobs or default_jobs("cpu"), execute, lessons):
        number = done.lesson.number
        seconds[number], slides[number] = done.seconds, picture_count(done.notebook)
        write_lesson(done, options.out)
        print(f"costate: lesson {number}, {len(seconds)}/{len(lessons)}, {done.seconds:.0f} s", file=sys.stderr)
    print(write_index(seconds, slides, options.out))
    return 0
