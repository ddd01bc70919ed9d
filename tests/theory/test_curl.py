"""The curl of update fields: known Jacobians, gradients of known functions, and what must not be taken for a gradient."""

import pytest
import torch

from envs.world import InputError
from theory.curl import curl, jacobian

A = torch.tensor([[1.0, 2.0, 0.0], [-0.5, 0.3, 1.0], [4.0, 0.0, -1.0]], dtype=torch.float64)
AT = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def gradient_of(f):
    return lambda x: torch.func.grad(f)(x)


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_a_linear_field_has_the_curl_of_its_matrix(step):
    assert curl(lambda x: A @ x, AT, step) == pytest.approx(float((A - A.T).norm() / A.norm()), rel=1e-6)
    torch.testing.assert_close(jacobian(lambda x: A @ x, AT, step), A, rtol=1e-8, atol=1e-8)


def test_gradients_have_no_curl_and_a_factor_that_moves_gives_one():
    f = lambda x: torch.sin(x[0] * x[1]) + x[2] ** 3 * x[0]  # noqa: E731
    assert curl(gradient_of(f), AT) < 1e-9
    assert curl(lambda x: 5 * gradient_of(f)(x), AT) < 1e-9
    assert curl(lambda x: (1 + x[0]) * gradient_of(f)(x), AT) > 0.1
    assert curl(lambda x: f(x) * gradient_of(f)(x), AT) < 1e-9  # of f^2 / 2


def test_a_rotation_has_the_largest_curl_and_a_constant_none():
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert curl(lambda x: turn @ x, [1.0, 2.0]) == pytest.approx(2.0)
    assert curl(lambda x: torch.ones_like(x), [1.0, 2.0]) == 0.0


@pytest.mark.parametrize(
    ("field", "step", "text"),
    [
        (lambda x: x[:1], 1e-5, "^field must give 2 finite numbers"),
        (lambda x: x / 0, 1e-5, "^field must give 2 finite numbers"),
        (lambda x: x, 0.0, "^step must be a finite number > 0"),
    ],
)
def test_refusals(field, step, text):
    with pytest.raises(InputError, match=text):
        curl(field, torch.zeros(2, dtype=torch.float64), step)
