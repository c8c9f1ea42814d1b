"""keys.py: secrets are made well, kept from others, and never shown."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from nacl.bindings import crypto_scalarmult_base
from nacl.signing import SigningKey, VerifyKey

from turbopump.cli import cli
from turbopump.config import PublicKey
from turbopump.errors import ConfigError
from turbopump.keys import FILE_BYTES_MAX, ClusterSecret, NodeKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where no file is yet."""
    return tmp_path / "node.key"


def test_a_key_comes_back_from_its_file(path: Path) -> None:
    """The same keys, in a file for its owner alone, whatever the umask says."""
    before = os.umask(0)
    try:
        key = NodeKey.generate()
        key.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NodeKey.load(path) == key
    secret = ClusterSecret.generate()
    secret.save(path.with_name("cluster.secret"))
    assert ClusterSecret.load(path.with_name("cluster.secret")) == secret


def test_the_public_key_is_that_of_the_private_ones() -> None:
    """RFC 8032 and RFC 7748, by another way through the library."""
    key = NodeKey.generate()
    public = key.public_key
    signed = SigningKey(key.identity).sign(b"message")
    assert VerifyKey(public.identity).verify(signed) == b"message"
    assert public.transport == crypto_scalarmult_base(key.transport)
    assert PublicKey.parse(str(public)) == public
    assert len(str(public)) == 86


def test_every_key_is_another() -> None:
    """Neither the two of a node nor those of two nodes are the same."""
    keys = [NodeKey.generate() for _ in range(10)]
    assert len({part for key in keys for part in (key.identity, key.transport)}) == 20
    assert len({ClusterSecret.generate().secret for _ in range(10)}) == 10


def test_secrets_are_not_shown(path: Path) -> None:
    """Neither by `repr`, which logs and tracebacks use, nor in what an error says."""
    key, secret = NodeKey.generate(), ClusterSecret.generate()
    key.save(path)
    texts = json.loads(path.read_text())
    shown = [repr(key), str(key), repr(secret), str(secret), repr([key]), f"{key} {secret}"]
    path.chmod(0o644)
    with pytest.raises(ConfigError) as error:
        NodeKey.load(path)
    shown.append(str(error.value))
    for hidden in (texts["identity"], texts["transport"], repr(key.identity), repr(secret.secret)):
        assert all(hidden not in text for text in shown)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    """With what to do about it."""
    NodeKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"has the mode {mode:04o}.*chmod 600"):
        NodeKey.load(path)


def test_a_key_is_never_overwritten(path: Path) -> None:
    """Something may depend on it: neither a key nor what a link points to."""
    key = NodeKey.generate()
    key.save(path)
    link = path.with_name("link")
    link.symlink_to(path)
    for taken in (path, link):
        with pytest.raises(ConfigError, match="is there already"):
            NodeKey.generate().save(taken)
    assert NodeKey.load(path) == key
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        key.save(path.with_name("none") / "key")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '"text"',
        '{"turbopump": "node key"}',
        '{"turbopump": "cluster secret", "secret": "AAAA"}',
        '{"turbopump": "node key", "identity": "AAAA", "transport": "AAAA"}',
        '{"turbopump": "node key", "identity": 1, "transport": null}',
        '{"turbopump": "node key", "identity": "ü", "transport": "%"}',
        " " * (FILE_BYTES_MAX + 1),
    ],
)
def test_what_is_no_key_is_refused(path: Path, content: str) -> None:
    """By its path, with how to make one."""
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"node\.key holds no node key: make one with `turbopump keygen`"):
        NodeKey.load(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    """As anything else."""
    path.write_bytes(b"\xff" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no node key"):
        NodeKey.load(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    """Is told by its name."""
    with pytest.raises(ConfigError, match=r"node\.key, a node key, cannot be read: No such file"):
        NodeKey.load(path)


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 85, "A" * 87, "?" * 86, "ü" * 86])
def test_a_public_key_that_is_none(text: str) -> None:
    """Says what one is."""
    with pytest.raises(ValueError, match="public key of 86 characters"):
        PublicKey.parse(text)


def test_keygen(path: Path) -> None:
    """Prints the public key, and nothing of the private ones."""
    result = CliRunner().invoke(cli, ["keygen", str(path)])
    assert (result.exit_code, result.output) == (0, f"{NodeKey.load(path).public_key}\n")
    again = CliRunner().invoke(cli, ["keygen", str(path)])
    assert again.exit_code == 2
    assert "is there already" in again.output
    secret = path.with_name("cluster.secret")
    result = CliRunner().invoke(cli, ["keygen", "--cluster", "--json", str(secret)])
    assert json.loads(result.output) == {"file": str(secret), "public_key": None}
    assert len(ClusterSecret.load(secret).secret) == 32
