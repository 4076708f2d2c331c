"""Compression pays or is left out, and no frame makes more than was declared."""

import os
import threading
import tracemalloc

import pytest
import zstandard

from taskqueue.errors import CannotOpen
from taskqueue.payload.compression import MAX_WINDOW, compress, decompress

TEXT = b"the quick brown fox " * 300
MEGABYTE = 1024 * 1024


def test_what_is_compressed_comes_back() -> None:
    packed = compress(TEXT)
    assert packed is not None
    assert len(packed) < len(TEXT) / 10
    assert decompress(packed, len(TEXT)) == TEXT


def test_up_to_one_kilobyte_is_left_alone() -> None:
    assert compress(b"x" * 1024) is None
    assert compress(b"x" * 1025) is not None


def test_what_saves_less_than_a_tenth_is_left_alone() -> None:
    assert compress(os.urandom(5000)) is None
    assert compress(os.urandom(5000) + b"x" * 300) is None


def bomb_of_declared_length(declared: int) -> bytes:
    """Return 64 MiB of zeros in a frame whose header claims ``declared`` bytes (4-byte content size)."""
    frame = bytearray(zstandard.ZstdCompressor(level=3).compress(bytes(64 * MEGABYTE)))
    assert frame[4] >> 6 == 2  # four bytes of content size
    at = 5 if frame[4] & 0x20 else 6
    frame[at : at + 4] = declared.to_bytes(4, "little")
    return bytes(frame)


@pytest.mark.timeout(5)
def test_a_frame_that_holds_more_than_it_declares_stops_at_the_declared_length() -> None:
    with pytest.raises(CannotOpen):
        decompress(bomb_of_declared_length(100_000), 100_000)


@pytest.mark.timeout(5)
def test_a_bomb_that_is_honest_about_its_size_is_refused_by_the_length_of_the_envelope() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(64 * MEGABYTE))
    tracemalloc.start()
    try:
        with pytest.raises(CannotOpen):
            decompress(bomb, 5000)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_frame_without_a_declared_size_is_refused() -> None:
    writer = zstandard.ZstdCompressor(level=3).compressobj()
    stream = writer.compress(TEXT) + writer.flush()
    with pytest.raises(CannotOpen):
        decompress(stream, len(TEXT))


def test_a_second_frame_or_trailing_bytes_are_refused() -> None:
    packed = zstandard.ZstdCompressor().compress(TEXT)
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    for tail in (b"\0", packed, skippable):
        with pytest.raises(CannotOpen):
            decompress(packed + tail, len(TEXT))
    with pytest.raises(CannotOpen):
        decompress(skippable + packed, len(TEXT))
    for length in (0, 4):
        with pytest.raises(CannotOpen):
            decompress(skippable, length)


def test_a_cut_frame_or_another_length_is_refused() -> None:
    packed = zstandard.ZstdCompressor().compress(TEXT)
    for end in (0, 1, 5, len(packed) - 1):
        with pytest.raises(CannotOpen):
            decompress(packed[:end], len(TEXT))
    for length in (0, len(TEXT) - 1, len(TEXT) + 1):
        with pytest.raises(CannotOpen):
            decompress(packed, length)


def test_a_window_above_the_limit_is_refused() -> None:
    size = 2 * MAX_WINDOW
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=1, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    frame = writer.compress(bytes(size - 10)) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    frame += writer.compress(bytes(10)) + writer.flush()
    assert zstandard.get_frame_parameters(frame).window_size > MAX_WINDOW
    with pytest.raises(CannotOpen):
        decompress(frame, size)


def test_an_empty_frame_is_no_match_for_any_length() -> None:
    with pytest.raises(CannotOpen):
        decompress(zstandard.ZstdCompressor().compress(b""), 5)


def test_threads_compress_at_the_same_time() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        text = str(number).encode() * 3000
        for _ in range(50):
            packed = compress(text)
            if packed is None or decompress(packed, len(text)) != text:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
