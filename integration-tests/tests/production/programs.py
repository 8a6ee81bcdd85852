"""Programs of the production server's users and administrators, each for a separate process."""

# A user's program, which has neither the plugin nor a password.
LOGS_AND_LOADS = """
import hashlib, importlib.metadata, json, os, sys
from pathlib import Path
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

folder = Path(sys.argv[1])
for index in range(5):
    folder.joinpath(f"{index}.bin").write_bytes(os.urandom(100_000 * index))
features, species = load_iris(return_X_y=True)
classifier = LogisticRegression(max_iter=1000).fit(features, species)
with mlflow.start_run() as run:
    mlflow.log_artifacts(str(folder), "data")
    info = mlflow.sklearn.log_model(classifier, name="model", pip_requirements=["scikit-learn"])

def hashes(folder):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    # MLflow adds this one to its copy of a model
    files = [path for path in files if path.name != "registered_model_meta"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

loaded = mlflow.sklearn.load_model(info.model_uri)
schemes = importlib.metadata.entry_points(group="mlflow.artifact_repository")
print(json.dumps({
    "run_id": run.info.run_id,
    "model_id": info.model_id,
    "logged": hashes(folder),
    "data": hashes(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/data")),
    "model": hashes(mlflow.artifacts.download_artifacts(info.model_uri)),
    "same": loaded.predict(features).tolist() == classifier.predict(features).tolist(),
    "plugins": [entry.name for entry in schemes],
    "secrets": [name for name in os.environ if name.startswith(("EXA_", "PG"))],
}))
"""

# A user's program that loads the logged models again.
LOADS_AGAIN = """
import sys
import mlflow
for model_id in sys.argv[1:]:
    model = mlflow.sklearn.load_model(f"models:/{model_id}")
    print(model.predict([[5.1, 3.5, 1.4, 0.2]]).tolist())
"""

# Creates the tables of the previous version; prints this version and the current one.
MAKES_OLDER_TABLES = """
import sys
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.store.tracking.dbmodels.initial_models import Base

engine = create_sqlalchemy_engine(sys.argv[1])
Base.metadata.create_all(engine)
config = _get_alembic_config(sys.argv[1])
head = ScriptDirectory.from_config(config).get_revision("head")
command.upgrade(config, head.down_revision)
print(head.down_revision, head.revision)
"""
