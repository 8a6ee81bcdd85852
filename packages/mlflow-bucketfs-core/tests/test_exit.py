"""Operations while the interpreter exits: in exit handlers and in ``__del__``."""

from __future__ import annotations

import pytest
from mlflow_bucketfs_testing.server import Fault

BEGIN = """
import atexit, sys
from mlflow_bucketfs_core import Bucket, ConnectionSettings

bucket = Bucket(sys.argv[1], ConnectionSettings(
    password="write", max_workers=2, cert_fingerprint=sys.argv[2]
))

def use(folder):
    for number in range(3):
        bucket.upload_bytes(f"{folder}/{number}", b"1")
    assert len(bucket.keys(folder)) == 3
    assert b"".join(bucket.iter_content(f"{folder}/0")) == b"1"
    bucket.delete(f"{folder}/1")
"""


def in_exit_handler(*, used_before):
    """Return code with an exit handler that runs after those of urllib3's first pool."""
    return f"{BEGIN}\natexit.register(use, 'end')\n" + "use('before')\n" * used_before


def in_del(*, used_before):
    """Return code with an object that the interpreter deletes last."""
    return (
        f"""{BEGIN}
class Last:
    def __del__(self):
        assert sys.is_finalizing()
        use("end")

last = Last()
"""
        + "use('before')\n" * used_before
    )


@pytest.mark.parametrize("used_before", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("code", [in_exit_handler, in_del])
def test_operations_work_while_the_interpreter_ends(server, run_python, code, used_before):
    """Operations during exit succeed, whether or not they are the first of the process."""
    uri = server.uri() if code is in_exit_handler else server.tls_uri()
    run_python(code(used_before=used_before), uri, server.certificate_fingerprint)
    assert [key for key in server.keys() if key.startswith("end")] == ["end/0", "end/2"]


def test_stopped_threads_do_not_block_the_last_request(
    own_server, start_python, wait_until, tmp_path
):
    """The last request does not wait for requests of daemon threads that were stopped."""
    own_server.inject(Fault.stall(300, method="GET", times=None))
    code = f"""{BEGIN}
import threading, time
from pathlib import Path

class Last:
    def __del__(self):
        bucket.upload_bytes("end", b"1")

last = Last()
for number in range(2):
    threading.Thread(target=bucket.exists, args=("stalled",), daemon=True).start()
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
"""
    process = start_python(
        code, own_server.uri(), own_server.certificate_fingerprint, tmp_path / "ends"
    )
    wait_until(lambda: own_server.requests.connections == 2)
    (tmp_path / "ends").touch()
    assert process.wait(20) == 0
    assert own_server.keys() == ["end"]
