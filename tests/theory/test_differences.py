"""Central differences: exact where promised, second order elsewhere."""

import numpy as np
import pytest
import torch

from tests.oracles import numerical_gradient
from tests.theory.cases import tensor
from theory.differences import central_gradient

X = tensor([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]])


def bumpy(x):
    return torch.sin(x[..., 0]) * torch.exp(x[..., 1]) + x[..., 2] ** 3 * x[..., 0]


@pytest.mark.parametrize("step", [1e-3, 1.0, 30.0])
def test_a_quadratic_has_no_truncation_error_at_any_step(step):
    H = tensor([[2.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 4.0]])
    gradient = central_gradient(lambda x: ((x @ H) * x).sum(-1) + 3 * x[..., 0], X, step)
    torch.testing.assert_close(gradient, 2 * X @ H + tensor([3.0, 0.0, 0.0]), rtol=1e-9, atol=1e-9)


def test_equals_autograd_and_the_oracle_for_every_row_and_component():
    gradients = central_gradient(bumpy, X)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(bumpy(x).sum(), x)
    torch.testing.assert_close(gradients, slope, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(gradients[0], numerical_gradient(lambda v: bumpy(tensor(v)), X[0]), rtol=1e-7, atol=1e-8)


def test_error_falls_with_the_square_of_the_step():
    exact = torch.cos(X[0])
    errors = [
        float((central_gradient(lambda x: torch.sin(x).sum(-1), X[0], h) - exact).norm()) for h in (0.2, 0.1, 0.05)
    ]
    ratios = np.divide(errors[:-1], errors[1:])
    np.testing.assert_allclose(ratios, 4.0, rtol=0.02)
    assert errors[0] > 1e-3, "the control: a coarse step is visibly wrong for a sine"


def test_a_vector_without_batch_keeps_its_shape():
    assert central_gradient(bumpy, X[0]).shape == (3,)
