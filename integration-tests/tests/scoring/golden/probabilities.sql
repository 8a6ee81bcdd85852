CREATE OR REPLACE PYTHON3_MLFLOW SET SCRIPT ML.SCORES(
  ID DECIMAL(36,0),
  sepal_length DOUBLE,
  sepal_width DOUBLE,
  petal_length DOUBLE,
  petal_width DOUBLE
)
EMITS (
  ID DECIMAL(36,0),
  P_0 DOUBLE,
  P_1 DOUBLE,
  P_2 DOUBLE
) AS
# Scores rows with models:/m-ID of run RUN at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
# Made by mlflow-bucketfs-plugin VERSION; to change it, make it again.
# mlflow-bucketfs: {"plugin": "VERSION", "model": "models:/m-ID", "requested": "models:/m-ID", "artifacts": "exa+bfs://HOST/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "path": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "model_id": "m-ID", "run_id": "RUN", "inputs": [["ID", "DECIMAL(36,0)"], ["sepal_length", "DOUBLE"], ["sepal_width", "DOUBLE"], ["petal_length", "DOUBLE"], ["petal_width", "DOUBLE"]]}
[code]
r"""{
 "format": 1,
 "model": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts",
 "origin": "models:/m-ID",
 "keys": [
  {"column": "ID", "whole": true}
 ],
 "inputs": [
  {"column": "sepal_length", "feature": "sepal_length", "type": "double", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "sepal_width", "feature": "sepal_width", "type": "double", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "petal_length", "feature": "petal_length", "type": "double", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "petal_width", "feature": "petal_width", "type": "double", "required": true, "iso": false, "null_as_empty": false, "schema": null}
 ],
 "outputs": [
  {"column": "P_0", "type": "double", "scale": 0, "field": null},
  {"column": "P_1", "type": "double", "scale": 0, "field": null},
  {"column": "P_2", "type": "double", "scale": 0, "field": null}
 ],
 "loader": {
  "format": "FORMAT",
  "file": "model.FORMAT",
  "mlmodel": "DIGEST",
  "trusted": [],
  "predict_fn": "predict_proba",
  "modules": [MODULES],
  "kind": "direct"
 },
 "files": {FILES},
 "tensor": null,
 "params": {},
 "batch_rows": 10000,
 "on_error": "fail"
}"""
[code]
/

SELECT ML.SCORES(ID, sepal_length, sepal_width, petal_length, petal_width)
FROM MY_TABLE GROUP BY IPROC();

- UDFs see the model at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
- The script verifies FILES by their SHA-256; SOME bytes were downloaded to compute it.
- The model is loaded without MLflow.
- Keys without a type are whole numbers, DECIMAL(36,0): ID.
- The SELECT assumes that the table's columns are named as the features. Replace MY_TABLE by the table.
