"""Write the table of what claims cost, which `costate list` and the forecasts use, from the records of finished runs.

    costate check --preset tiny --out A; costate check --out B; python -m benchmarks.claim_costs A B

The folders must hold records of this machine: the table names its processor and today's date.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from figures.harness.claim import PRESETS, Preset
from figures.harness.costs import TABLE, Costs, measured, setting_key
from figures.harness.records import write_atomically
from figures.harness.registry import load_claims


def machine() -> str:
    """Name of the processor, and how many cores there are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else name}, {os.cpu_count()} cores"


def gathered(folders: list[Path]) -> Costs:
    """Everything that was measured in these folders, the later ones where two know the same."""
    costs = Costs(machine=machine(), date=datetime.date.today().isoformat())
    for folder in folders:
        found = measured(folder)
        costs.points |= {key: round(seconds, 2) for key, seconds in found.points.items()}
        costs.drawing |= found.drawing
    costs.presets = {preset: sums for preset in PRESETS if (sums := sums_of(costs, preset))}
    return costs


def sums_of(costs: Costs, preset: Preset) -> dict[str, float]:
    """Seconds of every claim of which all points of the preset were measured."""
    sums = {}
    for claim in load_claims([]):
        keys = [setting_key(claim.recorded_as, "cpu", dataclasses.asdict(x)) for x in claim.settings(preset)]
        if all(key in costs.points for key in keys):
            sums[claim.name] = round(sum(costs.points[key] for key in keys), 1)
    return sums


def main() -> None:
    """Write the table; refuse folders without records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT", help="results of `costate check`")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help="where it is written")
    options = parser.parse_args()
    costs = gathered(options.folders)
    if not costs.points:
        sys.exit("claim_costs: these folders hold no records: run `costate check` first")
    write_atomically(options.table, json.dumps(vars(costs), indent=0, sort_keys=True) + "\n")
    print(f"{len(costs.points)} settings, presets {', '.join(sorted(costs.presets))}: {options.table}")


if __name__ == "__main__":
    main()
