"""The target ``exasol`` of ``mlflow deployments``, without a database and without pyexasol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.scoring import ScriptError
from mlflow_bucketfs_plugin.scoring.rows import literal_table
from mlflow_bucketfs_plugin.scoring.script import ScriptColumn
from mlflow_bucketfs_plugin.scoring.target import Credentials, Target

TARGET = Target("db.example.com", 8563, "ML")
LOGIN = {"EXA_USER": "deployer", "EXA_PASSWORD": "hunter2"}
FINGERPRINT = "0f" * 32


def test_import_of_mlflow_does_not_import_the_target(run_python: Callable[[str], str]) -> None:
    """Importing MLflow imports neither the target nor pyexasol."""
    loaded = run_python(
        "import sys, mlflow, mlflow.deployments\n"
        "print([m for m in sys.modules if m.startswith(('mlflow_bucketfs', 'pyexasol'))])"
    )
    assert "scoring" not in loaded
    assert "pyexasol" not in loaded


@pytest.mark.parametrize(
    "command",
    [
        "list_deployments()",
        "create_deployment('CHURN', 'exa+bfs://127.0.0.1:9/bfsdefault/default/none')",
        "update_deployment('CHURN', 'exa+bfs://127.0.0.1:9/bfsdefault/default/none')",
    ],
)
def test_help_needs_no_pyexasol_and_a_session_names_the_extra(
    run_python: Callable[[str], str], command: str
) -> None:
    """Without pyexasol, the help is printed; commands name the extra before they read a model."""
    printed = run_python(
        "import sys; sys.modules['pyexasol'] = None  # as if it were not installed\n"
        "from mlflow.deployments import get_deploy_client, interface\n"
        "print(interface.plugin_store['exasol'].target_help())\n"
        "try:\n"
        f"    get_deploy_client('exasol://db.example.com/ML').{command}\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    assert "mlflow deployments create -t exasol://" in printed
    assert "https://mlflow-bucketfs.readthedocs.io/en/latest/user/deployments.html" in printed
    assert "MlflowException The target exasol needs pyexasol: pip install" in printed


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("exasol://db.example.com/ml", TARGET),
        ("exasol://DB.example.com:8563/ML/", TARGET),
        ('exasol://10.0.0.1:1/"ml"', Target("10.0.0.1", 1, "ml")),
        ("exasol://h/%22a%20b%22", Target("h", 8563, "a b")),
    ],
)
def test_target_names_host_port_and_schema(uri: str, target: Target) -> None:
    """A target is parsed; a schema without quotation marks is in upper case, as in SQL."""
    assert Target.parse(uri) == target


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("exasol", "does not name a host"),
        ("exasol://db.example.com:8563", "does not name a schema"),
        ("exasol://db.example.com:85630/ML", "port of the target is not a number up to 65535"),
        ("exasol://sys:secret@db.example.com/ML", "must not name a user"),
        ("exasol://db.example.com/ML?x=1", "must not have a query or a fragment"),
        ("exasol://[::1]:8563/ML", "An IPv6 address cannot be used"),
        ("exasol://db.example.com/ML/CHURN", "'/CHURN' was not expected"),
    ],
)
def test_invalid_targets_are_refused(uri: str, message: str) -> None:
    """An invalid target is refused, and a password in it is not in the message."""
    with pytest.raises(MlflowException, match=message) as error:
        get_deploy_client(uri)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("dsn", "fingerprint"),
    [
        ("", None),
        ("db.example.com:8563", None),
        (f"db.example.com/{FINGERPRINT}:8563", FINGERPRINT),
        (f"DB.example.com/{FINGERPRINT.upper()}", FINGERPRINT),
        (f"other,db.example.com/{FINGERPRINT}", FINGERPRINT),
    ],
)
def test_fingerprint_comes_from_the_connection_string(dsn: str, fingerprint: str | None) -> None:
    """The fingerprint is read from ``EXA_DSN``, in the format of Exasol's tools."""
    assert Credentials.from_env(TARGET, {**LOGIN, "EXA_DSN": dsn}).fingerprint == fingerprint


def test_a_range_of_hosts_names_each_of_them() -> None:
    """The range ``10.0.0.11..13`` names three hosts."""
    node, other = Target("10.0.0.13", 8563, "ML"), Target("10.0.0.14", 8563, "ML")
    environment = {**LOGIN, "EXA_DSN": "10.0.0.11..13:8563"}
    assert Credentials.from_env(node, environment).user == "deployer"
    with pytest.raises(MlflowException, match="was not sent"):
        Credentials.from_env(other, environment)


def test_nocertcheck_disables_the_verification() -> None:
    """``nocertcheck`` instead of a fingerprint disables the verification of the certificate."""
    environment = {**LOGIN, "EXA_DSN": "db.example.com/nocertcheck:8563"}
    assert not Credentials.from_env(TARGET, environment).verify_tls


@pytest.mark.parametrize(
    "named",
    [
        {"EXA_DSN": f"db.example.com/{FINGERPRINT}:8563"},
        {"EXA_SSL_TRUSTED_CA": str(Path(__file__).parent)},
    ],
    ids=["fingerprint", "authority"],
)
def test_a_certificate_that_is_named_is_verified(named: dict[str, str]) -> None:
    """A fingerprint or an authority is verified even with ``EXA_SSL_CERT_VALIDATION=no``."""
    environment = {**LOGIN, "EXA_SSL_CERT_VALIDATION": "no"}
    assert not Credentials.from_env(TARGET, environment).verify_tls
    assert Credentials.from_env(TARGET, environment | named).verify_tls


def test_secrets_are_not_in_the_repr() -> None:
    """Neither the password nor a token is part of the repr."""
    secrets = {**LOGIN, "EXA_ACCESS_TOKEN": "token1", "EXA_REFRESH_TOKEN": "token2"}
    shown = repr(Credentials.from_env(TARGET, secrets))
    assert not any(secret in shown for secret in ("hunter2", "token1", "token2"))


@pytest.mark.parametrize(
    ("sql_type", "value", "literal"),
    [
        (
            "DECIMAL(36,0)",
            "123456789012345678901234567890123456",
            "'123456789012345678901234567890",
        ),
        ("DECIMAL(18,0)", 3.0, "'3.0'"),
        ("DECIMAL(9,2)", 1.25, "'1.25'"),
        ("DOUBLE", 1e-7, "1e-07"),
        ("BOOLEAN", True, "TRUE"),
        ("BOOLEAN", 0, "FALSE"),
        ("VARCHAR(10) UTF8", "it's", "'it''s'"),
        ("VARCHAR(10) UTF8", 17, "'17'"),
        ("VARCHAR(100) UTF8", [1, {"a": None}], """'[1, {"a": null}]'"""),
        ("TIMESTAMP", pd.Timestamp("2024-02-29 01:02:03.5"), "TO_TIMESTAMP('2024-02-29 01:02:03.5"),
        ("TIMESTAMP", "2024-02-29", "TO_TIMESTAMP('2024-02-29 00:00:00.000000'"),
        ("DATE", "2024-02-29", "TO_DATE('2024-02-29', 'YYYY-MM-DD')"),
        ("DOUBLE", float("nan"), "NULL"),
        ("TIMESTAMP", pd.NaT, "NULL"),
        ("VARCHAR(10) UTF8", None, "NULL"),
    ],
)
def test_values_become_literals(sql_type: str, value: object, literal: str) -> None:
    """Values are written as exact literals that do not depend on the session's formats."""
    frame = pd.DataFrame({"x": pd.Series([value], dtype=object)})
    table = literal_table(frame, [ScriptColumn(name="x", sql_type=sql_type)])
    assert f"(VALUES\n({literal}" in table


@pytest.mark.parametrize(
    ("sql_type", "value"),
    [
        ("DECIMAL(36,0)", 1.5),
        ("DECIMAL(36,0)", 2.0**53),
        ("DECIMAL(36,0)", "1e400"),
        ("DECIMAL(18,0)", True),
        ("DOUBLE", "one"),
        ("DOUBLE", float("inf")),
        ("BOOLEAN", "yes"),
        ("VARCHAR(10) UTF8", "a\0b"),
        ("TIMESTAMP", "yesterday"),
        ("TIMESTAMP", pd.Timestamp("2024-02-29", tz="UTC")),
        ("DATE", 20240229),
    ],
)
def test_values_that_do_not_fit_are_refused(sql_type: str, value: object) -> None:
    """The error for a value that does not fit names the column, the row and the type."""
    frame = pd.DataFrame({"x": pd.Series([value], dtype=object)})
    with pytest.raises(ScriptError, match=r"Column x, row 1: .* does not fit into"):
        literal_table(frame, [ScriptColumn(name="x", sql_type=sql_type)])
