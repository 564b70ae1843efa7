"""Path-SGD: steepest descent that does not see how units of a ReLU network are scaled.

How to use
    >>> import keras
    >>> from kerasrecipes.optimizers import PathSGD, path_scaling
    >>> layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> [scaling.shape for scaling in path_scaling(model)]
    [(4, 8), (8,), (8, 1), (1,)]
    >>> model.compile(PathSGD(model, learning_rate=0.01), loss="mse")

Suggested hyperparameters
    `learning_rate`: search anew, by powers of ten: the scalings are sums over all paths, far from
    1 in wide networks. `every`: 1; 10 or 100 where the scaling's own pass costs, which is that
    of one example. `momentum`: 0 to 0.9.

When not to use
    With normalization layers: they already ignore the scale of what is before them, and paths
    are not defined through them. With weights that start balanced, as those of Glorot or He do:
    it then gains little. In deep networks float32 may not hold squares of very large or very
    small weights.

Technical details
    An edge's scaling is the sum over all paths through it of the squares of the other weights on
    the path: the derivative, with respect to the edge's squared weight, of the network's summed
    output for inputs of ones, all weights squared and activations left out. So one forward and
    one backward pass give all scalings, with weights shared in convolutions too. A bias is an
    edge from a unit that is always 1. The step is momentum SGD's on gradient / scaling; where
    the scaling is 0 no path reaches the output, and the weight rests. Multiplying what enters a
    hidden unit by c > 0 and dividing what leaves it by c leaves the function of the network as
    it was after any number of steps. Average pooling is taken as a layer of fixed weights 1/k, not
    squared, as in the authors' code, which changes scalings by one common factor. Regularizers and
    weight decay break the invariance.

Attribution
    Neyshabur, Salakhutdinov, Srebro, Path-SGD: path-normalized optimization in deep neural
    networks, 2015, https://arxiv.org/abs/1506.02617, with p = 2.
"""

import math

import keras
import numpy as np
from keras import ops

from kerasrecipes import _backend
from kerasrecipes._checks import integer, number
from kerasrecipes._model.chain import chain, run


def path_scaling(model):
    """The sum over all paths through each weight of the other weights' squares.

    Args:
        model: built chain of Dense, convolution and average pooling layers with activations
            relu, leaky_relu or linear (any after the last layer with weights).

    Returns:
        List of NumPy arrays, shaped and ordered as `model.trainable_variables`.

    Raises:
        ValueError: if a layer does not belong into such a chain; it is named.

    Reference:
        Neyshabur et al., 2015, https://arxiv.org/abs/1506.02617, section 4
    """
    links = chain(model)
    _backend.sync(model)
    weights = [ops.convert_to_tensor(v) for v in model.trainable_variables]
    return [np.asarray(ops.convert_to_numpy(k)) for k in _scaling(links)(weights)]


def _shapes(links):
    weighted = [link for link in links if "kernel" in link]
    both = ([link["kernel"]] + [link["kernel"][-1:]] * link["bias"] for link in weighted)
    return [tuple(shape) for shapes in both for shape in shapes]


def _scaling(links):
    """The function from a list of weights to the list of their scalings."""
    shapes = _shapes(links)
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def split(flat):
        return [
            ops.reshape(flat[end - math.prod(shape) : end], shape)
            for end, shape in zip(ends, shapes, strict=True)
        ]

    sums = _backend.value_and_gradient(lambda flat: ops.sum(run(links, split(flat))))

    def scaling(weights):
        squares = _backend.flat([ops.square(ops.cast(w, "float32")) for w in weights])
        return split(sums(squares)[1])

    return scaling


@keras.saving.register_keras_serializable("kerasrecipes")
class PathSGD(keras.optimizers.Optimizer):
    """Momentum SGD on gradients divided by the sum over the paths through each weight.

    Args:
        model: the built chain that will be trained; or its links, as the config holds them.
        learning_rate: float, `LearningRateSchedule` or callable. Defaults to 0.01.
        momentum: float in [0, 1), applied after the scaling. Defaults to 0.
        every: number of steps from one computation of the scaling to the next.
        **kwargs: arguments of `keras.optimizers.Optimizer`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range or a layer does not belong into a chain of
            Dense, convolution and average pooling layers; it is named. In `build`, if the
            variables are not those of the chain.

    Reference:
        Neyshabur et al., 2015, https://arxiv.org/abs/1506.02617, Algorithm 1
    """

    def __init__(self, model, learning_rate=0.01, momentum=0.0, every=1, name="path_sgd", **kwargs):
        if isinstance(learning_rate, (int, float)):
            learning_rate = number("learning_rate", learning_rate, 0)
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.model = model if isinstance(model, (list, tuple)) else chain(model)
        self.momentum = number("momentum", momentum, 0, 1, open_high=True)
        self.every = integer("every", every, 1)

    def build(self, variables):
        if self.built:
            return
        shapes, found = _shapes(self.model), [tuple(v.shape) for v in variables]
        if found != shapes:
            raise ValueError(
                f"PathSGD was made for a model with variables of shapes {shapes}. Received "
                f"{found}. Make a new one with the model to train: PathSGD(model)."
            )
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self.scalings = self.add_optimizer_variables(variables, "scaling")
        self._scaling = _scaling(self.model)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # The one place that sees all variables together.
        held = [self.scalings[self._get_variable_index(v)] for v in trainable_variables]
        found = ops.cond(
            self.iterations % self.every == 0,
            lambda: self._scaling([ops.convert_to_tensor(v) for v in trainable_variables]),
            lambda: [ops.cast(ops.convert_to_tensor(k), "float32") for k in held],
        )
        for variable, value in zip(held, found, strict=True):
            variable.assign(ops.cast(value, variable.dtype))
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity, scaling = self.velocities[index], ops.convert_to_tensor(self.scalings[index])
        rate = ops.cast(learning_rate, variable.dtype)
        reached = scaling > 0
        scaled = ops.cast(gradient, variable.dtype) / ops.where(reached, scaling, 1.0)
        step = self.momentum * velocity - rate * ops.where(reached, scaled, 0.0)
        self.assign(velocity, step)
        self.assign_add(variable, step)

    def get_config(self):
        return {
            **super().get_config(),
            "model": [dict(link) for link in self.model],
            "momentum": self.momentum,
            "every": self.every,
        }
