"""``mlflow-bucketfs-testing serve`` in a separate process."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from exasol.bucketfs import Service, as_bytes

COMMAND = [sys.executable, "-m", "mlflow_bucketfs_testing", "serve"]


@contextmanager
def serving(*options, tmp_path):
    """Run ``serve``; yield the process and its output at the start."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*COMMAND, *options],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        while not lines or "MOUNT_ROOT" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line)
        yield process, "".join(lines)
    finally:
        process.kill()
        process.communicate()


def end(process, signal_number):
    """Send a signal; return exit status, the rest of the output, and the errors."""
    process.send_signal(signal_number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def exported(output):
    """Return the variables of a shell that has run the output."""
    script = output + "\nenv"
    shell = subprocess.run(
        ["sh", "-e"], input=script, env={}, capture_output=True, text=True, check=True
    )
    assert not shell.stderr
    variables = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    return {name: value for name, value in variables.items() if name.startswith("EXA_")}


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_signal(tmp_path, signal_number):
    """The printed variables work; on a signal, the server exits with 0 and leaves no files."""
    with serving("--port", "0", tmp_path=tmp_path) as (process, output):
        port = re.search(
            r"exa\+bfs://127\.0\.0\.1:(\d+)/bfsdefault/default$", output, re.MULTILINE
        )[1]
        variables = exported(output)
        assert variables == {"EXA_BUCKETFS_USER": "w", "EXA_BUCKETFS_PASSWORD": "write"}
        user, password = variables["EXA_BUCKETFS_USER"], variables["EXA_BUCKETFS_PASSWORD"]
        url = f"http://127.0.0.1:{port}/default/k"
        curl = ["curl", "--silent", "--fail", "--user", f"{user}:{password}"]
        subprocess.run([*curl, "--upload-file", __file__, url], check=True)
        downloaded = subprocess.run([*curl, url], check=True, capture_output=True).stdout
        assert downloaded == Path(__file__).read_bytes()
        credentials = {"default": {"username": user, "password": password}}
        bucket = Service(f"http://127.0.0.1:{port}", credentials)["default"]
        assert as_bytes(bucket.download("k")) == downloaded
        mount_root = re.search(r"EXA_BUCKETFS_MOUNT_ROOT=(.*)", output)[1]
        assert (Path(mount_root) / "bfsdefault/default/k").read_bytes() == downloaded
        assert end(process, signal_number) == (0, "", "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_serve_tls(tmp_path):
    """With HTTPS, a client that uses the printed certificate and name connects."""
    with serving("--port", "0", "--tls-port", "0", tmp_path=tmp_path) as (process, output):
        port = re.search(
            r"exa\+bfss://127\.0\.0\.1:(\d+)/bfsdefault/default$", output, re.MULTILINE
        )[1]
        variables = exported(output)
        name = variables["EXA_BUCKETFS_TLS_HOSTNAME"]
        pem = Path(variables["EXA_BUCKETFS_CA_BUNDLE"]).read_text()
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        assert variables["EXA_BUCKETFS_CERT_FINGERPRINT"] == digest
        command = ["curl", "--silent", "--fail", "--cacert", variables["EXA_BUCKETFS_CA_BUNDLE"]]
        command += ["--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/"]
        listed = subprocess.run(command, check=True, capture_output=True)
        assert listed.stdout == b"default\n"
        assert end(process, signal.SIGINT) == (0, "", "")


def test_serve_data_dir(tmp_path):
    """A restarted server has the same objects and variables; the names are configurable."""
    options = ["--port", "0", "--data-dir", str(tmp_path / "da ta"), "--service", "svc"]
    options += ["--bucket", "one", "--bucket", "two"]
    options += ["--allow-remote"]  # on loopback, this causes no warning
    options += ["--tls-port", "0"]
    variables = set()
    for restarted in (False, True):
        with serving(*options, tmp_path=tmp_path) as (process, output):
            port = re.search(r"exa\+bfs://127\.0\.0\.1:(\d+)/svc/two$", output, re.MULTILINE)[1]
            service = Service(
                f"http://127.0.0.1:{port}", {"two": {"username": "w", "password": "write"}}
            )
            variables.add(tuple(exported(output).items()))
            assert set(service.buckets) == {"one", "two"}
            assert list(service["two"].files) == (["k"] if restarted else [])
            service["two"].upload("k", b"x")
            assert end(process, signal.SIGTERM) == (0, "", "")
    assert len(variables) == 1


def refused(*options):
    """Run ``serve`` with options that must fail; return its error message."""
    with tempfile.TemporaryDirectory() as temporary:
        done = subprocess.run(
            [*COMMAND, *options],
            env={**os.environ, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert list(Path(temporary).iterdir()) == []
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_serve_on_a_busy_port():
    """The error for a busy port is one line with the port and the option to change."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        expected = f"Error: 127.0.0.1:{port} is in use: "
        message = refused("--port", port)
        assert message.startswith(expected)
        assert "(--port 0 picks a free one)" in message
        message = refused("--port", "0", "--tls-port", port)
        assert message.startswith(expected)
        assert "(--tls-port 0 picks a free one)" in message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_serve_stays_on_loopback(host):
    """An address that other machines can reach requires ``--allow-remote``."""
    assert "--allow-remote" in refused("--host", host, "--port", "0")


@pytest.mark.parametrize(
    "options",
    [
        ["--host", "no.such.host.invalid"],
        ["--host", "192.0.2.1", "--allow-remote"],
        ["--bucket", "a/b"],
        ["--bucket", "a", "--bucket", "a"],
        ["--port", "70000"],
        ["--data-dir", "/dev/null/x"],
    ],
)
def test_serve_refuses_invalid_options(options):
    """Invalid options are refused with one line and without a traceback."""
    assert refused("--port", "0", *options).startswith("Error: cannot serve on ")


def test_serve_allow_remote(tmp_path):
    """``--allow-remote`` listens on all addresses and warns; further host names are accepted."""
    options = ["--host", "0.0.0.0", "--allow-remote", "--port", "0"]  # noqa: S104
    options += ["--allowed-host", "host.docker.internal", "--allowed-host", "*.example.com"]
    with serving(*options, tmp_path=tmp_path) as (process, output):
        port = re.search(r"exa\+bfs://127\.0\.0\.1:(\d+)/", output)[1]
        for host, status in [("host.docker.internal", 200), ("a.example.com", 200), ("x", 400)]:
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
            connection.request("GET", "/", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
        _, _, errors = end(process, signal.SIGTERM)
    assert errors.count("\n") == 1
    assert "the passwords are public" in errors


def test_help_is_cheap():
    """The help of the command does not import the server."""
    script = """
import sys
from mlflow_bucketfs_testing.cli import main
try:
    main(["serve", "--help"])
except SystemExit:
    print(sorted({"uvicorn", "starlette", "cryptography", "mlflow"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--tls-port" in done.stdout
    assert done.stdout.endswith("[]\n")
