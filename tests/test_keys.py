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
from turbopump.config import PublicKey, Secrets, load, parse
from turbopump.errors import ConfigError
from turbopump.keys import FILE_BYTES_MAX, ClusterSecret, NodeKey, identify, mistakes, own_name


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


class Box:
    """A box with a cluster's file, on which keys can be put.

    Attributes:
        keys: Of a, b and c.
        config: The file, read.
    """

    def __init__(self, folder: Path, **cluster: str) -> None:
        self._folder = folder
        self.keys = {name: NodeKey.generate() for name in "abc"}
        members = [
            {"name": name, "address": f"10.0.0.{index + 1}", "public_key": str(key.public_key)}
            for index, (name, key) in enumerate(self.keys.items())
        ]
        (folder / "cluster.json").write_text(json.dumps({"cluster": cluster, "members": members}))
        (folder / "keys").mkdir()
        self.config = load(folder / "cluster.json")
        self.secret = ClusterSecret.generate()
        self.secret.save(folder / "cluster.secret")

    def put(self, key: NodeKey, path: str) -> Path:
        """Puts a key where the file is."""
        key.save(self._folder / path)
        return self._folder / path


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """One with nobody's key."""
    return Box(tmp_path)


def test_a_node_is_the_member_whose_key_it_has(box: Box) -> None:
    """The file is the same everywhere; a name is not needed, but must agree with the key."""
    box.put(box.keys["b"], "keys/b.key")
    secrets = identify(box.config)

    assert secrets == Secrets("b", box.keys["b"].transport, box.secret.secret)
    assert identify(box.config, "b") == secrets
    assert own_name(box.config) == "b"
    assert mistakes(box.config) == []
    with pytest.raises(ConfigError, match=r"a\.key, a node key, cannot be read: No such file"):
        identify(box.config, "a")
    with pytest.raises(ConfigError, match="no member is called 'z'"):
        identify(box.config, "z")


def test_one_path_for_all(tmp_path: Path) -> None:
    """Without {name} in it the key alone tells, even against a name."""
    box = Box(tmp_path, key="node.key")
    box.put(box.keys["c"], "node.key")

    assert own_name(box.config) == "c"
    with pytest.raises(ConfigError, match=r"node\.key is the key of c, not of a"):
        identify(box.config, "a")


def test_keys_of_several_members_on_one_box(box: Box) -> None:
    """Then a name is needed."""
    for name in "ab":
        box.put(box.keys[name], f"keys/{name}.key")

    with pytest.raises(ConfigError, match="the keys of a, b are here: say which to be with --node"):
        own_name(box.config)
    assert own_name(box.config, "a") == "a"
    assert mistakes(box.config) == []


def test_no_key_at_all(box: Box) -> None:
    """A node cannot start; a file may be checked anywhere."""
    with pytest.raises(ConfigError, match=r"no private key of a member is here.*keys/a\.key"):
        identify(box.config)
    assert mistakes(box.config) == []
    [problem] = mistakes(box.config, "b")
    assert "b.key, a node key, cannot be read" in problem


def test_every_mistake_with_secrets_is_found(box: Box, tmp_path: Path) -> None:
    """A stranger's key, a key in another's place, a file that others may read, a secret that is missing."""
    stranger = NodeKey.generate()
    box.put(stranger, "keys/a.key")
    box.put(box.keys["c"], "keys/b.key")
    box.put(box.keys["c"], "keys/c.key").chmod(0o640)
    (tmp_path / "cluster.secret").unlink()
    found = mistakes(box.config, "a")

    assert [next(word for word in WORDS if word in problem) for problem in found] == WORDS
    assert str(stranger.public_key) in found[0]


WORDS = [
    "is the key of no member",
    "is the key of c, not of b",
    "chmod 600",
    "cluster.secret, a cluster secret",
]


def test_the_secret_is_guarded_too(box: Box, tmp_path: Path) -> None:
    """As a key is, on a box without keys too."""
    (tmp_path / "cluster.secret").chmod(0o644)

    [problem] = mistakes(box.config)
    assert "chmod 600" in problem


def test_a_node_alone_has_no_keys() -> None:
    """And its name is in the file."""
    assert own_name(parse({"members": [{"name": "alone"}]})) == "alone"
    assert mistakes(parse({})) == []
    with pytest.raises(ConfigError, match="cluster: missing"):
        identify(parse({}))
