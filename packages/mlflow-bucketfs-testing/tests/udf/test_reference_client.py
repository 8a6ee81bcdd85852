"""The reference client: its process, its packets, and the environment of a script.

``test_behaviours.py`` tests how it treats data, and its errors.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import zmq
from mlflow_bucketfs_testing import UdfError, UdfRunner
from mlflow_bucketfs_testing.udf import runner
from mlflow_bucketfs_testing.udf.codec import ProtobufCodec
from mlflow_bucketfs_testing.udf.messages import (
    Close,
    MessageType,
    Response,
)

MODULE = "mlflow_bucketfs_testing.udf.reference_client"


class Watcher(ProtobufCodec):
    """A codec that records the client's messages, and changes some of the responses to them."""

    def __init__(self, changed=None):
        self.requests = []
        self._changed = changed or {}

    def decode_request(self, data):
        """Record the request."""
        self.requests.append(super().decode_request(data))
        return self.requests[-1]

    def encode_response(self, response):
        """Encode another response to the first request of a type in ``changed``."""
        change = self._changed.pop(self.requests[-1].type, None)
        return super().encode_response(change(response) if change else response)

    @property
    def types(self):
        """The types of the client's messages."""
        return " ".join(request.type.name for request in self.requests)

    @property
    def closed(self):
        """The text of the error that the client reported."""
        return next(request.close.exception_message for request in self.requests if request.close)


@pytest.fixture
def watch(monkeypatch):
    """Return a function that runs a script, and returns its result or error, and the `Watcher`."""

    def run(code, rows=((1.5,),), *, head=None, changed=None, **arguments):
        watcher = Watcher(changed)
        monkeypatch.setattr(runner, "ProtobufCodec", lambda: watcher)
        head = head or "SET SCRIPT f(x DOUBLE) EMITS (y VARCHAR(2000000))"
        with UdfRunner() as started:
            udf = started.create(f"CREATE PYTHON3 {head} AS\n{code}\n/")
            try:
                return udf.run(rows, **arguments), watcher
            except UdfError as error:
                return error, watcher

    return run


def test_order_of_messages(watch):
    """The client reads a group to its end, emits its rows, and ends after the last group."""
    _, watcher = watch("def run(ctx):\n    while ctx.next(): pass\n    ctx.emit('x')")
    assert watcher.types == "CLIENT META RUN NEXT NEXT EMIT DONE RUN FINISHED"


def test_an_error_ends_with_close(watch):
    """CLOSE is the client's last message, and rows that it has not sent yet are lost."""
    _, watcher = watch("def run(ctx):\n    ctx.emit('x')\n    1 / 0")
    assert watcher.types == "CLIENT META RUN NEXT CLOSE"


def test_packets_of_four_million_bytes(watch):
    """A packet is sent when its size reaches 4,000,000; a text counts its bytes plus four."""
    text = 999_998 * "ä"  # 1,999,996 bytes
    code = f"def run(ctx):\n    for _ in range(3): ctx.emit(ctx.x and {len(text)} * 'ä')"
    result, watcher = watch(code)
    assert [request.emit.rows for request in watcher.requests if request.emit] == [2, 1]
    assert result.rows == [(text,)] * 3


def test_packets_of_a_frame(watch):
    """A frame is sent in packets of the same size as single rows."""
    text = 1_999_996 * "x"
    frame = f"pandas.DataFrame({{'y': [{len(text)} * 'x'] * 3}})"
    code = f"import pandas\ndef run(ctx):\n    ctx.emit({frame})"
    result, watcher = watch(code)
    assert [request.emit.rows for request in watcher.requests if request.emit] == [2, 1]
    assert result.rows == [(text,)] * 3


def test_a_run_that_returns_too_much_for_a_packet(watch):
    """A run of SCALAR RETURNS ends when its packet is full, and the next one has other rows."""
    head = "SCALAR SCRIPT f(x DOUBLE) RETURNS VARCHAR(2000000)"
    rows = [(float(number),) for number in range(5)]
    code = "def run(ctx): return repr(ctx.x).ljust(2_000_000)"
    result, watcher = watch(code, rows, head=head, packet_rows=2)
    assert [row[0].strip() for row in result.rows] == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    assert watcher.types.count("RUN NEXT") == 3


def test_row_numbers(watch):
    """Each emitted row has the number of the input row that was the current one."""
    code = "def run(ctx):\n    while True:\n        ctx.emit('x')\n        if not ctx.next(): break"
    _, watcher = watch(code, [(1.0,), (2.0,), (3.0,)], packet_rows=2)
    (sent,) = [request.emit for request in watcher.requests if request.emit]
    assert (sent.row_numbers, sent.rows_in_group) == ([0, 1, 2], 0)


def test_reset(watch):
    """A reset requests the first packet again."""
    code = "def run(ctx):\n    while ctx.next(): pass\n    ctx.reset()\n    ctx.emit(repr(ctx.x))"
    result, watcher = watch(code, [(1.0,), (2.0,)])
    assert result.rows == [("1.0",)]
    assert "NEXT NEXT RESET EMIT" in watcher.types


@pytest.mark.parametrize(
    ("kind", "response", "text"),
    [
        (
            MessageType.RUN,
            lambda given: replace(given, type=MessageType.CLOSE, close=Close("out of memory")),
            "F-UDF-CL-LIB-1129: out of memory",
        ),
        (
            MessageType.RUN,
            lambda given: replace(given, type=MessageType.PING_PONG),
            (
                "F-UDF-CL-LIB-1129: F-UDF-CL-LIB-1032: Wrong response type, should be MT_RUN or "
                "MT_CLEANUP, got MT_PING_PONG"
            ),
        ),
        (
            MessageType.NEXT,
            lambda given: Response(MessageType.CLOSE, given.connection_id, close=Close("no rows")),
            (
                "F-UDF-CL-LIB-1127: F-UDF-CL-SL-PYTHON-1002: F-UDF-CL-SL-PYTHON-1026: "
                "RuntimeError: F-UDF-CL-SL-PYTHON-1111: no rows"
            ),
        ),
        (
            MessageType.META,
            lambda given: replace(given, connection_id=given.connection_id + 1),
            (
                "F-UDF-CL-LIB-1123: F-UDF-CL-LIB-1061: Communication error: wrong connection id, "
                "expected 4711 got 4712"
            ),
        ),
    ],
)
def test_unexpected_responses(watch, kind, response, text):
    """The client reports an unexpected response and ends; the SQL user sees its text."""
    error, watcher = watch("def run(ctx): pass", changed={kind: response})
    assert (watcher.closed, str(error)) == (text, text)


def test_a_refused_packet(watch):
    """A packet that the host refuses raises an error in the script, with the host's text."""
    changed = {
        MessageType.EMIT: lambda given: Response(
            MessageType.CLOSE, given.connection_id, close=Close("value too long")
        )
    }
    code = "def run(ctx):\n    for _ in range(3): ctx.emit(2_000_000 * 'x')"
    error, _ = watch(code, changed=changed)
    assert "RuntimeError: F-UDF-CL-SL-PYTHON-1100: value too long" in str(error)


def test_meta(watch):
    """``exa.meta`` describes the script, its columns and its session."""
    code = """
def run(ctx):
    meta = exa.meta
    ctx.emit(repr((meta.script_name, meta.script_schema, meta.script_code == code, meta.vm_id)))
    for c in (*meta.input_columns, *meta.output_columns):
        ctx.emit(repr((c.name, c.type.__name__, c.sql_type, c.precision, c.scale, c.length)))
    ctx.emit(repr((meta.input_type, meta.output_type, meta.input_column_name)))
code = exa.meta.script_code"""
    head = "SET SCRIPT a.f(x DOUBLE, n DECIMAL(36,2), i INT, s CHAR(3)) EMITS (y VARCHAR(2000))"
    result, _ = watch(code, [(1.0, 2, 3, "a")], head=head)
    assert [row[0] for row in result.rows] == [
        "('F', 'A', True, '1')",
        "('x', 'float', 'DOUBLE', None, None, None)",
        "('n', 'Decimal', 'DECIMAL(36,2)', 36, 2, None)",
        "('i', 'int', 'DECIMAL(18,0)', 18, 0, None)",
        "('s', 'str', 'CHAR(3) UTF8', None, None, 3)",
        "('y', 'str', 'VARCHAR(2000) UTF8', None, None, 2000)",
        "('SET', 'EMIT', ['x', 'n', 'i', 's'])",
    ]


def test_imported_scripts(watch):
    """Scripts with the same code are imported as one module."""
    code = """
def run(ctx):
    a, b = exa.import_script("LIB"), exa.import_script("OTHER")
    ctx.emit(repr((a is b, a.__name__, a.__file__, a.f(1))))"""
    scripts = dict.fromkeys(("LIB", "OTHER"), "def f(x): return x + 1, exa.meta.script_name")
    result, _ = watch(code, scripts=scripts)
    assert result.rows == [("(True, 'LIB', '<LIB>', (2, 'F'))",)]


def test_failed_imports(watch):
    """A missing script, a script that fails and a missing connection are errors with codes."""
    code = """
def run(ctx):
    for ask in (exa.import_script, exa.get_connection):
        for name in ("NONE", "BROKEN"):
            try:
                ask(name)
            except BaseException as error:
                ctx.emit(f"{type(error).__name__}: {error}")"""
    result, _ = watch(code, scripts={"BROKEN": "1 / 0"})
    assert [row[0] for row in result.rows] == [
        (
            "ImportError: F-UDF-CL-SL-PYTHON-1119: Importing module NONE failed: "
            "script NONE does not exist"
        ),
        (
            "ExaUDFError: F-UDF-CL-SL-PYTHON-1120: Importing module BROKEN failed \n"
            "BROKEN:1 <module>\nZeroDivisionError: division by zero\n"
        ),
        (
            "ImportError: F-UDF-CL-SL-PYTHON-1121: get_connection for connection name NONE "
            "failed: connection NONE does not exist"
        ),
        (
            "ImportError: F-UDF-CL-SL-PYTHON-1121: get_connection for connection name BROKEN "
            "failed: connection BROKEN does not exist"
        ),
    ]


def test_a_connection_hides_its_password(watch):
    """The text of a connection does not contain its password."""
    code = "def run(ctx):\n    c = exa.get_connection('C')\n    ctx.emit(f'{c} {c.password}')"
    result, _ = watch(code, connections={"C": ("https://a", "u", "p4ss")})
    assert result.rows == [
        ('{"type":"password","address":"https://a","user":"u","password":<omitted!>} p4ss',)
    ]


def test_a_traceback_through_a_library(watch):
    """A traceback has short frames of the script, Python's of libraries, none of the client."""
    error, _ = watch("import json\ndef run(ctx):\n    json.loads('{')")
    lines = str(error).splitlines()
    assert lines[1] == "F:3 run"
    assert lines[2].startswith('  File "')
    assert "json" in lines[2]
    assert not [line for line in lines if "reference_" in line]


def test_errors_in_run_and_in_cleanup(watch):
    """The SQL user sees both errors; the second does not have the first as its context."""
    error, _ = watch("def run(ctx): 1 / 0\ndef cleanup(): raise ValueError('c')")
    first, _, second = str(error).partition("\n\n and caught another exception during cleanup\n\n")
    assert first.startswith("F-UDF-CL-LIB-1111: Caught exception\n\nF-UDF-CL-LIB-1127: ")
    assert second == (
        "F-UDF-CL-SL-PYTHON-1001: F-UDF-CL-SL-PYTHON-1023: ExaUDFError: F-UDF-CL-SL-PYTHON-1109: "
        "Exception during cleanup \nF:2 cleanup\nValueError: c\n"
    )


def test_the_process(watch):
    """A script has Exasol's home, no core dumps, and no current directory on its path."""
    code = """
import resource
def run(ctx):
    import __main__
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    ctx.emit(repr((os.environ["HOME"], os.getcwd() in sys.path, limits, vars(__main__).keys())))"""
    result, _ = watch(code)
    names = "dict_keys(['__name__', '__doc__', '__package__', '__loader__', '__spec__'])"
    assert result.rows == [(f"('/tmp', False, (0, 0), {names})",)]


def test_without_pandas(watch, tmp_path, monkeypatch):
    """Only a script that uses a data frame fails without pandas, and its error names pandas."""
    (tmp_path / "pandas.py").write_text("raise ImportError('no pandas here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result, _ = watch("def run(ctx): ctx.emit(repr('pandas' in sys.modules))")
    assert result.rows == [("False",)]
    error, _ = watch("def run(ctx): ctx.get_dataframe()")
    assert "need pandas, which cannot be imported (no pandas here); install it for" in str(error)


def test_imported_modules():
    """The client imports neither pytest nor pandas nor a server, so that it starts fast."""
    code = f"import sys, {MODULE}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"pytest", "starlette", "uvicorn", "numpy", "pandas", "click", "psutil"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ipc:///tmp/x"],
        ["x", "lang=python"],
        ["ipc:///tmp/x", "lang=java"],
        ["ipc:///tmp/x", "lang=python", "scriptOptionsParserVersion=3"],
    ],
)
def test_invalid_arguments(arguments):
    """The client prints its usage, and ends with status 1."""
    command = [sys.executable, "-m", MODULE, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.split(":")[0]) == (1, "Usage")


@pytest.mark.parametrize("lost", ["socket", "parent"])
def test_a_client_whose_host_is_gone(tmp_path, lost):
    """The client ends when its socket or its parent process is gone."""
    address = f"ipc://{tmp_path}/s"
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.linger = 0
        socket.bind(address)
        command = [sys.executable, "-m", MODULE, address, "lang=python"]
        starter = f"import subprocess; subprocess.run({command!r})"
        parent = subprocess.Popen([sys.executable, "-c", starter], stderr=subprocess.PIPE)
        assert socket.poll(60_000)
        socket.recv()
        if lost == "parent":
            parent.kill()
        else:
            (tmp_path / "s").unlink()
        # the end of the client closes the pipe
        text = parent.communicate()[1].decode()
    codes = {"socket": "F-UDF-CL-LIB-1000", "parent": "F-UDF-CL-LIB-1001"}
    assert text.startswith(codes[lost])


def test_a_client_repeats_its_introduction(tmp_path):
    """The client repeats its first message on a new socket until the host answers."""
    address = f"ipc://{tmp_path}/s"
    codec = ProtobufCodec()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.bind(address)

        def receive():
            assert socket.poll(60_000)
            *sender, data = socket.recv_multipart()
            return sender, data

        def answer(sender, response):
            socket.send_multipart([*sender, codec.encode_response(response)])

        process = subprocess.Popen([sys.executable, "-m", MODULE, address, "lang=python"])
        try:
            unanswered, first = receive()
            sender, second = receive()
            assert sender != unanswered
            assert second == first
            request = codec.decode_request(second)
            assert request.client.name == address
            # repeated if a busy machine answers later than the client's time-out
            while request.type is MessageType.CLIENT:
                answer(sender, Response(MessageType.CLOSE, 1, close=Close("go away")))
                sender, data = receive()
                request = codec.decode_request(data)
            answer(sender, Response(MessageType.FINISHED, 1))
            assert process.wait(60) == 1
        finally:
            process.kill()
            process.wait()
    assert request.close.exception_message == "F-UDF-CL-LIB-1123: go away"
