"""Tables as plain text for a terminal."""


def text_table(heads, rows):
    """Aligned columns: the first to the left, numbers to the right.

    Args:
        heads: names of the columns.
        rows: lists of values; floats are shown with four digits, None as a dash.

    Returns:
        Lines joined by newlines.
    """
    cells = [[show(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def show(value):
    """A value as people read it: four digits, a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:#.4g}" if isinstance(value, float) else str(value)
