"""The one place that knows which backend runs: each file holds the same functions.

`compiled`, `value_and_gradient`, `hessian_vector_product`, `hessian_rows` and
`gauss_newton_vector_product` turn a pure function of tensors into a compiled one, `loop` compiles
a loop over its evaluations, and `eager` serves calls within and outside of compiled functions.
`dense` adds up a gradient's rows, `flat` lays tensors end to end and `parts` takes them apart,
`with_row` writes into a matrix, `matvec` and `vecmat` multiply one with a vector, `unit` is a unit
vector, and `passing` looks at a loss. What `numbers`, `dot`, `square` and `largest` return is for
arithmetic, comparisons, the functions of `number`, and `cond`, until `packed` makes it a tensor.
`sync(model)` makes the model's variables hold what training has reached, and `random_state()` is a
context that leaves the backend's own global random state as it was.
"""

import keras

if keras.config.backend() == "tensorflow":
    from kerasrecipes._backend import tensorflow as chosen
elif keras.config.backend() == "jax":
    from kerasrecipes._backend import jax as chosen
elif keras.config.backend() == "torch":
    from kerasrecipes._backend import torch as chosen
else:
    raise ImportError(
        "kerasrecipes trains networks, so it needs the Keras backend tensorflow, jax or torch. "
        f"Received: {keras.config.backend()!r}. Set the environment variable KERAS_BACKEND."
    )

compiled = chosen.compiled
cond = chosen.cond
dense = chosen.dense
dot = chosen.dot
eager = chosen.eager
flat = chosen.flat
gauss_newton_vector_product = chosen.gauss_newton_vector_product
hessian_rows = chosen.hessian_rows
hessian_vector_product = chosen.hessian_vector_product
largest = chosen.largest
loop = chosen.loop
matvec = chosen.matvec
number = chosen.number
numbers = chosen.numbers
packed = chosen.packed
parts = chosen.parts
passing = chosen.passing
random_state = chosen.random_state
square = chosen.square
sync = chosen.sync
unit = chosen.unit
value_and_gradient = chosen.value_and_gradient
vecmat = chosen.vecmat
with_row = chosen.with_row
