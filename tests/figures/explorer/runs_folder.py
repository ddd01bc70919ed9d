"""A folder of results that holds a made-up impact study: records, rows and verdicts, as a check leaves them."""

import json

from figures.harness.code import digest
from figures.harness.judge import Run, Verdict
from figures.harness.records import canonical
from figures.harness.verdicts import write_verdicts
from tests.figures.impact.made_up_study import product, study


def runs_folder(out, most=None, claim="impact_inverted_u"):
    """Write the folder; with `most` the trajectories end after so many checkpoints.

    Args:
        out: the folder.
        most: number of checkpoints that are kept; None for all.
        claim: whose verdict there is.

    Returns:
        The rows of the study.
    """
    rows = study(product)
    rows = rows if most is None else rows[rows["checkpoint"] < most]
    plain = [{k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")]
    body = {"claim": "impact_runs", "seed": 0, "device": "cpu", "code": "", "setting": {}, "rows": plain}
    record = out / "records" / "impact_runs" / "one.json"
    for path in (record, out / "rows" / "impact_runs.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({**body, "checksum": digest(canonical(body))}))
    rows.to_csv(out / "rows" / "impact_runs.csv", index=False)
    run = Run("quick", "cpu", 0, [], [str(record.relative_to(out))], {}, "")
    write_verdicts(out, [Verdict(claim, "", "holds", "holds", True, "", {}, {}, run=run)])
    return rows
