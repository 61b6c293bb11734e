"""Slips in compression: a bomb that goes off, a context that is not there, and offers that are not judged."""

from tests.planted.bug import Bug

_COMPRESSION = "signald/net/compression.py"
_FRAMES = "signald/net/frames.py"
_CONNECTION = "signald/net/connection.py"
_TESTS = "tests/net/test_compression.py::"

COMPRESSION = (
    Bug(
        "bomb-goes-off",
        _COMPRESSION,
        "Inflater.inflate",
        "stream.decompress(data, most + 1)",
        "stream.decompress(data)",
        "bounded-memory",
        "A message is inflated to its end before its length is judged.",
        (_TESTS + "test_a_bomb_takes_no_more_memory_than_a_message",),
    ),
    Bug(
        "small-bombs-add-up",
        _FRAMES,
        "FrameDecoder._inflated",
        "self._inflatable -= len(found)",
        "pass",
        "bounded-memory",
        "Each message of a read is within its limit, and together they take a thousand times the read.",
        (_TESTS + "test_many_small_bombs_in_one_read_are_one",),
    ),
    Bug(
        "fragments-inflate-each-to-the-limit",
        _FRAMES,
        "FrameDecoder._inflated",
        "self._message_bytes_max - (self._size if self._fragments is not None else 0)",
        "self._message_bytes_max",
        "bounded",
        "The limit of a message holds for each of its fragments.",
        (_TESTS + "test_fragments_of_a_deflated_message_count",),
    ),
    Bug(
        "offer-not-judged",
        _COMPRESSION,
        "agree",
        "if not _is_sound(offer):",
        "if not offer.startswith(_NAME):",
        "nobody-hurts",
        "A parameter that is no number reaches the parser of the library.",
        (_TESTS + "test_an_offer_that_breaks_the_rules_is_declined",),
    ),
    Bug(
        "context-kept-that-was-not-agreed-on",
        _COMPRESSION,
        "Inflater.inflate",
        "if last and (stream.eof or not self._keeps):",
        "if last and stream.eof:",
        "bounded-memory",
        "Each connection keeps a window between its messages.",
        (_TESTS + "test_without_context_nothing_is_remembered",),
    ),
    Bug(
        "context-goes-on-behind-shared-frames",
        _CONNECTION,
        "Connection.send_frames",
        "self._deflater.forget()",
        "pass",
        "nobody-hurts",
        "What follows a room's message refers to a place that the client counts otherwise.",
        (_TESTS + "test_context_begins_anew_behind_what_many_were_told",),
    ),
    Bug(
        "deflated-bit-in-any-frame",
        _FRAMES,
        "FrameDecoder._check_header",
        "if self._inflater is not None and opcode in (TEXT, BINARY)",
        "if self._inflater is not None",
        "nobody-hurts",
        "A control frame or a later fragment may say that it is deflated.",
        (_TESTS + "test_what_breaks_the_rules_ends_the_connection",),
    ),
    Bug(
        "each-member-deflated-for-itself",
        _COMPRESSION,
        "Compression.shared",
        "self._shared.get(terms.server_bits)",
        "None",
        "bounded",
        "A publication is deflated once for each member of its room.",
        (_TESTS + "test_what_a_room_is_told_is_deflated_once_for_all_who_share_a_window",),
    ),
)
