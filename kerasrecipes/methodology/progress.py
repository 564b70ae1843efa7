"""What a run says while it works, how long each phase took, and how it is stopped early."""

import contextlib
import signal
import sys
import threading
import time

import keras


class Progress:
    """Phases, their seconds and lines on the terminal.

    Args:
        quiet: whether to say nothing.
        budget: minutes for everything.
    """

    def __init__(self, quiet, budget):
        self.quiet, self.budget, self.start = quiet, budget, time.monotonic()
        self.deadline = self.start + 60 * budget
        self.seconds = {}

    def say(self, text):
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def phase(self, name):
        """Adds the seconds of a block to those of the phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def left(self):
        return self.deadline - time.monotonic()


class Watch(keras.callbacks.Callback):
    """Tells epoch and time left; ends training at the deadline or after an interrupt."""

    def __init__(self, progress, epochs):
        super().__init__()
        self.progress, self.epochs = progress, epochs
        self.cause = None

    def on_train_begin(self, logs=None):
        self.start = self.shown = time.monotonic()

    def interrupt(self):
        self.cause = "interrupted"
        self.progress.say("interrupted: ending this batch, a second Ctrl-C ends at once")

    def on_train_batch_end(self, batch, logs=None):
        if self.cause:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        now, done = time.monotonic(), epoch + 1
        if done < self.epochs and now + (now - self.start) / done > self.progress.deadline:
            self.cause, self.model.stop_training = self.cause or "budget", True
        if now - self.shown > 2 or done == self.epochs or self.cause:
            self.shown, left = now, (now - self.start) / done * (self.epochs - done)
            figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
            self.progress.say(f"epoch {done}/{self.epochs}  {figures}  at most {left:.0f} s left")


@contextlib.contextmanager
def first_interrupt(act):
    """Calls `act` at the first Ctrl-C, so that a step ends whole; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number, frame):
        signal.signal(signal.SIGINT, before)
        act()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
