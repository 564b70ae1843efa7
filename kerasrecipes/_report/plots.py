"""Plots through matplotlib, which is imported on first use."""

import io
import re

GREY = "#808080"  # readable on light and dark; within a page it becomes the page's own


def lines(
    x,
    curves,
    *,
    xlabel,
    ylabel,
    title="",
    log_x=False,
    log_y=False,
    marks=None,
    size=(6.4, 4.0),
):
    """A figure of several curves over one axis.

    Args:
        x: values of the horizontal axis.
        curves: dict of label to values.
        xlabel, ylabel, title: texts.
        log_x, log_y: whether the horizontal, the vertical axis is logarithmic.
        marks: dict of label to a position on the horizontal axis, drawn as vertical lines.
        size: width and height in inches.

    Returns:
        A `matplotlib.figure.Figure` outside of pyplot: save it with `figure.savefig(path)`.

    Raises:
        ImportError: without matplotlib.
    """
    figure, axes = _axes(xlabel, ylabel, title, size)
    for number, (label, values) in enumerate(curves.items()):
        axes.plot(x, values, label=label, linestyle=("-", "--", ":", "-.")[number % 4])
    for number, (label, position) in enumerate((marks or {}).items()):
        axes.axvline(position, color=f"C{len(curves) + number}", linestyle="--", label=label)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.legend(frameon=False, labelcolor=GREY)
    return figure


def scatter(x, y, *, xlabel, ylabel, title="", size=(6.4, 4.0)):
    """A figure of dots with the diagonal on which both are equal; arguments as of `lines`."""
    figure, axes = _axes(xlabel, ylabel, title, size)
    axes.axline((float(min(x)), float(min(x))), slope=1, color=GREY, linewidth=1)
    axes.plot(x, y, "o", markersize=3, alpha=0.45)
    return figure


def inline_svg(figure, label):
    """The figure as an SVG element that takes the page's text colour.

    Args:
        figure: a `matplotlib.figure.Figure`.
        label: what a screen reader says of it; no text from data.

    Returns:
        A string.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(GREY, "currentColor").replace(
        "<svg ", f'<svg role="img" aria-label="{label}" ', 1
    )


def _axes(xlabel, ylabel, title, size):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel, color=GREY)
    axes.set_ylabel(ylabel, color=GREY)
    axes.set_title(title, color=GREY)
    axes.tick_params(which="both", colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    return figure, axes
