CREATE OR REPLACE PYTHON3_MLFLOW SET SCRIPT ML.SCORES(
  ID DECIMAL(36,0),
  FEATURE_0 DOUBLE,
  FEATURE_1 DOUBLE,
  FEATURE_2 DOUBLE,
  FEATURE_3 DOUBLE
)
EMITS (
  ID DECIMAL(36,0),
  PREDICTION DOUBLE
) AS
# Scores rows with models:/m-ID of run RUN at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
# Made by mlflow-bucketfs-plugin VERSION; to change it, make it again.
# mlflow-bucketfs: {"plugin": "VERSION", "model": "models:/m-ID", "requested": "models:/m-ID", "artifacts": "exa+bfs://HOST/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "path": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "model_id": "m-ID", "run_id": "RUN", "inputs": [["ID", "DECIMAL(36,0)"], ["FEATURE_0", "DOUBLE"], ["FEATURE_1", "DOUBLE"], ["FEATURE_2", "DOUBLE"], ["FEATURE_3", "DOUBLE"]]}
[code]
r"""{
 "format": 1,
 "model": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts",
 "origin": "models:/m-ID",
 "keys": [
  {"column": "ID", "whole": true}
 ],
 "inputs": [
  {"column": "FEATURE_0", "feature": null, "type": "float", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "FEATURE_1", "feature": null, "type": "float", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "FEATURE_2", "feature": null, "type": "float", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "FEATURE_3", "feature": null, "type": "float", "required": true, "iso": false, "null_as_empty": false, "schema": null}
 ],
 "outputs": [
  {"column": "PREDICTION", "type": "float", "scale": 0, "field": null}
 ],
 "loader": {
  "format": "FORMAT",
  "file": "model.FORMAT",
  "mlmodel": "DIGEST",
  "trusted": [],
  "predict_fn": "predict",
  "modules": [MODULES],
  "kind": "direct"
 },
 "files": null,
 "tensor": {
  "dtype": "float32",
  "columns": 4,
  "name": null
 },
 "params": {},
 "batch_rows": 64,
 "on_error": "fail"
}"""
[code]
/

SELECT ML.SCORES(ID, FEATURE_0, FEATURE_1, FEATURE_2, FEATURE_3)
FROM MY_TABLE GROUP BY IPROC();

- UDFs see the model at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
- The model's files are not verified: anyone who can write to the bucket can change the code that the script runs.
- The model is loaded without MLflow.
- Keys without a type are whole numbers, DECIMAL(36,0): ID.
- The SELECT assumes that the table's columns are named as the features. Replace MY_TABLE by the table.
