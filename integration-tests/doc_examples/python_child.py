"""Script that runs the Python blocks of one page in one namespace.

It reads one JSON object per line from its standard input. It answers each with a line, ``ok`` or
``failed``, on the file descriptor that is its argument.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
from pathlib import Path


def _main(responses: int) -> None:
    # the blocks cannot read this script's input, and import from their directory as a user would
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[0] = ""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for order in map(json.loads, orders):
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(os.environ["PWD"])
        verdict = "ok" if _run(order, namespace) else "failed"
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(responses, f"{verdict}\n".encode())


def _run(order: dict[str, str], namespace: dict[str, object]) -> bool:
    path = order["path"]
    # tracebacks show the lines of the page
    page = Path(path).read_text(encoding="utf-8")
    linecache.cache[path] = (len(page), None, page.splitlines(keepends=True), path)
    try:
        code = compile("\n" * (int(order["line"]) - 1) + order["source"], path, "exec")
        exec(code, namespace)  # noqa: S102 -- the purpose of this script
    except BaseException as error:  # noqa: BLE001 -- SystemExit is a failure as well
        inside = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, inside)
        return False
    return True


if __name__ == "__main__":
    _main(int(sys.argv[1]))
