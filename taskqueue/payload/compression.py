"""zstd, where it pays, and opened without trust in what the compressed bytes claim."""

from __future__ import annotations

import threading

import zstandard

from taskqueue.errors import CannotOpen

LEVEL = 3
THRESHOLD = 1024
MAX_WINDOW = 8 * 1024 * 1024
_LARGEST_SHARE = 0.9


class _ThreadContexts(threading.local):
    """One compressor and one decompressor a thread: they keep state in a call, and a new one costs 20 microseconds."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


_contexts = _ThreadContexts()


def compress(raw: bytes) -> bytes | None:
    """Return ``raw`` as one zstd frame, or None where that does not save at least a tenth.

    At or below 1 KB nothing is tried: short messages grow (77 bytes became 86).
    """
    if len(raw) <= THRESHOLD:
        return None
    packed = _contexts.compressor.compress(raw)
    return packed if len(packed) <= len(raw) * _LARGEST_SHARE else None


def decompress(packed: bytes, raw_length: int) -> bytes:
    """Return the ``raw_length`` bytes that one zstd frame holds, or raise `CannotOpen`.

    The frame must declare exactly ``raw_length``, and nothing may follow it. Not more than that is ever written: the
    buffer is made for it, and a frame that holds more than it declares fails when the buffer is full.
    """
    try:
        frame = zstandard.get_frame_parameters(packed)
        if frame.content_size == raw_length and frame.window_size <= MAX_WINDOW:
            raw = _contexts.decompressor.decompress(packed, allow_extra_data=False)
            if len(raw) == raw_length:
                return raw
    except zstandard.ZstdError:
        pass
    raise CannotOpen("these bytes are not one complete zstd frame of the declared length") from None
