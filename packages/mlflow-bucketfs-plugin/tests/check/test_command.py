"""Tests of ``mlflow-bucketfs check`` as a command: its output, options and imports."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow_bucketfs_plugin.cli import main
from mlflow_bucketfs_testing.server import Fault


@pytest.fixture
def command(secret):
    """Run the installed command in a separate process."""

    def run(*arguments, **environment):
        return subprocess.run(
            [Path(sys.executable).with_name("mlflow-bucketfs"), *arguments],
            env={**os.environ, "EXA_BUCKETFS_PASSWORD": secret, **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def test_no_secret_in_any_output(server, caplog, capfd, run, secret):
    """Neither output nor logs at DEBUG contain the password, plain or encoded."""
    caplog.set_level(logging.DEBUG)
    token = base64.b64encode(f"w:{secret}".encode()).decode()
    server.inject(Fault.status(500, method="PUT", times=None))
    shown = [run(uri).output for uri in (server.uri(), server.tls_uri(), server.uri("private"))]
    shown += [run(server.uri(), "--json").output, caplog.text, *capfd.readouterr()]
    assert caplog.records
    for text in shown:
        assert secret not in text
        assert token not in text
        assert token.rstrip("=") not in text


def test_second_plugin_for_the_scheme(server, tmp_path, command, step_names):
    """Another distribution that registers the scheme is named, with a remedy."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlflow.artifact_repository]\nexa+bfs = other:Repo\n")
    result = command("check", server.uri(), "--json", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    steps = {step["name"]: step for step in json.loads(result.stdout)["steps"]}
    assert [name for name in step_names if steps[name]["result"] == "failed"] == ["plugin"]
    assert steps["plugin"]["details"]["distributions"] == ["mlflow-bucketfs-plugin", "other"]
    assert steps["plugin"]["remedy"] == "pip uninstall other"


def test_verification_switched_off_as_a_process(server, command):
    """The installed command prints the report and nothing else, also without verification."""
    result = command("check", server.tls_uri(), EXA_SSL_CERT_VALIDATION="no")
    assert result.returncode == 0
    assert result.stderr == ""


def test_output_that_knows_only_ascii(server, command):
    """The command works on a terminal without Unicode."""
    result = command("check", server.uri(path="größe"), PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command_of_ours", [[], ["check"], ["constraints"]])
def test_short_option_for_help(command_of_ours):
    """The command and its subcommands accept -h as well as --help."""
    short, long = (CliRunner().invoke(main, [*command_of_ours, o]) for o in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output


def test_wrong_usage():
    """Invalid arguments end with exit status 2."""
    assert CliRunner().invoke(main, ["check"]).exit_code == 2
    assert CliRunner().invoke(main, ["check", "exa+bfs://h/a/b", "--nonsense"]).exit_code == 2


def test_import_is_light():
    """Importing the command loads neither requests nor MLflow; importing the check, no MLflow."""
    code = (
        "import sys, mlflow_bucketfs_plugin.cli as cli; loaded = set(sys.modules);"
        "assert not loaded & {'requests', 'mlflow', 'mlflow_bucketfs_core'}, loaded;"
        "import mlflow_bucketfs_plugin.check; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
