"""Slips in the rooms: in their core, in their rules, in Python and in Lua.

The contract notices them. What they break is a promise to a member of a room, or a bound.
"""

from tests.planted.bug import Bug

_CORE = "signald/core/rooms.py"
_RULES = "signald/store/room/rules.py"
_READING = "signald/store/room/reading.py"
_RECORDS = "signald/store/room/records.py"
_LUA_MEMBERS = "signald/store/room/members.lua"
_LUA_PUBLICATIONS = "signald/store/room/publications.lua"
_LUA_RECORDS = "signald/store/room/records.lua"
_LUA_HEAD = "signald/store/room/head.lua"

_CONTRACT = "tests/store/room/test_contract.py"
_MEMORY_ONLY = (_CONTRACT, "-k", "memory")
_REDIS_ONLY = (_CONTRACT, "-k", "redis")
_OF_CORE = ("tests/core/test_rooms.py",)

CORE = (
    Bug(
        "escape-leaves-the-tilde",
        _CORE,
        "escape",
        "if byte in _PLAIN else",
        "if byte in _PLAIN or byte == 126 else",
        "nobody-hurts",
        "A subject that has an escape in its name shares the room of another subject.",
        _OF_CORE,
    ),
    Bug(
        "hole-behind-the-floor-recovered",
        _CORE,
        "welcome",
        "same and floor <= received <= position",
        "same and received <= position",
        "exactly-once",
        "A member that was away for long is told that it has missed nothing.",
        _OF_CORE,
    ),
    Bug(
        "another-epoch-recovered",
        _CORE,
        "welcome",
        "same and floor <= received <= position",
        "floor <= received <= position",
        "exactly-once",
        "A member of a lost room goes on in another one as if it were the same.",
        _OF_CORE,
    ),
    Bug(
        "forgotten-removals-not-wiped",
        _CORE,
        "welcome",
        "not recovered or received < horizon",
        "not recovered",
        "exactly-once",
        "A record that was removed long ago stays at a member that comes back.",
        _OF_CORE,
    ),
    Bug(
        "null-is-kept",
        _CORE,
        "patched",
        "if value == NULL:",
        "if not value:",
        "nobody-hurts",
        "A property that is removed by a patch becomes null.",
        _OF_CORE,
    ),
)

RULES = (
    Bug(
        "refused-seq-asked-again",
        _RECORDS,
        "Seat.refuse",
        "replace(self, seq=seq, ",
        "replace(self, ",
        "liveness",
        "A member waits for ever for the seq of a publication that was refused.",
        _MEMORY_ONLY,
    ),
    Bug(
        "repetition-stored-twice",
        _RULES,
        "publish",
        "if seq <= seat.seq:",
        "if seq < seat.seq:",
        "exactly-once",
        "The last publication of a batch whose answer was lost is stored twice.",
        _MEMORY_ONLY,
    ),
    Bug(
        "gap-passed-over",
        _RULES,
        "publish",
        "if seq > seat.seq + 1:",
        "if seq > seat.seq + 2:",
        "exactly-once",
        "A publication is lost between two others of its member.",
        _MEMORY_ONLY,
    ),
    Bug(
        "old-connection-publishes",
        _RULES,
        "_seated",
        "if seat.epoch > op.epoch or seat.node != op.node:",
        "if seat.node != op.node:",
        "single-owner",
        "A connection that is superseded still publishes.",
        _MEMORY_ONLY,
    ),
    Bug(
        "move-is-told",
        _RULES,
        "join_room",
        "elif op.presence is not None:",
        "else:",
        "nobody-hurts",
        "Members see a handover of another one as a change of its presence.",
        _MEMORY_ONLY,
    ),
    Bug(
        "old-node-keeps-its-member",
        _RULES,
        "_sit",
        "head.drop_member(seat.node)",
        "pass",
        "bounded-memory",
        "Each node that a member was at is woken for ever.",
        _MEMORY_ONLY,
    ),
    Bug(
        "late-departure-takes-the-seat",
        _RULES,
        "leave_room",
        "if seat is not None and (seat.epoch > op.epoch or (seat.epoch == op.epoch and seat.node != op.node)):",
        "if seat is not None and seat.epoch == op.epoch and (seat.node != op.node):",
        "single-owner",
        "The end of an old connection throws out a member that is back.",
        _MEMORY_ONLY,
    ),
    Bug(
        "update-trimmed-with-the-log",
        "signald/store/memory_rooms.py",
        "MemoryRooms.trim_room_entry",
        "if not entries[position].publication.update or position <= snapshot:",
        "if True:",
        "exactly-once",
        "An update that no snapshot stands for is lost to those who join.",
        _MEMORY_ONLY,
    ),
    Bug(
        "full-room-takes-no-removal",
        _RULES,
        "_store",
        "grown > 0 and head.bytes_all",
        "head.bytes_all",
        "liveness",
        "Bounds that were made tighter refuse what makes a room smaller.",
        _MEMORY_ONLY,
    ),
    Bug(
        "departed-although-back",
        _READING,
        "look_room",
        "if not rows.member_turn(op.room, member)",
        "if member",
        "nobody-hurts",
        "A member that has left and is back is told as gone.",
        _MEMORY_ONLY,
    ),
    Bug(
        "room-with-members-over",
        _RECORDS,
        "Head.is_over",
        "not self.members and self.until_ms <= now_ms",
        "self.until_ms <= now_ms",
        "no-ghost",
        "A room is removed under its members.",
        _MEMORY_ONLY,
    ),
    Bug(
        "room-of-the-future-stays",
        _RECORDS,
        "Head.is_of_the_future",
        "not self.members and self.empty_ms - now_ms > CLOCK_SET_MS",
        "False",
        "bounded-memory",
        "After the clock was set back a room is kept for as long as it was set.",
        _MEMORY_ONLY,
    ),
)

TWINS = (
    Bug(
        "lua-repetition-stored-twice",
        _LUA_PUBLICATIONS,
        "operation.publish",
        "seq > seat[SEAT.seq] then",
        "seq >= seat[SEAT.seq] then",
        "twin",
        "The last publication of a batch whose answer was lost is stored twice.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-old-connection-publishes",
        _LUA_MEMBERS,
        "seated",
        "seat[SEAT.epoch] > epoch or seat[SEAT.node] ~= caller",
        "seat[SEAT.node] ~= caller",
        "twin",
        "A connection that is superseded still publishes.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-update-trimmed-with-the-log",
        _LUA_PUBLICATIONS,
        "trim",
        "if not entry or entry[4] == 0 or floor <= head[ROOM.snapshot] then",
        "if entry then",
        "twin",
        "An update that no snapshot stands for is lost to those who join.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-floor-forgotten-with-updates",
        _LUA_PUBLICATIONS,
        "trim",
        "if head[ROOM.floor] > floor_before or head[ROOM.tombstones] < tombstones_before then",
        "if #drops > 0 then",
        "twin",
        "A log from which only updates go is told longer than its bound.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-page-cuts-a-position",
        _LUA_RECORDS,
        "operation.read_room_state",
        "#changes == 2 * tonumber(limit) and changes[#changes]",
        "false",
        "twin",
        "A page says that it has all records, and has some.",
        _REDIS_ONLY,
    ),
    Bug(
        "lua-damaged-part-believed",
        _LUA_HEAD,
        "packed_in",
        "string.sub(kept, 1, SEAL_LETTERS) ~= seal(field, packed)",
        "false",
        "twin",
        "A part of a room that has lost a bit is answered with.",
        ("tests/store/room/test_damage.py", "-k", "redis"),
    ),
    Bug(
        "lua-departure-counted-twice",
        _LUA_MEMBERS,
        "drop",
        "if (at[member] or 0) <= turn_of(member) then",
        "if true then",
        "twin",
        "A departure that was cut short takes the place of another member.",
        ("tests/store/room/test_redis.py", "-k", "cut_short and leave"),
    ),
)

ROOMS = (*CORE, *RULES, *TWINS)
