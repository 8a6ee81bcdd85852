"""MLflow's client for the target ``exasol``: its changes in the database, and its errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.deployments import BaseDeploymentClient, get_deploy_client
from mlflow.exceptions import MlflowException

from .conftest import KEY_AND_FEATURES
from .exasol_double import PASSWORD, ExasolDouble

CHURN = ("ML", "CHURN")
KEY = {"key": "customer_id"}
FOREIGN = "CREATE PYTHON3 SCALAR SCRIPT ML.CHURN() RETURNS INT AS\ndef run(ctx):\n    return 1\n"


def scored(client: BaseDeploymentClient) -> list[float]:
    """Return the deployment's predictions."""
    return [round(value, 3) for value in client.predict("CHURN", KEY_AND_FEATURES)["SCORE"]]


def test_a_second_create_is_refused_and_names_update(
    client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """A second ``create`` is RESOURCE_ALREADY_EXISTS, and does not change the deployment."""
    client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    before = exasol.catalog.scripts[CHURN]
    with pytest.raises(MlflowException, match="mlflow deployments update") as error:
        client.create_deployment("churn", "models:/churn/2", config=KEY)
    assert error.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert exasol.catalog.scripts[CHURN] == before


def test_update_keeps_the_options_and_follows_an_alias(
    client: BaseDeploymentClient,
) -> None:
    """``update`` without a model resolves the deployed URI again, and keeps the options."""
    client.create_deployment("CHURN", "models:/churn@champion", config=KEY)
    registry = mlflow.MlflowClient()
    registry.set_registered_model_alias("churn", "champion", "2")
    try:
        updated = client.update_deployment("CHURN")
    finally:
        registry.set_registered_model_alias("churn", "champion", "1")
    assert (updated["model"], updated["config"]) == ("models:/churn/2", KEY)
    assert scored(client) == [315.0, 440.0]
    client.update_deployment("CHURN", "models:/churn/1")
    assert scored(client) == [31.5, 44.0]


def test_a_view_comes_with_the_deployment_and_goes_with_it(
    client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """``-C view=`` creates a view, ``update`` renames or drops it, ``delete`` drops it."""
    view = {**KEY, "table": "ML.CUSTOMERS", "view": "CHURN_NOW"}
    client.create_deployment("CHURN", "models:/churn/1", config=view)
    assert exasol.catalog.views.keys() == {("ML", "CHURN_NOW")}
    client.update_deployment("CHURN", config={"view": "CHURN_LATER"})
    assert exasol.catalog.views.keys() == {("ML", "CHURN_LATER")}
    client.update_deployment("CHURN", config={"view": ""})
    assert exasol.catalog.views == {}
    client.update_deployment("CHURN", config={"view": "CHURN_NOW"})
    client.delete_deployment("CHURN")
    assert (exasol.catalog.scripts, exasol.catalog.views) == ({}, {})


def test_another_view_is_not_replaced(client: BaseDeploymentClient, exasol: ExasolDouble) -> None:
    """A view that is not the deployment's is not replaced, and no script is created."""
    exasol.catalog.views["ML", "REPORT"] = "CREATE VIEW ML.REPORT AS SELECT 1"
    with pytest.raises(MlflowException, match=r"view ML\.REPORT exists already") as error:
        client.create_deployment(
            "CHURN", "models:/churn/1", config={"table": "T", "view": "REPORT"}
        )
    assert error.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert (list(exasol.catalog.scripts), len(exasol.catalog.views)) == ([], 1)


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.create_deployment("CHURN", "models:/churn/1"),
        lambda client: client.update_deployment("CHURN", "models:/churn/1"),
        lambda client: client.delete_deployment("CHURN"),
        lambda client: client.get_deployment("CHURN"),
        lambda client: client.predict("CHURN", KEY_AND_FEATURES),
    ],
    ids=["create", "update", "delete", "get", "predict"],
)
def test_a_script_that_is_no_deployment_is_left_alone(
    act: Callable[[BaseDeploymentClient], Any], client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """Another script is neither replaced nor dropped, nor listed."""
    exasol.catalog.scripts[CHURN] = FOREIGN
    with pytest.raises(MlflowException, match="not a deployment of MLflow"):
        act(client)
    assert exasol.catalog.scripts == {CHURN: FOREIGN}
    assert client.list_deployments() == []


def test_delete_of_a_missing_deployment_is_no_error(client: BaseDeploymentClient) -> None:
    """Deleting a missing deployment is not an error, as MLflow's interface requires."""
    client.delete_deployment("CHURN")


@pytest.mark.parametrize("pattern", ["^CREATE .* SCRIPT ML.CHURN", "^SELECT ML.", "^DROP SCRIPT"])
def test_a_lost_connection_rolls_the_changes_back(
    pattern: str, client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """A connection that is lost after any statement leaves no script."""
    exasol.closes_after = pattern
    with pytest.raises(MlflowException, match=r"was lost during .* Nothing was changed") as error:
        client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    assert error.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert exasol.catalog.scripts == {}


def test_a_connection_lost_during_commit_has_an_unknown_outcome(
    client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """The message states that the outcome is unknown, and names the command that shows it."""
    exasol.closes_after = "^COMMIT"
    with pytest.raises(MlflowException, match=r"not known.*mlflow deployments list"):
        client.create_deployment("CHURN", "models:/churn/1", config=KEY)


def test_a_table_or_a_query_of_the_database_is_scored(
    client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """A table or query is scored by name, also from a frame with one row, as MLflow reads it."""
    columns = ("CUSTOMER_ID", "age", "income")
    exasol.catalog.tables["CUSTOMERS"] = (columns, [("9007199254740993", 30.0, 1.5)])
    client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    by_table = client.predict("CHURN", {"table": "ML.CUSTOMERS"})
    by_file = client.predict("CHURN", pd.DataFrame([{"table": "ML.CUSTOMERS"}]))
    by_query = client.predict("CHURN", {"query": "SELECT * FROM ML.CUSTOMERS;"})
    assert by_table["CUSTOMER_ID"].tolist() == [9007199254740993]
    pd.testing.assert_frame_equal(by_table, by_file)
    pd.testing.assert_frame_equal(by_table, by_query)


def test_ids_beyond_64_bits_come_back_as_text(client: BaseDeploymentClient) -> None:
    """Ids beyond 64 bits, which JSON and pandas would round, are text in the result."""
    client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    large = "123456789012345678901234567890123456"
    rows = KEY_AND_FEATURES.astype({"customer_id": object})
    rows.loc[0, "customer_id"] = large
    assert client.predict("CHURN", rows)["CUSTOMER_ID"].tolist() == [large, "2"]


BAD_FRAMES = {
    "no rows": (KEY_AND_FEATURES.iloc[:0], "no rows"),
    "a column is missing": (KEY_AND_FEATURES.drop(columns="age"), "rows have no column age"),
    "text in a number": (KEY_AND_FEATURES.astype(object).assign(age="old"), "age, row 1: 'old'"),
    "a half id": (KEY_AND_FEATURES.assign(customer_id=1.5), "1.5 does not fit into DECIMAL"),
    "a rounded id": (KEY_AND_FEATURES.assign(customer_id=2.0**60), "write large ids as text"),
    "too many rows": (pd.concat([KEY_AND_FEATURES] * 5001), "Load them into a table"),
    "no frame": (1, "predict takes a data frame"),
}


@pytest.mark.parametrize(("inputs", "message"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_rows_that_do_not_fit_are_refused(
    inputs: Any, message: str, client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """The error for invalid rows names the column and the row; nothing is sent."""
    client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    exasol.statements.clear()
    with pytest.raises(MlflowException, match=re.escape(message)) as error:
        client.predict("CHURN", inputs)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"
    assert not any("CHURN(" in statement for statement in exasol.statements)


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown option": ({"config": {"kee": "id"}}, "INVALID_PARAMETER_VALUE", "-C kee"),
    "bad flag": ({"config": {"verify": "maybe"}}, "INVALID_PARAMETER_VALUE", "-C verify"),
    "bad choice": ({"config": {"loader": "fast"}}, "INVALID_PARAMETER_VALUE", "--loader"),
    "no pair": ({"config": {"type": "age"}}, "INVALID_PARAMETER_VALUE", "NAME=VALUE"),
    "unknown column": (
        {"config": {"type": "x=DOUBLE"}},
        "INVALID_PARAMETER_VALUE",
        "no feature 'x'",
    ),
    "view without table": ({"config": {"view": "V"}}, "INVALID_PARAMETER_VALUE", "--table"),
    "a flavor": ({"flavor": "sklearn"}, "INVALID_PARAMETER_VALUE", "sklearn"),
    "an endpoint": ({"endpoint": "e"}, "NOT_IMPLEMENTED", "GRANT EXECUTE"),
    "a qualified name": ({"name": "ML.CHURN"}, "INVALID_PARAMETER_VALUE", "--name"),
    "a model of S3": ({"model_uri": "s3://b/m"}, "INVALID_PARAMETER_VALUE", "mlflow-bucketfs copy"),
    "no model": ({"model_uri": "models:/nope/1"}, "RESOURCE_DOES_NOT_EXIST", "nope"),
}


@pytest.mark.parametrize(("given", "code", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused_before_the_login(
    given: dict[str, Any],
    code: str,
    message: str,
    client: BaseDeploymentClient,
    exasol: ExasolDouble,
) -> None:
    """The error for an invalid request names the option and has MLflow's error code."""
    with pytest.raises(MlflowException, match=re.escape(message)) as error:
        client.create_deployment(**{"name": "CHURN", "model_uri": "models:/churn/1", **given})
    assert error.value.error_code == code
    assert exasol.logins == []


BAD_ENVIRONMENTS: dict[str, tuple[dict[str, str], str, str]] = {
    "login refused": ({"EXA_PASSWORD": "hunter2"}, "UNAUTHENTICATED", "refused the login"),
    "no user": ({"EXA_USER": ""}, "UNAUTHENTICATED", "EXA_USER is not set"),
    "no password": ({"EXA_PASSWORD": ""}, "UNAUTHENTICATED", "EXA_PASSWORD (or"),
    "another certificate": (
        {"EXA_DSN": f"127.0.0.1/{'0' * 64}:{{port}}"},
        "INVALID_PARAMETER_VALUE",
        "is not trusted",
    ),
    "unknown certificate": ({"EXA_DSN": ""}, "INVALID_PARAMETER_VALUE", "EXA_DSN=127.0.0.1/"),
    "another database": (
        {"EXA_DSN": "db.example.com:8563"},
        "INVALID_PARAMETER_VALUE",
        "was not sent",
    ),
    "no connection string": (
        {"EXA_DSN": "a/b/c"},
        "INVALID_PARAMETER_VALUE",
        "EXA_DSN is malformed",
    ),
    "no boolean": (
        {"EXA_SSL_CERT_VALIDATION": "hunter2"},
        "INVALID_PARAMETER_VALUE",
        "EXA_SSL_CERT_VALIDATION",
    ),
    "no such file": (
        {"EXA_SSL_TRUSTED_CA": "/nowhere"},
        "INVALID_PARAMETER_VALUE",
        "EXA_SSL_TRUSTED_CA",
    ),
}


@pytest.mark.parametrize(
    ("variables", "code", "message"), BAD_ENVIRONMENTS.values(), ids=BAD_ENVIRONMENTS
)
def test_an_invalid_environment_is_reported(
    variables: dict[str, str],
    code: str,
    message: str,
    *,
    client: BaseDeploymentClient,
    exasol: ExasolDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error for an invalid environment names the variable, and shows no password."""
    port = str(exasol.port)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("{port}", port))
    with pytest.raises(MlflowException, match=re.escape(message)) as error:
        client.list_deployments()
    assert error.value.error_code == code
    # except the frame of this test, which contains the passwords
    frames = [entry for entry in error.traceback if entry.path != Path(__file__)]
    assert frames
    shown = [str(error.value), *(repr(entry.locals).replace("\\'", "'") for entry in frames)]
    assert not [text for text in shown if "hunter2" in text or PASSWORD in text]


@dataclass(frozen=True)
class Missing:
    """A change that removes something from the database, and the expected error."""

    changes: dict[str, Any]
    code: str
    message: str


MISSING = {
    "schema": Missing({"schemas": {"OTHER"}}, "RESOURCE_DOES_NOT_EXIST", "CREATE SCHEMA ML"),
    "language": Missing(
        {"languages": "R=builtin_r"}, "INVALID_PARAMETER_VALUE", "ALTER SYSTEM SET"
    ),
    "privilege": Missing(
        {"refused": "^CREATE"}, "PERMISSION_DENIED", "no privilege for `CREATE PYTHON3_MLFLOW"
    ),
}


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
def test_a_missing_schema_language_or_privilege_is_reported(
    missing: Missing, client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """The error has the missing object or statement, and MLflow's code; nothing is created."""
    for name, value in missing.changes.items():
        setattr(exasol if name == "refused" else exasol.catalog, name, value)
    with pytest.raises(MlflowException, match=re.escape(missing.message)) as error:
        client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    assert error.value.error_code == missing.code
    assert exasol.catalog.scripts == {}


def test_an_unreachable_server_is_reported(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable server is TEMPORARILY_UNAVAILABLE, with its address."""
    for name in ("EXA_USER", "EXA_PASSWORD"):
        monkeypatch.setenv(name, environment[name])
    unreachable = get_deploy_client("exasol://127.0.0.1:1/ML")
    with pytest.raises(MlflowException, match=r"127\.0\.0\.1:1 cannot be reached") as error:
        unreachable.list_deployments()
    assert error.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_a_model_that_the_database_does_not_see_is_refused(
    client: BaseDeploymentClient, exasol: ExasolDouble
) -> None:
    """The error for a model that UDFs do not see has a reason: no mount, or no such folder."""
    with pytest.raises(MlflowException, match="the database does not mount the bucket") as error:
        client.create_deployment(
            "CHURN", "models:/churn/1", config={"mounted-path": "/buckets/bfsdefault/other/m"}
        )
    assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException, match="may not have reached the node yet"):
        client.create_deployment(
            "CHURN", "models:/churn/1", config={"mounted-path": "/buckets/bfsdefault/default/m"}
        )
    assert exasol.catalog.scripts == {}


def test_a_deployment_that_was_changed_meanwhile_is_not_replaced(
    client: BaseDeploymentClient, exasol: ExasolDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``update`` is refused if another session changes the deployment before its transaction."""
    client.create_deployment("CHURN", "models:/churn/1", config=KEY)
    key = ("ML", "CHURN")
    changed = exasol.catalog.scripts[key].replace("models:/churn/1", "models:/churn/3")
    make = client._make

    def make_late(*args: Any) -> Any:
        made = make(*args)
        exasol.catalog.scripts[key] = changed
        return made

    monkeypatch.setattr(client, "_make", make_late)
    with pytest.raises(MlflowException, match="changed by another session") as error:
        client.update_deployment("CHURN", "models:/churn/2")
    assert error.value.error_code == "RESOURCE_CONFLICT"
    assert exasol.catalog.scripts[key] == changed


def test_metadata_is_json_in_one_line(client: BaseDeploymentClient, exasol: ExasolDouble) -> None:
    """The metadata is one line of JSON in the script, which a query of the catalogue can read."""
    client.create_deployment("CHURN", "models:/churn@champion", config=KEY)
    text = exasol.catalog.scripts[CHURN]
    (line,) = [line for line in text.splitlines() if line.startswith("# mlflow-bucketfs: ")]
    metadata = json.loads(line.partition(": ")[2])
    assert metadata["requested"] == "models:/churn@champion"
    assert metadata["inputs"][0] == ["CUSTOMER_ID", "DECIMAL(36,0)"]
