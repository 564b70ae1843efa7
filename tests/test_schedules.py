"""Schedules: PyTorch's numbers, and the theory of momentum against simulated quadratics."""

import numpy as np
import pytest

from kerasrecipes.schedules import OneCycle, one_cycle, theory


def test_one_cycle_is_pytorchs():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=50)
    rate, momentum = one_cycle(0.3, 50)
    for step in range(50):
        group = optimizer.param_groups[0]
        np.testing.assert_allclose(float(rate(step)), group["lr"], rtol=1e-4)
        np.testing.assert_allclose(float(momentum(step)), group["momentum"], rtol=1e-5)
        optimizer.step()
        if step < 49:
            theirs.step()


def test_one_cycle_stays_at_its_end():
    schedule = OneCycle(0.1, 20)
    assert float(schedule(19)) == float(schedule(10_000)) == pytest.approx(0.1 / 25 / 1e4, rel=1e-3)


def simulate(eigenvalues, rate, momentum, steps):
    """Largest entries of the error of the heavy ball on a diagonal quadratic, started at ones."""
    w, z, norms = np.ones(len(eigenvalues)), np.zeros(len(eigenvalues)), []
    for _ in range(steps):
        z = momentum * z + eigenvalues * w
        w = w - rate * z
        norms.append(np.abs(w).max())
    return np.array(norms)


@pytest.mark.parametrize("condition, descent, heavy_ball", [(10, 69, 27), (100, 691, 95)])
def test_steps_to_a_millionth(condition, descent, heavy_ball):
    """Steps to a 1e-6 of the error on 50 log-spaced eigenvalues; the closed forms predict them."""
    eigenvalues = np.geomspace(1, condition, 50)
    plain = theory.optimal_gradient_descent(1, condition)
    best = theory.optimal_momentum(1, condition)
    for optimum, steps in ((plain, descent), (best, heavy_ball)):
        norms = simulate(eigenvalues, *optimum[:2], 2 * steps)
        reached = int(np.argmax(norms < 1e-6)) + 1
        assert reached == pytest.approx(steps, rel=0.1)


def test_the_rates_of_convergence_are_those_of_simulation():
    plain = theory.optimal_gradient_descent(1, 100)
    norms = simulate(np.array([1.0, 100.0]), *plain[:2], 400)
    assert norms[399] / norms[398] == pytest.approx(plain.convergence_rate, rel=1e-9)
    best = theory.optimal_momentum(1, 100)
    norms = simulate(np.array([1.0, 100.0]), *best[:2], 400)
    # At the optimum the matrices are defective: the error is k * rate^k, not rate^k.
    assert (norms[399] / 400) ** (1 / 400) == pytest.approx(best.convergence_rate, rel=0.01)


@pytest.mark.parametrize(
    "rate, momentum, phase",
    [
        (0.001, 0.5, "monotone"),
        (0.5, 0.81, "ripples"),
        (3.0, 0.64, "ripples"),
        (3.25, 0.64, "oscillations"),
        (3.29, 0.64, "divergence"),
    ],
)
def test_phases_show_in_simulation(rate, momentum, phase):
    assert theory.momentum_phase(rate, momentum, 1.0) == phase
    w, z, path = 1.0, 0.0, []
    for _ in range(4000):
        z = momentum * z + w
        w = w - rate * z
        path.append(w)
    if phase == "divergence":
        assert abs(path[-1]) > 1e3
        return
    assert abs(path[-1]) < 1e-3
    signs = np.sign([p for p in path if abs(p) > 1e-200][2:])
    changes = np.mean(signs[1:] != signs[:-1])
    if phase == "monotone":
        assert changes == 0
    elif phase == "oscillations":
        assert changes == 1
    else:
        assert 0 < changes < 1
        assert theory.momentum_rate(rate, momentum, 1.0) == pytest.approx(momentum**0.5)


def test_critical_damping_is_the_border_of_ripples():
    rate = 0.09
    border = (1 - rate**0.5) ** 2
    assert theory.momentum_phase(rate, border - 1e-6, 1.0) == "monotone"
    assert theory.momentum_phase(rate, border + 1e-6, 1.0) == "ripples"
    radii = [theory.momentum_rate(rate, b, 1.0) for b in np.linspace(0, 0.99, 991)]
    assert np.linspace(0, 0.99, 991)[np.argmin(radii)] == pytest.approx(border, abs=1e-3)
