"""Tests of uploads from a stream, as by a proxying tracking server."""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import CancelledError

import pytest
from mlflow.exceptions import MlflowException
from mlflow_bucketfs_plugin.streaming import _ClientStream
from mlflow_bucketfs_testing.server import Fault

MIB = 1 << 20
SMALL, LONG = b"small" * 1000, bytes(range(256)) * (9 * MIB // 256)
SIZES = pytest.mark.parametrize("data", [SMALL, LONG], ids=["small", "long"])


class ClientGoneError(Exception):
    """An error like that of a web framework whose client disconnects."""


def run(coroutine):
    """Run a coroutine; fail instead of hanging if a thread that it started never ends."""
    outcome = {}

    def target():
        try:
            outcome["result"] = asyncio.run(coroutine)
        except BaseException as error:  # noqa: BLE001 -- raised below
            outcome["error"] = error

    # asyncio.run returns only once all threads of its loop have ended
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "a thread of the event loop hangs"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


async def pieces(data, size=256 * 1024):
    """Yield the data as a server does: in pieces, with empty ones between."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""
        await asyncio.sleep(0)


@pytest.fixture(params=["sync", "async"])
def log_stream(request, repo):
    """Log bytes through one of the two methods that MLflow's servers call."""

    def log(data, name="f", path=None):
        if request.param == "sync":
            repo.log_artifact_from_stream(io.BytesIO(data), name, path)
        else:
            run(repo.log_artifact_from_async_stream(pieces(data), name, path))

    return log


@pytest.mark.parametrize("data", [b"", SMALL, LONG[: 8 * MIB], LONG], ids=len)
def test_content_arrives(server, log_stream, data):
    """A stream of any length is stored as one object, with one PUT."""
    log_stream(data, "f", "a/b")
    assert server.keys() == ["root/a/b/f"]
    assert server.read("root/a/b/f") == data
    assert server.requests.count(method="PUT") == 1


def test_odd_names(server, log_stream, odd_names):
    """Names are taken literally, as for files."""
    for name in odd_names:
        log_stream(SMALL, name, name)
    assert server.keys() == sorted(f"root/{name}/{name}" for name in odd_names)


@pytest.mark.parametrize(("name", "path"), [("", None), ("a/", None), ("..", "a"), ("f", "../a")])
def test_bad_names(server, log_stream, name, path):
    """A name that is empty, or leads out of the root, is refused before anything is sent."""
    with pytest.raises(MlflowException):
        log_stream(SMALL, name, path)
    assert server.requests.connections == 0


def test_small_stream_is_retried(server, log_stream):
    """A stream of up to 8 MiB is retried after transient failures."""
    server.inject(Fault.status(503, method="PUT"), Fault.reset_on_upload(10, method="PUT"))
    log_stream(SMALL)
    assert server.read("root/f") == SMALL
    assert server.requests.count(method="PUT") == 3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.status(503, method="PUT"), id="status"),
        pytest.param(Fault.reset_on_upload(8 * MIB + 1, method="PUT"), id="reset"),
    ],
)
def test_long_stream_is_sent_once(server, log_stream, fault):
    """A longer stream is not retried, and its error has a code that MLflow's client retries."""
    server.inject(fault)
    with pytest.raises(MlflowException) as caught:
        log_stream(LONG)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert server.keys() == []
    assert server.requests.count(method="PUT") == 1


@SIZES
def test_failing_stream_stores_nothing(server, repo, data):
    """A stream that raises during the upload leaves no object, and its own error is raised."""

    class Failing(io.BytesIO):
        def read(self, *arguments):
            block = super().read(*arguments)
            if not block:
                raise ClientGoneError
            return block

    with pytest.raises(ClientGoneError):
        repo.log_artifact_from_stream(Failing(data), "f")
    assert server.keys() == []
    repo.log_artifact_from_stream(io.BytesIO(SMALL), "f")
    assert server.read("root/f") == SMALL


@SIZES
def test_aborting_client_publishes_nothing(server, repo, data):
    """A client that disconnects during the upload leaves no object and no waiting thread."""

    async def chunks():
        async for piece in pieces(data):
            yield piece
        raise ClientGoneError

    with pytest.raises(ClientGoneError):
        run(repo.log_artifact_from_async_stream(chunks(), "f"))
    assert server.keys() == []


@SIZES
def test_cancelled_task_publishes_nothing(server, repo, data):
    """A task that is cancelled while its client stalls leaves no object and no waiting thread."""

    async def main():
        all_sent = asyncio.Event()

        async def chunks():
            async for piece in pieces(data):
                yield piece
            all_sent.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(repo.log_artifact_from_async_stream(chunks(), "f"))
        await all_sent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert server.keys() == []


@pytest.mark.parametrize("turns", range(12))
def test_cancelled_at_any_moment(server, repo, turns):
    """A task cancelled at any moment leaves no object or a complete one, and no waiting thread."""

    async def chunks():
        for number in range(4):
            yield b"x" * number
            await asyncio.sleep(0.001)

    async def main():
        task = asyncio.create_task(repo.log_artifact_from_async_stream(chunks(), "f"))
        await asyncio.sleep(turns * 0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
    assert [server.read(key) for key in server.keys()] in ([], [b"xxxxxx"])


def test_closed_while_the_thread_asks_for_a_piece():
    """A task that is cancelled between two pieces leaves no waiting thread."""
    loop_thread = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *arguments, **options):
            if loop_thread != [threading.current_thread()]:
                feed.close()  # as the loop's own thread might at this very moment
            return super().call_soon_threadsafe(*arguments, **options)

    async def silence():
        await asyncio.Event().wait()
        yield b""

    def take():
        try:
            next(feed)
        except CancelledError:
            outcome.append("cancelled")

    async def main():
        loop_thread.append(threading.current_thread())
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        for _ in range(1000):
            has_ended = not thread.is_alive()
            await asyncio.sleep(0.01)  # the loop runs the callbacks of the thread
            if has_ended and len(asyncio.all_tasks()) == 1:
                break

    outcome = []
    loop = Loop()
    feed = _ClientStream(silence(), loop, 60)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert outcome == ["cancelled"]


@SIZES
def test_event_loop_is_not_blocked(server, repo, data):
    """The event loop is not blocked while BucketFS stalls."""
    server.inject(Fault.stall(300, method="PUT"))

    async def main():
        task = asyncio.create_task(repo.log_artifact_from_async_stream(pieces(data), "f"))
        # the loop runs until BucketFS has the request, and afterwards
        while len(server.faults):  # noqa: ASYNC110 -- the server has no event to wait for
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert not task.done()
        server.stop()
        with pytest.raises(MlflowException):
            await task

    run(main())


def test_parallel_streams(server, repo):
    """More clients than threads or connections can upload at the same time."""

    async def main():
        await asyncio.gather(
            *(
                repo.log_artifact_from_async_stream(pieces(SMALL + b"%d" % number), f"{number}")
                for number in range(60)
            )
        )

    run(main())
    assert {key: server.read(key) for key in server.keys()} == {
        f"root/{number}": SMALL + b"%d" % number for number in range(60)
    }


def test_stream_is_not_read_without_password(repo, monkeypatch):
    """Without a password, the upload fails before the stream is read."""
    monkeypatch.delenv("EXA_BUCKETFS_PASSWORD")
    stream, chunks = io.BytesIO(SMALL), pieces(SMALL)
    for log in (
        lambda: repo.log_artifact_from_stream(stream, "f"),
        lambda: run(repo.log_artifact_from_async_stream(chunks, "f")),
    ):
        with pytest.raises(MlflowException, match="EXA_BUCKETFS_PASSWORD") as caught:
            log()
        assert caught.value.error_code == "UNAUTHENTICATED"
    assert stream.tell() == 0
    assert len(run(anext(chunks))) == len(SMALL)


def test_file_in_the_way(server, log_stream):
    """A stream is refused if a file is in the way of its folder."""
    server.put("root/d", b"file")
    with pytest.raises(MlflowException, match="in the way") as caught:
        log_stream(SMALL, "f", "d")
    assert caught.value.error_code == "RESOURCE_CONFLICT"
