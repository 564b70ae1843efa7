"""Questions that many methods ask of a Keras model: its state, its kernels, its calls."""
