"""Seals: a value opens in its place alone, under each key of the ring, and no text shows a secret."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.config.seal_keys import KEYS_MAX, SealKey, read_seal_keys
from signald.errors import StoreMisused
from signald.store.damage import seal
from signald.store.open import read_keys
from signald.store.seals import MARK, NOT_SAID, SEALED_BYTES, Seals, is_sealed, number_of

OLD = SealKey("old", bytes(range(32)))
NEW = SealKey("new", bytes(range(1, 33)))
SAID = b'{"said":"hush"}'


def ring(*keys: SealKey) -> Seals:
    """Return seals of which the newest key seals."""
    return Seals(keys or (OLD,), sealing=True)


@given(st.binary(max_size=200), st.text(max_size=20), st.integers(0, 2**64 - 1), st.binary(max_size=20))
def test_a_value_opens_in_its_place(data: bytes, owner: str, number: int, name: bytes) -> None:
    """What was sealed is read again, and is longer by a constant."""
    seals = ring()
    kept = seals.wrap(data, b"up", owner, number, name)
    assert seals.unwrap(kept, b"up", owner, number, name) == data
    assert (len(kept), kept[0], number_of(kept)) == (len(data) + SEALED_BYTES, MARK, number)


@pytest.mark.parametrize(
    "place",
    [
        (b"down", "s_1", 5, b"n"),
        (b"up", "s_2", 5, b"n"),
        (b"up", "s_1", 6, b"n"),
        (b"up", "s_1", 5, b"m"),
        (b"up", "s_1", NOT_SAID, b"m"),
        (b"up", "s_1n", 5, b""),
    ],
)
def test_a_value_opens_nowhere_else(place: tuple[bytes, str, int, bytes]) -> None:
    """Another kind, owner, number or name: the value is damaged there."""
    seals = ring()
    kept = seals.wrap(SAID, b"up", "s_1", 5, b"n")
    assert seals.unwrap(kept, *place) is None
    assert seals.uncover(kept, *place) is None


def test_each_byte_counts() -> None:
    """A value of which one byte is another, is missing, or is too much, does not open."""
    seals = ring()
    kept = seals.wrap(SAID, b"up", "s_1", 5)
    changed = [kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :] for at in range(len(kept))]
    cut = [kept[:size] for size in range(len(kept))]
    for value in (*changed, *cut, kept + b"x", b"", None, "text", 7):
        assert seals.unwrap(value, b"up", "s_1", 5) is None
        assert seals.unwrap(value, b"up", "s_1", NOT_SAID) is None


def test_the_number_that_is_said_is_bound() -> None:
    """A reader that does not know the number learns the true one."""
    seals = ring()
    kept = seals.wrap(SAID, b"up", "s_1", 5)
    assert seals.unwrap(kept, b"up", "s_1", NOT_SAID) == SAID
    lied = kept[:18] + (6).to_bytes(8, "big") + kept[26:]
    assert seals.unwrap(lied, b"up", "s_1", NOT_SAID) is None


def test_plain_and_sealed_values_lie_side_by_side() -> None:
    """Without the mark a value is plain, and its CRC-32 is judged; content that begins with the mark is read as well."""
    seals = ring()
    assert seals.unwrap(seal(SAID, 5), b"up", "s_1", 5, crc=5) == SAID
    assert seals.unwrap(seal(SAID, 5), b"up", "s_1", 5, crc=6) is None
    odd = bytes([MARK]) * 100
    assert seals.unwrap(Seals((OLD,)).wrap(odd, b"input", "s_1", crc=1), b"input", "s_1", crc=1) == odd
    assert seals.uncover(SAID, b"step", "s_1") == SAID


def test_without_a_key_values_are_as_before() -> None:
    """Earlier releases read them."""
    plain = Seals()
    assert plain.wrap(SAID, b"up", "s_1", 5, crc=9) == seal(SAID, 9)
    assert plain.cover(SAID, b"step", "s_1") == SAID
    assert plain.unwrap(ring().wrap(SAID, b"up", "s_1", 5), b"up", "s_1", 5) is None


def test_keys_rotate() -> None:
    """The newest key seals and all of them open; without the old key what it has sealed is closed."""
    before = ring(OLD)
    kept = before.wrap(SAID, b"up", "s_1", 5)
    both = ring(OLD, NEW)
    assert both.unwrap(kept, b"up", "s_1", 5) == SAID
    renewed = both.wrap(SAID, b"up", "s_1", 5)
    assert ring(NEW).unwrap(renewed, b"up", "s_1", 5) == SAID
    assert ring(NEW).unwrap(kept, b"up", "s_1", 5) is None
    assert before.unwrap(renewed, b"up", "s_1", 5) is None


def test_a_key_in_use_is_not_lost_by_a_reload() -> None:
    """A file without it is a mistake of the operator: the values under it stay readable."""
    seals = ring(OLD)
    kept = seals.wrap(SAID, b"up", "s_1", 5)
    seals.used = frozenset(seals.ids)
    assert seals.renew([NEW]) == seals.ids[:1]
    assert seals.unwrap(kept, b"up", "s_1", 5) == SAID
    retired = frozenset(seals.used)
    assert seals.renew([NEW], retired) == ()
    assert seals.unwrap(kept, b"up", "s_1", 5) is None
    assert seals.sealing == ""


def test_one_secret_seals_no_two_values_alike() -> None:
    """Equal content differs each time, but where a script compares it; and aggregates have keys of their own."""
    seals = ring()
    assert len({seals.wrap(SAID, b"up", "s_1", 5) for _ in range(600)}) == 600
    nonces = {seals.wrap(b"", b"up", "s_1", 5)[6:18] for _ in range(600)}
    assert len(nonces) == 600
    stable = seals.cover(SAID, b"progress", "s_1", 5, stable=True)
    assert stable == seals.cover(SAID, b"progress", "s_1", 5, stable=True)
    others = [
        seals.cover(SAID, b"progress", "s_1", 6, stable=True),
        seals.cover(SAID, b"progress", "s_2", 5, stable=True),
        seals.cover(SAID + b" ", b"progress", "s_1", 5, stable=True),
    ]
    assert stable[6:18] not in [other[6:18] for other in others]
    assert seals.uncover(stable, b"progress", "s_1", 5) == SAID


def test_no_text_of_it_shows_a_secret(tmp_path: Path) -> None:
    """A repr and an error have names and ids; the id of a key gives nothing of its secret."""
    secret = base64.b64encode(OLD.secret).decode()
    texts = [repr(OLD), repr(ring()), repr(ring()._ring)]
    path = tmp_path / "keys"
    path.write_text(f"old {secret}\nnew {secret[:-4]}\n")
    path.chmod(0o400)
    with pytest.raises(StoreMisused) as error:
        read_keys(str(path))
    for text in (*texts, str(error.value), repr(error.value)):
        assert secret[:8] not in text
        assert OLD.secret.hex()[:8] not in text
        assert repr(OLD.secret)[2:10] not in text
    assert not is_sealed(OLD.secret)


class TestFile:
    """The file of the keys."""

    def write(self, path: Path, text: str, mode: int = 0o400) -> Path:
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_lines(self, tmp_path: Path) -> None:
        """The last line is the newest key; comments and empty lines are none."""
        lines = "# of the cluster\n\n" + "".join(
            f"{one.name} {base64.b64encode(one.secret).decode()}\n" for one in (OLD, NEW)
        )
        found = read_seal_keys(self.write(tmp_path / "keys", lines + "retired 0a1b2c3d\n"))
        assert (found.keys, found.retired) == ((OLD, NEW), frozenset({"0a1b2c3d"}))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "has no key"),
            ("old\n", "keys:1 is no key"),
            (f"ol/d {'A' * 43}=\n", "keys:1 is no key"),
            ("old c2hvcnQ=\n", "keys:1: the secret is not 32 bytes"),
            (f"old {'?' * 44}\n", "keys:1: the secret is not 32 bytes"),
            (f"a {'A' * 43}=\nb {'A' * 43}=\n", "two keys with one secret"),
            (f"a {'A' * 43}=\na {'B' * 42}A=\n", "two keys with one name"),
            (
                "".join(f"k{at} {base64.b64encode(bytes([at]) * 32).decode()}\n" for at in range(KEYS_MAX + 1)),
                "more than",
            ),
            ("#" * 5000, "larger than"),
            ("retired\n", "behind `retired`"),
            ("retired OLD\n", "behind `retired`"),
            ("retired 0a1b2c3d\n", "has no key"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, text: str, said: str) -> None:
        """The text says where, and what to do."""
        with pytest.raises(ValueError, match=said):
            read_seal_keys(self.write(tmp_path / "keys", text))

    @pytest.mark.parametrize("mode", [0o444, 0o404, 0o420, 0o602, 0o601])
    def test_a_file_that_is_open_to_others(self, tmp_path: Path, mode: int) -> None:
        """Others may do nothing, and a group may read."""
        path = self.write(tmp_path / "keys", f"old {base64.b64encode(OLD.secret).decode()}\n", mode)
        with pytest.raises(ValueError, match="chmod 0400"):
            read_seal_keys(path)
        path.chmod(0o440)
        assert read_seal_keys(path).keys == (OLD,)

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        """A directory, a pipe that holds the reader up, and nothing at all."""
        import os

        os.mkfifo(tmp_path / "pipe", 0o400)
        with pytest.raises(ValueError, match="no regular file"):
            read_seal_keys(tmp_path / "pipe")
        for name in (".", "none"):
            with pytest.raises(StoreMisused, match="encryption_keys_file"):
                read_keys(str(tmp_path / name))
