"""Slips in the shelves of blobs: in their rules, in Python and in Lua.

The contract notices them. What they break is a promise to the owner of a blob, or a bound.
"""

from tests.planted.bug import Bug

_RULES = "signald/store/shelf/rules.py"
_RECORDS = "signald/store/shelf/records.py"
_MEMORY = "signald/store/memory_shelves.py"
_LUA = "signald/store/shelf/shelf.lua"

_CONTRACT = "tests/store/shelf/test_contract.py"
_MEMORY_ONLY = (_CONTRACT, "-k", "memory")
_REDIS_ONLY = (_CONTRACT, "-k", "redis")

RULES = (
    Bug(
        "blob-abandoned-although-whole",
        _RULES,
        "abandon_blob",
        "    if item.blob.whole:\n        return ops.BlobKept(item.blob)\n",
        "",
        "nobody-hurts",
        "An upload whose end got no answer removes the blob that its repetition was answered with.",
        _MEMORY_ONLY,
    ),
    Bug(
        "lease-of-the-future-holds",
        _RECORDS,
        "Item.lapsed",
        " or self.leased_ms - now_ms > CLOCK_SET_MS",
        "",
        "liveness",
        "After the clock was set back, the key of a dead upload is in use for as long as it was set.",
        _MEMORY_ONLY,
    ),
    Bug(
        "doomed-upload-can-be-finished",
        _RULES,
        "_uploading",
        "item is None or item.doomed or item.nonce",
        "item is None or item.nonce",
        "nobody-hurts",
        "A blob is kept whose bytes a sweep deletes.",
        _MEMORY_ONLY,
    ),
    Bug(
        "kept-blob-forgotten",
        _RULES,
        "forget_blobs",
        "if item.doomed if item is not None else",
        "if True if item is not None else",
        "nobody-hurts",
        "A blob that is kept is forgotten by a sweep of another life.",
        _MEMORY_ONLY,
    ),
    Bug(
        "key-of-a-doomed-blob-in-use",
        _RECORDS,
        "Item.doom",
        "key=b'', doomed=1",
        "doomed=1",
        "liveness",
        "The key of a blob that was removed leads to it.",
        _MEMORY_ONLY,
    ),
    Bug(
        "upload-swept-with-its-lease",
        _RULES,
        "sweep_shelf",
        "op.now_ms - LATE_MS",
        "op.now_ms",
        "no-ghost",
        "Bytes of an upload are deleted before a late write of them comes through in the media.",
        _MEMORY_ONLY,
    ),
    Bug(
        "blob-read-beyond-its-time",
        _RULES,
        "read_blob",
        " or item.blob.until_ms <= op.now_ms",
        "",
        "bounded-memory",
        "A blob can be read until a sweep comes.",
        _MEMORY_ONLY,
    ),
    Bug(
        "doomed-bytes-not-counted",
        _MEMORY,
        "MemoryShelves.shelf_size",
        "sum((item.blob.bytes for item in items))",
        "sum((item.blob.bytes for item in items if not item.doomed))",
        "bounded-memory",
        "An owner fills the media by removing what is not deleted yet.",
        _MEMORY_ONLY,
    ),
)

TWINS = (
    Bug(
        "lua-blob-abandoned-although-whole",
        _LUA,
        "operation.abandon_blob",
        "item[ITEM.digest] ~= ''",
        "false",
        "twin",
        "An upload whose end got no answer removes the blob that its repetition was answered with.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-lease-of-the-future-holds",
        _LUA,
        "is_lapsed",
        " or item[ITEM.leased_ms] - now_ms > CLOCK_SET_MS",
        "",
        "twin",
        "After the clock was set back, the key of a dead upload is in use for as long as it was set.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-reserved-bytes-stay",
        _LUA,
        "operation.finish_blob",
        "local before = item[ITEM.bytes]",
        "local before = tonumber(size)",
        "twin",
        "What an upload has reserved and not used is never free again.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-damaged-blob-believed",
        _LUA,
        "read_item",
        "string.sub(kept, 1, SEAL_LETTERS) ~= seal(blob, packed)",
        "false",
        "twin",
        "A blob whose record has lost a bit is answered with.",
        ("tests/store/test_damage.py", "-k", "blob and redis"),
    ),
    Bug(
        "lua-shelf-with-a-wrong-sum-removed",
        _LUA,
        "operation.forget_blobs",
        " and recount() == 0",
        "",
        "twin",
        "A shelf whose sum is too low is removed with the blobs that are left.",
        ("tests/store/shelf/test_redis.py",),
    ),
)

SHELF = (*RULES, *TWINS)
