"""Value-gradient learning, VGL(lam), under a fixed linear policy: the law of its targets and where its updates lead.

A critic `G_t(s) = X_t s` of the value gradient is fitted to `g_t = Dr_t + gamma Df_t' (lam g_{t+1} + (1 - lam) G_{t+1})`,
`g_T = d r_T/d s_T`, with total derivatives. Linear costs and an offset of the policy add a constant to the target and change
nothing here.

Source: M. Fairbank and E. Alonso, "Value-gradient learning" (2012).

Theory page, section 6: "Value-gradient learning with a fixed gain".
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from envs.arguments import check_semidefinite, short, takes_numbers
from envs.linear_quadratic import LinearQuadratic
from envs.world import InputError
from theory.continuous.gains import check_gain, check_keeps, gain_at, spectral_radius
from theory.continuous.lyapunov import discounted_sum, stage_cost


@takes_numbers("K", "X")
def mean_target(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], X: Float[Tensor, "*critic_time n n"], lam: float
) -> Float[Tensor, "*times n n"]:
    """The matrix of the mean target, `E[g_t | s_t = s] = Y_t s`: one sweep of learning turns X into Y.

    `Y_t = -2 M_t + gamma Phi_t' (lam Y_{t+1} + (1 - lam) X_{t+1}) Phi_t`, `Y_T = -2 Q_f`, `M = Q - N K - K'N' + K'RK`;
    endless: the fixed point of the same line. The only X that it leaves as it is, at every lam, is `-2 P`, P the quadratic
    part of the value. X need not be symmetric. Assumes noise of zero mean.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        X: the critic, one matrix, or one for each time 0 ... T of a finite horizon.
        lam: lambda, in [0, 1].

    Returns:
        Y at the times 0 ... T, or once for an endless world.

    Raises:
        InputError: K or X does not fit, lam lies outside [0, 1], the world does not keep its value, or it is endless and
            lam gamma rho(Phi)^2 >= 1.
    """
    check_keeps(world, "value")
    K, X, world = check_gain(world, K), check_critic(world, X), world.to()
    check_lam(lam)
    if world.horizon is None:
        _check_converges(world, K, lam)
        Phi = world.A - world.B @ K
        source = -2 * stage_cost(world, K) + (1 - lam) * world.gamma * Phi.mT @ X @ Phi
        return discounted_sum((lam * world.gamma) ** 0.5 * Phi, source)
    targets = [-2 * world.Q_f]
    for t in reversed(range(world.horizon)):
        Phi = world.A - world.B @ gain_at(K, t)
        ahead = lam * targets[0] + (1 - lam) * _critic_at(X, t + 1)
        targets.insert(0, -2 * stage_cost(world, gain_at(K, t)) + world.gamma * Phi.mT @ ahead @ Phi)
    return torch.stack(targets)


@takes_numbers("K", "X")
def target_covariance(
    world: LinearQuadratic, K: Float[Tensor, "*time m n"], X: Float[Tensor, "*critic_time n n"], lam: float, t: int = 0
) -> Float[Tensor, "n n"]:
    """Covariance of the target given the state, `Cov(g_t | s_t)`, the same for every state.

    With `Z = lam Y_{t+1} + (1 - lam) X_{t+1}` (`mean_target`) and `L = gamma Phi'Z B + 2 (K'R - N)`

        Cov_t = L S_x L' + gamma^2 Phi'Z S_w Z'Phi + (gamma lam)^2 Phi' Cov_{t+1} Phi,    Cov_T = 0;

    endless: the fixed point. At lam = 1 it is the costate's, whatever X is (`costate_covariance`).
    Assumes additive noise of zero mean.

    Args:
        world: one linear-quadratic system.
        K: the gain, one for all steps or one for each.
        X: the critic, one matrix, or one for each time 0 ... T of a finite horizon.
        lam: lambda, in [0, 1].
        t: the time of the target; without effect in an endless world.

    Returns:
        The covariance.

    Raises:
        InputError: t lies outside 0 ... T, the world does not keep its costate covariance, or as in `mean_target`.
    """
    check_keeps(world, "costate covariance")
    K, X, world, Y = check_gain(world, K), check_critic(world, X), world.to(), mean_target(world, K, X, lam)
    if world.horizon is None:
        Phi, own = _own_noise(world, K, lam * Y + (1 - lam) * X)
        return discounted_sum(world.gamma * lam * Phi, own)
    if not 0 <= t <= world.horizon:
        raise InputError(f"t must lie in 0 ... {world.horizon}; got {t!r}")
    covariance = torch.zeros_like(world.A)
    for j in reversed(range(t, world.horizon)):
        Phi, own = _own_noise(world, gain_at(K, j), lam * Y[j + 1] + (1 - lam) * _critic_at(X, j + 1))
        covariance = own + (world.gamma * lam) ** 2 * Phi.mT @ covariance @ Phi
    return covariance


def _own_noise(world: LinearQuadratic, K: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    """The closed loop of one step, and the covariance that the noise of this step alone adds to the target."""
    Phi = world.A - world.B @ K
    back = world.gamma * Phi.mT @ Z
    L = back @ world.B + 2 * (K.mT @ world.R - world.N)
    return Phi, L @ world.S_x @ L.mT + back @ world.S_w @ back.mT


@takes_numbers("K")
def sweep_spectrum(
    world: LinearQuadratic, K: Float[Tensor, "m n"], lam: float, antisymmetric: bool = False
) -> Complex[Tensor, "rates"]:
    """Rates by which one sweep of an endless world, `X -> mean_target(X)`, multiplies the error `X + 2 P` of the critic.

    `(1 - lam) l / (1 - lam l)`, with `l = gamma phi_i phi_j` for all pairs of eigenvalues of Phi. An antisymmetric error (a
    curl) stays antisymmetric and has the rates of the pairs i < j. Where the largest rate is 1 or more in size, repeated sweeps
    do not converge.

    Args:
        world: one endless linear-quadratic system.
        K: the gain.
        lam: lambda, in [0, 1].
        antisymmetric: the rates of antisymmetric errors alone.

    Returns:
        n^2 complex rates, or n (n - 1) / 2, the largest in size first.

    Raises:
        InputError: the horizon is finite, K does not fit, lam lies outside [0, 1], or lam gamma rho(Phi)^2 >= 1.
    """
    world, K, lam = _of_endless(world, K, lam)
    phi = torch.linalg.eigvals(world.A - world.B @ K)
    products = world.gamma * phi[:, None] * phi
    i, j = torch.triu_indices(world.n, world.n, 1)
    chosen = products[i, j] if antisymmetric else products.flatten()
    rates: Tensor = (1 - lam) * chosen / (1 - lam * chosen)
    return rates[rates.abs().argsort(descending=True, stable=True)]


@takes_numbers("K", "Omega", "Sigma")
def update_abscissa(
    world: LinearQuadratic,
    K: Float[Tensor, "m n"],
    lam: float,
    Omega: Float[Tensor, "n n"],
    Sigma: Float[Tensor, "n n"],
) -> float:
    """Largest real part of the spectrum of the mean update `dX = Omega (mean_target(X) - X) Sigma`: > 0 means it diverges.

    In row-major order of X the update is `kron(Omega, Sigma) (I - lam L)^{-1} (L - I)`, `L = gamma kron(Phi', Phi')`, of
    `X + 2 P`. It is < 0 at lam = 1 for all positive definite Omega and Sigma, and for every lam where Omega = I and Sigma is
    the stationary second moment (`stationary_moment`).

    Args:
        world: one endless linear-quadratic system.
        K: the gain.
        lam: lambda, in [0, 1].
        Omega: weight of the update, positive semidefinite.
        Sigma: second moment of the states that are learned from, positive semidefinite.

    Returns:
        The abscissa, in units of Omega times Sigma.

    Raises:
        InputError: the horizon is finite, Omega or Sigma is not positive semidefinite or has another shape, or as in
            `sweep_spectrum`.
    """
    world, K, lam = _of_endless(world, K, lam)
    Omega, Sigma = (check_weight(world, name, given) for name, given in (("Omega", Omega), ("Sigma", Sigma)))
    Phi, one = world.A - world.B @ K, torch.eye(world.n**2, dtype=torch.float64)
    L = world.gamma * torch.kron(Phi.mT.contiguous(), Phi.mT.contiguous())
    field = torch.kron(Omega, Sigma) @ torch.linalg.solve(one - lam * L, L - one)
    return float(torch.linalg.eigvals(field).real.max())


@takes_numbers("K")
def stationary_moment(world: LinearQuadratic, K: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """Second moment of the states in the long run, `Sigma = Phi Sigma Phi' + B S_x B' + S_w`, without linear costs' offset.

    Args:
        world: one linear-quadratic system; its horizon and its start have no effect.
        K: the gain, the same at every step.

    Returns:
        Sigma, symmetric.

    Raises:
        InputError: K does not fit, or rho(Phi) >= 1, where the states do not come to a stationary law.
    """
    check_keeps(world, "state moments")
    K, world = check_gain(world.replace(horizon=None), K), world.to()
    Phi, noise = world.A - world.B @ K, world.B @ world.S_x @ world.B.mT + world.S_w
    if not spectral_radius(Phi) < 1:
        raise InputError(f"K must make rho(A - B K) < 1 for a stationary law; got {spectral_radius(Phi):.6g}")
    Sigma = discounted_sum(Phi.mT, noise)
    return (Sigma + Sigma.mT) / 2


def check_lam(lam: float) -> None:
    """Refuse a lambda outside [0, 1].

    Args:
        lam: lambda.

    Raises:
        InputError: lam is no number in [0, 1].
    """
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {short(lam)}")


def check_critic(world: LinearQuadratic, X: Tensor) -> Tensor:
    """A critic's matrices in float64, refused where they do not fit the world.

    Args:
        world: one linear-quadratic system.
        X: one matrix, or one for each time 0 ... T of a finite horizon.

    Returns:
        X in float64.

    Raises:
        InputError: X has another shape or holds NaN or infinity.
    """
    shapes = [(world.n, world.n)] + ([(world.horizon + 1, world.n, world.n)] if world.horizon else [])
    if tuple(X.shape) not in shapes:
        raise InputError(f"X must have shape {' or '.join(map(str, shapes))}; got {tuple(X.shape)}")
    if not bool(X.isfinite().all()):
        raise InputError("X holds NaN or infinity; every entry must be a finite number")
    return X.double()


def check_weight(world: LinearQuadratic, name: str, given: Tensor) -> Tensor:
    """A positive semidefinite matrix of the states in float64.

    Args:
        world: one linear-quadratic system.
        name: of the argument in the error.
        given: the matrix.

    Returns:
        The matrix in float64.

    Raises:
        InputError: it has another shape, holds NaN or infinity, or is not positive semidefinite.
    """
    if tuple(given.shape) != (world.n, world.n) or not bool(given.isfinite().all()):
        raise InputError(f"{name} must be a finite matrix of shape {(world.n, world.n)}; got {tuple(given.shape)}")
    check_semidefinite(name, given)
    return given.double()


def _critic_at(X: Tensor, t: int) -> Tensor:
    return X[t] if X.ndim == 3 else X


def _of_endless(world: LinearQuadratic, K: Tensor, lam: float) -> tuple[LinearQuadratic, Tensor, float]:
    check_keeps(world, "value")
    if world.horizon is not None:
        raise InputError(
            "horizon must be None here: with a finite horizon the error is 0 after T + 1 sweeps at any lam"
        )
    K, world = check_gain(world, K), world.to()
    check_lam(lam)
    _check_converges(world, K, lam)
    return world, K, float(lam)


def _check_converges(world: LinearQuadratic, K: Tensor, lam: float) -> None:
    growth = lam * world.gamma * spectral_radius(world.A - world.B @ K) ** 2
    if not growth < 1:
        raise InputError(
            f"K makes targets infinite for horizon=None: lam gamma rho(A - B K)^2 = {growth:.6g}, needs < 1"
        )
