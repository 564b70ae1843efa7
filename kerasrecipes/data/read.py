"""Reading tables of text: separator, header, missing values and ragged rows settled once."""

import csv
import os
import re
from itertools import islice

import numpy as np

MISSING = ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none"]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


class BadInput(ValueError):
    """What was given cannot be used; the message says what it was and what to do."""


def read_table(path, header=None):
    """Reads a CSV or TSV file whose form need not be known.

    Args:
        path: the file.
        header: whether the first row holds names; None to find out.

    Returns:
        `(columns, options)`: a dict of name to NumPy array (float64 with NaN, or text with None),
        in which a file without names has "0", "1", …; and the arguments of `pandas.read_csv` that
        read the file, with `names` of all columns.

    Raises:
        BadInput: if it is no readable table of text with at least one row.
    """
    encoding = find_encoding(path)
    with open(path, encoding=encoding, newline="") as file:
        sample = list(islice(file, 200))
    separator = find_separator(path, sample)
    first = list(rows_of(sample, separator))
    if not first:
        raise BadInput(f"{path!r} is empty")
    header = looks_like_header(first) if header is None else header
    count = check_rows(path, encoding, separator, len(first[0])) - header
    if count < 1:
        raise BadInput(f"{path!r} has a header only, no rows" if header else f"{path!r} is empty")
    names = unique_names(path, first[0]) if header else list(map(str, range(len(first[0]))))
    options = {
        "sep": separator,
        "encoding": encoding,
        "header": 0 if header else None,
        "names": names,
        "skipinitialspace": True,
        "keep_default_na": False,
        "na_values": MISSING,
    }
    return parse_table(path, options), options


def parse_table(path, options):
    """The columns of a file whose form is known: numbers, or stripped text."""
    import pandas

    try:
        frame = pandas.read_csv(path, low_memory=False, **options)
    except (ValueError, OSError) as error:
        raise BadInput(f"{os.fspath(path)!r} cannot be read as a table: {error}") from error
    return {name: column_of(frame[name]) for name in frame}


def column_of(series):
    """A pandas column as float64 with NaN, or as text with None where it is missing."""
    import pandas

    if pandas.api.types.is_numeric_dtype(series) and not pandas.api.types.is_bool_dtype(series):
        return series.to_numpy("float64", na_value=np.nan)
    text = series.astype("str").str.strip()
    text = text.mask(series.isna() | text.isin(MISSING))
    numbers = pandas.to_numeric(text, errors="coerce")
    if text.notna().any() and numbers.notna().equals(text.notna()):
        return numbers.to_numpy("float64", na_value=np.nan)
    return text.astype(object).where(text.notna(), None).to_numpy(object)


def find_encoding(path):
    """UTF-8 (with its mark or not), UTF-16 with its mark, or else Latin-1."""
    try:
        with open(path, "rb") as file:
            start, size = file.read(1 << 16), os.path.getsize(path)
    except OSError as error:
        raise BadInput(f"{path!r} cannot be read: {error.strerror}") from error
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in start:
        raise BadInput(f"{path!r} is not text: a table of text (CSV, TSV) or an .npz is needed")
    try:
        # A character may be cut by the end of the sample.
        start[: start.rfind(b"\n") + 1 or size].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if sum(byte < 9 or 13 < byte < 32 for byte in start) > len(start) / 100:
            raise BadInput(f"{path!r} is not text: a CSV, a TSV or an .npz is needed") from error
        return "latin-1"
    return "utf-8-sig"


def rows_of(lines, separator):
    """Rows of stripped cells; blank lines are none."""
    for row in csv.reader(lines, delimiter=separator, skipinitialspace=True):
        if row:
            yield [cell.strip() for cell in row]


def find_separator(path, sample):
    """The separator that cuts most rows into the same number of cells, more than one."""
    if os.fspath(path).lower().endswith((".tsv", ".tab")):
        return "\t"

    def quality(separator):
        widths = [len(row) for row in rows_of(sample, separator)]
        most = max(set(widths), key=widths.count, default=1)
        return (most > 1) * widths.count(most), most

    return max(",\t;|", key=quality)


def is_number(cell):
    return bool(_NUMBER.match(cell))


def looks_like_header(rows):
    """Whether the first row names the others: text over numbers, or text that never recurs."""
    first, rest = rows[0], rows[1:]
    # pandas leaves the name of the row numbers empty: that is a header all the same.
    named = first[1:] if first[0] == "" and len(first) > 1 else first
    below = [[row[i] for row in rest if i < len(row)] for i in range(len(first))]
    below = [[cell for cell in column if cell not in MISSING] for column in below]
    pairs = list(zip(first, below, strict=True))
    text = [column for cell, column in pairs if cell not in MISSING and not is_number(cell)]
    if any(column and all(map(is_number, column)) for column in text):
        return True
    if any(cell in MISSING or is_number(cell) for cell in named):
        return False
    recurs = any(cell in column for cell, column in pairs if cell)
    return len(set(first)) == len(first) and not recurs


def check_rows(path, encoding, separator, width):
    """The number of rows, after a look at each: pandas fills short ones in silence."""
    count = 0
    try:
        with open(path, encoding=encoding, newline="") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            for row in reader:
                if row and len(row) != width:
                    raise BadInput(
                        f"{path!r} is ragged: line {reader.line_num} has {len(row)} cells and "
                        f"the first line {width}"
                    )
                count += bool(row)
    except (UnicodeError, csv.Error) as error:
        raise BadInput(f"{path!r} is not a table of text: {error}") from error
    return count


def unique_names(path, names):
    """The names of a header, each once; a column without one is called by its number."""
    names = [name or str(index) for index, name in enumerate(names)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInput(f"{path!r} has two columns named {twice[0]!r}: rename one")
    return names
