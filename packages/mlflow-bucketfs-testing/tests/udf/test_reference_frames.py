"""Data frames of the reference client: the conversions that are exact for all values."""

from __future__ import annotations

import datetime as dt

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_testing.udf.messages import Column, ColumnType
from mlflow_bucketfs_testing.udf.reference_channel import sent_size
from mlflow_bucketfs_testing.udf.reference_frames import frame_of, rows_of

_INT64 = st.integers(-(2**63), 2**63 - 1)
_DECIMAL = st.decimals(allow_nan=False, allow_infinity=False, places=2)
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
# Types of columns, and pairs of a Python value and the value that is sent. The values of a column
# have one type, because the first decides how all are sent
_ANY = [
    (ColumnType.INT32, st.integers(-(2**31), 2**31 - 1).map(lambda value: (value, value))),
    (ColumnType.INT64, _INT64.map(lambda value: (value, value))),
    (ColumnType.NUMERIC, _INT64.map(lambda value: (value, str(value)))),
    (ColumnType.NUMERIC, _DECIMAL.map(lambda value: (value, str(value)))),
    (ColumnType.DOUBLE, st.floats(allow_nan=False).map(lambda value: (value, value))),
    (ColumnType.BOOLEAN, st.booleans().map(lambda value: (value, value))),
    (ColumnType.STRING, _TEXT.map(lambda value: (value, value))),
    (ColumnType.DATE, st.dates().map(lambda value: (value, value.isoformat()))),
]
_INEXACT = (ColumnType.INT32, ColumnType.INT64, ColumnType.DOUBLE)  # in a frame with a NULL
_EXACT = [(kind, values) for kind, values in _ANY if kind not in _INEXACT]


@st.composite
def _columns(draw, choices):
    """Draw the types of some columns, and as many cells for each; some are NULL."""
    chosen = draw(st.lists(st.sampled_from(choices), min_size=1))
    rows = draw(st.integers(1, 5))
    cells = [
        draw(st.lists(values | st.just((None, None)), min_size=rows, max_size=rows))
        for _, values in chosen
    ]
    return [kind for kind, _ in chosen], cells


@given(_columns(_ANY))
def test_a_frame_of_plain_values_is_sent_as_it_is(drawn):
    """A frame of Python objects is sent without loss."""
    kinds, columns = drawn
    frame = pd.DataFrame(
        {
            index: pd.Series([value for value, _ in cells], dtype=object)
            for index, cells in enumerate(columns)
        }
    )
    sent, refused = rows_of(frame, kinds)
    assert refused is None
    assert sent == [[wire for _, wire in cells] for cells in columns]


@given(_columns(_EXACT))
def test_a_frame_that_is_read_and_emitted_is_unchanged(drawn):
    """Numbers as text, booleans, texts and dates are the same after reading and emitting."""
    kinds, columns = drawn
    given_columns = [Column(str(index), kind, "") for index, kind in enumerate(kinds)]
    rows = list(zip(*([wire for _, wire in cells] for cells in columns), strict=True))
    sent, refused = rows_of(frame_of(given_columns, rows), kinds)
    assert refused is None
    assert list(zip(*sent, strict=True)) == rows


@given(st.datetimes(), st.booleans())
def test_timestamps_are_read_as_strptime_reads_them(moment, short):
    """The fast path for texts of the usual length gives the same result as ``strptime``."""
    text = moment.isoformat(" ", "milliseconds" if short else "microseconds")
    frame = frame_of([Column("t", ColumnType.TIMESTAMP, "")], [(text,)])
    expected = dt.datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 -- no zone
    assert frame.t[0] == expected


@given(_TEXT)
def test_the_size_of_a_text(text):
    """The size of a text is the number of its bytes in UTF-8 plus four."""
    assert sent_size(ColumnType.STRING, text) == 4 + len(text.encode())
