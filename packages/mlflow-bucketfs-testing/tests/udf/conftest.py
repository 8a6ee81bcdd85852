"""UDF clients for tests: real processes that follow the protocol, or violate it."""

from __future__ import annotations

import sys

import pytest
from mlflow_bucketfs_testing import UdfRunner

_PRELUDE = f"""#!{sys.executable}
import os, signal, subprocess, sys, time
import zmq
from mlflow_bucketfs_testing.udf.codec import ProtobufCodec
from mlflow_bucketfs_testing.udf.messages import *

codec, connection_id = ProtobufCodec(), 0
socket = zmq.Context().socket(zmq.REQ)
socket.connect(sys.argv[1])

def send_bytes(data):
    socket.send(data)
    return codec.decode_response(socket.recv())

def send(kind, **body):
    return send_bytes(codec.encode_request(Request(kind, connection_id, **body)))

def begin():
    global connection_id
    connection_id = send(MessageType.CLIENT, client=Client("test")).connection_id
    send(MessageType.META)
    send(MessageType.RUN)

def emit(*values):
    send(MessageType.EMIT, emit=pack_rows([ColumnType.STRING], Rows(len(values), [values])))

def end():
    send(MessageType.DONE)
    send(MessageType.RUN)
    send(MessageType.FINISHED)
"""


@pytest.fixture
def client(tmp_path):
    """Return a function that creates the executable of a UDF client from Python code."""

    def make(code, prelude=_PRELUDE):
        program = tmp_path / "exaudfclient"
        program.write_text(prelude + code)
        program.chmod(0o700)
        return str(program)

    return make


@pytest.fixture
def run_client(client):
    """Return a function that runs a script with one VARCHAR column in a client of Python code."""

    def run(code, rows=(("a",),), *, client_limits=None, **arguments):
        with UdfRunner(client(code), **(client_limits or {})) as runner:
            udf = runner.create(
                "CREATE PYTHON3 SET SCRIPT f(x VARCHAR(100)) EMITS (y VARCHAR(1000)) AS\nx"
            )
            return udf.run(rows, **arguments)

    return run
