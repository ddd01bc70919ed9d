"""The result store: one JSON file per finished point, named by the hash of its settings, written whole or not at all."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from envs.world import InputError

_ROOT = Path(__file__).resolve().parent.parent.parent
_CODE = (
    "envs/**/*.py",
    "theory/**/*.py",
    "agents/**/*.py",
    "figures/harness/*.py",
    "figures/measures/*.py",
    "figures/impact/*.py",
)
_LIBRARIES = ("torch", "numpy", "scipy", "gymnasium", "pandas", "matplotlib")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def digest(text: str) -> str:
    """A short, stable name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_digest() -> str:
    """Digest of all code that makes numbers, and of its libraries: a record made by others is not taken for a result."""
    files = sorted(path for pattern in _CODE for path in _ROOT.glob(pattern))
    return digest(canonical([[path.name, path.read_text()] for path in files] + [versions()]))


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make the numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


@cache
def revision() -> str:
    """The commit of the checkout, with "+changes" where it was edited; the package version outside a checkout."""
    try:
        run = lambda *command: subprocess.run(  # noqa: E731
            ["git", "-C", str(_ROOT), *command], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        return run("rev-parse", "--short=12", "HEAD") + ("+changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "version " + importlib.metadata.version("costate-lab")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary neighbour and rename: a reader (or a crash) never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="." + path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(folder: Path, rooms: tuple[str, ...] = ("records", "figures")) -> None:
    """Refuse an output folder, with its rooms, that cannot be made or written to, before any work is done."""
    try:
        for place in (folder, *(folder / room for room in rooms)):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written to ({error.strerror}): name another folder") from None


@dataclasses.dataclass(frozen=True)
class Point:
    """One run: a claim at one setting, one seed, one kind of device, one state of the code."""

    claim: str
    setting: Any
    seed: int
    device: str
    code: str

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides the numbers."""
        fields = {"claim": self.claim, "seed": self.seed, "device": self.device, "code": self.code}
        return {**fields, "setting": dataclasses.asdict(self.setting)}

    @property
    def id(self) -> str:
        """Hash of the key: the record's file name."""
        return digest(canonical(self.key))

    @property
    def stream(self) -> int:
        """Seed of this point's own generator: of claim, setting and seed only, whatever runs beside it or before."""
        fields = {"claim": self.claim, "seed": self.seed, "setting": dataclasses.asdict(self.setting)}
        return int(digest(canonical(fields)), 16) % 2**63

    def path(self, out: Path) -> Path:
        """Where the record lies under the output folder."""
        return out / "records" / self.claim / f"{self.id}.json"


def save_record(point: Point, out: Path, rows: list[dict[str, Any]], seconds: float) -> None:
    """Write the finished point."""
    body = {**point.key, "rows": rows, "seconds": round(seconds, 3), "versions": versions(), "revision": revision()}
    write_atomically(point.path(out), json.dumps({**body, "checksum": digest(canonical(body))}, indent=1))


def load_record(point: Point, out: Path) -> dict[str, Any] | None:
    """The record of a finished point, or None where there is none; raises InputError, naming the file, if damaged."""
    return read_record(point.path(out))


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file, its checksum verified; None where there is no file."""
    try:
        record = json.loads(path.read_text())
        checksum = record.pop("checksum")
        if checksum != digest(canonical(record)):
            raise ValueError("checksum")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise InputError(f"record {path} is damaged") from None
    return dict(record)
