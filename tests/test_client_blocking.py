"""client/blocking.py and client/pipeline.py: `Client` against a real node."""

import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Serve, Served
from turbopump import (
    Client,
    ConflictError,
    ConnectionLostError,
    DeniedError,
    RequestError,
    TurbopumpError,
    UnavailableError,
)

KEYS = [b"a", b"a b", b"a|b=c", b"100%", "ключ".encode(), b"\xff\x00\n\r\t", b"k" * 4096]
VALUES = [b"", b"x", b"a|b\nc", bytes(range(256)), b"\n", "ü".encode(), random.Random(1).randbytes(3_000_000)]


@pytest.fixture
def client(node: Served) -> Iterator[Client]:
    """A blocking client."""
    with Client(node.socket, timeout=20) as connected:
        yield connected


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:12]))
def test_any_key_comes_back(client: Client, key: bytes) -> None:
    """Percent-encoding is nobody's business but the protocol's."""
    client.put(key, b"here")

    assert client.get(key) == b"here"
    assert client.exists(key)
    assert client.delete(key) is not None
    assert not client.exists(key)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:12]))
def test_any_value_comes_back(client: Client, prefix: str, value: bytes) -> None:
    """Byte for byte, of any length."""
    client.put(prefix, value)

    assert client.get(prefix) == value


def test_text_stands_for_its_utf8(client: Client, prefix: str) -> None:
    """And other bytes-like values are taken, too."""
    client.put(prefix + "ü", "ö")
    assert client.get((prefix + "ü").encode()) == "ö".encode()

    client.put(bytearray(prefix.encode()), memoryview(b"abc")[1:])
    assert client.get(prefix) == b"bc"


def test_what_is_not_there(client: Client, prefix: str) -> None:
    """Is an answer, not an error."""
    assert client.get(prefix) is None
    assert client.read(prefix) is None
    assert client.delete(prefix) is None
    assert client.versions(prefix) == []
    assert not client.exists(prefix)


def test_an_entry_has_version_and_expiry(client: Client, prefix: str) -> None:
    """The version is that of the write."""
    version = client.put(prefix, "1")
    assert client.read(prefix) == (b"1", version, None)

    client.put(prefix, "2", ttl=1000)
    entry = client.read(prefix)
    assert entry is not None
    assert entry.expires_ms is not None


def test_conditions_hold_or_raise(client: Client, prefix: str) -> None:
    """With the code that says which."""
    first = client.put(prefix, "1", if_absent=True)
    for conditions, code in (
        ({"if_absent": True}, "exists"),
        ({"if_version": "0" * 16 + "-" + "0" * 16}, "version_mismatch"),
    ):
        with pytest.raises(ConflictError) as raised:
            client.put(prefix, "2", **conditions)
        assert raised.value.code == code
    second = client.put(prefix, "2", if_version=first)
    with pytest.raises(ConflictError):
        client.delete(prefix, if_version=first)
    client.delete(prefix, if_version=second)
    with pytest.raises(ConflictError) as raised:
        client.put(prefix, "3", if_present=True)
    assert raised.value.code == "missing"


def test_versions_are_told(client: Client, prefix: str) -> None:
    """With size and state."""
    version = client.put(prefix, "12345", ttl=1000)

    [told] = client.versions(prefix)
    assert (told.version, told.size, told.deleted) == (version, 5, False)
    assert told.expires_ms is not None


def test_listing_pages_through_everything(client: Client, prefix: str) -> None:
    """Each key once, whatever is in it."""
    names = {prefix.encode() + key for key in [*(b"%d" % number for number in range(250)), *KEYS[:-1]]}
    with client.pipeline() as pipe:
        for name in names:
            pipe.put(name, "")

    assert sorted(client.list(prefix, page=7)) == sorted(names)
    assert list(client.list(prefix + "nothing")) == []


def test_waiting_for_a_key(client: Client, node: Served, prefix: str) -> None:
    """Until somebody else writes it, or not at all if it is there."""

    def write() -> None:
        with Client(node.socket) as other:
            other.put(prefix, "1")

    thread = threading.Thread(target=write)
    thread.start()
    version = client.wait(prefix, timeout=20)
    thread.join(20)

    assert client.wait(prefix, timeout=20) == version
    entry = client.read(prefix)
    assert entry is not None
    assert entry.version == version


def test_waiting_in_vain(client: Client, prefix: str) -> None:
    """Leaves the connection as good as it was."""
    with pytest.raises(UnavailableError) as raised:
        client.wait(prefix, timeout=0.01)

    assert raised.value.code == "timeout"
    client.ping()


def test_a_refused_request_leaves_the_connection(client: Client) -> None:
    """Typed, with words that help."""
    with pytest.raises(RequestError) as raised:
        client.get("k" * 5000)
    assert raised.value.code == "bad_key"
    assert "4096" in str(raised.value)
    with pytest.raises(RequestError):
        client.get("")

    client.ping()


def test_a_node_alone_has_nobody_to_compare_with(client: Client) -> None:
    """Which it says."""
    with pytest.raises(TurbopumpError):
        client.sync()


def test_status(client: Client, node: Served) -> None:
    """What the node says of itself."""
    status = client.status()

    assert status["state"] == "running"
    assert status["addresses"] == [node.socket]
    assert status["pid"] == node.process.pid


def test_a_pipeline_is_one_conversation(client: Client, prefix: str) -> None:
    """Results in order, typed, there afterwards."""
    with client.pipeline() as pipe:
        written = pipe.put(prefix, "1")
        read = pipe.get(prefix)
        entry = pipe.read(prefix)
        gone = pipe.delete(prefix)
        there = pipe.exists(prefix)
        versions = pipe.versions(prefix + "x")

    assert read.result() == b"1"
    assert entry.result() == (b"1", written.result(), None)
    assert not there.result()
    assert pipe.results == [
        written.result(),
        b"1",
        entry.result(),
        gone.result(),
        False,
        versions.result(),
    ]


def test_a_large_pipeline_does_not_stop_itself(client: Client, prefix: str) -> None:
    """Requests and answers of megabytes: whoever only sends is not read any more."""
    value = b"x" * 100_000
    with client.pipeline() as pipe:
        pipe.put(prefix, value)
        for number in range(50):
            pipe.get(prefix)
            pipe.put(f"{prefix}{number}", value)

    assert pipe.results[1::2] == [value] * 50


def test_errors_in_a_pipeline_raise(client: Client, prefix: str) -> None:
    """The first one, after all were run."""
    pipe = client.pipeline()
    refused = pipe.put("", "1")
    pipe.put(prefix, "2")
    with pytest.raises(RuntimeError, match="has not run"):
        refused.result()
    with pytest.raises(RequestError), pipe:
        pipe.exists(prefix)

    assert client.get(prefix) == b"2"
    assert isinstance(pipe.results[0], RequestError)


def test_errors_in_a_pipeline_as_values(client: Client, prefix: str) -> None:
    """For who wants to see all."""
    client.put(prefix, "1")
    with client.pipeline(raise_errors=False) as pipe:
        refused = pipe.put(prefix, "2", if_absent=True)
        read = pipe.get(prefix)

    assert isinstance(pipe.results[0], ConflictError)
    assert read.result() == b"1"
    with pytest.raises(ConflictError):
        refused.result()


def test_a_pipeline_that_raises_sends_nothing(client: Client, prefix: str) -> None:
    """All or, as far as the client is concerned, nothing."""
    pipe = client.pipeline()
    pipe.put(prefix, "1")
    with pytest.raises(KeyError), pipe:
        raise KeyError("mine")

    assert client.get(prefix) is None
    with client.pipeline() as empty:
        pass
    assert empty.results == []


def test_a_file_is_sent_in_pieces(client: Client, prefix: str) -> None:
    """From where it stands, so many bytes, and progress is told."""
    data = random.Random(2).randbytes(5_000_000)
    told: list[int] = []
    file = io.BytesIO(b"before" + data + b"after")
    file.seek(6)
    version = client.put_file(prefix, file, len(data), on_sent=told.append)

    assert client.read(prefix) == (data, version, None)
    assert told == sorted(told)
    assert told[-1] == len(data)
    client.put_file(prefix, io.BytesIO(), 0)
    assert client.get(prefix) == b""


def test_a_file_that_ends_early(client: Client, prefix: str) -> None:
    """Nothing is written, and the client goes on."""
    with pytest.raises(EOFError, match="ends 5 bytes before"):
        client.put_file(prefix, io.BytesIO(b"12345"), 10)

    assert client.get(prefix) is None


def test_a_value_that_is_refused_on_the_way(serve: Serve) -> None:
    """The refusal is heard, and the client goes on."""
    served = serve({"limits": {"max_value": 1000}}).ready()
    with Client(served.socket, timeout=20) as client:
        for size in (1001, 20_000_000):
            with pytest.raises(RequestError) as raised:
                client.put("a", b"x" * size)
            assert raised.value.code == "value_too_long"
            with pytest.raises(RequestError):
                client.put_file("a", io.BytesIO(b"x" * size), size)
            client.put("a", "small")


def test_threads_take_turns(client: Client, prefix: str) -> None:
    """Nobody gets another one's answer."""
    wrong: list[object] = []

    def work(name: str) -> None:
        for number in range(200):
            client.put(f"{prefix}{name}", f"{name}{number}")
            if client.get(f"{prefix}{name}") != f"{name}{number}".encode():
                wrong.append((name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert wrong == []


def test_a_restarted_node_is_found_again(serve: Serve, folder: Path) -> None:
    """The call that finds the connection lost raises; the next one connects anew."""
    path = str(folder / "s")
    first = serve(None, "--socket", path).ready()
    client = Client(path)
    client.put("a", "1")
    first.stop()
    with pytest.raises(ConnectionLostError, match="may have happened"):
        client.get("a")
    with pytest.raises(ConnectionLostError, match="no node answers"):
        client.get("a")

    serve(None, "--socket", path).ready()
    assert client.get("a") is None
    client.close()


def test_passwords(serve: Serve) -> None:
    """Right, wrong and none."""
    served = serve({"members": [{"tcp": {"port": 0, "password": "a b|c%"}}]}).ready()
    with Client(served.socket) as client:
        node = client.status()["addresses"][1]
    with Client(node, password="a b|c%") as client:
        client.put("a", "1")
    for password, code in (("wrong", "denied"), (None, "auth_required")):
        with pytest.raises(DeniedError) as raised:
            Client(node, password=password).ping()
        assert raised.value.code == code
