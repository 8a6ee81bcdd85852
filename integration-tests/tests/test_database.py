"""UDFs of a real Exasol see BucketFS, and reach the MLflow server.

``pytest integration-tests/tests/test_database.py --backend=onprem`` runs it with Exasol in Docker.
"""

from __future__ import annotations

from mlflow_bucketfs_core import Bucket, ConnectionSettings, udf_path

# The mounts of all nodes show an upload only after a delay. PATH and FETCH alone are reserved words
# of Exasol.
_READ_FILE = """
CREATE PYTHON3 SCALAR SCRIPT READ_FILE(file_path VARCHAR(2000)) RETURNS VARCHAR(2000) AS
import pathlib, time
def run(ctx):
    file = pathlib.Path(ctx.file_path)
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(1)
    return file.read_text()
"""
_FETCH_URL = """
CREATE PYTHON3 SCALAR SCRIPT FETCH_URL(url VARCHAR(2000)) RETURNS VARCHAR(2000) AS
import urllib.request
def run(ctx):
    with urllib.request.urlopen(ctx.url, timeout=30) as response:
        return response.read().decode()
"""


def test_a_udf_sees_what_was_uploaded(database, bucketfs_uri, bucketfs_target):
    """A UDF reads an uploaded object at the path that `udf_path` returns."""
    uri = f"{bucketfs_uri}/seen/by a udf.txt"
    settings = ConnectionSettings.from_env(bucketfs_target.environment)
    bucket = Bucket(uri, settings)
    bucket.upload_bytes(uri.removeprefix(f"{bucket.uri}/"), b"hello")
    database.execute(_READ_FILE)
    statement = database.execute("SELECT READ_FILE({path})", {"path": str(udf_path(uri))})
    assert statement.fetchval() == "hello"


def test_a_udf_reaches_the_mlflow_server(database, mlflow_udf_tracking_uri):
    """The MLflow server answers a UDF at `mlflow_udf_tracking_uri`."""
    database.execute(_FETCH_URL)
    statement = database.execute(
        "SELECT FETCH_URL({url})", {"url": f"{mlflow_udf_tracking_uri}/health"}
    )
    assert statement.fetchval() == "OK"
