"""Lists, numpy arrays and tensors give the same answers, in double precision, and what is no number is refused by its name."""

import dataclasses

import numpy as np
import pytest
import torch

from envs.lq_variants import quantised_action, state_scaled_noise, step_reward
from tests.envs.refusals import refused
from tests.typecheck import unchecked
from theory.continuous.attention import history_gain, mean_costate_norm
from theory.continuous.broken_assumptions import closed_scale_costate, quantised_means, step_reward_gradient
from theory.groups.objectives import win_rate
from theory.groups.outcomes import group_multisets
from theory.groups.targets import expected_maximum
from theory.groups.variance import hoeffding
from theory.impact import best_of, kl_headroom
from theory.tokens.diameter import diameter
from theory.tokens.softmax_bounds import (
    embedding_spread_bound,
    entropy,
    gini,
    inf_to_one_bound,
    sandwich_bound,
    spread_factor,
)

P, R, E = [0.25, 0.25, 0.5], [0, 1, 3], [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
CALLS = {
    "win_rate": (win_rate, ("R", R), ("p", P)),
    "hoeffding": (lambda p, R, s: hoeffding(p, R, s, 3), ("p", P), ("R", R), ("s", E)),
    "expected_maximum": (lambda p, R: expected_maximum(p, R, 2), ("p", P), ("R", R)),
    "best_of": (lambda p, R: best_of(p, R, 2), ("p", P), ("R", R)),
    "kl_headroom": (lambda p, R: kl_headroom(p, R, 0.1), ("p", P), ("R", R)),
    "group_multisets": (lambda p: group_multisets(p, 2), ("p", P)),
    "diameter": (diameter, ("w", E)),
    "entropy": (entropy, ("p", P)),
    "gini": (gini, ("p", P)),
    "spread_factor": (spread_factor, ("G", 0.25)),
    "inf_to_one_bound": (inf_to_one_bound, ("p", P)),
    "embedding_spread_bound": (embedding_spread_bound, ("p", P), ("E", E)),
    "sandwich_bound": (lambda p, E: sandwich_bound(p, E, E), ("p", P), ("E", E)),
    "history_gain": (history_gain, ("gains", [[[[0.5]]], [[[0.25]]]])),
    "mean_costate_norm": (mean_costate_norm, ("P", [[1.0, 0.5], [0.5, 2.0]]), ("Sigma", [[1.0, 0.0], [0.0, 0.5]])),
    "step_reward_gradient": (
        lambda K, state: step_reward_gradient(step_reward().to(), K, state),
        ("K", [[0.5]]),
        ("state", [1.0]),
    ),
    "quantised_means": (
        lambda K, state: quantised_means(quantised_action(horizon=3).replace(S_w=[[0.0]]).to(), K, state),
        ("K", [[0.5]]),
        ("state", [1.0]),
    ),
    "closed_scale_costate": (lambda K: closed_scale_costate(state_scaled_noise().to(), K).P, ("K", [[0.5]])),
}
FORMS = {
    "numpy": np.asarray,
    "single precision": lambda x: np.asarray(x, np.float32),  # the entries have few digits
    "list": lambda x: x,
}


def flat(answer):
    answer = vars(answer).values() if dataclasses.is_dataclass(answer) else answer
    parts = [answer] if isinstance(answer, torch.Tensor | float) else list(answer)
    return torch.cat([torch.as_tensor(x, dtype=torch.float64).flatten() for x in parts])


@unchecked()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLS)
def test_what_people_bring_gives_the_answer_of_double_tensors(name, form):
    function, *arguments = CALLS[name]
    truth = flat(function(*(torch.tensor(x, dtype=torch.float64) for _, x in arguments)))
    assert bool(truth.isfinite().all())
    torch.testing.assert_close(flat(function(*(FORMS[form](x) for _, x in arguments))), truth, rtol=1e-12, atol=1e-14)


@unchecked()
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_array_of_numbers_is_refused_by_its_name(name):
    function, *arguments = CALLS[name]
    for i, (argument, _) in enumerate(arguments):
        with refused(argument):
            function(*("words" if i == j else x for j, (_, x) in enumerate(arguments)))
