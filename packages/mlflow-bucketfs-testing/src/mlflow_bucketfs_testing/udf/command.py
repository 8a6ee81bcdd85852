"""``mlflow-bucketfs-testing udf``: run a script on the rows of a CSV file."""

from __future__ import annotations

import csv
import sys
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

import click

from mlflow_bucketfs_testing.errors import (
    UdfClientError,
    UdfError,
    UdfScriptError,
    UdfValueError,
)
from mlflow_bucketfs_testing.udf.runner import UdfRunner
from mlflow_bucketfs_testing.udf.values import value_of_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_bucketfs_testing.udf.script import Script


def run_script(
    script: IO[str],
    rows: IO[str] | None,
    *,
    group_by: Sequence[str],
    buckets: str | None,
    client: str,
    timeout_s: float,
) -> None:
    """Run a script and print its rows as CSV; the script's output goes to standard error.

    Args:
        script: file with the ``CREATE SCRIPT`` statement.
        rows: CSV file with a header line; None: one row, for a script without parameters.
        group_by: columns to group by; empty: all rows are one group.
        buckets: directory with the buckets; None for no buckets.
        client: name of the client.
        timeout_s: time limit of the run, and of the silence of its client, in seconds.

    Raises:
        click.ClickException: the script or its rows are not valid, or the run failed.
    """
    try:
        with UdfRunner(client, buckets=buckets, timeout_s=timeout_s, silence_s=timeout_s) as runner:
            udf = runner.create(script.read())
            values = _values(rows, udf.script) if rows else _no_values(udf.script)
            result = udf.run(values, groups=group_by or None)
    except UdfError as error:
        click.echo(error.printed, err=True, nl=False)
        raise click.ClickException(str(error)) from error
    except UdfScriptError as error:
        raise click.ClickException(f"{script.name}, {error}") from error
    except UdfValueError as error:
        raise click.ClickException(f"{rows.name if rows else script.name}: {error}") from error
    except (UdfClientError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(result.output, err=True, nl=False)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([_text(value) for value in row] for row in result.rows)


def _no_values(script: Script) -> list[dict[str, Any]]:
    if script.inputs:
        names = ", ".join(column.name for column in script.inputs)
        raise click.UsageError(f"the script has parameters ({names}): use --input FILE")
    return [{}]


def _values(file: IO[str], script: Script) -> list[dict[str, Any]]:
    """Read the rows of a file, and convert the fields of parameters to their types."""
    reader = csv.reader(file, strict=True)
    try:
        names = next(reader, [])
        rows = list(reader)
    except csv.Error as error:
        raise UdfValueError(f"line {reader.line_num} is not valid CSV: {error}") from error
    if not names:
        raise UdfValueError("the first line is empty: it must name the columns")
    if len(names) == 1 and (separator := next((c for c in ";\t|" if c in names[0]), None)):
        raise UdfValueError(
            f"the first line has {separator!r} but no comma: fields are separated by commas"
        )
    if len(set(names)) < len(names):
        raise UdfValueError(f"the first line names a column twice: {', '.join(names)}")
    types = {column.name.upper(): column.type for column in script.inputs}
    values = []
    for number, line in enumerate(rows, 1):
        # in a file with one column, an empty line is a row with NULL
        fields = line or [""]
        if len(fields) != len(names):
            raise UdfValueError(
                f"row {number} has {len(fields)} fields; the first line names {len(names)} columns"
            )
        row: dict[str, Any] = dict(zip(names, fields, strict=True))
        for name, field in row.items():
            if name.upper() in types:
                try:
                    row[name] = value_of_text(field, types[name.upper()])
                except ValueError as error:
                    raise UdfValueError(
                        f"row {number}, column {name}: {field!r} does not fit "
                        f"{types[name.upper()]}: {error}"
                    ) from error
        values.append(row)
    return values


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return repr(value) if isinstance(value, float) else str(value)
