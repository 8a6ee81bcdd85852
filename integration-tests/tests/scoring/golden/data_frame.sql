CREATE OR REPLACE PYTHON3_MLFLOW SET SCRIPT ML.SCORES(
  ID DECIMAL(36,0),
  age DECIMAL(19,0),
  country VARCHAR(2000000) UTF8,
  since VARCHAR(30) UTF8
)
EMITS (
  ID DECIMAL(36,0),
  LABEL VARCHAR(100) UTF8,
  SCORE DOUBLE,
  "UNTIL" TIMESTAMP,
  GOOD BOOLEAN,
  BIG DECIMAL(36,0)
) AS
# Scores rows with models:/m-ID of run RUN at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
# Made by mlflow-bucketfs-plugin VERSION; to change it, make it again.
# mlflow-bucketfs: {"plugin": "VERSION", "model": "models:/m-ID", "requested": "models:/m-ID", "artifacts": "exa+bfs://HOST/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "path": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts", "model_id": "m-ID", "run_id": "RUN", "inputs": [["ID", "DECIMAL(36,0)"], ["age", "DECIMAL(19,0)"], ["country", "VARCHAR(2000000) UTF8"], ["since", "VARCHAR(30) UTF8"]]}
[code]
r"""{
 "format": 1,
 "model": "/buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts",
 "origin": "models:/m-ID",
 "keys": [
  {"column": "ID", "whole": true}
 ],
 "inputs": [
  {"column": "age", "feature": "age", "type": "long", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "country", "feature": "country", "type": "string", "required": true, "iso": false, "null_as_empty": false, "schema": null},
  {"column": "since", "feature": "since", "type": "datetime", "required": true, "iso": true, "null_as_empty": false, "schema": null}
 ],
 "outputs": [
  {"column": "LABEL", "type": "string", "scale": 0, "field": "label"},
  {"column": "SCORE", "type": "double", "scale": 0, "field": "Score"},
  {"column": "UNTIL", "type": "datetime", "scale": 0, "field": "Until"},
  {"column": "GOOD", "type": "boolean", "scale": 0, "field": "good"},
  {"column": "BIG", "type": "long", "scale": 0, "field": "id"}
 ],
 "loader": {
  "kind": "mlflow"
 },
 "files": {FILES},
 "tensor": null,
 "params": {},
 "batch_rows": 10000,
 "on_error": "fail"
}"""
[code]
/

SELECT ML.SCORES(ID, age, country, TO_CHAR(since, 'YYYY-MM-DD HH24:MI:SS.FF6'))
FROM CUSTOMERS GROUP BY IPROC();

- UDFs see the model at /buckets/SERVICE/BUCKET/FOLDER/models/m-ID/artifacts.
- The script verifies FILES by their SHA-256; SOME bytes were downloaded to compute it.
- The model is loaded by MLflow, which takes seconds per process.
- Keys without a type are whole numbers, DECIMAL(36,0): ID.
- The SELECT assumes that the table's columns are named as the features.
