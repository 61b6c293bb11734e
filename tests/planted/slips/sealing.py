"""Slips in the seals of kept values: a place that is not bound, a key that is used too early, and a secret that is shown."""

from tests.planted.bug import Bug

_SEALS = "signald/store/seals.py"
_KEYS = "signald/config/seal_keys.py"
_SEALING = "signald/service/cluster/sealing.py"
_REPLIES = "signald/store/session/replies.py"
_JOBS = "signald/store/session/jobs/replies.py"
_STREAMS = "signald/store/session/streams/streams.lua"
_BLOBS = "signald/blobs/sealed.py"
_ROOM = "signald/store/room/seals.py"

_OF_SEALS = "tests/store/test_seals.py::"
_IN_STORES = "tests/store/test_sealed.py::"
_OF_NODES = "tests/service/test_sealing.py::"
_OF_BLOBS = "tests/blobs/test_sealed.py::"
_OF_RESEALING = "tests/store/test_resealing.py::"

SEALING = (
    Bug(
        "seal-without-its-place",
        _SEALS,
        "_place",
        "b'%b %d %b%b' % (kind, len(of), of, name)",
        "b'%b %d %b' % (kind, len(of), of)",
        "sealed",
        "The name of a value is not bound: the input of one job opens as that of another.",
        (_OF_SEALS + "test_a_value_opens_nowhere_else",),
    ),
    Bug(
        "seal-number-not-judged",
        _SEALS,
        "Seals._open",
        "if form != FORMAT or (said != number and number != NOT_SAID):",
        "if form != FORMAT:",
        "sealed",
        "An old message that is put back under another seq is delivered again.",
        (_OF_SEALS + "test_a_value_opens_nowhere_else", _IN_STORES + "test_a_value_elsewhere_is_damage"),
    ),
    Bug(
        "seal-nonce-taken-twice",
        _SEALS,
        "Seals._nonce",
        "return self._nonces.pop()",
        "return self._nonces.pop() if len(self._nonces) > 1 else self._nonces[0]",
        "sealed",
        "The last nonce of a lot is used again and again, which gives all its values away.",
        (_OF_SEALS + "test_one_secret_seals_no_two_values_alike",),
    ),
    Bug(
        "key-in-use-dropped-by-a-reload",
        _SEALS,
        "Seals.renew",
        "if key_id.hex() in used and key_id not in ring",
        "if key_id in used and key_id not in ring",
        "sealed",
        "A reload with a shorter file makes damage of all that the missing key has sealed.",
        (_OF_SEALS + "test_a_key_in_use_is_not_lost_by_a_reload",),
    ),
    Bug(
        "key-seals-before-all-have-it",
        _SEALING,
        "Sealing.agree",
        "all((key_id in known for known in entries))",
        "any((key_id in known for known in entries))",
        "sealed",
        "The first node with a new key seals by it, and the others take its values for damage.",
        (_OF_NODES + "test_a_key_seals_once_every_node_has_it",),
    ),
    Bug(
        "node-starts-without-a-key",
        _SEALING,
        "Sealing.begin",
        "if key_id not in seals.ids and key_id not in seals.retired",
        "if seals.ids and key_id not in seals.ids and key_id not in seals.retired",
        "sealed",
        "A node whose key file was forgotten starts, and takes every sealed session for damaged.",
        (_OF_NODES + "test_a_node_without_a_noted_key_is_refused",),
    ),
    Bug(
        "order-of-a-sealed-history-not-judged",
        _REPLIES,
        "_items",
        "if party is None or body is None or 0 < seq <= last[party]:",
        "if party is None or body is None:",
        "sealed",
        "In Redis, two messages of a history that were swapped are shown to the next worker as they lie.",
        (_IN_STORES + "test_a_value_elsewhere_is_damage[redis-history-swapped]",),
    ),
    Bug(
        "seals-counted-as-content",
        _STREAMS,
        "size_of_item",
        "(sealed and SEALED_BYTES or SEAL_BYTES)",
        "SEAL_BYTES",
        "twin",
        "In Redis, a sealed history holds less than a plain one: each seal counts as text.",
        (_IN_STORES + "test_sealed_and_plain_values_are_counted_alike",),
    ),
    Bug(
        "key-file-of-everybody",
        _KEYS,
        "read_seal_keys",
        "if mode & FORBIDDEN_MODE:",
        "if mode & FORBIDDEN_MODE == FORBIDDEN_MODE:",
        "sealed",
        "A key file that every user of the host reads is taken.",
        (_OF_SEALS + "TestFile::test_a_file_that_is_open_to_others",),
    ),
    Bug(
        "chunk-of-a-blob-opens-anywhere",
        _BLOBS,
        "_label",
        "b'blob %d %b%b' % (len(key), key.encode(), salt)",
        "b'blob %b' % salt",
        "sealed",
        "The object of one blob, put in the place of another, is read as that one.",
        (_OF_BLOBS + "test_a_changed_object_is_missing[moved]",),
    ),
    Bug(
        "property-of-a-record-opens-in-another",
        _ROOM,
        "_place",
        "b'%d %b%b' % (len(record), record.encode(), name.encode(errors='surrogatepass'))",
        "name.encode(errors='surrogatepass')",
        "sealed",
        "The value of one record, put into another, is read as that one's.",
        ("tests/store/room/test_sealed.py::test_a_value_elsewhere_is_damage[redis-record]",),
    ),
    Bug(
        "resealed-over-what-was-written",
        "signald/store/session/reseal.lua",
        "",
        "elseif redis.call('HGET', HASH_OF[part], where) == old then",
        "elseif redis.call('HGET', HASH_OF[part], where) then",
        "sealed",
        "What a worker hands on during a pass is replaced by what was there before.",
        (_OF_RESEALING + "test_redis_keeps_what_was_written_meanwhile",),
    ),
    Bug(
        "resealed-log-lives-for-ever",
        "signald/store/session/reseal.lua",
        "",
        "local left = redis.call('PTTL', log)",
        "local left = 0",
        "sealed",
        "The log of a session that was resealed stays in Redis when no node is left.",
        (_OF_RESEALING + "test_redis_keeps_what_was_written_meanwhile",),
    ),
    Bug(
        "resealed-by-the-first-page",
        "signald/store/sqlite_reseal.py",
        "reseal_page",
        "return (page, rows[-1][:len(of.keys)] if len(rows) == PAGE else ())",
        "return (page, ())",
        "sealed",
        "Of each table the first rows are resealed; a key is retired under which there are others.",
        (_OF_RESEALING + "test_many_pages",),
    ),
    Bug(
        "properties-left-under-the-old-key",
        "signald/store/room/reseal.lua",
        "",
        "for place = 5, #kept, 2 do",
        "for place = 7, #kept, 2 do",
        "sealed",
        "The first property of each record stays under the old key, and is lost with it.",
        (_OF_RESEALING + "test_all_comes_under_the_newest_key",),
    ),
    Bug(
        "resealed-before-all-seal-alike",
        "signald/service/resealing.py",
        "Resealing._until_clean",
        "elif begun_at >= agreed_at:",
        "elif begun_at >= 0:",
        "sealed",
        "A key counts as retirable while another node still seals under it.",
        ("tests/service/test_resealing.py::test_done_behind_one_lease",),
    ),
)
