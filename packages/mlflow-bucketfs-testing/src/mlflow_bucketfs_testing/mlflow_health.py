"""Is an MLflow server ready?"""

from __future__ import annotations

import urllib.request
from http import HTTPStatus
from http.client import HTTPException

_PROBE_TIMEOUT_S = 5.0


def health_problem(uri: str) -> str | None:
    """Return why the server is not ready, or None if it is."""
    # The server is a neighbour: a proxy of the environment must not answer in its place
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{uri}/health", timeout=_PROBE_TIMEOUT_S) as response:
            return None if response.status == HTTPStatus.OK else f"HTTP status {response.status}"
    except (OSError, HTTPException) as exc:
        return str(getattr(exc, "reason", exc))
