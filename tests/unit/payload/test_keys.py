"""A key is exactly a key, or the start is refused with one sentence."""

import os
import pickle
import re
import stat
import threading
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest

from taskqueue.errors import KeyMissing, KeyRejected
from taskqueue.payload import (
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

SECRET = bytes.fromhex("8f1d2c3b4a59687786a5b4c3d2e1f00f102132435465768798a9bacbdcedfe0f")
BASE64 = "base64:" + b64encode(SECRET).decode()
BARE = "kT9#vQ2!mZ7@xL4$wB8^nC1&yD5*hF3("
SAMPLE = "your-32-character-encryption-key"


def test_a_generated_key_is_one_bare_base64_line_and_parses_without_warning() -> None:
    text = generate_key()
    assert re.fullmatch(r"base64:[A-Za-z0-9+/]{43}=", text)
    assert parse_key(text, production=True).warnings == ()
    assert generate_key() != text


def test_base64_and_hex_of_the_same_bytes_are_the_same_key() -> None:
    assert parse_key(BASE64) == parse_key("hex:" + SECRET.hex()) == parse_key("hex:" + SECRET.hex().upper())
    assert parse_key(BASE64).secret == SECRET


def test_the_default_id_is_stable_and_tells_nothing_of_the_key() -> None:
    key = parse_key(BASE64)
    assert re.fullmatch(r"[0-9a-f]{8}", key.key_id)
    assert key.key_id == parse_key(BASE64).key_id
    assert key.key_id not in SECRET.hex()
    assert key.key_id != parse_key(generate_key()).key_id


def test_32_bare_characters_are_accepted_with_a_warning_and_never_used_as_they_are() -> None:
    key = parse_key(BARE, production=True)
    assert key.secret != BARE.encode()
    assert len(key.secret) == 32
    assert "key:generate" in key.warnings[0]


def test_a_passphrase_gives_a_key_by_the_salt_of_the_installation() -> None:
    first = parse_key("passphrase:correct horse battery", salt=b"s" * 16)
    assert first == parse_key("passphrase:correct horse battery", salt=b"s" * 16)
    assert first.secret != parse_key("passphrase:correct horse battery", salt=b"t" * 16).secret


def test_only_a_passphrase_needs_the_salt() -> None:
    assert needs_salt("passphrase:correct horse battery")
    assert needs_salt(f"{BASE64},passphrase:correct horse battery")
    assert not needs_salt(BASE64)
    assert not needs_salt("x-passphrase:this is a bare key!")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * 31, "has 31 characters"),
        ("x" * 33, "has 33 characters"),
        ("tiny!", "has 5 characters"),
        (BASE64 + "\n", "ends with a line break"),
        (BARE + "\r\n", "ends with a line break"),
        (BARE[:16] + "\n" + BARE[17:], "in the middle"),
        (" " + BASE64, "begins or ends with a space"),
        (BARE[:31] + "ä", "printable ASCII"),
        (BARE[:31] + "\x1b", "printable ASCII"),
        ("base64:pa$$word+pa$$word", "is not base64"),
        ("base64:", "has 0 bytes"),
        ("base64:" + b64encode(SECRET[:31]).decode(), "has 31 bytes"),
        ("base64:" + b64encode(SECRET + b"x").decode(), "has 33 bytes"),
        (BASE64.rstrip("="), "is not base64"),
        ("hex:" + SECRET.hex()[:-1], "got 63 characters"),
        ("hex:" + SECRET.hex()[:-1] + "g", "64 hex digits"),
        ("hex:" + SECRET.hex(" ")[:64], "64 hex digits"),
        ("passphrase:hunter2-abc", "at least 12 characters"),
        ("passphrase:correct horse battery", "needs the salt"),
    ],
)
def test_anything_else_is_refused_in_one_sentence_without_the_key(text: str, sentence: str) -> None:
    with pytest.raises(KeyRejected, match=sentence) as caught:
        parse_key(text)
    message = str(caught.value)
    assert "\n" not in message
    secret = text.strip().rpartition(":")[2]
    assert not secret or secret[:12] not in message
    assert caught.value.exit_code == 78


def test_an_empty_key_is_a_missing_key() -> None:
    with pytest.raises(KeyMissing, match="key:generate"):
        parse_key("")


@pytest.mark.parametrize(
    "text",
    [
        SAMPLE,
        SAMPLE.upper(),
        "01234567890123456789012345678901",
        "x" * 32,
        "abababababababababababababababab",
        "changeme" * 4,
        "base64:" + b64encode(bytes(32)).decode(),
        "base64:" + b64encode(bytes(range(32))).decode(),
        "hex:" + "0123456789abcdef" * 4,
    ],
)
def test_a_sample_or_few_symbol_key_is_refused_in_production_and_warned_of_elsewhere(text: str) -> None:
    with pytest.raises(KeyRejected, match=r"anybody can guess; run `worker key:generate`"):
        parse_key(text, production=True)
    assert "not for production" in parse_key(text).warnings[-1]


def test_no_secret_shows_in_a_repr() -> None:
    ring = parse_key_ring(f"{BASE64},{BARE}")
    for shown in (repr(ring), str(ring), repr(ring.active), f"{ring.active}", repr(ring.keys), repr([ring])):
        assert SECRET.hex()[:8] not in shown
        assert repr(SECRET)[2:12] not in shown
        assert "secret" not in shown
        assert BARE not in shown


@pytest.mark.parametrize("key_id", ["", "K1", "a b", "x" * 33, "clear", "k1\n", "ä"])
def test_a_key_id_that_no_envelope_can_carry_is_refused(key_id: str) -> None:
    with pytest.raises(KeyRejected, match="cannot name a key"):
        parse_key(BASE64, key_id=key_id)


@pytest.mark.parametrize("secret", [b"x" * 16, b"x" * 24, b"x" * 33, b""])
def test_a_secret_of_another_length_is_refused_although_aes_would_take_it(secret: bytes) -> None:
    with pytest.raises(KeyRejected, match="exactly 32 bytes"):
        MasterKey("k1", secret)


def test_several_keys_the_first_is_active_the_others_open() -> None:
    old, new = generate_key(), generate_key()
    ring = parse_key_ring(f"{new}, {old}")
    assert ring.active == parse_key(new)
    assert ring.ids == (parse_key(new).key_id, parse_key(old).key_id)
    assert ring.get(parse_key(old).key_id) == parse_key(old)
    assert ring.get("unknown") is None


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(KeyRejected, match="given twice"):
        parse_key_ring(f"{BASE64},{BASE64}")


def test_a_bad_key_among_several_is_named_by_its_position() -> None:
    with pytest.raises(KeyRejected, match=r"key 2 of 2 .*has 5 characters"):
        parse_key_ring(f"{BASE64},wrong")
    with pytest.raises(KeyMissing, match="key 2 of 2"):
        parse_key_ring(f"{BASE64},")


def test_a_bare_key_may_hold_commas() -> None:
    text = BARE[:10] + "," + BARE[11:]
    assert parse_key_ring(text).active == parse_key(text)


def test_the_check_value_tells_keys_apart_and_is_stable() -> None:
    assert len(check_value(parse_key(BASE64))) == 8
    assert check_value(parse_key(BASE64)) == check_value(parse_key(BASE64, key_id="other"))
    assert check_value(parse_key(BASE64)) != check_value(parse_key(generate_key()))


def test_derived_bytes_differ_by_label_and_by_key() -> None:
    ring = parse_key_ring(BASE64)
    derived = ring.derive(b"unique keys")
    assert len(derived) == 32
    assert derived == parse_key_ring(BASE64).derive(b"unique keys")
    assert derived not in {ring.derive(b"other"), parse_key_ring(generate_key()).derive(b"unique keys"), SECRET}
    assert not derived.startswith(check_value(ring.active))


def test_a_ring_travels_to_a_child_process() -> None:
    ring = parse_key_ring(f"{BASE64},{BARE}")
    copy = pickle.loads(pickle.dumps(ring))
    assert isinstance(copy, KeyRing)
    assert copy.keys == ring.keys


def test_a_created_key_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "queue.key"
    text = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == text + "\n"
    ring = read_key_file(path, production=True)
    assert ring.active == parse_key(text)
    assert ring.warnings == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["queue.key"]


def test_an_existing_key_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "queue.key"
    text = create_key_file(path)
    with pytest.raises(FileExistsError):
        create_key_file(path)
    assert path.read_text() == text + "\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["queue.key"]


def test_of_many_that_create_at_once_one_wins_and_all_read_its_key(tmp_path: Path) -> None:
    path = tmp_path / "queue.key"
    start = threading.Barrier(8)
    created: list[str] = []
    read: list[MasterKey] = []

    def work() -> None:
        start.wait()
        with suppress(FileExistsError):
            created.append(create_key_file(path))
        read.append(read_key_file(path).active)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert read == [parse_key(created[0])] * 8


def test_a_key_file_is_made_where_hard_links_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "queue.key"
    text = create_key_file(path)
    assert read_key_file(path).active == parse_key(text)
    with pytest.raises(FileExistsError):
        create_key_file(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["queue.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_open_to_others_is_warned_of_and_refused_in_production(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "queue.key"
    create_key_file(path)
    path.chmod(mode)
    assert f"mode 0{mode:o}" in read_key_file(path).warnings[-1]
    with pytest.raises(KeyRejected, match="chmod 600"):
        read_key_file(path, production=True)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_line_break_at_the_end_of_a_key_file_is_left_out(tmp_path: Path, end: str) -> None:
    path = tmp_path / "queue.key"
    path.write_bytes((BASE64 + end).encode())
    assert read_key_file(path).active == parse_key(BASE64)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", KeyMissing),
        (b"\n", KeyMissing),
        (BASE64.encode() + b"\n\n", KeyRejected),
        (BASE64[:20].encode() + b"\n" + BASE64[20:].encode(), KeyRejected),
        (b"\xef\xbb\xbf" + BASE64.encode(), KeyRejected),
        (b"\xff\xfe\x00", KeyRejected),
        (b"x" * 100_000, KeyRejected),
    ],
)
def test_a_key_file_that_is_not_one_line_is_refused_by_name(tmp_path: Path, content: bytes, error: type) -> None:
    path = tmp_path / "queue.key"
    path.write_bytes(content)
    with pytest.raises(error, match=r"key file .*queue\.key"):
        read_key_file(path)


def test_a_missing_key_file_and_a_folder_have_their_own_sentences(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing, match="does not exist"):
        read_key_file(tmp_path / "none.key")
    with pytest.raises(KeyRejected, match="cannot be read"):
        read_key_file(tmp_path)
