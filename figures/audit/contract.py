"""How an audited loss is called: by the names of its parameters, as pytest calls a test with its fixtures.

A loss is any function whose parameters are among `NAMES` and that returns a scalar to be minimised. A second function, if
there is one, takes the same names and gives the advantages, from the whole batch before it is cut into micro-batches.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from envs.world import InputError
from figures.audit.rows import Rows

LEVELS = ("log_probs", "entropy", "logits")  # what carries a gradient
NAMES = (
    *("log_probs", "old_log_probs", "ref_log_probs", "rewards", "returns", "advantages", "mask", "group", "ended"),
    *("entropy", "whole", "logits", "tokens", "prompt"),
)
Loss = Callable[..., Any]


class Slopes(NamedTuple):
    """A loss, and minus its slopes: the weights of the update `sum w grad log pi + u grad H + G grad logits`.

    Attributes:
        loss: the scalar.
        weights: w, of the log-probabilities; of a loss of logits, what of its slopes has the form w (onehot - pi).
        entropy: u, of the entropies; None where the loss does not take them.
        logits: all slopes of a loss of logits; None for a loss of log-probabilities.
    """

    loss: float
    weights: Float[Tensor, "rows T"]
    entropy: Float[Tensor, "rows T"] | None = None
    logits: Float[Tensor, "rows places V"] | None = None


class Subject(Protocol):
    """What is audited: a user's function, or a library's loss behind an adapter.

    Attributes:
        name: of the loss.
        asks: names of what it takes.
        adjacent: whether the rows of a group must stand together, all groups of one size.
    """

    name: str
    asks: frozenset[str]
    adjacent: bool

    def slopes(self, rows: Rows, parts: Sequence[Tensor] | None = None) -> Slopes:
        """The loss and its weights, of the whole batch or as the mean over micro-batches.

        Args:
            rows: the batch.
            parts: numbers of the rows of each micro-batch; None for the batch in one piece.

        Returns:
            The loss and the weights, on the rows of the batch.
        """
        ...


@dataclass(frozen=True)
class Whole:
    """The batch before it was cut, for losses that divide by its size.

    Attributes:
        rows: number of its rows.
        groups: number of its groups.
        tokens: number of its tokens.
        advantages: of all its rows; None where there is no second function.
        batch: all its tables.
    """

    rows: int
    groups: int
    tokens: int
    advantages: Tensor | None
    batch: Rows


class NamedLoss:
    """A loss that is called by the names of its parameters.

    Args:
        loss: the function.
        advantage: gives the advantages, (rows,) or (rows, T); None where the loss takes none.
        name: how the loss is called in tables; by default its own name.
        taken: names that the loss takes; by default those of its parameters.

    Raises:
        InputError: a parameter without a default has a name that is not among `NAMES`, the loss takes no quantity that
            carries a gradient, or it takes advantages and there is no second function (or the other way round).
    """

    adjacent = False

    def __init__(
        self, loss: Loss, advantage: Loss | None = None, name: str | None = None, taken: Sequence[str] | None = None
    ):
        self.loss, self.advantage = loss, advantage
        self.name: str = name or str(getattr(loss, "__name__", type(loss).__name__))
        self.taken = _names(loss, "loss") if taken is None else tuple(taken)
        self.of_advantage = () if advantage is None else _names(advantage, "advantage")
        self.asks = frozenset(self.taken) | frozenset(self.of_advantage)
        if not set(self.taken) & {"log_probs", "logits"}:
            raise InputError(f"loss takes neither log_probs nor logits, so it has no gradient; it takes {self.taken}")
        if "advantages" in self.of_advantage or "whole" in self.of_advantage:
            raise InputError("advantage is computed from the whole batch: it may take neither advantages nor whole")
        if ("advantages" in self.taken or "whole" in self.taken) < (advantage is not None):
            raise InputError(
                "advantage is given, but loss takes no advantages: name a parameter of the loss advantages"
            )
        if "advantages" in self.taken and advantage is None:
            raise InputError("loss takes advantages: give a second function of rewards, mask and group that makes them")

    def slopes(self, rows: Rows, parts: Sequence[Tensor] | None = None) -> Slopes:
        """The loss and its weights, of the whole batch or as the mean over micro-batches.

        Args:
            rows: the batch.
            parts: numbers of the rows of each micro-batch; None for the batch in one piece.

        Returns:
            The loss and the weights.

        Raises:
            InputError: the loss gives no scalar, has no gradient, or changes its inputs.
        """
        advantages = None if self.advantage is None else self._call(self.advantage, self.of_advantage, rows, {})
        if advantages is not None and (not isinstance(advantages, Tensor) or len(advantages) != len(rows.group)):
            raise InputError("advantage must give a tensor with one entry, or one row of entries, for each row")
        whole = Whole(len(rows.group), len(rows.group.unique()), int(rows.mask.sum()), _constant(advantages), rows)
        pieces = [torch.arange(len(rows.group))] if parts is None else parts
        total, w, u = 0.0, torch.zeros_like(rows.log_probs), torch.zeros_like(rows.log_probs)
        G = torch.zeros_like(rows.logits)
        for index in pieces:
            own = rows.take(index)
            given = {"whole": whole, "advantages": None if advantages is None else _constant(advantages[index])}
            loss, slopes = self._differentiated(own, given)
            total += loss / len(pieces)
            for table, name in ((w, "log_probs"), (u, "entropy"), (G, "logits")):
                if name in slopes:
                    table[index] -= slopes[name].to(table) / len(pieces)
        entropy = u if "entropy" in self.taken else None
        if "logits" not in self.taken:
            return Slopes(total, w, entropy)
        return Slopes(total, w + _score_part(rows, G), entropy, G + _spread(rows, w))

    def _differentiated(self, rows: Rows, given: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
        """The loss of one micro-batch, and its slopes by name."""
        leaves = {name: getattr(rows, name).detach().clone().requires_grad_() for name in LEVELS if name in self.taken}
        with torch.enable_grad():
            loss = self._call(self.loss, self.taken, rows, {**given, **leaves})
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
                raise InputError(f"loss must return one floating-point number, a scalar tensor; got {_described(loss)}")
            if not loss.requires_grad:
                raise InputError(
                    "loss has no gradient in log_probs or logits: a ratio is detached, or they are not used"
                )
            slopes = torch.autograd.grad(loss.reshape(()), list(leaves.values()), allow_unused=True)
        return float(loss.detach()), {k: x for k, x in zip(leaves, slopes, strict=True) if x is not None}

    def _call(self, function: Loss, taken: tuple[str, ...], rows: Rows, given: dict[str, Any]) -> Any:
        """Call a function by its names, on copies whose changes are seen."""
        values = {name: given[name] if name in given else getattr(rows, name) for name in taken}
        mine = {k: x.clone() if isinstance(x, Tensor) and not x.requires_grad else x for k, x in values.items()}
        before = {k: x.detach().clone() for k, x in mine.items() if isinstance(x, Tensor)}
        answer = function(**mine)
        for name, x in before.items():
            if not torch.equal(x.nan_to_num(), mine[name].detach().nan_to_num()):
                raise InputError(f"loss changes its input {name}: work on a copy, {name}.clone()")
        return answer


def reward_weights(subject: Subject, rows: Rows) -> Float[Tensor, "rows T"]:
    """The weights that the rewards make, without those of a KL term: the reference is the policy itself.

    What is left of a KL term then, a constant in some losses, is what a batch without rewards has, and it is subtracted.

    Args:
        subject: the loss.
        rows: the batch.

    Returns:
        The weights.
    """
    if "ref_log_probs" not in subject.asks:
        return subject.slopes(rows).weights
    bare = replace(rows, ref_log_probs=rows.log_probs)
    return subject.slopes(bare).weights - subject.slopes(replace(bare, rewards=0 * rows.rewards)).weights


def _names(function: Loss, what: str) -> tuple[str, ...]:
    """Names of the parameters that are ours; others must have a default."""
    if not callable(function):
        raise InputError(f"{what} must be a function; got {_described(function)}")
    taken = []
    for name, p in inspect.signature(function).parameters.items():
        if name in NAMES and p.kind is not p.POSITIONAL_ONLY:
            taken.append(name)
        elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{what} asks for an unknown name {name!r}{hint} There are {', '.join(NAMES)}")
    return tuple(taken)


def _constant(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _described(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"{type(x).__name__}"


def _scores(rows: Rows) -> tuple[slice, Float[Tensor, "rows T V"]]:
    """The places whose next token is of the completion, and there the slope of log pi of this token in the logits."""
    places = slice(rows.prompt - 1, rows.prompt - 1 + rows.mask.shape[1])
    z, tokens = rows.logits[:, places], rows.tokens[:, rows.prompt :]
    scores = torch.nn.functional.one_hot(tokens, z.shape[-1]) - torch.softmax(z, -1)
    return places, torch.where(rows.mask[..., None], scores, 0.0)


def _score_part(rows: Rows, G: Tensor) -> Float[Tensor, "rows T"]:
    """w of the nearest slopes of the form `w grad log pi`."""
    places, scores = _scores(rows)
    norm = scores.square().sum(-1)
    part = (torch.where(scores != 0, scores * G[:, places], 0.0)).sum(-1)
    return torch.where(norm > 0, part / norm, G[:, places].sum(-1) * 0)


def _spread(rows: Rows, w: Tensor) -> Float[Tensor, "rows places V"]:
    """The slopes in the logits of weights of log-probabilities."""
    places, scores = _scores(rows)
    G = torch.zeros_like(rows.logits)
    G[:, places] = torch.where(scores != 0, w[..., None] * scores, 0.0)
    return G
