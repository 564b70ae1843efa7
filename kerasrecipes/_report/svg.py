"""Small drawings as inline SVG: they follow the page's colours, light or dark."""

import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 46, 10, 10, 34


def ticks(low, high, most=5):
    """Round numbers between two ends, at most `most` of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + i) * step for i in range(max(count, 1))]


def axis(values):
    """Ends of an axis that holds all finite values."""
    finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def frame(x, y, x_label, y_label):
    """Places on the canvas, and what the axes need: a dict for the page's template."""
    (x_low, x_high), (y_low, y_high) = x, y

    def across(value):
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def up(value):
        return round(
            HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP), 1
        )

    return (
        across,
        up,
        {
            "box": (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM, WIDTH, HEIGHT),
            "x_ticks": [(across(t), f"{t:.6g}") for t in ticks(x_low, x_high)],
            "y_ticks": [(up(t), f"{t:.6g}") for t in ticks(y_low, y_high, 4)],
            "x_label": x_label,
            "y_label": y_label,
        },
    )


def curves(series, x_label, y_label):
    """Lines over 1, 2, …: `series` is a dict of label to values."""
    count = max(len(values) for values in series.values())
    values = [v for line in series.values() for v in line]
    across, up, drawing = frame((1, max(count, 2)), axis(values), x_label, y_label)
    lines = {
        label: " ".join(
            f"{across(i)},{up(v)}" for i, v in enumerate(line, start=1) if math.isfinite(v)
        )
        for label, line in series.items()
    }
    return {**drawing, "lines": lines, "dots": [], "diagonal": None}


def scatter(x, y, x_label, y_label):
    """Dots with the diagonal on which both are equal."""
    both = axis([*x, *y])
    across, up, drawing = frame(both, both, x_label, y_label)
    dots = [(across(a), up(b)) for a, b in zip(x, y, strict=True)]
    diagonal = (across(both[0]), up(both[0]), across(both[1]), up(both[1]))
    return {**drawing, "lines": {}, "dots": dots, "diagonal": diagonal}
