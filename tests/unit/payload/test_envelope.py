"""Sealed bytes open in their own place with their own key, or not at all."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from taskqueue.errors import CannotOpen
from taskqueue.payload import Codec, KeyRing, Purpose, generate_key, key_id_of, parse_key, parse_key_ring
from taskqueue.payload import envelope as module
from taskqueue.payload.envelope import ClearEnvelope, SealedEnvelope, place_of

bounded = settings(max_examples=300, deadline=None, derandomize=True, database=None)

JOB, OTHER_JOB = b"0123456789abcdef", b"0123456789abcdeg"
CLASS = "app.jobs.SendEmail"
PLACE = place_of(Purpose.PAYLOAD, JOB, CLASS)
RING = KeyRing(parse_key(generate_key(), key_id="k2"), [parse_key(generate_key(), key_id="k1")])
SMALL = {"to": "a@example.org", "n": [1, 2, 3]}
LARGE = {"text": "the quick brown fox " * 200}
STORED = (
    "54510101000000000e026b314f37b43a334c64fc573596eef498508471efe523857bba3c3b5375c7768229e689f99f4a"
    "dc53bc7104bb0db29eb55f2b666f6e5056f608767e83"
)
HEADER = 3 + 1 + 1 + 4 + 1 + 2 + 16 + 12
SALT = slice(HEADER - 28, HEADER - 12)
NONCE = slice(HEADER - 12, HEADER)

modes = pytest.mark.parametrize("codec", [Codec(RING), Codec(None)], ids=["sealed", "clear"])
sizes = pytest.mark.parametrize("value", [SMALL, LARGE], ids=["small", "compressed"])


def seal(codec: Codec, value: Any = SMALL) -> bytes:
    return codec.seal(value, Purpose.PAYLOAD, JOB, CLASS)


def open_(codec: Codec, blob: bytes) -> Any:
    return codec.open(blob, Purpose.PAYLOAD, JOB, CLASS)


def test_the_layout_is_the_documented_one() -> None:
    blob = seal(Codec(RING))
    raw = 1 + len(b'{"to":"a@example.org","n":[1,2,3]}')
    assert blob[:5] == b"TQ\x01\x01\x00"
    assert int.from_bytes(blob[5:9]) == raw
    assert blob[9:12] == b"\x02k2"
    assert len(blob) == HEADER + raw + 16
    assert seal(Codec(RING), LARGE)[:5] == b"TQ\x01\x01\x01"
    clear = seal(Codec(None))
    assert clear[:5] == b"TQ\x01\x00\x00"
    assert clear[9:15] == b"\x05clear"
    assert clear[15:-16] == b'j{"to":"a@example.org","n":[1,2,3]}'


def test_a_blob_of_version_1_opens_for_ever() -> None:
    ring = KeyRing(parse_key("hex:" + bytes(range(100, 132)).hex(), key_id="k1"))
    blob = bytes.fromhex(STORED)
    assert Codec(ring).open(blob, Purpose.RESULT, bytes(16), "app.Job") == {"sent": True}


@modes
@sizes
def test_every_single_bit_of_the_envelope_counts(codec: Codec, value: Any) -> None:
    blob = seal(codec, value)
    for position in range(len(blob)):
        for bit in range(8) if position < HEADER or position >= len(blob) - 16 else (position % 8,):
            damaged = bytearray(blob)
            damaged[position] ^= 1 << bit
            with pytest.raises(CannotOpen):
                open_(codec, bytes(damaged))


@modes
@sizes
def test_every_cut_and_every_addition_is_refused(codec: Codec, value: Any) -> None:
    blob = seal(codec, value)
    for end in range(len(blob)):
        with pytest.raises(CannotOpen):
            open_(codec, blob[:end])
    for wrong in (blob + b"\0", b"\0" + blob, blob + blob, blob[1:]):
        with pytest.raises(CannotOpen):
            open_(codec, wrong)


@modes
@bounded
@given(st.binary(max_size=200), st.sampled_from([0, 3, 4, 5, 9, 12, HEADER]))
def test_random_bytes_after_any_true_beginning_are_refused(codec: Codec, tail: bytes, kept: int) -> None:
    with pytest.raises(CannotOpen):
        open_(codec, seal(codec)[:kept] + tail)


@modes
@bounded
@given(st.data())
def test_a_damaged_envelope_is_the_original_value_or_cannot_open(codec: Codec, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([SMALL, LARGE, None, [(1, b"x")]]))
    blob = bytearray(seal(codec, value))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(blob) - 1))
        kind = data.draw(st.sampled_from(["set", "delete", "insert", "repeat"]))
        if kind == "set":
            blob[position] = data.draw(st.integers(0, 255))
        elif kind == "delete":
            del blob[position : position + data.draw(st.integers(1, 8))]
        elif kind == "insert":
            blob[position:position] = data.draw(st.binary(max_size=8))
        else:
            blob[position:position] = blob[position : position + 8]
        if not blob:
            break
    with suppress(CannotOpen):
        assert open_(codec, bytes(blob)) == value


@modes
@pytest.mark.parametrize(
    ("purpose", "job", "job_class"),
    [
        (Purpose.PAYLOAD, OTHER_JOB, CLASS),
        (Purpose.PAYLOAD, JOB, "app.jobs.SendEmails"),
        (Purpose.PAYLOAD, JOB, ""),
        *[(purpose, JOB, CLASS) for purpose in Purpose if purpose is not Purpose.PAYLOAD],
    ],
)
def test_bytes_of_another_job_class_or_purpose_do_not_open(
    codec: Codec, purpose: Purpose, job: bytes, job_class: str
) -> None:
    blob = seal(codec)
    assert open_(codec, blob) == SMALL
    with pytest.raises(CannotOpen):
        codec.open(blob, purpose, job, job_class)


def test_the_parts_of_a_place_cannot_flow_into_one_another() -> None:
    places = {
        place_of(purpose, job, name)
        for purpose in Purpose
        for job in (b"a" * 16, b"b" * 16)
        for name in ("", "a", "b", "ab", "a" * 16, "\x10" + "a" * 16)
    }
    assert len(places) == len(Purpose) * 2 * 6


@pytest.mark.parametrize("job_id", [b"", b"x" * 15, b"x" * 17])
def test_a_job_id_has_16_bytes(job_id: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Codec(RING).seal(1, Purpose.PAYLOAD, job_id, CLASS)


def test_a_clear_blob_is_refused_where_encryption_is_on() -> None:
    clear = seal(Codec(None))
    with pytest.raises(CannotOpen, match="cannot be opened with key clear"):
        open_(Codec(RING), clear)
    renamed = clear[:9] + b"\x02k2" + clear[15:]
    with pytest.raises(CannotOpen):
        open_(Codec(RING), renamed)
    with pytest.raises(CannotOpen):
        open_(Codec(None), renamed)


def test_a_sealed_blob_is_refused_in_clear_mode() -> None:
    with pytest.raises(CannotOpen, match="cannot be opened with key k2"):
        open_(Codec(None), seal(Codec(RING)))


def test_every_key_of_the_ring_opens_and_only_the_active_one_seals() -> None:
    old = Codec(KeyRing(RING.keys[1]))
    assert open_(Codec(RING), seal(old)) == SMALL
    assert key_id_of(seal(old)) == "k1"
    assert key_id_of(seal(Codec(RING))) == "k2"
    with pytest.raises(CannotOpen, match="key k2"):
        open_(old, seal(Codec(RING)))


def test_another_key_under_the_same_id_does_not_open() -> None:
    impostor = Codec(KeyRing(parse_key(generate_key(), key_id="k2")))
    with pytest.raises(CannotOpen):
        open_(impostor, seal(Codec(RING)))


def test_one_text_serves_every_cause_and_holds_nothing_of_the_bytes() -> None:
    codec = Codec(RING)
    blob = seal(codec)
    causes: list[bytes] = [
        blob[:-1],
        blob[:4] + b"\x02" + blob[5:],
        blob[:5] + b"\xff\xff\xff\xff" + blob[9:],
        blob[:-1] + bytes([blob[-1] ^ 1]),
        seal(Codec(KeyRing(parse_key(generate_key(), key_id="k2")))),
    ]
    texts = set()
    for cause in causes:
        with pytest.raises(CannotOpen) as caught:
            open_(codec, cause)
        assert caught.value.__cause__ is None
        texts.add(str(caught.value).replace("key ?", "key k2"))
    assert texts == {"payload of job 30313233-3435-3637-3839-616263646566 cannot be opened with key k2"}
    with pytest.raises(CannotOpen, match=r"with key \?$"):
        open_(codec, b"TQ\x01\x01\x00\0\0\0\0\x03\x1b[x" + bytes(100))


@pytest.mark.parametrize("blob", [b"", b"TQ", b"TQ\x01\x01\x00", b"TQ\x02" + bytes(50), b"x" * 100, bytes(100)])
def test_bytes_that_are_no_envelope_name_no_key(blob: bytes) -> None:
    with pytest.raises(CannotOpen):
        key_id_of(blob)
    with pytest.raises(CannotOpen):
        open_(Codec(RING), blob)


def salt_of(blob: bytes) -> bytes:
    return blob[SALT]


def sealer(**options: int) -> Callable[[], bytes]:
    envelope = SealedEnvelope(RING, **options)
    return lambda: envelope.seal(b"j1", 2, PLACE, compressed=False)


def test_the_salt_changes_after_its_allowance_of_messages_and_not_before() -> None:
    seal_one = sealer(messages_per_salt=5)
    salts = [salt_of(seal_one()) for _ in range(15)]
    assert [salts.count(salt) for salt in dict.fromkeys(salts)] == [5, 5, 5]
    assert module.MESSAGES_PER_SALT == 2**20


def test_no_nonce_and_no_ciphertext_repeats() -> None:
    seal_one = sealer()
    blobs = [seal_one() for _ in range(2000)]
    assert len({blob[NONCE] for blob in blobs}) == 2000
    assert len({blob[HEADER:] for blob in blobs}) == 2000


def test_every_codec_draws_its_own_salt() -> None:
    assert salt_of(seal(Codec(RING))) != salt_of(seal(Codec(RING)))


def test_a_forked_child_draws_a_new_salt_and_opens_what_its_parent_sealed() -> None:
    codec = Codec(RING)
    before = seal(codec)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, seal(codec) if open_(codec, before) == SMALL else b"?")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        from_child = pipe.read()
    os.waitpid(child, 0)
    assert open_(codec, from_child) == SMALL
    assert salt_of(from_child) != salt_of(before)
    assert salt_of(seal(codec)) == salt_of(before)


def test_the_reader_derives_a_subkey_once_for_each_salt_and_keeps_a_bounded_number() -> None:
    reader = SealedEnvelope(RING, cached_subkeys=3)
    blobs = [sealer()() for _ in range(4)]
    find: Any = reader._opening_key
    for _ in range(3):
        for blob in blobs[:3]:
            assert reader.open(blob, PLACE, 100) == b"j1"
    assert (find.cache_info().misses, find.cache_info().hits) == (3, 6)
    reader.open(blobs[3], PLACE, 100)
    reader.open(blobs[0], PLACE, 100)
    assert find.cache_info().misses == 5
    assert find.cache_info().currsize == 3


def test_threads_share_a_codec() -> None:
    codec = Codec(RING)
    codec._envelope = SealedEnvelope(RING, messages_per_salt=7)
    wrong: list[int] = []

    def work(number: int) -> None:
        back = [open_(codec, seal(codec, [number])) for _ in range(200)]
        wrong.extend(value for [value] in back if value != number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_declared_length_above_the_limit_is_refused_before_any_work() -> None:
    sealed = SealedEnvelope(RING)
    blob = sealed.seal(b"j" + b"1" * 99, 100, PLACE, compressed=False)
    assert len(sealed.open(blob, PLACE, 100)) == 100
    for envelope, sample in (
        (sealed, blob),
        (ClearEnvelope(), ClearEnvelope().seal(b"x" * 100, 100, PLACE, compressed=False)),
    ):
        with pytest.raises(CannotOpen):
            envelope.open(sample, PLACE, 99)


@pytest.mark.parametrize("envelope", [SealedEnvelope(RING), ClearEnvelope()], ids=["sealed", "clear"])
def test_a_declared_length_that_the_body_cannot_have_is_refused(envelope: Any) -> None:
    for declared in (0, 99, 101):
        with pytest.raises(CannotOpen):
            envelope.open(envelope.seal(b"x" * 100, declared, PLACE, compressed=False), PLACE, 1000)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("envelope", [SealedEnvelope(RING), ClearEnvelope()], ids=["sealed", "clear"])
def test_a_bomb_inside_an_authentic_envelope_is_bounded_by_its_declared_length(envelope: Any) -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(256 * 1024 * 1024))
    for declared in (len(bomb) + 1, 1024 * 1024):
        with pytest.raises(CannotOpen):
            envelope.open(envelope.seal(bomb, declared, PLACE, compressed=True), PLACE, 1024 * 1024)


def test_no_key_shows_in_the_repr_of_a_codec() -> None:
    key = parse_key_ring(generate_key())
    codec = Codec(key)
    for shown in (repr(codec), repr(codec._envelope), repr(SealedEnvelope(key)._key)):
        assert key.active.secret.hex() not in shown
        assert repr(key.active.secret)[2:-1] not in shown
