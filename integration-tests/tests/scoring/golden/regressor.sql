CREATE OR REPLACE PYTHON3_MLFLOW SET SCRIPT ML.SCORES(
  ID DECIMAL(36,0),
  a_b DECIMAL(19,0),
  size DECIMAL(10,0),
  "the ""third""" DOUBLE,
  "Größe" BOOLEAN
)
EMITS (
  ID DECIMAL(36,0),
  PREDICTION DOUBLE,
  SCORING_ERROR VARCHAR(2000) UTF8
) AS
# Scores rows with models:/m-ID of run RUN at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
# Made by mlflow-bucketfs-plugin VERSION; to change it, make it again.
# mlflow-bucketfs: {"plugin": "VERSION", "model": "models:/m-ID", "requested": "models:/m-ID", "artifacts": "exa+bfs://HOST/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "path": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "model_id": "m-ID", "run_id": "RUN", "inputs": [["ID", "DECIMAL(36,0)"], ["a_b", "DECIMAL(19,0)"], ["size", "DECIMAL(10,0)"], ["the \"third\"", "DOUBLE"], ["Gr\u00f6\u00dfe", "BOOLEAN"]]}
[code]
r"""{
 "format": 1,
 "model": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts",
 "origin": "models:/m-ID",
 "keys": [
  {"column": "ID", "whole": true}
 ],
 "inputs": [
  {"column": "a_b", "feature": "a.b", "type": "long", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "size", "feature": "size", "type": "integer", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "the \"third\"", "feature": "the \"third\"", "type": "double", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "Größe", "feature": "Größe", "type": "boolean", "required": true, "iso": false, "null_as_empty": false, "schema": null}
 ],
 "outputs": [
  {"column": "PREDICTION", "type": "double", "scale": 0, "field": null}
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
 "files": {FILES},
 "tensor": null,
 "params": {},
 "batch_rows": 10000,
 "on_error": "column"
}"""
[code]
/

SELECT ML.SCORES(ID, a_b, size, "the ""third""", "Größe")
FROM MY_TABLE GROUP BY IPROC();

- UDFs see the model at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
- The script verifies FILES by their SHA-256; SOME bytes were downloaded to compute it.
- The model is loaded without MLflow.
- Keys without a type are whole numbers, DECIMAL(36,0): ID.
- The feature a.b is the parameter a_b: identifiers cannot have dots.
- The SELECT assumes that the table's columns are named as the features. Replace MY_TABLE by the table.
