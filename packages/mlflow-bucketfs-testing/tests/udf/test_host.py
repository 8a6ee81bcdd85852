"""The host with real client processes, which work or fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import (
    UdfClientDiedError,
    UdfClientError,
    UdfError,
    UdfProtocolError,
    UdfRunner,
    UdfTimeoutError,
)
from mlflow_bucketfs_testing.udf import host
from mlflow_bucketfs_testing.udf.clients import LocalClient

_SCRIPT = "CREATE PYTHON3 SET SCRIPT f(x VARCHAR(100)) EMITS (y VARCHAR(1000)) AS\nx"


@pytest.fixture(autouse=True)
def nothing_is_left(session_processes, monkeypatch, tmp_path_factory):
    """Check after each test that no process and no socket of its runs is left."""
    directory = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    yield
    assert not session_processes()
    assert not list(directory.iterdir())


def test_a_client_that_works(run_client):
    """The client gets the arguments of a database; the result has its rows and its output."""
    result = run_client("""
print("hello", *sys.argv[2:], flush=True)
print("error", file=sys.stderr, flush=True)
os.write(1, bytes([255, 10]))
begin()
table = send(MessageType.NEXT).next
emit(*table.strings, "more")
end()
""")

    assert result.rows == [("a",), ("more",)]
    assert (
        result.output
        == "hello lang=python scriptOptionsParserVersion=1\nerror\n\N{REPLACEMENT CHARACTER}\n"
    )
    assert 0 < result.seconds < 60


def test_an_exception_of_the_script_is_raised(run_client):
    """The error has the exception's text, the codes in it, and the script's output."""
    text = "F-UDF-CL-LIB-1127: F-UDF-CL-SL-PYTHON-1002: no\nTraceback: 7"
    with pytest.raises(UdfError) as caught:
        run_client(f"""
print("before", flush=True)
begin()
send(MessageType.CLOSE, close=Close({text!r}))
sys.exit(1)
""")

    assert str(caught.value) == caught.value.text == text
    assert caught.value.code == "F-UDF-CL-LIB-1127"
    assert caught.value.codes == ("F-UDF-CL-LIB-1127", "F-UDF-CL-SL-PYTHON-1002")
    assert caught.value.output == "before\n"


def test_an_exception_without_a_code():
    """An error text without codes has no code."""
    assert UdfError("no").code is None


def test_a_client_that_is_missing(tmp_path):
    """A missing client is reported with its path before anything is started."""
    with pytest.raises(UdfClientError, match=f"there is no UDF client at {tmp_path}/none"):
        UdfRunner(str(tmp_path / "none"))


def test_a_client_that_is_not_executable(tmp_path):
    """The error has the command that makes the client executable."""
    program = tmp_path / "exaudfclient"
    program.touch(mode=0o600)

    with pytest.raises(UdfClientError, match=f"not executable: chmod \\+x {program}"):
        UdfRunner(str(program))


def _elf_for_another_libc():
    """Return a program whose dynamic loader does not exist here, as if built for musl."""
    program = Path("/bin/true").read_bytes()
    loader = re.search(rb"/lib[\w/.-]*/ld-[\w.-]+", program)
    if not program.startswith(b"\x7fELF") or loader is None:
        pytest.skip("needs a dynamic ELF program")
    return program.replace(loader.group(), b"/lib/ld-none.so".ljust(len(loader.group()), b"\0"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_elf_for_another_libc, "built for another system"),
        (lambda: b"#!/none/sh\n", "the dynamic loader or interpreter that it names does not"),
        (lambda: b"\x7fELF of another processor", "cannot be executed: Exec format error"),
    ],
    ids=["libc", "interpreter", "processor"],
)
def test_a_client_that_cannot_be_executed(tmp_path, content, message):
    """The error explains why an existing file cannot be executed."""
    program = tmp_path / "exaudfclient"
    program.write_bytes(content())
    program.chmod(0o700)

    with UdfRunner(str(program)) as runner, pytest.raises(UdfClientError, match=message):
        runner.create(_SCRIPT).run([("a",)])


def test_a_client_that_is_removed(client):
    """The error names a client that was removed after the runner was created."""
    with UdfRunner(client("")) as runner:
        udf = runner.create(_SCRIPT)
        Path(runner.client).unlink()
        with pytest.raises(UdfClientError, match=f"{runner.client} does not exist"):
            udf.run([("a",)])


@pytest.mark.parametrize(
    ("code", "how", "expected", "status"),
    [
        ("sys.exit('libx.so: cannot open')", "status 1", "CLIENT", 1),
        ("begin(); sys.exit(3)", "status 3", "NEXT, RESET, EMIT, DONE", 3),
        ("begin(); os.kill(os.getpid(), signal.SIGKILL)", "signal 9", "NEXT, RESET", -9),
    ],
    ids=["start", "group", "signal"],
)
def test_a_client_that_ends_too_early(run_client, code, how, expected, status):
    """The error has the exit status, the expected messages, and the last lines of output."""
    noise = "print(*range(100), sep=chr(10), flush=True)\n"
    with pytest.raises(
        UdfClientDiedError, match=f"ended with {how} .*expected {expected}"
    ) as caught:
        run_client(noise + code)

    assert caught.value.exit_code == status
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1].strip() == ("libx.so: cannot open" if status == 1 else "99")


def test_a_client_that_is_silent(client):
    """A silent client is killed, and the error names the expected messages."""
    silent = client("print('starting', flush=True)\nwhile True: signal.pause()")
    with (
        UdfRunner(silent, silence_s=0.3) as runner,
        pytest.raises(UdfTimeoutError, match=r"silent for 0\.3 s and was killed; expected CLIENT"),
    ):
        runner.create(_SCRIPT).run([("a",)])


def test_a_run_that_takes_too_long(run_client):
    """A run that exceeds its time is killed although its client sends messages."""
    endless = "begin()\nprint('begun', flush=True)\nwhile True: send(MessageType.RESET)"
    with pytest.raises(UdfTimeoutError, match="more than 5 s and was killed; allow more") as caught:
        run_client(endless, timeout_s=5)
    assert "begun" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("send_bytes(b'hello')", "received 5 bytes that are not a request .*: 68 65 6c 6c 6f"),
        ("send(MessageType.META)", "received META; expected CLIENT"),
        (
            "begin(); connection_id = 1; send(MessageType.NEXT)",
            "received NEXT with connection id 1",
        ),
        (
            "begin(); send(MessageType.EMIT, emit=pack_rows([ColumnType.INT64], Rows(1, [[1]])))",
            "1 rows with 0 strings; its columns STRING need 1",
        ),
    ],
    ids=["bytes", "order", "id", "table"],
)
def test_a_client_that_violates_the_protocol(run_client, code, message):
    """The error has the received and the expected message."""
    with pytest.raises(UdfProtocolError, match=message):
        run_client(code)


def test_a_script_that_emits_too_much_for_its_column(run_client):
    """The error has the value, its row and its column."""
    with pytest.raises(UdfError, match=r"row 2, output column y: .* it has 1001 characters"):
        run_client("begin(); emit('a', 'b' * 1001)")


def test_a_script_that_takes_too_much_memory(run_client):
    """A script above its memory limit is killed; the error has the limit and the use."""
    with pytest.raises(UdfClientError, match=r"the UDF used \d+ MiB, more than .* 100 MiB"):
        run_client("begin(); much = bytearray(2 * 10**8); time.sleep(600)", memory_limit=100 << 20)


@pytest.mark.parametrize("session", [False, True], ids=["child", "daemon"])
def test_processes_of_a_script_end_with_it(run_client, session):
    """Child processes are ended, also those in a separate session."""
    result = run_client(f"""
begin()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                 start_new_session={session}, stdout=subprocess.DEVNULL)
end()
""")

    assert result.rows == []


def test_a_client_that_does_not_end(run_client, monkeypatch):
    """A client that has finished but does not end is killed; its rows are returned."""
    monkeypatch.setattr(host, "_EXIT_S", 0.1)

    assert run_client("begin(); emit('a'); end(); time.sleep(600)").rows == [("a",)]


def test_a_long_temporary_directory(run_client, monkeypatch, tmp_path):
    """A TMPDIR that is too long for the path of a socket is not used."""
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    assert run_client("begin(); emit('a'); end()").rows == [("a",)]


_SHOW_MODES = """
socket_path = sys.argv[1].removeprefix("ipc://")
for path in (os.path.dirname(socket_path), socket_path):
    print(path, f"{os.stat(path).st_mode & 0o777:o}", flush=True)
"""


def test_the_socket_is_private(run_client):
    """No other user can reach the socket."""
    assert run_client(_SHOW_MODES + "begin(); end()").output.split()[1] == "700"


def test_the_socket_of_a_client_of_another_user(run_client, monkeypatch):
    """Another user can connect to the socket; as root, the test's client becomes user 500."""
    monkeypatch.setattr(LocalClient, "other_user", True)
    become = "os.setgid(500); os.setuid(500)\n" if os.geteuid() == 0 else ""
    # connects after the change of the user
    again = "socket = zmq.Context().socket(zmq.REQ); socket.connect(sys.argv[1])\n"

    result = run_client(_SHOW_MODES + become + again + "begin(); emit('a'); end()")

    directory, mode, socket, socket_mode = result.output.split()
    assert (mode, socket_mode) == ("711", "666")
    assert Path(socket).parent == Path(directory)
    assert not Path(directory).exists()
    assert result.rows == [("a",)]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_owner_leaves_nothing(client, session_processes, wait_until, signal_number):
    """No client and no socket is left after a signal ends the process that runs UDFs."""
    endless = client("begin(); print(sys.argv[1], flush=True); time.sleep(600)")
    program = f"""
from mlflow_bucketfs_testing import UdfRunner
with UdfRunner({endless!r}) as runner:
    runner.create({_SCRIPT!r}).run([("a",)])
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as owner:
        root = Path(tempfile.gettempdir())
        wait_until(lambda: any(log.stat().st_size for log in root.glob("udf-*/output")))
        assert session_processes()
        owner.send_signal(signal_number)

    wait_until(lambda: not session_processes() and not list(root.iterdir()))
