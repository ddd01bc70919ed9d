"""Records made by hand, for what prints, draws and compares them."""

import math

from figures.audit.finding import Example, Finding
from figures.audit.record import Audit, Shown

BATCH = Example([1.0, 0.0], [[True, True], [True, False]], [0, 0], [[0.5, 0.5], [-0.5, 0.0]], [[0.4, 0.4], [-0.5, 0.0]])
RATIOS = [-1.0, -0.5, 0.0, 0.5, 1.0]
CLIPPED = {"A > 0": [0.37, 0.61, 1.0, 0.0, 0.0], "A < 0": [0.0, 0.0, 1.0, 1.65, 2.7]}
SHOWN = Shown(BATCH, "leave one out; row sum", RATIOS, CLIPPED, {"2": 0.0, "3": 0.1}, {"2": 1.0, "3": 0.9}, "a world")


def findings(bias=0.4, silent=0.0, recipe="population std; row mean"):
    """One of each kind that a table knows how to name."""
    told = {"bias": bias, "unbiased": not bias}
    shout = Finding("silent groups", "defect", "equal rewards get weights", silent, example=BATCH)
    still = Finding("silent groups", "holds", "equal rewards give nothing", 0.0)
    return (
        Finding("climbs", "holds", "the mean has a cosine of 1 <to> the gradient", 0.5),
        Finding("padding", "holds", "places without a token change nothing", 0.0),
        shout if silent else still,
        Finding("clip on the right side", "holds", "silent above 1.2", facts={"low": 0.2, "high": math.inf}),
        Finding(
            "mean update",
            "choice",
            f"off its direction by {bias}",
            bias,
            facts=told,
        ),
        Finding("recipe", "choice", recipe, 0.0, facts={"recipe": recipe, "residual": 0.0, "factor": 1.0}),
        Finding("split", "choice", "rows: refused", facts={"groups": "same", "rows": "refused"}),
    )


def record(name, shown=SHOWN, version="1.2", **kind):
    return Audit(name, findings(**kind), 1.0, shown, version)
