"""A peer of the datagram engine that shares nothing with it: written from its wire's description.

Noise is PyPI's noiseprotocol, packets are sealed by PyNaCl, hashes are hashlib's. It does what is needed to
carry a message each way on a wire that loses nothing, and checks what it is told as strictly as it can.
"""

import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey
from noise.connection import Keypair, NoiseConnection

DEADLINE_SECONDS: Final = 20.0
PATTERN: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b"
INIT, RESP, COOKIE, DATA = range(0x51, 0x55)
INIT_BYTES: Final = 1200
RESP_BYTES: Final = 144
SETTINGS: Final = struct.Struct("<QQHHQQQQ")
PIECE_BYTES: Final = 1000

Seal = Callable[[bytes, bytes, bytes, bytes], bytes]


class Suite(NamedTuple):
    """A cipher suite: its bit on the wire, and who seals and opens."""

    bit: int
    nonce_bytes: int
    seal: Seal
    open: Seal

    def nonce(self, number: int) -> bytes:
        """Little-endian, after 4 zeros or before 24."""
        counter = struct.pack("<Q", number)
        return bytes(4) + counter if self.nonce_bytes == 12 else counter + bytes(24)

    def key(self, secret: bytes) -> bytes:
        """A key of its own for each suite."""
        return blake2b(32, secret, b"tpd1 packet key", struct.pack("<H", self.bit))


SUITES: Final = {
    "ChaCha20-Poly1305": Suite(
        1,
        12,
        bindings.crypto_aead_chacha20poly1305_ietf_encrypt,
        bindings.crypto_aead_chacha20poly1305_ietf_decrypt,
    ),
    "AEGIS-256": Suite(2, 32, bindings.crypto_aead_aegis256_encrypt, bindings.crypto_aead_aegis256_decrypt),
    "AES-256-GCM": Suite(
        4, 12, bindings.crypto_aead_aes256gcm_encrypt, bindings.crypto_aead_aes256gcm_decrypt
    ),
}


class Message(NamedTuple):
    """A piece of a message that arrived."""

    number: int
    offset: int
    last: bool
    data: bytes


@dataclass
class Session:
    """What a handshake made."""

    suite: Suite
    ours: int
    theirs: int
    sealing: bytes
    opening: bytes
    next_number: int = 0


def blake2b(size: int, key: bytes, *parts: bytes) -> bytes:
    """A keyed hash."""
    return hashlib.blake2b(b"".join(parts), digest_size=size, key=key).digest()


def mac1(receiver: bytes, before: bytes) -> bytes:
    """The tag of whoever knows the receiver's public key."""
    return blake2b(16, blake2b(32, b"", b"tpd1-mac1", receiver), before)


def variable(number: int) -> bytes:
    """RFC 9000, section 16."""
    for size, bits in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if number < 1 << (8 * size - 2):
            return (number | bits << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(number)


class Reader:
    """Bytes not yet read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        """The next bytes."""
        head, self.data = self.data[:size], self.data[size:]
        assert len(head) == size, "a field is cut off"
        return head

    def variable(self) -> int:
        """The next number."""
        size = 1 << (self.data[0] >> 6)
        return int.from_bytes(self.take(size), "big") & ((1 << (8 * size - 2)) - 1)


class Peer:
    """One side of one connection, with a socket of its own."""

    def __init__(self, key: bytes, psk: bytes, suite: Suite) -> None:
        self.key = PrivateKey(key)
        self.psk = psk
        self.suite = suite
        self.set_back_ns = 0  # its clock, as it tells the other
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(DEADLINE_SECONDS)
        self.address: Any = None
        self.cookies = 0
        self.code: int | None = None
        self.reason: bytes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    def noise(self, prologue: bytes, remote: bytes | None) -> Any:
        """A handshake: the initiator's if the other side's key is known."""
        noise = NoiseConnection.from_name(PATTERN)
        (noise.set_as_initiator if remote else noise.set_as_responder)()
        noise.set_prologue(prologue)
        noise.set_psks(self.psk)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, bytes(self.key))
        if remote:
            noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
        noise.start_handshake()
        return noise

    def settings(self, token: int) -> bytes:
        """What this side takes: a megabyte, in datagrams of 1400 bytes."""
        return SETTINGS.pack(
            time.time_ns() - self.set_back_ns, token, self.suite.bit, 1400, 1 << 20, 1 << 20, 8, 1 << 20
        )

    def split(self, noise: Any, ours: int, theirs: int) -> None:
        """Goes on with the keys that the handshake made."""
        assert noise.handshake_finished
        sealing = self.suite.key(noise.noise_protocol.cipher_state_encrypt.k)
        opening = self.suite.key(noise.noise_protocol.cipher_state_decrypt.k)
        self.session = Session(self.suite, ours, theirs, sealing, opening)

    def init(self, remote: bytes, cookie: bytes | None, version: int = 1) -> tuple[Any, bytes]:
        """A handshake's first datagram, and its state."""
        header = struct.pack("<BBBBI", INIT, version, 0, 0, 77)
        noise = self.noise(header, remote)
        datagram = header + bytes(noise.write_message(self.settings(5)))
        datagram += mac1(remote, datagram)
        datagram += blake2b(16, cookie, datagram) if cookie else bytes(16)
        return noise, datagram.ljust(INIT_BYTES, b"\0")

    def connect(self, address: tuple[str, int], remote: bytes, *, copies: int = 0) -> None:
        """Begins a connection, after as many INITs that nobody listens to the answers of."""
        self.address, cookie = address, None
        for _ in range(copies):
            self.socket.sendto(self.init(remote, None)[1], address)
        while True:
            noise, init = self.init(remote, cookie)
            self.socket.sendto(init, address)
            answer = self.answer(noise, init, remote, copies)
            if not isinstance(answer, bytes):
                return
            cookie = answer

    def answer(self, noise: Any, init: bytes, remote: bytes, ignored: int) -> bytes | None:
        """Waits for what answers an INIT: None for keys, or a cookie to show with the next."""
        while True:
            datagram = self.socket.recv(65_536)
            if datagram[0] == COOKIE:
                kind, receiver, nonce, sealed = struct.unpack("<II24s32s", datagram)
                assert (kind, receiver) == (COOKIE, 77)
                key = blake2b(32, b"", b"tpd1-cookie", remote)
                try:
                    opened = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                        sealed, init[156:172], nonce, key
                    )
                except CryptoError:  # it answers an INIT before this one
                    assert ignored
                    continue
                self.cookies += 1
                return bytes(opened)
            assert (datagram[0], len(datagram)) == (RESP, RESP_BYTES)
            version, zero, theirs, ours = struct.unpack("<BHII", datagram[1:12])
            assert (version, zero, ours) == (1, 0, 77)
            assert datagram[112:128] == mac1(bytes(self.key.public_key), datagram[:112])
            if ignored and not self.cookies:
                continue
            said = SETTINGS.unpack(bytes(noise.read_message(datagram[12:112])))
            assert said[1] == 5
            self.choose(said[2])
            self.split(noise, ours, theirs)
            self.send(b"\1")  # nothing is sent to who has not shown that he has the keys
            return None

    def choose(self, suites: int) -> None:
        """Takes the suite that is wanted, or the one that all have where the other side has no AES."""
        if not suites & self.suite.bit:
            self.suite = SUITES["ChaCha20-Poly1305"]
            assert suites & self.suite.bit

    def accept(self, remote: bytes) -> None:
        """Waits for a connection of one who has this key."""
        datagram, self.address = self.socket.recvfrom(65_536)
        assert (datagram[0], len(datagram)) == (INIT, INIT_BYTES)
        version, psk, zero, theirs = struct.unpack("<BBBI", datagram[1:8])
        assert (version, psk, zero) == (1, 0, 0)
        assert datagram[156:172] == mac1(bytes(self.key.public_key), datagram[:156])
        assert not any(datagram[172:])
        noise = self.noise(datagram[:8], None)
        said = SETTINGS.unpack(bytes(noise.read_message(datagram[8:156])))
        assert noise.noise_protocol.handshake_state.rs.public_bytes == remote
        self.choose(said[2])
        answer = struct.pack("<BBHII", RESP, 1, 0, 99, theirs)
        answer += bytes(noise.write_message(self.settings(said[1])))
        answer += mac1(remote, answer) + bytes(16)
        self.socket.sendto(answer, self.address)
        self.split(noise, 99, theirs)

    def send(self, frames: bytes) -> None:
        """Sends a packet."""
        session, number = self.session, self.session.next_number
        session.next_number += 1
        header = struct.pack("<BBI", DATA, 0, session.theirs) + number.to_bytes(6, "little")
        sealed = session.suite.seal(frames, header, session.suite.nonce(number), session.sealing)
        self.socket.sendto(header + sealed, self.address)

    def send_message(self, data: bytes, number: int = 0) -> None:
        """Sends a message of class 3, the first of this side or a later one, in pieces."""
        pieces = range(0, max(len(data), 1), PIECE_BYTES)
        for offset in reversed(pieces):  # the last first: order is the receiver's to make
            last = offset == pieces[-1]
            head = bytes([0x5C | last]) + variable(number) + variable(offset)
            self.send(head + data[offset : offset + PIECE_BYTES])

    def receive(self) -> list[Message]:
        """Waits for a packet, acknowledges it, and returns the pieces of messages in it."""
        datagram = self.socket.recv(65_536)
        if datagram[0] != DATA:
            return []
        session = self.session
        flags, receiver, number = datagram[1], datagram[2:6], int.from_bytes(datagram[6:12], "little")
        assert not flags & ~4
        assert int.from_bytes(receiver, "little") == session.ours
        nonce = session.suite.nonce(number)
        frames = session.suite.open(datagram[12:], datagram[:12], nonce, session.opening)
        found = list(self.frames(Reader(frames)))
        if any(kind not in {0x00, 0x02, 0x0B} for kind, _ in found):
            ack = [number, 0, 0, 0, 0, 0, 0, 0, 0]  # one range of one packet; no marks, no rates
            self.send(b"\2" + b"".join(variable(part) for part in ack))
        return [message for _, message in found if message]

    def receive_message(self) -> bytes:
        """Waits for the first message of the other side."""
        pieces: dict[int, bytes] = {}
        size: int | None = None
        while size is None or sum(map(len, pieces.values())) < size:
            for message in self.receive():
                assert message.number == 0
                pieces[message.offset] = message.data
                if message.last:
                    size = message.offset + len(message.data)
        return b"".join(pieces[offset] for offset in sorted(pieces))

    def frames(self, reader: Reader) -> Iterator[tuple[int, Message | None]]:
        """The frames of a packet, by their types."""
        numbers = {0x00: 0, 0x01: 0, 0x03: 3, 0x04: 1, 0x05: 1, 0x06: 2, 0x07: 1}
        while reader.data:
            kind, message = reader.take(1)[0], None
            if kind in numbers:
                _ = [reader.variable() for _ in range(numbers[kind])]
            elif kind == 0x02:
                _, _, more, *_ = (reader.variable() for _ in range(4))
                _ = [reader.variable() for _ in range(2 * more + 5)]
            elif kind == 0x0B:
                self.code = reader.variable()
                self.reason = reader.take(reader.variable())
            else:
                assert 0x40 <= kind < 0x60, hex(kind)
                number, offset = reader.variable(), reader.variable()
                assert not kind & 2, "nothing here has a predecessor"
                size = len(reader.data) if kind & 4 else reader.variable()
                message = Message(number, offset, bool(kind & 1), reader.take(size))
            yield kind, message
