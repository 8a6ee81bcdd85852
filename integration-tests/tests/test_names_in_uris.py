"""URIs with characters that look like an encoding."""

from __future__ import annotations

import mlflow
import pytest
from mlflow.models import Model
from sklearn.linear_model import LinearRegression


@pytest.mark.parametrize("folder", ["per%41cent", "twenty%20", "a b", "plus+x"])
def test_a_path_survives_as_raw_uri_runs_uri_and_model_source(
    folder, client, run_id, unique, tmp_path
):
    """A model in a folder with this name loads by every kind of URI."""
    model = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    mlflow.sklearn.save_model(model, tmp_path / "m", pip_requirements=["scikit-learn"])
    client.log_artifacts(run_id, str(tmp_path / "m"), f"{folder}/model")
    raw = f"{client.get_run(run_id).info.artifact_uri}/{folder}/model"
    # MLflow's REST API decodes the "+" of exa+bfs as a blank in the source of a model version
    source = raw.replace("exa+bfs", "exabfs", 1)
    name = f"model in {folder.replace('%', 'percent')} {unique}"
    client.create_registered_model(name)
    version = client.create_model_version(name, source).version
    for uri in (raw, f"runs:/{run_id}/{folder}/model", f"models:/{name}/{version}"):
        assert Model.load(uri).flavors.keys() >= {"sklearn"}
        assert mlflow.sklearn.load_model(uri).predict([[3.0]]) == pytest.approx([3.0])
