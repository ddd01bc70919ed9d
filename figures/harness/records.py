"""The result store: one JSON file per finished point, named by the hash of its settings, written whole or not at all."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from envs.world import InputError
from figures.harness.code import digest, revision, versions


def canonical(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal settings give equal text."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary neighbour and rename: a reader (or a crash) never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="." + path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk names no file
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(folder: Path, subfolders: tuple[str, ...] = ("records", "rows", "figures")) -> None:
    """Refuse an output folder that cannot be made or written to, subfolders included, before any work is done."""
    try:
        for place in (folder, *(folder / name for name in subfolders)):
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
        """Seed of this point's own generator: of claim, setting and seed only, whatever runs beside it or before.

        A knob (`figures.harness.claim.knob`) at its default is left out.
        """
        fields = {"claim": self.claim, "seed": self.seed, "setting": _named(self.setting)}
        return int(digest(canonical(fields)), 16) % 2**63

    def path(self, out: Path) -> Path:
        """Where the record lies under the output folder."""
        return out / "records" / self.claim / f"{self.id}.json"


def _named(setting: Any) -> dict[str, Any]:
    """The fields of a setting that name its random stream: all but the knobs that are at their default."""
    still = {
        f.name for f in dataclasses.fields(setting) if "knob" in f.metadata and getattr(setting, f.name) == f.default
    }
    return {name: value for name, value in dataclasses.asdict(setting).items() if name not in still}


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
