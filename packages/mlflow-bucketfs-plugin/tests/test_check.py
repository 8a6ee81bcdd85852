"""``mlflow-bucketfs check`` against real servers: one test per thing that can be wrong."""

from __future__ import annotations

import base64
import datetime as dt
import gc
import http.server
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow_bucketfs_core import BucketFSUri, ConnectionSettings
from mlflow_bucketfs_plugin.check.certificate import Certificate, presented_certificate
from mlflow_bucketfs_plugin.check.tls_advice import why_refused
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_testing.server import BucketConfig, BucketFSServer, Fault

# Python 3.10's asyncio forgets connections whose handshake the client breaks off; see gc below.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
)

SECRET = "open-sesame-42"
STEPS = [
    "uri",
    "environment",
    "plugin",
    "allowed_hosts",
    "resolve",
    "connect",
    "tls",
    "service",
    "list",
    "path",
    "write",
    "read_back",
    "delete",
    "mount",
]
CLEARED_PREFIXES = ("EXA_", "MLFLOW_", "REQUESTS_", "CURL_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Leave nothing of the machine's own settings, so that each test sets what it means."""
    for name in os.environ:
        if name.upper().startswith(CLEARED_PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def running_server():
    """Serve over HTTP and HTTPS, the latter with a certificate like Exasol's own."""
    buckets = [
        BucketConfig("default", write_password=SECRET),
        BucketConfig("private", public=False, write_password=SECRET),
    ]
    with BucketFSServer(buckets, tls_port=0) as server:
        yield server
    gc.collect()  # what would otherwise be reported in somebody else's test


@pytest.fixture
def server(running_server):
    """Give the server as if just started."""
    running_server.reset()
    return running_server


class Checked:
    """What the command answered with ``--json``."""

    def __init__(self, result):
        assert SECRET not in result.output
        self.output = result.stdout
        self.exit_code = result.exit_code
        document = json.loads(result.stdout)
        assert set(document) == {"uri", "ok", "read_only", "steps"}
        assert document["ok"] == (result.exit_code == 0)
        self.uri = document["uri"]
        self.steps = {step["name"]: step for step in document["steps"]}
        assert list(self.steps) == STEPS

    def __getitem__(self, name):
        return self.steps[name]

    def names(self, result):
        """Return the steps with this result."""
        return [name for name, step in self.steps.items() if step["result"] == result]


def run(*arguments, password=SECRET, **environment):
    """Run the command in this process."""
    environment["EXA_BUCKETFS_PASSWORD"] = password
    return CliRunner().invoke(main, ["check", *arguments], env=environment)


def check(*arguments, password=SECRET, **environment):
    """Run the command and read its JSON."""
    result = run(*arguments, "--json", password=password, **environment)
    assert result.exit_code in {0, 1}, result.output
    return Checked(result)


def closed_port():
    """Return a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def users_of(server):
    """Return the users whose password was sent."""
    return {record.user for record in server.requests} - {None}


# when all is well


def test_everything_fine(server):
    """A working store passes every step with few requests and keeps no probe object."""
    checked = check(server.uri(path="mlflow/artifacts"))
    assert checked.exit_code == 0
    assert checked.names("skipped") == ["tls"]
    assert len(checked.names("ok")) == len(STEPS) - 1
    assert server.keys() == []
    sent = [(record.method, record.bucket) for record in server.requests]
    assert sent == [
        ("GET", ""),
        ("GET", "default"),
        ("GET", "default"),  # whether a file is in the way, asked by the upload itself
        ("PUT", "default"),
        ("GET", "default"),
        ("DELETE", "default"),
    ]
    (key,) = {record.key for record in server.requests if record.method == "PUT"}
    assert key.startswith("mlflow/artifacts/.mlflow-bucketfs-check-")


def test_text_for_people(server):
    """Each step has a line with its result, in columns, and the last line is the verdict."""
    result = run(server.uri())
    *lines, blank, verdict = result.stdout.splitlines()
    assert result.exit_code == 0
    assert [line.split()[1] for line in lines] == STEPS
    assert {line.split()[0] for line in lines} == {"ok", "skipped"}
    assert len({line.index(" s  ") for line in lines}) == 1
    assert blank == ""
    assert verdict == f"Everything needed works for {server.uri()}."


def test_text_below_a_failed_step(server):
    """Details and remedy stand below the step that failed, and the verdict names it."""
    result = run(server.uri(), password="")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[index].split()[1] == "write"
    assert lines[index + 1].lstrip().startswith("> Set EXA_BUCKETFS_PASSWORD")
    assert lines[-1].endswith(": write")


def test_read_only_writes_nothing(server):
    """With --read-only nothing is written, and a bucket without a password passes."""
    checked = check(server.uri(), "--read-only", password="")
    assert checked.exit_code == 0
    assert {checked[name]["result"] for name in ("write", "read_back", "delete")} == {"skipped"}
    assert "--read-only" in checked["delete"]["summary"]
    assert {record.method for record in server.requests} == {"GET"}


def test_listing_is_measured(server):
    """The number of objects, the listing's size and what lies below the URI are told."""
    server.put_many([("a/1", b""), ("a/2", b""), ("ab", b"")])
    checked = check(server.uri(path="a"))
    assert checked["list"]["details"] == {"objects": 3, "listing_bytes": 11}
    assert checked["path"]["details"] == {"objects_below": 2}


# the URI and the environment


def test_password_in_uri_is_not_repeated():
    """A URI with a password is refused without showing it, in both formats."""
    uri = f"exa+bfs://w:{SECRET}@db.example.com/bfsdefault/default"
    checked = check(uri)
    assert checked.exit_code == 1
    assert checked.uri is None
    assert "EXA_BUCKETFS_PASSWORD" in checked["uri"]["summary"]
    assert SECRET not in run(uri).output


@pytest.mark.parametrize("uri", ["s3://bucket", "exa+bfs://", "nonsense", ""])
def test_no_uri_of_bucketfs(uri):
    """What is no URI of BucketFS fails the first step, and what needs it is skipped."""
    checked = check(uri)
    assert checked.names("failed") == ["uri"]
    assert checked.names("ok") == ["environment"]
    assert "exa+bfs://host" in checked["uri"]["remedy"]


def test_uri_without_bucket(server):
    """A URI that ends before the bucket fails, and still the buckets that exist are named."""
    checked = check(server.uri().rpartition("/")[0])
    assert checked.names("failed") == ["uri"]
    assert checked["service"]["details"]["buckets"] == ["default", "private"]
    assert checked["list"]["summary"] == "needs the step 'uri', which failed"


def test_bad_environment_variable(server):
    """A variable that cannot be used is named, and no request is made without it."""
    checked = check(server.uri(), EXA_BUCKETFS_MAX_WORKERS="many")
    assert checked.names("failed") == ["environment"]
    assert checked["environment"]["remedy"] == "Correct or unset EXA_BUCKETFS_MAX_WORKERS."
    assert checked["resolve"]["result"] == "ok"
    assert server.requests.connections == 0


def test_host_that_is_not_allowed(server):
    """Nothing connects to a host that EXA_BUCKETFS_ALLOWED_HOSTS lacks."""
    checked = check(server.uri(), EXA_BUCKETFS_ALLOWED_HOSTS="db.example.com:2581")
    assert checked.names("failed") == ["allowed_hosts"]
    assert f"127.0.0.1:{server.port}" in checked["allowed_hosts"]["remedy"]
    assert server.requests.connections == 0


def test_host_that_is_allowed(server):
    """A host in EXA_BUCKETFS_ALLOWED_HOSTS passes."""
    allowed = f"db.example.com,127.0.0.1:{server.port}"
    assert check(server.uri(), EXA_BUCKETFS_ALLOWED_HOSTS=allowed).exit_code == 0


# the way to the server


def test_unknown_host():
    """A host that nobody knows fails to resolve, and the mount is still looked for."""
    checked = check("exa+bfs://bucketfs.invalid/bfsdefault/default")
    assert checked.names("failed") == ["resolve"]
    assert checked.names("ok")[-1] == "mount"
    assert checked["delete"]["summary"] == "needs the step 'resolve', which failed"


def test_server_down():
    """A port at which nothing listens fails to connect, soon, and the usual ports are told."""
    started = time.monotonic()
    checked = check(f"exa+bfs://127.0.0.1:{closed_port()}/bfsdefault/default")
    assert checked.names("failed") == ["connect"]
    assert "2580" in checked["connect"]["remedy"]
    assert "2581" in checked["connect"]["remedy"]
    assert time.monotonic() - started < 15


def test_server_that_never_answers(server):
    """A server that stalls is given up after the time that the environment allows."""
    server.inject(Fault.stall(60, times=None))
    checked = check(server.uri(), MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT="0.2")
    assert checked.names("failed") == ["service"]
    assert "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT" in checked["service"]["summary"]


class HtmlHandler(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page."""

    def do_GET(self):
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Length", "22")
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>\n\n\n\n")

    def log_message(self, *arguments):
        """Be quiet."""


def test_wrong_port_with_another_service():
    """A web server that is not BucketFS is recognised as such."""
    with http.server.HTTPServer(("127.0.0.1", 0), HtmlHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            checked = check(f"exa+bfs://127.0.0.1:{other.server_port}/bfsdefault/default")
        finally:
            other.shutdown()
            thread.join()
    assert checked.names("failed") == ["service"]
    assert "not BucketFS" in checked["service"]["summary"]


def test_proxy_is_told_without_its_password(server):
    """A proxy from the environment is named, and its password is not."""
    port = closed_port()
    checked = check(server.uri(), HTTP_PROXY=f"http://me:proxy-secret@127.0.0.1:{port}")
    assert checked.names("failed") == ["connect"]
    assert checked["resolve"]["details"]["proxy"] == f"the proxy 127.0.0.1:{port}"
    assert "NO_PROXY" in checked["connect"]["remedy"]
    assert "proxy-secret" not in checked.output


def test_proxy_that_cannot_be_parsed(server):
    """Not even a malformed proxy URL shows a part of its password."""
    checked = check(server.uri(), HTTP_PROXY="http://me:proxy/secret@proxy.example.com")
    assert checked.names("failed") == ["resolve"]
    assert "secret" not in checked.output


# TLS


def test_http_spoken_to_the_tls_port(server):
    """Plain HTTP to the HTTPS port is recognised, and the URI to use is told."""
    checked = check(server.tls_uri().replace("exa+bfss", "exa+bfs"))
    assert checked.names("failed") == ["service"]
    assert checked["service"]["remedy"] == f"Use {server.tls_uri()}"


def test_https_spoken_to_the_http_port(server):
    """HTTPS to the HTTP port is recognised without sending the password in the clear."""
    checked = check(server.uri().replace("exa+bfs", "exa+bfss"))
    assert checked.names("failed") == ["tls"]
    assert checked["tls"]["remedy"] == f"Use {server.uri()}"
    assert users_of(server) == set()


def test_self_signed_certificate(server):
    """The names in the certificate, its fingerprint and the variables to set are told."""
    checked = check(server.tls_uri())
    assert checked.names("failed") == ["tls"]
    tls = checked["tls"]
    assert tls["details"]["names"] == ["exacluster.local"]
    assert tls["details"]["issuer"] == "commonName=exacluster.local"
    assert tls["details"]["not_after"] > "2025"
    fingerprint = tls["details"]["sha256"]
    assert fingerprint.replace(":", "").lower() == server.certificate_fingerprint
    assert "openssl x509" in tls["remedy"]
    assert f"EXA_BUCKETFS_CERT_FINGERPRINT={fingerprint}" in tls["remedy"]
    assert "EXA_BUCKETFS_CA_BUNDLE=" in tls["remedy"]
    assert "EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local" in tls["remedy"]
    assert users_of(server) == set()


def test_remedies_for_a_self_signed_certificate_work(server):
    """Both remedies that the check proposes make it pass."""
    fingerprint = check(server.tls_uri())["tls"]["details"]["sha256"]
    pinned = check(server.tls_uri(), EXA_BUCKETFS_CERT_FINGERPRINT=fingerprint)
    assert pinned.exit_code == 0
    assert "FINGERPRINT" in pinned["tls"]["summary"]
    trusted = check(
        server.tls_uri(),
        EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file),
        EXA_BUCKETFS_TLS_HOSTNAME="exacluster.local",
    )
    assert trusted.exit_code == 0
    assert "CA_BUNDLE" in trusted["tls"]["summary"]


def test_wrong_host_name(server):
    """A trusted certificate for another name leads to EXA_BUCKETFS_TLS_HOSTNAME alone."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CA_BUNDLE=str(server.certificate_file))
    assert checked.names("failed") == ["tls"]
    remedy = checked["tls"]["remedy"]
    assert remedy.endswith("EXA_BUCKETFS_TLS_HOSTNAME=exacluster.local")
    assert "FINGERPRINT" not in remedy
    assert users_of(server) == set()


def test_wrong_fingerprint(server):
    """A certificate other than the pinned one is told with its own fingerprint."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CERT_FINGERPRINT="ab" * 32)
    assert checked.names("failed") == ["tls"]
    fingerprint = checked["tls"]["details"]["sha256"]
    assert f"EXA_BUCKETFS_CERT_FINGERPRINT={fingerprint}" in checked["tls"]["remedy"]
    assert users_of(server) == set()


def test_missing_ca_bundle(server):
    """A CA bundle that does not exist is told as that, not as a bad certificate."""
    checked = check(server.tls_uri(), EXA_BUCKETFS_CA_BUNDLE="/nowhere.pem")
    assert checked.names("failed") == ["tls"]
    assert "/nowhere.pem" in checked["tls"]["summary"]


def test_verification_switched_off(server):
    """Without verification the check passes with a warning that shows how to do better."""
    checked = check(server.tls_uri(), EXA_SSL_CERT_VALIDATION="no")
    assert checked.exit_code == 0
    assert checked.names("warning") == ["tls"]
    assert "EXA_BUCKETFS_CERT_FINGERPRINT=" in checked["tls"]["remedy"]


@contextmanager
def tls_listener(directory, *, names, is_ca, days):
    """Shake hands with whoever connects, with a certificate of our own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=100))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "both.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                first = connection.recv(1, socket.MSG_PEEK)
                if first == b"Q":
                    return
                if not first:
                    continue
                try:
                    with context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            with socket.create_connection(("127.0.0.1", port)) as end:
                end.sendall(b"Q")
            thread.join()


@pytest.mark.parametrize(("is_ca", "days"), [(True, 10), (False, 10), (True, -10), (False, -10)])
def test_any_certificate_can_be_read(tmp_path, is_ca, days):
    """A certificate is decoded whether or not it is a CA's, and also when it has expired."""
    with tls_listener(tmp_path, names=["a.example", "b.example"], is_ca=is_ca, days=days) as port:
        certificate = presented_certificate("127.0.0.1", port, "127.0.0.1")
    assert certificate.names == ("a.example", "b.example")
    assert certificate.subject == certificate.issuer == "commonName=somebody"
    assert certificate.not_after is not None
    expires = dt.date.fromisoformat(certificate.not_after)
    assert (expires > dt.datetime.now(dt.timezone.utc).date()) == (days > 0)


def test_expired_certificate(tmp_path):
    """An expired certificate is told as that."""
    with tls_listener(tmp_path, names=["localhost"], is_ca=True, days=-10) as port:
        checked = check(
            f"exa+bfss://localhost:{port}/bfsdefault/default",
            EXA_BUCKETFS_CA_BUNDLE=str(tmp_path / "both.pem"),
        )
    assert checked.names("failed") == ["tls"]
    assert "expired" in checked["tls"]["summary"]


def test_names_in_a_certificate_are_not_proposed_to_a_shell():
    """A name that a shell would take for a command is not part of any remedy."""
    certificate = Certificate("AB:CD", names=("$(reboot)", "*.example.com", "a\x1b[2Jb"))
    finding = why_refused(
        BucketFSUri.parse("exa+bfss://db/a/b"),
        ConnectionSettings(),
        certificate,
        ValueError("refused"),
        lambda _: False,
    )
    assert "EXA_BUCKETFS_CERT_FINGERPRINT" in str(finding.remedy)
    assert "EXA_BUCKETFS_TLS_HOSTNAME" not in str(finding.remedy)


# passwords and buckets


def test_wrong_password_for_a_private_bucket(server):
    """A refused password is told as such, with the variables that make it up."""
    checked = check(server.uri("private"), password="wrong")
    assert checked.names("failed") == ["list"]
    assert "refuses the password for user w" in checked["list"]["summary"]
    assert "EXA_BUCKETFS_PASSWORD" in checked["list"]["remedy"]
    assert "EXA_BUCKETFS_USER" in checked["list"]["remedy"]


def test_no_password_for_a_private_bucket(server):
    """A missing password is told as missing, not as wrong."""
    checked = check(server.uri("private"), password="")
    assert checked.names("failed") == ["list"]
    assert "none is set" in checked["list"]["summary"]


def test_no_password_for_a_public_bucket(server):
    """A public bucket is read without a password, and only writing fails."""
    checked = check(server.uri(), password="")
    assert checked.names("failed") == ["write"]
    assert "EXA_BUCKETFS_PASSWORD" in checked["write"]["remedy"]
    assert "--read-only" in checked["write"]["remedy"]


def test_wrong_password_for_a_public_bucket(server):
    """A public bucket is read with any password, so that a wrong one shows when writing."""
    checked = check(server.uri(), password="wrong")
    assert checked.names("failed") == ["write"]
    assert "write password" in checked["write"]["remedy"]
    assert server.keys() == []


@pytest.mark.parametrize("bucket", ["default", "private"])
def test_read_only_password(server, bucket):
    """A password that only reads passes with --read-only and is told as such without it."""
    reader = {"password": "read", "EXA_BUCKETFS_USER": "r"}
    checked = check(server.uri(bucket), **reader)
    assert checked.names("failed") == ["write"]
    assert "user r only reads" in checked["write"]["remedy"]
    assert "--read-only" in checked["write"]["remedy"]
    assert check(server.uri(bucket), "--read-only", **reader).exit_code == 0


def test_missing_bucket(server):
    """A bucket that does not exist fails with the names of those that do."""
    checked = check(server.uri().replace("/default", "/models"))
    assert checked.names("failed") == ["list"]
    assert "no bucket 'models'" in checked["list"]["summary"]
    assert checked["list"]["remedy"] == "The buckets there are: default, private"


@pytest.mark.parametrize("path", ["mlflow", "mlflow/artifacts"])
def test_path_blocked_by_a_file(server, path):
    """A file in the way is named, and nothing is written that BucketFS would lose."""
    server.put("mlflow", b"")
    checked = check(server.uri(path=path))
    assert checked.names("failed") == ["path"]
    assert checked["path"]["details"]["file_in_the_way"] == "mlflow"
    assert server.requests.count(method="PUT") == 0


def test_uri_of_a_file_may_be_read(server):
    """With --read-only a URI may name a single file."""
    server.put("mlflow/model.pkl", b"")
    assert check(server.uri(path="mlflow/model.pkl"), "--read-only").exit_code == 0


# writing


def test_upload_that_gets_lost(server):
    """An upload that is answered with 200 and lost is noticed by reading it back."""
    server.inject(Fault.lose(method="PUT"))
    checked = check(server.uri())
    assert checked.names("failed") == ["read_back"]
    assert checked["delete"]["result"] == "ok"


def test_object_is_deleted_when_it_cannot_be_read_back(server):
    """The probe object is deleted also if reading it back failed."""
    server.inject(Fault.status(500, method="GET", key="*check*", times=None))
    checked = check(server.uri())
    assert checked.names("failed") == ["read_back"]
    assert server.requests.count(method="PUT", status=200) == 1
    assert server.keys() == []


def test_object_is_deleted_when_the_answer_to_the_upload_is_lost(server):
    """An upload whose answer never came may have been stored, and is deleted as well."""
    server.inject(Fault.reset_before_body(method="PUT", times=None))
    checked = check(server.uri())
    assert checked.names("failed") == ["write"]
    assert server.requests.count(method="PUT") > 0
    assert server.keys() == []


def test_object_that_cannot_be_deleted_is_named(server):
    """Who has to delete the probe object by hand is told its key."""
    server.inject(Fault.status(403, method="DELETE"))
    checked = check(server.uri(path="a"))
    assert checked.names("failed") == ["delete"]
    (key,) = server.keys()
    assert key in checked["delete"]["remedy"]


# the mount


def test_mount_that_is_used(server):
    """Where the bucket is mounted, reading takes the mount, and whose it is can be set."""
    root = str(server.mount_root)
    checked = check(server.uri(), EXA_BUCKETFS_MOUNT_ROOT=root)
    details = checked["mount"]["details"]
    assert details == {"directory": f"{root}/bfsdefault/default", "exists": True, "used": True}
    assert "EXA_BUCKETFS_MOUNT_HOSTS" in checked["mount"]["remedy"]


def test_mount_of_other_hosts(server):
    """A mount that EXA_BUCKETFS_MOUNT_HOSTS reserves for other hosts is not used."""
    checked = check(
        server.uri(),
        EXA_BUCKETFS_MOUNT_ROOT=str(server.mount_root),
        EXA_BUCKETFS_MOUNT_HOSTS="db.example.com",
    )
    assert checked["mount"]["result"] == "ok"
    assert checked["mount"]["details"]["used"] is False


def test_mount_root_without_the_bucket(server, tmp_path):
    """A mount root that was set, but lacks the bucket, is worth a warning."""
    checked = check(server.uri(), EXA_BUCKETFS_MOUNT_ROOT=str(tmp_path))
    assert checked.exit_code == 0
    assert checked.names("warning") == ["mount"]


# secrets, and the command as a process


def test_no_secret_in_any_output(server, caplog, capfd):
    """Neither output nor logs at DEBUG contain the password, plain or encoded."""
    caplog.set_level(logging.DEBUG)
    token = base64.b64encode(f"w:{SECRET}".encode()).decode()
    server.inject(Fault.status(500, method="PUT", times=None))
    shown = [run(uri).output for uri in (server.uri(), server.tls_uri(), server.uri("private"))]
    shown += [run(server.uri(), "--json").output, caplog.text, *capfd.readouterr()]
    assert caplog.records
    for text in shown:
        assert SECRET not in text
        assert token not in text
        assert token.rstrip("=") not in text


def command(*arguments, **environment):
    """Run the installed command in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name("mlflow-bucketfs"), *arguments],
        env={**os.environ, "EXA_BUCKETFS_PASSWORD": SECRET, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_second_plugin_for_the_scheme(server, tmp_path):
    """Another installed distribution that claims the scheme is named with the remedy."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlflow.artifact_repository]\nexa+bfs = other:Repo\n")
    result = command("check", server.uri(), "--json", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    steps = {step["name"]: step for step in json.loads(result.stdout)["steps"]}
    assert [name for name in STEPS if steps[name]["result"] == "failed"] == ["plugin"]
    assert steps["plugin"]["details"]["distributions"] == ["mlflow-bucketfs-plugin", "other"]
    assert steps["plugin"]["remedy"] == "pip uninstall other"


def test_verification_switched_off_as_a_process(server):
    """The installed command prints the report and nothing else, also without verification."""
    result = command("check", server.tls_uri(), EXA_SSL_CERT_VALIDATION="no")
    assert result.returncode == 0
    assert result.stderr == ""


def test_output_that_knows_only_ascii(server):
    """A terminal without Unicode is no reason to fail."""
    result = command("check", server.uri(path="größe"), PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


def test_wrong_usage():
    """What the command does not understand ends with status 2."""
    assert CliRunner().invoke(main, ["check"]).exit_code == 2
    assert CliRunner().invoke(main, ["check", "exa+bfs://h/a/b", "--nonsense"]).exit_code == 2


def test_import_is_light():
    """Importing the command loads neither requests nor MLflow, and a check no MLflow."""
    code = (
        "import sys, mlflow_bucketfs_plugin.cli as cli; loaded = set(sys.modules);"
        "assert not loaded & {'requests', 'mlflow', 'mlflow_bucketfs_core'}, loaded;"
        "import mlflow_bucketfs_plugin.check; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
