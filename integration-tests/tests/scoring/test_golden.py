"""Scripts for models of ten kinds: their text, and their predictions compared with MLflow's.

The texts are in ``golden/``. ``RENEW_GOLDEN=1 pytest integration-tests/tests/scoring`` writes them
again; each difference is a change that users see. Digests and ids are masked, and the code, which
is the same in all scripts, is omitted.
"""

from __future__ import annotations

import os
import re
import uuid
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow_bucketfs_plugin.scoring import ScriptOptions, scoring_script

from .golden_models import CASES, rows_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

GOLDEN = Path(__file__).parent / "golden"
CODE = files("mlflow_bucketfs_plugin.scoring").joinpath("udf_code.py").read_text(encoding="utf-8")
MASKS = (
    (r"\bm-[0-9a-f]{32}\b", "m-ID"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b[0-9a-f]{32}\b", "RUN"),
    (r"exa\+bfs://[^/]+/\w+/\w+/", "exa+bfs://HOST/SERVICE/BUCKET/"),
    (r"/buckets/\w+/\w+/", "/buckets/SERVICE/BUCKET/"),
    (r"golden-\d+-\w+/", "FOLDER/"),
    (r"[\d,.]+ (bytes|MB)", "SOME bytes"),
    # the files that MLflow writes, and their formats, depend on its version
    (r'(?s)"files": \{.*?\}', '"files": {FILES}'),
    (r"verifies \d+ files", "verifies FILES"),
    (r'"format": "(skops|cloudpickle|pickle)"', '"format": "FORMAT"'),
    (r"model\.(skops|pkl)", "model.FORMAT"),
    (r'(?s)"modules": \[.*?\]', '"modules": [MODULES]'),
    (r"mlflow-bucketfs-plugin [\w.]+;", "mlflow-bucketfs-plugin VERSION;"),
    (r'"plugin": "[\w.]+"', '"plugin": "VERSION"'),
)


@pytest.fixture(scope="module")
def experiment(bucketfs_server, as_writer, tmp_path_factory):
    """Yield the id of an experiment in BucketFS, in a new tracking database."""
    with as_writer() as environment:
        environment.setenv(
            "MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('golden')}/mlflow.db"
        )
        environment.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        folder = f"golden-1-{uuid.uuid4().hex[:8]}"
        yield mlflow.create_experiment("golden", bucketfs_server.uri(path=folder))


@pytest.fixture(scope="module", params=CASES)
def scored(request, experiment):
    """Return the name and case of a logged model, and its script."""
    with mlflow.start_run(experiment_id=experiment):
        case = CASES[request.param]()
    script = scoring_script(case.uri, "ML.SCORES", ScriptOptions(keys=["id"], **case.options))
    return request.param, case, script


def test_text(scored):
    """The script, the SELECT and the assumptions are unchanged, except for ids."""
    name, _, script = scored
    before, after = CODE.split('r"""{}"""')
    assert before in script.text
    assert after.rstrip() in script.text
    text = script.text.replace(before, "[code]\n").replace(after.rstrip(), "\n[code]")
    text += f"\n{script.select}\n\n" + "".join(f"- {line}\n" for line in script.assumptions)
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    golden = GOLDEN / f"{name}.sql"
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
        pytest.skip("RENEW_GOLDEN: written again")
    assert text == golden.read_text(encoding="utf-8")


def test_scores_as_mlflow_does(scored, udf_runner):
    """Each id is emitted with the prediction of pyfunc for its row, bit for bit."""
    _, case, script = scored
    assert script.spec.loader.kind == case.loader
    rows = rows_of(case)
    result = udf_runner.create(script.text).run(rows, packet_rows=40)
    model = mlflow.pyfunc.load_model(case.uri)
    frame = case.frame if script.spec.tensor is None else case.frame.to_numpy()
    batch = case.options.get("batch_size", len(rows))
    predicted = [
        model.predict(frame[start : start + batch], params=case.params)
        for start in range(0, len(rows), batch)
    ]
    expected = pd.concat([pd.DataFrame(part) for part in predicted])
    assert result.columns == tuple(column.name for column in script.outputs)
    width = 1 + expected.shape[1]
    assert [row[0] for row in result.rows] == [Decimal(row[0]) for row in rows]
    values = expected.astype(object).to_numpy().tolist()
    assert [list(row[1:width]) for row in result.rows] == [
        [v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for v in row] for row in values
    ]
    assert all(row[width:] in {(), (None,)} for row in result.rows)
    assert np.size(values) > 0
