"""Perturbed gradient descent."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasrecipes.optimizers import PerturbedSGD
from kerasrecipes.optimizers.perturbed_sgd import uniform_in_ball
from tests.problems import saddle_model, steps_on, values


class Flat(keras.layers.Layer):
    """Two weights of equal shape and no gradient: only perturbations move them."""

    def build(self, input_shape):
        self.a = self.add_weight(shape=(4,), initializer="zeros", name="a")
        self.b = self.add_weight(shape=(4,), initializer="zeros", name="b")

    def call(self, inputs):
        return inputs + 0.0 * (ops.sum(self.a) + ops.sum(self.b))


def flat_model(jit_compile="auto", **settings):
    model = keras.Sequential([keras.Input((1,)), Flat()])
    settings = {"interval": 0, "radius": 0.1, "seed": 5, **settings}
    model.compile(PerturbedSGD(0.1, **settings), "mse", jit_compile=jit_compile)
    return model


def trajectory(model, steps):
    """The weights after each of `steps` steps of one fit."""
    seen = []
    record = keras.callbacks.LambdaCallback()
    record.on_train_batch_end = lambda batch, logs=None: seen.append(
        np.stack(values(record.model.trainable_variables))
    )
    nothing = np.zeros((steps, 1), "float32")
    model.fit(nothing, nothing, batch_size=1, shuffle=False, verbose=0, callbacks=[record])
    return np.array(seen)


def loss_at(a, b):
    return a**2 / 2 - b**2 / 2 + b**4 / 4


def test_escapes_the_strict_saddle_where_sgd_never_does():
    model, reached = saddle_model(PerturbedSGD(0.1, seed=0)), []
    model.optimizer.build(model.trainable_variables)
    start = values(model.optimizer.variables)
    for seed in range(20):
        for variable, value in zip(model.optimizer.variables, start, strict=True):
            variable.assign(value)
        model.optimizer.random_state.assign(np.array([seed, 0]))
        model.set_weights([np.array([1.0, 0.0])])
        steps_on(model, 400)
        reached.append(loss_at(*model.get_weights()[0]))
    np.testing.assert_allclose(reached, -0.25, atol=1e-3)
    model = saddle_model(keras.optimizers.SGD(0.1))
    steps_on(model, 400)
    assert model.get_weights()[0][1] == 0.0


@pytest.mark.parametrize("jit_compile", [True, False])
def test_within_one_fit_noise_is_new_each_time_and_for_each_variable(jit_compile):
    if jit_compile and keras.config.backend() == "torch":
        pytest.skip("torch.compile takes half a minute a model and breaks graphs (Keras)")
    path = trajectory(flat_model(jit_compile), 4)
    kicks = np.diff(path, axis=0, prepend=0)
    assert np.unique(kicks.round(7)).size == kicks.size
    assert (np.linalg.norm(kicks.reshape(4, -1), axis=1) <= 0.1 + 1e-6).all()


def test_same_seed_same_run_other_seed_other_run():
    one, same, other = (trajectory(flat_model(seed=s), 3) for s in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other).any()


def test_resumed_between_two_perturbations_it_goes_on_with_the_sequence(tmp_path):
    whole = trajectory(flat_model(interval=1, seed=None), 1)
    model = flat_model(interval=1, seed=None)
    whole = trajectory(model, 2)
    path = tmp_path / "middle.keras"
    with keras.saving.custom_object_scope({"Flat": Flat}):
        model.save(path)
        rest = trajectory(model, 4)
        resumed = keras.saving.load_model(path)
    np.testing.assert_array_equal(trajectory(resumed, 4), rest)
    assert len(np.unique(rest[:, 0, 0])) > 1
    assert not np.array_equal(whole[-1], rest[-1])


def test_at_least_interval_steps_lie_between_two_perturbations():
    path = trajectory(flat_model(interval=2), 7)
    moved = np.abs(np.diff(path, axis=0, prepend=0)).max(axis=(1, 2)) > 0
    assert moved.tolist() == [True, False, False, True, False, False, True]


def test_a_gradient_above_the_threshold_is_left_alone():
    model = saddle_model(PerturbedSGD(0.1, threshold=0.5, interval=0, radius=0.1, seed=0))
    steps_on(model, 7)  # the gradient 0.9^t stays above a half for seven steps
    w = values(model.trainable_variables)[0]
    np.testing.assert_allclose(w, [0.9**7, 0.0], rtol=1e-5)
    steps_on(model, 1)
    assert values(model.trainable_variables)[0][1] != 0


def test_noise_is_uniform_in_the_ball_of_all_weights_together():
    """In d dimensions the radius to the power d is uniform, and the direction is isotropic."""
    draws = keras.random.SeedGenerator(0)
    points = [
        np.concatenate([np.ravel(z) for z in values(uniform_in_ball([(2,), (1, 1)], 2.0, draws))])
        for _ in range(600)
    ]
    radii = np.linalg.norm(points, axis=1)
    share = (radii / 2.0) ** 3
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded by chance once in a thousand seeds.
    distance = np.abs(np.sort(share) - (np.arange(600) + 0.5) / 600).max()
    assert distance < 1.95 / np.sqrt(600)
    second = np.cov(np.transpose(points))
    np.testing.assert_allclose(second, np.eye(3) * 4 / 5, atol=0.16)
