"""Plots through matplotlib, which is imported on first use."""


def lines(x, curves, *, xlabel, ylabel, title="", log_x=False, marks=None):
    """A figure of several curves over one axis.

    Args:
        x: values of the horizontal axis.
        curves: dict of label to values.
        xlabel, ylabel, title: texts.
        log_x: whether the horizontal axis is logarithmic.
        marks: dict of label to a position on the horizontal axis, drawn as vertical lines.

    Returns:
        A `matplotlib.figure.Figure` outside of pyplot: save it with `figure.savefig(path)`.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'kerasrecipes[report]'.") from error
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(x, values, label=label)
    for number, (label, position) in enumerate((marks or {}).items()):
        axes.axvline(position, color=f"C{len(curves) + number}", linestyle="--", label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log_x:
        axes.set_xscale("log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
