"""`key_slot`: the slot function of Redis Cluster, against what is published and what others compute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot as slot_of_redis_py

from turbopump import key_slot

# Redis Cluster specification, "Hash tags" and its examples; the page of CLUSTER KEYSLOT; and the
# check value of CRC-16/XMODEM, 0x31C3, in the catalogue of parametrised CRC algorithms.
PUBLISHED = {
    b"": 0,
    b"123456789": 0x31C3,
    b"somekey": 11058,
    b"foo{hash_tag}": 2515,
    b"foo": 12182,
    b"bar": 5061,
    b"hello": 866,
    b"user1000": 3443,
    b"{user1000}.following": 3443,
    b"{user1000}.followers": 3443,
    b"foo{}{bar}": 8363,
    b"foo{{bar}}zap": 4015,
    b"foo{bar}{zap}": 5061,
}
KEYS = st.one_of(
    st.binary(max_size=100),
    st.lists(st.sampled_from([b"{", b"}", b"a", b"\0", b"{}"]), max_size=8).map(b"".join),
)


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, bit by bit: polynomial 0x1021, from 0, nothing reflected."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
            crc &= 0xFFFF
    return crc


def slot(key: bytes) -> int:
    """The slot as the specification words it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc16(key) % 16384


@pytest.mark.parametrize(("key", "expected"), PUBLISHED.items(), ids=repr)
def test_the_published_values(key: bytes, expected: int) -> None:
    """Any Redis Cluster client finds the same owner."""
    assert key_slot(key) == expected


@given(KEYS)
def test_every_key_has_the_slot_of_the_specification(key: bytes) -> None:
    """Computed in two other ways."""
    assert key_slot(key) == slot(key) == slot_of_redis_py(key)


@given(st.text(max_size=30))
def test_text_stands_for_its_utf8(text: str) -> None:
    """As everywhere here."""
    assert key_slot(text) == key_slot(text.encode())


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=20), st.binary(max_size=20))
def test_a_tag_alone_decides(tag: bytes, before: bytes, after: bytes) -> None:
    """Whatever stands around it, as long as it opens no other tag."""
    tag, before = tag.replace(b"}", b"x"), before.replace(b"{", b"x")

    assert key_slot(before + b"{" + tag + b"}" + after) == key_slot(b"{" + tag + b"}") == crc16(tag) % 16384


@pytest.mark.parametrize("key", [b"{", b"}", b"{}", b"a{}b", b"{a", b"a}{", b"{}{a}"])
def test_without_a_whole_tag_all_of_the_key_counts(key: bytes) -> None:
    """An empty tag is none, and the first brace decides."""
    assert key_slot(key) == crc16(key) % 16384


def test_keys_spread_over_all_slots() -> None:
    """Each of the 16384 has some of half a million keys, and none has many."""
    counts = [0] * 16384
    for number in range(500_000):
        counts[key_slot(b"key:%d" % number)] += 1

    assert min(counts) > 0
    assert max(counts) < 100


@pytest.mark.parametrize("key", [None, 1, 1.5, ["a"]])
def test_what_is_no_key_is_a_type_error(key: object) -> None:
    """Not a slot of its own."""
    with pytest.raises(TypeError):
        key_slot(key)  # type: ignore[arg-type] # that is what is tested
