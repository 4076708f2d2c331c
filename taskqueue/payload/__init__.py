"""Payloads, results and errors as they are stored: serialized, compressed, sealed.

`Codec` is what the rest of the package uses; the modules below it each hold one step.
"""

from taskqueue.payload.codec import Codec
from taskqueue.payload.envelope import Purpose, key_id_of
from taskqueue.payload.keys import (
    CLEAR_KEY_ID,
    KeyRing,
    MasterKey,
    check_value,
    create_key_file,
    generate_key,
    needs_salt,
    parse_key,
    parse_key_ring,
    read_key_file,
)
from taskqueue.payload.limits import Limits
from taskqueue.payload.serialization import canonical, decode, encode

__all__ = [
    "CLEAR_KEY_ID",
    "Codec",
    "KeyRing",
    "Limits",
    "MasterKey",
    "Purpose",
    "canonical",
    "check_value",
    "create_key_file",
    "decode",
    "encode",
    "generate_key",
    "key_id_of",
    "needs_salt",
    "parse_key",
    "parse_key_ring",
    "read_key_file",
]
