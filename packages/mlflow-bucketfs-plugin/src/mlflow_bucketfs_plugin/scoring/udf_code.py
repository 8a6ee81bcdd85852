"""Score rows with an MLflow model.

Made by mlflow-bucketfs for the model that SPEC describes; to change it, make the script again.
SQL and models have different types, and Exasol delivers a column with another dtype if a batch has
a NULL. So each value is converted to the type in the model's signature, or refused with a sentence
that names the column, the row and the remedy.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import json
import math
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np  # noqa: TC004 -- import_libraries imports them
    import pandas as pd  # noqa: TC004

    Problem = tuple[Any, Any, str]  # position of the row, value, and why it is refused

SPEC: dict[str, Any] = json.loads(r"""{}""")

MOUNT_ROOT = "/buckets"
MESSAGE_LENGTH = 300
READ_BYTES = 16 * 1024 * 1024
DIGITS_LOST = 2**53  # from here on, neighbouring whole numbers are the same float
ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?")
DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "uint64": "uint64",
    "float": "float32",
    "double": "float64",
    "string": "object",
    "datetime": "datetime64[ns]",
    "json": "object",
    "decimal": "object",
}
NUMBERS = (int, float, Decimal)
# By the required kind of array: the kinds of arrays, and the types of objects, that NumPy converts
# at once
AT_ONCE: dict[str, tuple[str, set[type]]] = {
    "i": ("iuf", {int, Decimal}),
    "u": ("iuf", {int, Decimal}),
    "f": ("iuf", {int, float, Decimal}),
    "b": ("b", {bool}),
    "O": ("U", {str}),
    "U": ("U", {str}),
}
LOST = "is a float of 2^53 or more, which may have lost digits"
EXACT = "declare the column as DECIMAL(36,0)"
# Column, value, row, problem and remedy
FOUND = "column {}: {} in {} {}; {}"
PREDICTED = "column {}: {}, predicted for {}, {}; make the script again with another --output"


class ScoringError(Exception):
    """Error for the SQL user: one sentence with the problem and its remedy."""

    def __init__(self, sentence: str) -> None:
        super().__init__(truncated(sentence, MESSAGE_LENGTH))


class RefusedValueError(ValueError):
    """Error for a value that is not of the required type, such as "is not a number"."""


def run(ctx: Any) -> None:
    """Score the rows of one group, in batches; Exasol calls this once per group."""
    try:
        predict = load_model()
        rows_before = 0
        while (frame := ctx.get_dataframe(num_rows=SPEC["batch_rows"])) is not None:
            ctx.emit(score(frame, rows_before, predict))
            rows_before += len(frame)
    except ScoringError:
        # Otherwise, Exasol shows thousands of characters of traceback before the sentence
        sys.tracebacklimit = 0
        raise


# ---- Loading: once per process, in the first run, where errors have a clear message --------------


@functools.cache
def load_model() -> Callable[[Any], Any]:
    """Verify and load the model; return its prediction function."""
    folder = SPEC["model"]
    if folder.startswith(f"{MOUNT_ROOT}/"):
        root = os.environ.get("EXA_BUCKETFS_MOUNT_ROOT") or MOUNT_ROOT
        folder = root.rstrip("/") + folder.removeprefix(MOUNT_ROOT)
    # Imports and models create a million objects that are never freed. Searching them for garbage
    # takes a quarter of the start; frozen objects are excluded from later collections too.
    collects_garbage = gc.isenabled()
    gc.disable()
    try:
        predict = load_verified(folder)
    except ScoringError:
        raise
    except Exception as error:  # noqa: BLE001 -- a model's own code can raise any exception
        raise loading_error(error) from None
    finally:
        gc.freeze()
        if collects_garbage:
            gc.enable()
    # Return the memory that loading has freed to the system, if the C library can do it
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return predict


def import_libraries() -> None:
    """Prepare the environment of a UDF's process, and import NumPy and pandas for this module."""
    global np, pd  # noqa: PLW0603 -- a module's imports, after the environment and in run
    # The database starts a process per core: further threads of BLAS would only spin
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a database may have no network
    sys.dont_write_bytecode = True  # .pyc files of a model's own code would be added files
    import numpy as np
    import pandas as pd


def load_verified(folder: str) -> Callable[[Any], Any]:
    """Verify and load the model, and check that its files did not change meanwhile."""
    loader = SPEC["loader"]
    switch = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"  # MLflow applies it to all formats
    if loader["kind"] == "direct" and os.environ.get(switch, "true").lower() in ("false", "0"):
        raise ScoringError(f"{switch} is false in this container: set it to true to load models")
    with ThreadPoolExecutor(max_workers=1) as thread:  # the files are hashed during the imports
        verification = thread.submit(verify, folder)
        import_libraries()
        if loader["kind"] == "mlflow":
            import mlflow.pyfunc
        else:
            for module in loader["modules"]:
                importlib.import_module(module)
            if loader["format"] == "skops":
                import skops.io

                load = functools.partial(skops.io.load, trusted=loader["trusted"])
            else:
                load = importlib.import_module(loader["format"]).load
        model_file, verified = verification.result()
    if model_file is None:
        # Without warnings, MLflow does not compare the installed versions, which would be slow
        model = mlflow.pyfunc.load_model(folder, suppress_warnings=True)
        predict = functools.partial(model.predict, params=SPEC["params"] or None)
    else:
        with model_file:
            predict = getattr(load(model_file), loader["predict_fn"])
    present = verified if SPEC["files"] is None else names(folder)
    if {name: state(f"{folder}/{name}") for name in present} != verified:
        raise ScoringError(
            f"the model at {folder} was changed while it was loaded; run the query again"
        )
    return predict


def loading_error(error: Exception) -> ScoringError:
    """Return the error for a model that cannot be loaded, with a likely remedy."""
    if isinstance(error, ImportError):
        remedy = "the script-language container needs the packages that the model was trained with"
    elif isinstance(error, MemoryError):
        remedy = "the model needs more memory than a UDF has"
    elif isinstance(error, OSError):
        remedy = "a fresh upload may not have arrived at this node yet"
    else:
        remedy = "train it with the package versions of the script-language container"
    return model_error(f"cannot load {SPEC['origin']}", error, remedy)


# ---- Verification: the script runs only the model that it was made for ---------------------------


def verify(folder: str) -> tuple[BinaryIO | None, dict[str, tuple[int, int]]]:
    """Compare the model's files with the digests in the script.

    Returns:
        For the direct loader, the model's file, still open after it was hashed so that it cannot be
        replaced; and the state of each compared file.
    """
    loader, files = SPEC["loader"], SPEC["files"]
    if files is None:
        # The settings of the direct loader were read from this MLmodel, so it must be the same
        files = {"MLmodel": loader["mlmodel"]} if loader["kind"] == "direct" else {}
        open_regular(f"{folder}/MLmodel").close()
    else:
        for name in sorted(set(files) - set(names(folder))):
            raise missing_error(f"{folder}/{name}")
        for name in sorted(set(names(folder)) - set(files)):
            raise changed_error(f"{folder}/{name}", "was added to the model")
    model_file, verified = None, {}
    buffer = bytearray(READ_BYTES)  # reused: the model cannot use memory that this thread frees
    for name, digest in files.items():
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(open_regular(f"{folder}/{name}"))
            if hashed(file, buffer) != digest:
                raise changed_error(file.name, "is not the one that this script was made for")
            verified[name] = state(file.fileno())
            if name == loader.get("file"):
                closing.pop_all()
                file.seek(0)
                model_file = file
    if loader["kind"] == "direct" and model_file is None:
        model_file = open_regular(f"{folder}/{loader['file']}")
    return model_file, verified


def names(folder: str) -> Iterator[str]:
    """Yield the relative path of each file in a folder; a link to a folder counts as a file."""
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(f"{path}/{name}")]  # noqa: PTH114
        for name in files + links:
            yield f"{path}/{name}"[len(folder) + 1 :]


def open_regular(path: str) -> BinaryIO:
    """Open a regular file; refuse others, because opening a named pipe would block forever."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except FileNotFoundError:
        raise missing_error(path) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise changed_error(path, "is not a regular file")
    return file


def hashed(file: BinaryIO, buffer: bytearray) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest, view = hashlib.sha256(), memoryview(buffer)
    while size := file.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(view[:size])
    return digest.hexdigest()


def state(file: str | int) -> tuple[int, int]:
    """Return the size and time of a file, given by its path or descriptor."""
    status = os.stat(file)  # noqa: PTH116
    return status.st_size, status.st_mtime_ns


def missing_error(path: str) -> ScoringError:
    """Return the error for a missing file."""
    return ScoringError(
        f"{path} does not exist: a fresh upload may not have arrived at this node yet; if "
        f"{SPEC['origin']} was moved or deleted, make the script again"
    )


def changed_error(path: str, problem: str) -> ScoringError:
    """Return the error for a file that differs from the model that the script was made for."""
    return ScoringError(
        f"{path} {problem}: if this is intended, make the script again from {SPEC['origin']}"
    )


# ---- Scoring a batch -----------------------------------------------------------------------------


class Batch:
    """A batch of rows, and the reasons why some of them cannot be scored.

    Attributes:
        reasons: reasons by the row's position in the batch. If the script has no column for
            them, the first one is raised instead.
    """

    def __init__(self, frame: pd.DataFrame, rows_before: int) -> None:
        self.frame, self.rows_before = frame, rows_before
        self.reasons: dict[int, str] = {}

    def refuse(self, sentence: str, column: str, problems: list[Problem], remedy: str = "") -> None:
        """Refuse rows, each with a sentence that has its number and its first key."""
        for row, value, problem in problems:
            number = f"row {self.rows_before + row + 1}"
            keys = [f" ({k['column']} {shown(self.frame.iloc[row, 0])})" for k in SPEC["keys"][:1]]
            advice = EXACT if problem == LOST else remedy
            texts = [
                sentence.format(column, shown(value), number + key, problem, advice)
                for key in (*keys, "")
            ]
            fitting = (text for text in texts if len(text) <= MESSAGE_LENGTH)
            self.fail([row], ScoringError(next(fitting, texts[-1])))

    def fail(self, rows: Iterable[int], error: ScoringError) -> None:
        """Keep the first reason of each row, or raise it."""
        if SPEC["on_error"] == "fail":
            raise error from None
        for row in rows:
            self.reasons.setdefault(row, str(error))


def score(frame: pd.DataFrame, rows_before: int, predict: Callable[[Any], Any]) -> pd.DataFrame:
    """Return the rows to emit for a batch: keys, predictions and, if requested, reasons."""
    frame = frame.reset_index(drop=True)  # a row's label is its position, in slices too
    batch = Batch(frame, rows_before)
    keys, outputs = SPEC["keys"], SPEC["outputs"]
    width = len(keys) + len(outputs) + (SPEC["on_error"] == "column")
    # Exasol's client converts a frame to one array: with a column of floats, integers would become
    # floats. Python objects are emitted unchanged; None, the array's initial value, is NULL.
    emitted = np.empty((width, len(frame)), dtype=object)
    for position, key in enumerate(keys):
        emitted[position] = key_values(frame.iloc[:, position], key, batch)
    columns = features(frame, batch)
    rows = [row for row in range(len(frame)) if row not in batch.reasons]
    if batch.reasons:
        columns = features(frame.iloc[rows], batch)
    if rows:
        try:
            predicted = predicted_columns(predict, columns, len(rows))
        except ScoringError as error:
            batch.fail(rows, error)
        else:
            for position, output in enumerate(outputs):
                values = predicted[position].set_axis(rows)
                emitted[len(keys) + position, rows] = output_values(values, output, batch)
    for row, reason in batch.reasons.items():
        emitted[len(keys) : -1, row] = None
        emitted[-1, row] = reason
    return pd.DataFrame(emitted.T, dtype=object)  # else pandas converts dates and times


def features(frame: pd.DataFrame, batch: Batch) -> list[Any]:
    """Return the features in some rows of a batch, converted for the model."""
    inputs = enumerate(SPEC["inputs"], start=len(SPEC["keys"]))
    return [feature(frame.iloc[:, position], item, batch) for position, item in inputs]


def predicted_columns(
    predict: Callable[[Any], Any], columns: list[Any], rows: int
) -> list[pd.Series[Any]]:
    """Call the model, and return its predictions as a column for each output."""
    try:
        prediction = predict(model_input(columns))
    except Exception as error:  # noqa: BLE001 -- a model can raise any exception
        remedy = "compare the values with those that it was trained with"
        if any(pd.isna(pd.Series(column)).any() for column in columns):
            remedy = "it may not accept the NULLs in these rows"
        raise model_error("the model failed", error, remedy) from None
    predicted = output_columns(prediction)
    if len(predicted) != len(SPEC["outputs"]):
        raise ScoringError(
            f"the model returned {len(predicted)} columns and the script emits "
            f"{len(SPEC['outputs'])}; make it again with an --output for each one"
        )
    if other := [len(values) for values in predicted if len(values) != rows]:
        raise ScoringError(
            f"the model returned {other[0]} rows for {rows}; a script can only call a model that "
            "returns one for each row"
        )
    return predicted


def model_input(columns: list[Any]) -> Any:
    """Return the data frame or the tensor that the signature describes.

    The frame is made of columns, as MLflow makes it: another memory layout could change the last
    bits of predictions.
    """
    tensor = SPEC["tensor"]
    if tensor is None:
        features = (item["feature"] for item in SPEC["inputs"])
        named = (position if name is None else name for position, name in enumerate(features))
        return pd.DataFrame(dict(zip(named, columns, strict=True)))
    array = columns[0]
    if tensor["columns"] is not None:
        array = pd.DataFrame(dict(enumerate(columns))).to_numpy(dtype=columns[0].dtype)
    return array if tensor["name"] is None else {tensor["name"]: array}


def output_columns(prediction: Any) -> list[pd.Series[Any]]:
    """Return the columns of an array, series, data frame, list or dictionary."""
    outputs = SPEC["outputs"]
    as_json = len(outputs) == 1 and outputs[0]["type"] == "json"
    if hasattr(prediction, "toarray"):  # a sparse matrix
        prediction = prediction.toarray()
    if isinstance(prediction, (list, tuple)):
        first = next(iter(prediction), None)
        is_table = isinstance(first, (dict, list, tuple, np.ndarray)) and not as_json
        prediction = pd.DataFrame(list(prediction)) if is_table else objects(prediction)
    if isinstance(prediction, (pd.DataFrame, dict)):
        fields = [output["field"] for output in outputs]
        if None in fields:
            fields = list(prediction)
        if missing := [field for field in fields if field not in prediction]:
            raise ScoringError(
                f"the model returned no column {missing[0]}, but "
                f"{truncated(', '.join(map(str, prediction)), 80)}; make the script again with "
                "--output"
            )
        return [series(prediction[field]) for field in fields]
    if not as_json and getattr(prediction, "ndim", 1) == 2:  # noqa: PLR2004 -- rows and columns
        return [series(column) for column in np.asarray(prediction).T]
    return [series(prediction)]


def series(values: Any) -> pd.Series[Any]:
    """Return predicted values, one for each row, as a series."""
    if isinstance(values, pd.Series):
        return values
    array = np.atleast_1d(values) if isinstance(values, np.ndarray) else objects(values)
    if array.ndim == 2 and array.shape[1] == 1:  # noqa: PLR2004 -- a column as a matrix
        array = array[:, 0]
    return pd.Series(array if array.ndim == 1 else objects(array))


def objects(values: Any) -> np.ndarray[Any, Any]:
    """Return values, which may be lists themselves, as an array of objects."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        values = [values]
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array


# ---- Columns: the same rules for keys, features and predictions ----------------------------------


def key_values(values: pd.Series[Any], key: dict[str, Any], batch: Batch) -> Any:
    """Return a key's column with exactly the values of the table."""
    null = values.isna().to_numpy()
    present = without(null, values)
    if key["whole"] and values.dtype.kind == "f":
        exact, problems = converted(present, np.dtype("int64"), {"type": "long"})
    else:
        exact, problems = present, nul_characters(present)
    batch.refuse(FOUND, key["column"], problems, "replace it in the query")
    passed = np.empty(len(values), dtype=object)
    passed[~null] = exact.astype(object)
    passed[[row for row, _, _ in problems]] = None
    return passed


def feature(values: pd.Series[Any], item: dict[str, Any], batch: Batch) -> Any:
    """Return a column as an array of the type that the signature requires."""
    tensor = SPEC["tensor"]
    dtype = np.dtype(tensor["dtype"] if tensor else DTYPES[item["type"]])
    null = values.isna().to_numpy()
    if item["null_as_empty"]:
        values, null = values.where(~null, ""), np.zeros_like(null)
    array, problems = converted(without(null, values), dtype, item)
    required_json = item["type"] == "json" and item["required"]
    if dtype.kind in "iuU" or required_json or (tensor and dtype.kind == "b"):  # as in MLflow
        problems += [(row, None, "is not allowed") for row in values.index[null]]
    remedy = f"the model's signature requires {item['type']}"
    batch.refuse(FOUND, item["column"], problems, remedy)
    if not null.any():
        return array
    missing: Any = {"f": np.nan, "M": np.datetime64("NaT", "ns")}.get(dtype.kind)
    filled = np.full(len(values), missing, dtype if missing is not None else object)
    filled[~null] = array
    return filled


def output_values(values: pd.Series[Any], output: dict[str, Any], batch: Batch) -> Any:
    """Return a predicted column as plain Python values; NaN and infinity become NULL."""
    null = values.isna().to_numpy()
    if values.dtype.kind == "f":
        null = null | np.isinf(values.to_numpy())  # arrays of pandas 3 are read-only
    # A float32 is emitted as the equal DOUBLE, and not rounded again
    dtype = np.dtype(DTYPES["double" if output["type"] == "float" else output["type"]])
    present = without(null, values)
    array, problems = converted(present, dtype, output)
    if output["type"] == "string":
        problems += nul_characters(present)
    batch.refuse(PREDICTED, output["column"], problems)
    plain = pd.Series(array).astype(object).to_numpy(copy=True)
    if dtype.kind == "f":
        plain[~np.isfinite(array)] = None
    emitted = np.empty(len(values), dtype=object)
    emitted[~null] = plain
    return emitted


def without(null: np.ndarray[Any, Any], values: pd.Series[Any]) -> pd.Series[Any]:
    """Return the values that are not NULL."""
    return values[~null] if null.any() else values


def converted(
    values: pd.Series[Any], dtype: np.dtype[Any], item: dict[str, Any]
) -> tuple[np.ndarray[Any, Any], list[Problem]]:
    """Convert values without NULL to an array; return it and the refused values, empty in it."""
    array = converted_at_once(values.to_numpy(), dtype, item)
    if array is not None:
        return array, []
    # A value does not fit, or needs its own conversion
    result, problems = [], []
    for row, value in values.items():
        try:
            scalar = isinstance(value, np.generic) and dtype.kind != "M"
            result.append(RULES[item["type"]](value.item() if scalar else value, dtype, item))
        except (RefusedValueError, ArithmeticError) as error:  # noqa: PERF203 -- the slow path
            is_known = isinstance(error, RefusedValueError)
            problems.append((row, value, str(error) if is_known else "is out of range"))
            result.append(pd.NaT if dtype.kind == "M" else dtype.type())
    column = objects(result) if dtype.kind in "OU" else pd.Series(result, dtype=dtype).to_numpy()
    return column.astype(dtype), problems


def converted_at_once(  # noqa: PLR0911 -- one for each case
    values: np.ndarray[Any, Any], dtype: np.dtype[Any], item: dict[str, Any]
) -> np.ndarray[Any, Any] | None:
    """Convert all values with NumPy at once; return None if one may not fit."""
    given, wanted = values.dtype.kind, dtype.kind
    if wanted == "M":
        if values.dtype == dtype:
            return values
        if not item.get("iso") or not all(type(v) is str and ISO.fullmatch(v) for v in values):
            return None
        moments = pd.to_datetime(values, format="ISO8601", errors="coerce").to_numpy()
        return None if np.isnat(moments).any() else moments.astype(dtype)
    kinds, types = AT_ONCE[wanted]
    known = set(map(type, values)) <= types if given == "O" else given in kinds
    if not known or item["type"] in ("json", "decimal"):
        return None
    if wanted in "iu" and not are_in_range(values, dtype):
        return None
    # Values that do not fit are found by comparison, not by NumPy's warnings
    with np.errstate(all="ignore"), contextlib.suppress(OverflowError):
        if wanted == "f":
            values = values.astype("float64")
        array = values.astype(dtype)
        if wanted in "iu" and not (array == values).all():
            return None
        if wanted == "f" and not (np.isinf(array) == np.isinf(values)).all():
            return None
        return array
    return None


def are_in_range(values: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Return False if floats may have lost digits, or Python numbers are out of range."""
    if values.dtype.kind == "f":
        return bool((np.abs(values) < DIGITS_LOST).all())
    if values.dtype.kind != "O" or not len(values):
        return True
    bounds = np.iinfo(dtype)
    return bool(bounds.min <= min(values) and max(values) <= bounds.max)


def nul_characters(values: pd.Series[Any]) -> list[Problem]:
    """Return the texts with a NUL character, at which Exasol's client would truncate them."""
    if values.dtype.kind != "O" or "\0" not in "".join(v for v in values if isinstance(v, str)):
        return []
    texts = ((row, value) for row, value in values.items() if isinstance(value, str))
    return [(row, value, "has a NUL character") for row, value in texts if "\0" in value]


# ---- Values --------------------------------------------------------------------------------------


def require_type(value: Any, types: Any, problem: str) -> Any:
    """Return a value if it has one of these types, else raise; a bool is not a number."""
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise RefusedValueError(problem)
    return value


def whole_number(value: Any, dtype: np.dtype[Any], _: dict[str, Any]) -> int:
    """Return a number as an int, if it has no decimals and has lost no digits."""
    require_type(value, NUMBERS, "is not a number")
    if not isinstance(value, int) and (not math.isfinite(value) or value != int(value)):
        raise RefusedValueError("is not a whole number")
    if isinstance(value, float) and abs(value) >= DIGITS_LOST:
        raise RefusedValueError(LOST)
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise RefusedValueError("is out of range")
    return int(value)


def number(value: Any, dtype: np.dtype[Any], _: dict[str, Any]) -> float:
    """Return a number as a float, if it is in the range of the required dtype."""
    double = float(require_type(value, NUMBERS, "is not a number"))
    with np.errstate(over="raise"):
        np.float64(double).astype(dtype)
    return double


def decimal_number(value: Any, _: np.dtype[Any], item: dict[str, Any]) -> Decimal:
    """Return a number, rounded to the decimals of its column."""
    if not math.isfinite(require_type(value, NUMBERS, "is not a number")):
        raise RefusedValueError("is not a number")
    digits = Context(prec=36, rounding=ROUND_HALF_EVEN)
    return Decimal(str(value)).quantize(Decimal(1).scaleb(-item["scale"]), context=digits)


def moment(value: Any, _: Any, item: dict[str, Any]) -> pd.Timestamp:
    """Return a date or time as a timestamp; a time zone is refused."""
    if isinstance(value, str) and item.get("iso"):
        if not ISO.fullmatch(value):
            raise RefusedValueError("is not written as 2026-01-31 or 2026-01-31 12:30:00")
    elif not isinstance(value, (date, np.datetime64)):
        raise RefusedValueError("is not a date or time")
    try:
        timestamp = pd.Timestamp(value).as_unit("ns")
    except pd.errors.OutOfBoundsDatetime:
        raise RefusedValueError("is not between the years 1678 and 2261") from None
    except ValueError:
        raise RefusedValueError("is not a date or time") from None
    if timestamp.tz is not None:
        raise RefusedValueError("has a time zone")
    return timestamp


def nested(value: Any, _: np.dtype[Any], item: dict[str, Any]) -> Any:
    """Parse JSON to the Array, Object or Map of a feature; for an output, return JSON."""
    if "schema" not in item:
        return json.dumps(plain_json(value), ensure_ascii=False, default=str)
    try:
        return typed(json.loads(value), item["schema"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise RefusedValueError("is not JSON of the required type") from None


def typed(value: Any, schema: dict[str, Any]) -> Any:
    """Convert numbers and times in JSON to the types of the signature; MLflow checks the rest."""
    kind = schema["type"]
    if isinstance(value, list) and kind == "array":
        value = [typed(element, schema["items"]) for element in value]
    elif isinstance(value, dict) and kind in ("map", "object"):
        each = schema.get("properties", {})
        value = {name: typed(v, each.get(name) or schema["values"]) for name, v in value.items()}
    elif kind == "datetime" and isinstance(value, str):
        value = moment(value, None, {"iso": True}).to_datetime64()
    elif kind in ("integer", "float", "double") and type(value) in (int, float):
        dtype = np.dtype(DTYPES[kind])
        # By its rule: NumPy alone would drop decimals, and before version 2 wrap large numbers
        value = dtype.type(RULES[kind](value, dtype, schema))
    return value


def plain_json(value: Any) -> Any:
    """Return a value with Python's types only; NaN and infinity, invalid in JSON, become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain_json(element) for name, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Arguments: a value, the array's dtype, the item of SPEC; an ArithmeticError means out of range
RULES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "boolean": lambda value, *_: require_type(value, bool, "is not true or false"),
    "integer": whole_number,
    "long": whole_number,
    "uint64": whole_number,
    "float": number,
    "double": number,
    "string": lambda value, *_: str(require_type(value, str, "is not text")),
    "datetime": moment,
    "json": nested,
    "decimal": decimal_number,
}


# ---- Messages ------------------------------------------------------------------------------------


def model_error(what: str, error: Exception, remedy: str) -> ScoringError:
    """Return the error for an exception from the model or its loading, with its first line."""
    reason = str(error)
    if reason.startswith("Failed to enforce schema"):  # MLflow shows all rows before the reason
        reason = reason.rpartition("Error: ")[2]
    reason = next(iter(reason.strip().splitlines()), "").rstrip(". ")
    start = f"{what}: {type(error).__name__}" + (": " if reason else "")
    reason = truncated(reason, MESSAGE_LENGTH - len(start + remedy) - 2)
    return ScoringError(f"{start}{reason}; {remedy}")


def shown(value: Any) -> str:
    """Return a value as text for a message."""
    if pd.isna(value) is True:
        return "NULL"
    return truncated(repr(value) if isinstance(value, str) else str(value), 40)


def truncated(text: str, length: int) -> str:
    """Return a text on one line, truncated to a length."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
