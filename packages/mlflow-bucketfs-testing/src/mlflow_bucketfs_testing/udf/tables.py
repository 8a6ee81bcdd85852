"""Rows from sequences, mappings and data frames, and the groups that ``GROUP BY`` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_bucketfs_testing.errors import UdfValueError
from mlflow_bucketfs_testing.udf.values import is_null

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Iterable[Sequence[Any] | Mapping[str, Any]] | pd.DataFrame"
"""What the rows of a run can be."""

Grouping: TypeAlias = str | Sequence[str] | Callable[[Sequence[Any]], Hashable]
"""What ``GROUP BY`` says: a column, several, or a function of the script's arguments."""


def split_rows(
    rows: Rows, parameters: Sequence[str], grouping: Grouping | None
) -> tuple[list[Sequence[Any]], list[Hashable]]:
    """Return the arguments of the script in each row, and the key of each row's group.

    Args:
        rows: sequences with a value per parameter; or mappings, or a data frame, from which the
            parameters are taken by name. A data frame whose labels are no texts is a sequence of
            rows.
        parameters: names of the script's parameters.
        grouping: how the rows are grouped; None: all have the key None.

    Raises:
        UdfValueError: A column is missing, or a row is no sequence of values.
    """
    labels, data = _labelled(rows, parameters)
    if labels == list(parameters):
        arguments = data
    else:
        arguments = _picked(data, [_position(name, labels) for name in parameters])
    if grouping is None:
        return arguments, [None] * len(arguments)
    if callable(grouping):
        return arguments, [grouping(row) for row in arguments]
    if isinstance(grouping, str):
        position = _position(grouping, labels)
        return arguments, [_key(row[position]) for row in data]
    keys = _picked(data, [_position(name, labels) for name in grouping])
    return arguments, [tuple(map(_key, row)) for row in keys]


def _labelled(rows: Rows, parameters: Sequence[str]) -> tuple[list[str], list[Sequence[Any]]]:
    """Return names for the columns of the rows, and the rows as sequences."""
    if hasattr(rows, "iloc"):  # a data frame; pandas need not be installed
        frame: Any = rows
        columns = [frame.iloc[:, number].tolist() for number in range(len(frame.columns))]
        named = all(isinstance(label, str) for label in frame.columns)
        labels = list(frame.columns) if named else list(parameters)
        return labels, list(zip(*columns, strict=True))
    data: list[Any] = list(rows)
    if data and isinstance(data[0], Mapping):
        labels = list(data[0])
        for number, row in enumerate(data, 1):
            if not isinstance(row, Mapping) or row.keys() != data[0].keys():
                raise UdfValueError(f"row {number} has not the columns of row 1: {labels}")
        return labels, [tuple(row[label] for label in labels) for row in data]
    for number, row in enumerate(data, 1):
        if isinstance(row, str) or not hasattr(row, "__len__"):
            raise UdfValueError(
                f"row {number} is {row!r}; a row is a sequence with a value per parameter, such as "
                f"({row!r},)"
            )
        if len(row) != len(parameters):
            raise UdfValueError(
                f"row {number} has {len(row)} values; the script has {len(parameters)} "
                f"parameters: {', '.join(parameters) or 'none'}"
            )
    return list(parameters), data


def _position(name: str, labels: Sequence[str]) -> int:
    """Find a column: by its exact name, or by one that differs in case only."""
    if labels.count(name) == 1:
        return labels.index(name)
    alike = [number for number, label in enumerate(labels) if label.upper() == name.upper()]
    if len(alike) != 1:
        raise UdfValueError(
            f"the rows have {'no' if not alike else 'more than one'} column {name}; they have "
            f"{', '.join(labels) or 'none'}"
        )
    return alike[0]


def _picked(rows: Sequence[Sequence[Any]], positions: Sequence[int]) -> list[Sequence[Any]]:
    if len(positions) < 2:  # noqa: PLR2004 -- itemgetter would return no tuple
        return [tuple(row[position] for position in positions) for row in rows]
    return list(map(itemgetter(*positions), rows))


def _key(value: Any) -> Hashable:
    key: Hashable = None if is_null(value) else value
    return key
