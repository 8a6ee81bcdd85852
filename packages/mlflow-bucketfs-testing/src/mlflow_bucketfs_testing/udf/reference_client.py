"""The reference client: a stand-in for Exasol's ``exaudfclient`` that runs scripts in this Python.

Run as ``python -m mlflow_bucketfs_testing.udf.reference_client ipc:///path lang=python``. It
uses the same protocol, gives a script the same ``ctx`` and ``exa``, and treats data and errors as
Exasol's client does, including its defects (docs/testing/udf-behaviour.md). It needs pyzmq and
protobuf, and pandas for scripts that use data frames.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import re
import resource
import sys
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_bucketfs_testing.udf.messages import (
    Column,
    ColumnType,
    ImportKind,
    ImportRequest,
    Info,
    IterationType,
    MessageType,
    Meta,
    Request,
    SingleCall,
)
from mlflow_bucketfs_testing.udf.reference_channel import (
    Channel,
    HostError,
    InputRows,
    OutputRows,
    until_nul,
)
from mlflow_bucketfs_testing.udf.reference_context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_bucketfs_testing.udf.messages import Call, ImportResponse

_USAGE = """\
Usage: python -m mlflow_bucketfs_testing.udf.reference_client SOCKET lang=python \
[scriptOptionsParserVersion=1|2]
SOCKET is ipc:///path or tcp://address:port.
"""
_MAX_FILES = 32768
_OWN_FOLDER = str(Path(__file__).parent)
# The codes before the text of an error for the SQL user, by the client's activity
_PARSING = "F-UDF-CL-LIB-1125: F-UDF-CL-SL-PYTHON-1000"
_CALLING = "F-UDF-CL-LIB-1126: F-UDF-CL-SL-PYTHON-1004"
_RUNNING = "F-UDF-CL-LIB-1127: F-UDF-CL-SL-PYTHON-1002"
_CLEANING = "F-UDF-CL-SL-PYTHON-1001"
_SINGLE_CALLS = {
    SingleCall.DEFAULT_OUTPUT_COLUMNS: "default_output_columns",
    SingleCall.VIRTUAL_SCHEMA_ADAPTER: "adapter_call",
    SingleCall.IMPORT_SPEC: "generate_sql_for_import_spec",
    SingleCall.EXPORT_SPEC: "generate_sql_for_export_spec",
}


class ScriptError(Exception):
    """The script failed; the text is the one that the SQL user sees."""


class ExaUDFError(Exception):
    """A failure whose text has the traceback; the class has the name that Exasol's client uses."""

    __module__ = "builtins"


def main(arguments: list[str]) -> int:
    """Run a script for a host, and return the exit status: 0, or 1 if the script failed.

    Args:
        arguments: socket, language and version of the options' parser, as for ``exaudfclient``.
    """
    if not _are_valid(arguments):
        sys.stderr.write(_USAGE)
        return 1
    _prepare_process()
    channel = Channel(arguments[0])
    failure = _run_session(channel)
    if failure is None:
        try:
            channel.exchange(MessageType.FINISHED)
        except HostError as error:
            failure = f"F-UDF-CL-LIB-1129: {error}"
        else:
            return 0
    with suppress(HostError):
        channel.close(until_nul(failure).encode(errors="ignore").decode())
    return 1


def _run_session(channel: Channel) -> str | None:
    """Run the session with the host; return the text of the error that ended it, or None."""
    try:
        info, meta = channel.introduce()
    except HostError as error:
        return f"F-UDF-CL-LIB-1123: {error}"
    try:
        script = Script(channel, info, meta)
    except ScriptError as error:
        return str(error)
    failure = None
    try:
        (_serve_calls if meta.single_call else _serve_groups)(channel, script)
    except ScriptError as error:
        failure = str(error)
    except HostError as error:
        failure = f"F-UDF-CL-LIB-1129: {error}"
    try:
        script.cleanup()
    except ScriptError as error:
        if failure is None:
            return f"F-UDF-CL-LIB-1128: {error}"
        return (
            f"F-UDF-CL-LIB-1111: Caught exception\n\n{failure}\n\n and caught another exception "
            f"during cleanup\n\n{error}"
        )
    return failure


def _are_valid(arguments: list[str]) -> bool:
    options = {"scriptOptionsParserVersion=1", "scriptOptionsParserVersion=2"}
    return (
        len(arguments) in (2, 3)
        and arguments[0].startswith(("ipc://", "tcp://"))
        and arguments[1] == "lang=python"
        and options.issuperset(arguments[2:])
    )


def _prepare_process() -> None:
    """Set up the process like that of Exasol's client, which embeds Python."""
    os.environ["HOME"] = "/tmp"  # noqa: S108 -- so does Exasol's client
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _MAX_FILES if files == resource.RLIM_INFINITY else min(files, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    # `python -m` puts the current directory on the path, and this module in `__main__`
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.argv = [""]
    sys.modules["__main__"] = types.ModuleType("__main__")


def _serve_groups(channel: Channel, script: Script) -> None:
    while channel.exchange(MessageType.RUN, MessageType.RUN, MessageType.CLEANUP).type is (
        MessageType.RUN
    ):
        script.run()
        done = channel.exchange(MessageType.DONE, MessageType.DONE, MessageType.CLEANUP)
        if done.type is MessageType.CLEANUP:
            return


def _serve_calls(channel: Channel, script: Script) -> None:
    while True:
        call = channel.exchange(MessageType.RUN, MessageType.CALL, MessageType.CLEANUP).call
        if call is None:
            return
        result = script.call(call)
        if result is None:
            kind, missing = MessageType.UNDEFINED_CALL, _SINGLE_CALLS[call.function]
            channel.exchange(kind, request=Request(kind, undefined_call=missing))
        else:
            kind = MessageType.RETURN
            channel.exchange(kind, request=Request(kind, call_result=result))
        channel.exchange(MessageType.DONE)


class Script:
    """A script, loaded into its own namespace.

    Args:
        channel: the connection to the host.
        info: the script and its session.
        meta: its input and output.

    Raises:
        ScriptError: the script cannot be compiled, or fails outside of its functions.
    """

    def __init__(self, channel: Channel, info: Info, meta: Meta) -> None:
        self._channel = channel
        self._meta = meta
        # Without `__file__`, and without `__name__`, which is then that of `builtins`. The modules
        # are in it because Exasol's client runs its own code in the same namespace
        self._globals: dict[str, Any] = {
            "sys": sys,
            "os": os,
            "decimal": decimal,
            "datetime": dt,
            "types": types,
            "unicode": str,
            "ExaUDFError": ExaUDFError,
            "exa": Exa(channel, info, meta),
        }
        try:
            code = compile(info.source_code, info.script_name, "exec", dont_inherit=True)
        except Exception as error:
            raise _script_error(_PARSING, 1005, error) from error
        try:
            try:
                exec(code, self._globals)  # noqa: S102 -- the purpose of a UDF client
            except BaseException as error:  # noqa: BLE001 -- sys.exit() too
                raise _traceback_error(1122, "Exception while parsing UDF", error)  # noqa: B904
        except ExaUDFError as error:
            raise _script_error(_PARSING, 1017, error) from error

    def run(self) -> None:
        """Call ``run`` for a group: once, or for each row if the script is SCALAR.

        Raises:
            ScriptError: the function failed, or does not exist.
        """
        try:
            self._run()
        except (ExaUDFError, RuntimeError) as error:
            raise _script_error(_RUNNING, 1026, error) from error

    def _run(self) -> None:
        if "run" not in self._globals:
            raise RuntimeError("F-UDF-CL-SL-PYTHON-1110: function 'run' is not defined")
        function = self._globals["run"]
        meta = self._meta
        is_scalar = meta.input_iteration is IterationType.EXACTLY_ONCE
        is_returned = meta.output_iteration is IterationType.EXACTLY_ONCE
        try:
            rows = InputRows(self._channel, [column.type for column in meta.input_columns])
        except HostError as error:
            raise RuntimeError(f"F-UDF-CL-SL-PYTHON-1111: {error}") from None
        kinds = [column.type for column in meta.output_columns]
        output = OutputRows(self._channel, kinds, rows, waits=is_scalar and is_returned)
        context = Context(meta, rows, output, self._globals)
        emit, go_on = context.emit, context.next
        if is_returned:
            vars(context)["emit"] = _refuse_in_scalar
        if is_scalar:
            vars(context).update(next=_refuse_in_scalar, reset=_refuse_in_scalar)
        try:
            while True:
                result = function(context)
                if is_returned:
                    emit(result)
                if not is_scalar or not go_on():
                    break
        except BaseException as error:  # noqa: BLE001 -- sys.exit() too
            raise _traceback_error(1114, "Exception during run", error)  # noqa: B904
        # a refusal of this packet is ignored, because the host then refuses DONE, too
        with suppress(HostError):
            output.flush()

    def call(self, call: Call) -> str | None:
        """Call the function of a single call; return None if the script does not define it.

        Args:
            call: the function, and its argument.

        Raises:
            ScriptError: the function failed, or did not return a text.
            HostError: the function needs a specification, which this client does not support.
        """
        if call.function in (SingleCall.IMPORT_SPEC, SingleCall.EXPORT_SPEC):
            raise HostError(
                f"{_SINGLE_CALLS[call.function]} needs a specification, which this client does "
                "not support; use Exasol's client"
            )
        function = self._globals.get(_SINGLE_CALLS[call.function])
        if function is None:
            return None
        try:
            if call.function is SingleCall.VIRTUAL_SCHEMA_ADAPTER:
                result = function(call.json_argument)
            else:
                result = self._call_without_argument(function)
        except BaseException as error:
            raise _script_error(_CALLING, 1036, error) from error
        if not isinstance(result, str):
            raise ScriptError(
                f"{_CALLING}: F-UDF-CL-SL-PYTHON-1037: {call.function.value} did not return "
                "string type (singleCall)"
            )
        return until_nul(result)

    def _call_without_argument(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except BaseException as error:  # noqa: BLE001 -- sys.exit() too
            what = f"Exception during singleCall {function.__name__}"
            raise _traceback_error(1118, what, error)  # noqa: B904

    def cleanup(self) -> None:
        """Call ``cleanup``, if the script defines it.

        Raises:
            ScriptError: the function failed.
        """
        if "cleanup" not in self._globals:
            return
        try:
            self._globals["cleanup"]()
        except BaseException as error:
            failure = _traceback_error(1109, "Exception during cleanup", error)
            raise _script_error(_CLEANING, 1023, failure) from error


def _refuse_in_scalar(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(
        "F-UDF-CL-SL-PYTHON-1107: next(), reset() and emit() functions are not allowed in scalar "
        "context"
    )


class Exa:
    """The object ``exa`` of a script.

    Args:
        channel: the connection to the host.
        info: the script and its session.
        meta: its input and output.
    """

    class ConnectionInformation:
        """A connection object of the database."""

        def __init__(self, type: str, address: str, user: str, password: str) -> None:  # noqa: A002 -- Exasol's name
            self.type = type
            self.address = address
            self.user = user
            self.password = password

        def __str__(self) -> str:
            return (
                f'{{"type":"{self.type}","address":"{self.address}","user":"{self.user}",'
                '"password":<omitted!>}'
            )

    def __init__(self, channel: Channel, info: Info, meta: Meta) -> None:
        self.__channel = channel
        self.__modules: dict[str, types.ModuleType] = {}
        self.meta = _exa_meta(info, meta)

    def import_script(self, script: Any) -> types.ModuleType:
        """Return another script of the database as a module.

        Args:
            script: its name.
        """
        name = str(script)
        response = self.__import(name, ImportKind.SCRIPT_CODE, f"1119: Importing module {name}")
        code = until_nul(response.source_code or "")
        if code not in self.__modules:
            module = self.__modules[code] = types.ModuleType(name)
            vars(module).update(__file__=f"<{name}>", exa=self)
            try:
                exec(compile(code, name, "exec", dont_inherit=True), vars(module))  # noqa: S102
            except BaseException as error:  # noqa: BLE001 -- sys.exit() too
                raise _traceback_error(1120, f"Importing module {name} failed", error)  # noqa: B904
        return self.__modules[code]

    def get_connection(self, name: Any) -> Exa.ConnectionInformation:
        """Return a connection object.

        Args:
            name: its name.
        """
        what = f"1121: get_connection for connection name {name}"
        found = self.__import(str(name), ImportKind.CONNECTION, what).connection
        if found is None:
            raise ImportError(
                f"F-UDF-CL-SL-PYTHON-{what} failed: F-UDF-CL-LIB-1051: Internal error: No "
                "connection information returned"
            )
        return self.ConnectionInformation(found.kind, found.address, found.user, found.password)

    def __import(self, name: str, kind: ImportKind, what: str) -> ImportResponse:
        message = MessageType.IMPORT
        request = Request(message, import_request=ImportRequest(name, kind))
        try:
            response = self.__channel.exchange(message, request=request).import_response
        except HostError as error:
            raise ImportError(f"F-UDF-CL-SL-PYTHON-{what} failed: {error}") from None
        if response is None or response.exception_message is not None:
            reason = (
                response.exception_message if response else "received IMPORT without its content"
            )
            raise ImportError(f"F-UDF-CL-SL-PYTHON-{what} failed: {reason}")
        return response


_PYTHON_TYPES: dict[ColumnType, type] = {
    ColumnType.DOUBLE: float,
    ColumnType.INT32: int,
    ColumnType.INT64: int,
    ColumnType.NUMERIC: decimal.Decimal,
    ColumnType.TIMESTAMP: dt.datetime,
    ColumnType.DATE: dt.date,
    ColumnType.STRING: str,
    ColumnType.BOOLEAN: bool,
}
_INTEGERS = (ColumnType.INT32, ColumnType.INT64)


def _exa_meta(info: Info, meta: Meta) -> types.SimpleNamespace:
    """Return ``exa.meta``, with the names that Exasol documents."""
    is_scalar = meta.input_iteration is IterationType.EXACTLY_ONCE
    is_returned = meta.output_iteration is IterationType.EXACTLY_ONCE
    inputs = [_exa_column(column) for column in meta.input_columns]
    outputs = [_exa_column(column) for column in meta.output_columns]
    if is_returned and outputs:
        outputs[0].name = "RETURN"
    version = ".".join(map(str, sys.version_info[:3]))
    return types.SimpleNamespace(
        database_name=info.database_name,
        database_version=info.database_version,
        script_name=info.script_name,
        script_schema=info.script_schema,
        current_user=info.current_user or "",
        scope_user=info.scope_user or info.current_user or "",
        current_schema=info.current_schema or "",
        script_code=info.source_code,
        script_language=f"Python {version}",
        session_id=str(info.session_id),
        statement_id=info.statement_id,
        node_count=info.node_count,
        node_id=info.node_id,
        memory_limit=info.memory_limit,
        vm_id=str(info.vm_id),
        input_column_count=len(inputs),
        input_column_name=[column.name for column in inputs],
        input_type="SCALAR" if is_scalar else "SET",
        input_columns=inputs,
        output_column_count=len(outputs),
        output_type="RETURN" if is_returned else "EMIT",
        output_columns=outputs,
    )


def _exa_column(column: Column) -> types.SimpleNamespace:
    scale = column.scale or 0
    is_numeric = column.type is ColumnType.NUMERIC or column.type in _INTEGERS
    is_whole = is_numeric and (column.type in _INTEGERS or scale == 0)
    return types.SimpleNamespace(
        name=column.name,
        type=int if is_whole else _PYTHON_TYPES[column.type],
        sql_type=column.type_name,
        precision=(column.precision or 0) if is_numeric else None,
        scale=(0 if is_whole else scale) if is_numeric else None,
        length=(column.size or 0) if column.type is ColumnType.STRING else None,
    )


def _script_error(stage: str, code: int, error: BaseException) -> ScriptError:
    return ScriptError(f"{stage}: F-UDF-CL-SL-PYTHON-{code}: {type(error).__name__}: {error}")


def _traceback_error(code: int, what: str, error: BaseException) -> ExaUDFError:
    """Return an error whose text has the traceback of another error, and print that text."""
    shown = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    _hide_own_frames(shown)
    lines = "".join(map(_clean_line, shown.format()))
    text = f"F-UDF-CL-SL-PYTHON-{code}: {what} \n{lines}"
    print(text)  # noqa: T201 -- into the script's output, as Exasol's client does
    return ExaUDFError(text)


def _hide_own_frames(shown: traceback.TracebackException) -> None:
    """Remove this client's frames from a traceback, as Exasol's client removes its own."""
    shown.stack[:] = [f for f in shown.stack if os.path.dirname(f.filename) != _OWN_FOLDER]  # noqa: PTH120
    for other in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if other is not None:
            _hide_own_frames(other)


def _clean_line(line: str) -> str:
    """Shorten a frame of a traceback that has no source line, and drop the traceback's heading."""
    if frame := re.match(r'^\s+File "(.+)", line ([0-9]+), in (.+)$', line):
        name, number, function = frame.groups()
        return f"{name}:{number} {function}\n"
    return "" if "Traceback (most recent call last):" in line else line


if __name__ == "__main__":
    # Like Exasol's client, end without flushing output and without tearing down modules
    os._exit(main(sys.argv[1:]))
