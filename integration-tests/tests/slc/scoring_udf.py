"""A UDF script: SET (model VARCHAR, id DECIMAL, a, b, c, d DOUBLE) EMITS (id, species)."""

import mlflow

BATCH = 4


def run(ctx):
    """Score the rows of a group with the model that their first column names."""
    model = mlflow.pyfunc.load_model(ctx.model)
    while (rows := ctx.get_dataframe(BATCH)) is not None:
        rows["species"] = model.predict(rows[["a", "b", "c", "d"]].to_numpy())
        ctx.emit(rows[["id", "species"]])
