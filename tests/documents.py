"""Code blocks of the documents, and how they are run: Python as written, commands parsed or run at small sizes."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^(?P<tick>```+)(\w*)\n(.*?)^(?P=tick)$", re.M | re.S)
# what the smallest run of a command adds to its line; of an option that comes twice the last counts
SMALL = {
    "train": "--steps 2 --every 1 --seeds 1 --width 8 --layers 1 --prompts 2 --group 4",
    "check": "--preset tiny --jobs 1",
    "sweep": "--preset tiny --jobs 1",
    "pretrain": "--updates 8 --checkpoints 2 --batch 8 --width 8 --layers 1",
    "impact": "",
    "list": "",
    "plot": "",
    "report": "",
}


class Block(NamedTuple):
    """A fenced block of a document: its markers, `<!-- name: value -->` on the lines above it, its language and text."""

    path: str
    markers: dict
    language: str
    text: str


def blocks(path):
    """All fenced blocks of a document, in their order."""
    for above, _, language, text in FENCE.findall(Path(path).read_text()):
        marks = re.findall(r"<!-- ([\w ]+?)(?:: ([^>]*?))? -->", above)
        yield Block(str(path), dict(marks), language, text)


def files_of(path):
    """Name -> text of the files that a document shows, marked `<!-- file: NAME -->`."""
    return {block.markers["file"]: block.text for block in blocks(path) if "file" in block.markers}


def commands(block):
    """The words of each `costate` line of a block, without the description that stands two blanks further on."""
    lines = [re.split(r"\s{2,}|\s+#", line.strip())[0] for line in block.text.splitlines()]
    found = [
        re.sub(r"^(\.venv/bin/)?costate ", "", line) for line in lines if re.match(r"(\.venv/bin/)?costate\b", line)
    ]
    return [shlex.split(line) for line in found]


def is_shell(block):
    return block.language in ("", "sh", "bash", "console") and bool(commands(block))
