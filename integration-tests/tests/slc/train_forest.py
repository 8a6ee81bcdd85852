"""Train a random forest and pickle it; runs in a separate environment.

argv: the model's directory to write, rows to predict as JSON. Prints the predictions as JSON.
"""

import json
import sys

import mlflow
import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

# numpy 1.26 cannot read a RandomState that numpy 2 has pickled with the model
forest = RandomForestClassifier(5, random_state=np.random.RandomState(0))
forest.fit(*load_iris(return_X_y=True))
mlflow.sklearn.save_model(forest, sys.argv[1], serialization_format="cloudpickle")
print(json.dumps(forest.predict(json.loads(sys.argv[2])).tolist()))  # noqa: T201
