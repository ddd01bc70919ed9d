"""What the page draws of a loss: the weights of one batch, the slopes along the ratio, the bias by group size."""

from figures.audit.contract import Subject, reward_weights
from figures.audit.exact import groups_over, mean_update, places
from figures.audit.finding import example
from figures.audit.probes import probe
from figures.audit.ratio import Scan
from figures.audit.recipes import identify
from figures.audit.record import Shown

_SIZES = (2, 3, 4, 5)  # of the groups


def shown(subject: Subject, along: Scan | None) -> Shown:
    """The numbers behind the pictures of one loss.

    Args:
        subject: the loss.
        along: its slopes along the ratio; None where it has none.

    Returns:
        Plain numbers.
    """
    rows, fit, place = probe(2, 4, seed=1), identify(subject), places()[0]
    found = reward_weights(subject, rows)
    batch = example(rows, found, found if fit is None else fit.weights[1])
    sizes = _SIZES if groups_over(subject) != "coupled" else _SIZES[:1]
    means = {str(size): mean_update(subject, place, size) for size in sizes}
    return Shown(
        batch,
        "" if fit is None else fit.recipe,
        [] if along is None else along.log_ratio.tolist(),
        {} if along is None else {sign: x.tolist() for sign, x in along.row.items()},
        {size: mean.bias for size, mean in means.items()},
        {size: mean.scale for size, mean in means.items()},
        place.name,
    )
