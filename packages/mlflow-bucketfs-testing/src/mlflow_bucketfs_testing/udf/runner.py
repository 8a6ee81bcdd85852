"""`UdfRunner`: create scripts and run them, as a database would."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_bucketfs_testing import REFERENCE_CLIENT
from mlflow_bucketfs_testing.errors import UdfError, is_about_udf
from mlflow_bucketfs_testing.udf.clients import find_client
from mlflow_bucketfs_testing.udf.codec import ProtobufCodec
from mlflow_bucketfs_testing.udf.host import Limits, serve
from mlflow_bucketfs_testing.udf.messages import (
    Call,
    Info,
    IterationType,
    Meta,
    Rows,
    SingleCall,
)
from mlflow_bucketfs_testing.udf.script import Script, parse_script
from mlflow_bucketfs_testing.udf.session import Session, Work
from mlflow_bucketfs_testing.udf.values import split_rows, wire_column, wire_columns

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    import pandas as pd
    from typing_extensions import Self

    from mlflow_bucketfs_testing.server import BucketFSServer
    from mlflow_bucketfs_testing.udf.clients import Client

__tracebackhide__ = is_about_udf

Row: TypeAlias = "tuple[Any, ...]"

_BUCKETS, _MOUNT_ROOT = "/buckets/", "EXA_BUCKETFS_MOUNT_ROOT"
_SCHEMA = "TEST"  # of a script whose name has none
_USER = "SYS"
_GIB = 1024**3


@dataclass(frozen=True)
class UdfResult:
    """The result of a run: the rows that a script returned or emitted, and its output.

    Attributes:
        rows: all rows, as tuples of Python values by the types of the output columns: int for
            DECIMAL(p,0) of up to 18 digits, Decimal for other DECIMALs, float, bool, str,
            datetime.date, datetime.datetime; None for NULL.
        groups: the rows of each group, by its key: the value of the column that `Udf.run` groups
            by, a tuple for several columns; None if it does not group.
        columns: names of the output columns.
        output: standard output and standard error of the script and its client. A database sends
            them to the script output address.
        seconds: time between the client's first and last message, without the start of its
            process.
    """

    rows: list[Row]
    groups: dict[Any, list[Row]] = field(repr=False)
    columns: tuple[str, ...]
    output: str = field(repr=False)
    seconds: float

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a data frame with the names of the output columns.

        Integers with NULLs become ``Int64``, so that no digits are lost; Decimals, texts and dates
        are objects.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 -- optional, and not part of the extra
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        frame = pd.DataFrame(self.rows, columns=list(self.columns), dtype=object)
        for name in self.columns:
            kinds = {type(value) for value in frame[name]}
            missing = type(None) in kinds
            target = _DTYPES.get(frozenset(kinds - {type(None)}), (object, object))[missing]
            frame[name] = frame[name].astype(target)
        return frame


# kinds of a column's values → dtype without and with NULL
_DTYPES: dict[frozenset[type], tuple[Any, Any]] = {
    frozenset({int}): ("int64", "Int64"),
    frozenset({float}): ("float64", "float64"),
    frozenset({bool}): ("bool", "boolean"),
}


class UdfRunner:
    """A runner of UDF scripts that replaces the database for a UDF client.

    Each run starts a process of the client and ends it again. Linux, macOS and WSL only.

    Args:
        client: ``reference`` for the client of this package, the path of an ``exaudfclient``,
            ``slc:`` and the path of an exported container, or a `SlcClient`.
        buckets: directory that contains ``<service>/<bucket>/…``, or an embedded BucketFS, for its
            mount. Scripts find it by the variable ``EXA_BUCKETFS_MOUNT_ROOT``, or in a container
            at ``/buckets``.
        timeout_s: time limit of a run, in seconds, if the call does not set one.
        silence_s: limit of the time without a message from the client, in seconds: while it
            starts, or computes between two packets of rows.
        int32_digits: largest precision of a DECIMAL(p,0) that is sent as a 32-bit integer.
        int64_digits: largest precision of one that is sent as a 64-bit integer. The limits of a
            database are not documented.

    Raises:
        UdfClientError: the client is missing or not executable.

    Example:
        ::

            with UdfRunner() as runner:
                udf = runner.create("CREATE PYTHON3 SCALAR SCRIPT f(x INT) RETURNS INT AS ...")
                assert udf.run([(1,)]).rows == [(2,)]
    """

    def __init__(
        self,
        client: str | Client = REFERENCE_CLIENT,
        *,
        buckets: str | os.PathLike[str] | BucketFSServer | None = None,
        timeout_s: float = 120.0,
        silence_s: float = 60.0,
        int32_digits: int = 9,
        int64_digits: int = 18,
    ) -> None:
        self._client = find_client(client) if isinstance(client, str) else client
        self._buckets = buckets
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._digits = {"int32_digits": int32_digits, "int64_digits": int64_digits}

    def __enter__(self) -> Self:
        """Prepare the client."""
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Release the client's resources."""
        self._client.__exit__(*error)

    @property
    def client(self) -> str:
        """The name of the client, as in the option ``--mlflow-bucketfs-udf-client``."""
        return self._client.name

    @property
    def sees_buckets(self) -> bool:
        """Whether a script finds the buckets at ``/buckets``, as in a database."""
        return self._client.sees_buckets

    def create(self, statement: str) -> Udf:
        """Create a script from its ``CREATE SCRIPT`` statement.

        The indentation of the statement is removed from its code.

        Args:
            statement: one statement; a line with only ``/`` may end it.

        Raises:
            UdfScriptError: the statement cannot be parsed; the error has line and column.
        """
        script = parse_script(statement)
        return Udf(script, self._meta(script), self._serve)

    def _serve(
        self, script: Script, meta: Meta, work: Work, memory_limit: int, timeout_s: float | None
    ) -> _Done:
        session = Session(_info(script, memory_limit), meta, script.outputs, work)
        limits = Limits(
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            silence_s=self._silence_s,
            memory=memory_limit,
        )
        root: Any = getattr(self._buckets, "mount_root", self._buckets)
        buckets = None if root is None else Path(root).absolute()
        output, seconds = serve(
            session, ProtobufCodec(), self._client, limits=limits, buckets=buckets
        )
        if session.failure is not None:
            error = UdfError(session.failure, hint=self._hint(session.failure), output=output)
            if sys.version_info >= (3, 11) and error.printed:
                error.add_note(f"The script printed:\n{error.printed}")
            raise error
        return _Done(session, output, seconds)

    def _meta(self, script: Script) -> Meta:
        once, multiple = IterationType.EXACTLY_ONCE, IterationType.MULTIPLE
        inputs, outputs = (
            tuple(wire_column(column, **self._digits) for column in columns)
            for columns in (script.inputs, script.outputs)
        )
        return Meta(
            input_iteration=multiple if script.kind == "SET" else once,
            output_iteration=once if script.returns or script.kind == "ADAPTER" else multiple,
            input_columns=inputs,
            output_columns=outputs,
        )

    def _hint(self, failure: str) -> str:
        if self._buckets is None:
            if _BUCKETS not in failure and _MOUNT_ROOT not in failure:
                return ""
            return (
                "\n(The script was run without buckets: give --buckets DIRECTORY, which contains "
                "SERVICE/BUCKET/..., or in Python buckets=...)"
            )
        if _BUCKETS not in failure or self._client.sees_buckets:
            return ""
        return (
            f"\n(The client {self._client.name!r} has no {_BUCKETS}: take the path from "
            f"{_MOUNT_ROOT}, or run the script in a container, which has this directory.)"
        )


class Udf:
    """A script that can be run, created by `UdfRunner.create`.

    Attributes:
        script: the parsed statement.
    """

    def __init__(self, script: Script, meta: Meta, serve: Callable[..., _Done]) -> None:
        self.script = script
        self._meta = meta
        self._serve = serve

    def run(
        self,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]] | pd.DataFrame = (),
        *,
        groups: str | Sequence[str] | Callable[[Sequence[Any]], Hashable] | None = None,
        connections: Mapping[str, tuple[str, str, str]] | None = None,
        scripts: Mapping[str, str] | None = None,
        packet_rows: int = 1000,
        memory_limit: int = 4 * _GIB,
        timeout_s: float | None = None,
    ) -> UdfResult:
        """Run the script with rows, as ``SELECT script(...)`` does.

        As in a database, a SET script without rows is not started: without groups the result is
        one row of NULLs, with groups it is empty.

        Args:
            rows: a sequence of values per row, in the order of the parameters; or mappings or a
                data frame, with a column for each parameter, by name, and further columns to
                group by. A data frame with labels that are not texts is read by position.
            groups: the ``GROUP BY`` of a SET script: a column, several columns, or a function of
                a row. ``run`` is called once per group. None: all rows are one group.
            connections: the database's connections: name → address, user, password.
            scripts: scripts to import by ``exa.import_script``: name → source code.
            packet_rows: largest number of rows in a packet. The packets of a database are not
                documented; scripts must not depend on them.
            memory_limit: bytes that the script's processes may use; also ``exa.meta.memory_limit``.
            timeout_s: time limit in seconds; None: that of the runner.

        Raises:
            UdfError: the script failed; the text is the one that a SQL user sees.
            UdfValueError: a value does not fit its column; nothing was started.
            UdfClientError: the client failed, took too long or too much memory.
            ValueError: the script is an adapter or cannot be grouped, or ``packet_rows`` is not
                positive.
        """
        __tracebackhide__ = True  # pytest would show the passwords of the connections
        script = self.script
        if script.kind == "ADAPTER":
            raise ValueError(f"{script.name} is an adapter script: use call_adapter")
        if groups is not None and script.kind != "SET":
            raise ValueError(f"{script.name} is a SCALAR script: only SET scripts have groups")
        if packet_rows < 1:
            raise ValueError(f"packet_rows must be positive, not {packet_rows}")
        names = tuple(column.name for column in script.outputs)
        arguments = split_rows(rows, [column.name for column in script.inputs], groups)
        if not arguments.count:
            nulls = [(None,) * len(names)] if script.kind == "SET" and groups is None else []
            return UdfResult(nulls, {None: nulls} if nulls else {}, names, output="", seconds=0.0)
        kinds = [column.type for column in self._meta.input_columns]
        columns = wire_columns(arguments.columns, script.inputs, kinds)
        grouped = _grouped(Rows(arguments.count, columns), arguments.keys)
        work = Work(
            groups=list(grouped.values()),
            packet_rows=packet_rows,
            connections=connections or {},
            scripts=scripts or {},
        )
        done = self._serve(script, self._meta, work, memory_limit, timeout_s)
        return UdfResult(
            rows=[row for group in done.session.groups for row in group],
            groups=dict(zip(grouped, done.session.groups, strict=True)),
            columns=names,
            output=done.output,
            seconds=done.seconds,
        )

    def call_adapter(
        self,
        request: str,
        *,
        connections: Mapping[str, tuple[str, str, str]] | None = None,
        scripts: Mapping[str, str] | None = None,
        memory_limit: int = 4 * _GIB,
        timeout_s: float | None = None,
    ) -> str:
        """Call ``adapter_call`` of a virtual schema's adapter, and return its response.

        Args:
            request: the database's request, as JSON.
            connections: see `run`.
            scripts: see `run`.
            memory_limit: see `run`.
            timeout_s: see `run`.

        Raises:
            UdfError: the adapter failed, or has no function ``adapter_call``.
            UdfClientError: the client failed, took too long or too much memory.
        """
        __tracebackhide__ = True  # see run
        call = Call(SingleCall.VIRTUAL_SCHEMA_ADAPTER, request)
        work = Work(call=call, connections=connections or {}, scripts=scripts or {})
        return self._single_call(work, memory_limit, timeout_s)

    def default_output_columns(self, *, timeout_s: float | None = None) -> str:
        """Call ``default_output_columns`` of the script, and return its result.

        Args:
            timeout_s: time limit in seconds; None: that of the runner.

        Raises:
            UdfError: the script failed, or does not define this function.
            UdfClientError: the client failed, took too long or too much memory.
        """
        work = Work(call=Call(SingleCall.DEFAULT_OUTPUT_COLUMNS))
        return self._single_call(work, 4 * _GIB, timeout_s)

    def _single_call(self, work: Work, memory_limit: int, timeout_s: float | None) -> str:
        meta = dataclasses.replace(self._meta, single_call=True)
        done = self._serve(self.script, meta, work, memory_limit, timeout_s)
        if done.session.call_result is None:
            raise UdfError(
                f"the script {self.script.name} has no function {done.session.undefined_call}",
                output=done.output,
            )
        return done.session.call_result


@dataclass(frozen=True)
class _Done:
    """The outcome of a run that did not fail."""

    session: Session
    output: str
    seconds: float


def _grouped(rows: Rows, keys: Sequence[Hashable]) -> dict[Hashable, Rows]:
    """Return the rows of each group by its key; without keys, all rows have the key None."""
    if not keys:
        return {None: rows}
    members: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        members.setdefault(key, []).append(number)
    return {
        key: Rows(len(numbers), [[column[n] for n in numbers] for column in rows.columns])
        for key, numbers in members.items()
    }


def _info(script: Script, memory_limit: int) -> Info:
    schema = script.schema or _SCHEMA
    return Info(
        script_name=script.name,
        source_code=script.code,
        script_schema=schema,
        database_name="mlflow-bucketfs-testing",
        database_version="8.0.0",
        session_id=1,
        statement_id=1,
        node_count=1,
        node_id=0,
        vm_id=1,
        memory_limit=memory_limit,
        current_user=_USER,
        current_schema=schema,
        scope_user=_USER,
    )
