"""Every way to keep part of a claim: one field of its settings at one value, or one label of its rows at one value."""

import dataclasses

from matplotlib.figure import Figure

from figures.harness.judge import Subset, judge
from figures.harness.records import load_record
from figures.harness.runner import plan
from figures.harness.verdicts import table, with_settings

NUMBERS = {"relation", "measured", "target", "standard_error", "scale", "tolerance", "margin", "samples"}
MOST = 12  # a column with more values holds measurements and no labels


def by_field(claim, out, seed):
    """(name, rows, subset) of all settings, and of those that have one value of one field; the same settings once."""
    points = plan([claim], "tiny", seed, "cpu")
    whole, records = [point.setting for point in points], {point.setting: load_record(point, out) for point in points}
    kinds = {"all": whole}
    for field in dataclasses.fields(whole[0]):
        for value in dict.fromkeys(getattr(setting, field.name) for setting in whole):
            kinds[f"{field.name} {value}"] = [setting for setting in whole if getattr(setting, field.name) == value]
    for name, chosen in once(kinds).items():
        rows = claim.rows_from(with_settings(records[setting] for setting in chosen))
        yield name, rows, Subset.of(chosen, whole)


def by_label(rows, fields):
    """The same for the rows that have one value of one label."""
    kinds = {"all": rows.index}
    for column in rows.columns.difference([*NUMBERS, *fields], sort=False):
        values = rows[column].dropna().unique()
        for value in values if len(values) <= MOST or column == "part" else ():
            kinds[f"{column} {value}"] = rows.index[rows[column] == value]
    for name, kept in once(kinds).items():
        yield name, rows.loc[list(kept)], Subset(left_out=(), changed=True)


def once(kinds):
    """Of names that mean the same things the first."""
    return {name: kept for kept, name in {tuple(kept): name for name, kept in reversed(kinds.items())}.items()}


def failures(claim, chosen, drawn=1):
    """What cannot be judged, stored, shown or drawn: its name and the error.

    Drawn is one selection in `drawn`, and not the first, which is all rows: that picture is `costate check`'s own.
    """
    found = []
    for i, (name, rows, subset) in enumerate(chosen):
        try:
            verdict = judge(claim, rows, subset)
            table([verdict])
            verdict.to_json()
            if i > 0 and i % drawn == 0:
                claim.draw(rows, Figure())
        except Exception as error:
            found.append((name, repr(error)))
    return found
