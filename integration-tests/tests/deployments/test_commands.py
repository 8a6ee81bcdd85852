"""``mlflow deployments … -t exasol``: the commands as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from .conftest import KEY_AND_FEATURES


def test_a_deployment_is_created_called_rolled_back_and_deleted(
    deployments: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """All commands work on a deployment, each in a new process."""
    created = deployments(
        "create", "--name", "CHURN", "-m", "models:/churn/2", "-C", "key=customer_id"
    )
    assert created.returncode == 0, created.stderr
    assert "python_function deployment CHURN is created" in created.stdout

    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(KEY_AND_FEATURES.to_dict(orient="records")))
    scored = deployments("predict", "--name", "CHURN", "-I", str(rows))
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scored.stdout)
    assert result["CUSTOMER_ID"] == {"0": 9007199254740993, "1": 2}
    assert list(result["SCORE"].values()) == pytest.approx([315.0, 440.0])

    updated = deployments("update", "--name", "CHURN", "-m", "models:/churn@champion")
    assert updated.returncode == 0, updated.stderr
    assert "Deployment CHURN is updated (with flavor python_function)" in updated.stdout

    listed = deployments("list")
    assert listed.returncode == 0, listed.stderr
    assert "'name': 'CHURN'" in listed.stdout
    assert "'model': 'models:/churn/1'" in listed.stdout
    described = deployments("get", "--name", "CHURN")
    assert described.returncode == 0, described.stderr
    assert "model: models:/churn/1" in described.stdout
    assert "requested: models:/churn@champion" in described.stdout
    assert "config: {'key': 'customer_id'}" in described.stdout

    deleted = deployments("delete", "--name", "CHURN")
    assert deleted.returncode == 0, deleted.stderr
    remaining = deployments("list")
    assert remaining.returncode == 0, remaining.stderr
    assert "CHURN" not in remaining.stdout
