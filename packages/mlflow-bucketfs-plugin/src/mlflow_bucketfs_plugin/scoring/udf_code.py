"""Placeholder until the next commit."""

from __future__ import annotations

import json
from typing import Any

SPEC: dict[str, Any] = json.loads(r"""{}""")
