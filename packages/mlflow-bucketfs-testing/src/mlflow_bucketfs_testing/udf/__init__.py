"""Run UDFs without a database: the database's side of the protocol of Exasol's UDF client.

Importing this package, or any module of it, needs the extra ``[udf]``.
"""

from __future__ import annotations

import sys

from mlflow_bucketfs_testing.errors import UdfClientError, UdfExtraMissingError

if sys.platform == "win32":
    raise UdfClientError("UDFs do not run on Windows: use Linux, macOS or WSL")

try:
    # every module needs them: fail here, with the command that installs them
    import google.protobuf  # noqa: F401
    import zmq  # noqa: F401
except ImportError as error:
    raise UdfExtraMissingError(
        f'running UDFs needs {error.name}: pip install "mlflow-bucketfs-testing[udf]"'
    ) from error
