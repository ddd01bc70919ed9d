"""Where results go unless a command is told otherwise; apart, so that `costate list` needs no more than this."""

from pathlib import Path

DEFAULT_OUT = Path("runs")
