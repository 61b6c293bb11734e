"""Slips in the rules of the store as Redis keeps them: those of the Python rules again, and some that only length shows.

The contract and the plans notice them, on Redis alone: what is planted in Lua can show nowhere else.
"""

from tests.planted.bug import Bug

_APPEND = "signald/store/session/append.lua"
_ACK = "signald/store/session/ack.lua"
_LOOK = "signald/store/session/look.lua"
_HEAD = "signald/store/session/head.lua"
_CLAIMS = "signald/store/session/claims.lua"
_RESEED = "signald/store/session/reseed.lua"
_SESSION = "signald/store/session/session.lua"
_NODES = "signald/store/registry/nodes.lua"
_LINE = "signald/store/registry/line.lua"
_WORKERS = "signald/store/registry/workers.lua"
_REGISTRY = "signald/store/registry/registry.lua"

CONTRACT = (
    "tests/store/session/test_contract.py",
    "tests/store/registry/test_contract.py",
    "tests/store/test_contract.py",
    "tests/store/test_claims_ahead.py",
    "tests/store/test_redis.py::TestKeys",
    "tests/store/test_length.py",
    "tests/store/test_plans.py",
    "-k",
    "redis",
)
"""What holds Redis to the rules, the quickest first."""


def _slip(
    name: str, file: str, function: str, old: str, new: str, story: str, noticed_by: tuple[str, ...] = CONTRACT
) -> Bug:
    return Bug(f"lua-{name}", file, function, old, new, "twin", story, noticed_by)


AGAIN = (
    _slip(
        "append-not-fenced",
        _APPEND,
        "",
        "if v[1] ~= ARGV[3] or v[2] ~= ARGV[2] then",
        "if false then",
        "A node that has lost a party goes on appending for it.",
    ),
    _slip(
        "claim-far-ahead-believed",
        _SESSION,
        "operation.claim_client",
        "is_ahead(tonumber(acked), tonumber(received), ahead_max)",
        "false",
        "A client that claims positions which were never given out is believed, however far ahead they are.",
    ),
    _slip(
        "claimed-seqs-not-noted",
        _CLAIMS,
        "hear_claim",
        "first, last = tonumber(v[3]) >= last and from or first, to",
        "",
        "A hole that only a claim has made is taken for one that the store shows.",
    ),
    _slip(
        "word-of-a-worker-raises-the-log",
        _CLAIMS,
        "hear_claim",
        "local believed = way == 'down' or party == 'client'",
        "local believed = true",
        "A worker claims what its client is yet to say, which passes for a duplicate then, and is acked and lost.",
    ),
    _slip(
        "worker-claims-believed-without-bound",
        _SESSION,
        "operation.claim_worker_side",
        "is_ahead(tonumber(received), tonumber(acked), ahead_max)",
        "false",
        "A worker that claims positions which were never given out is believed, however far ahead they are.",
    ),
    _slip(
        "client-principal-not-judged",
        _SESSION,
        "operation.claim_client",
        "if owner and owner ~= principal then",
        "if false then",
        "A stranger with a credential of its own resumes with a token that it has found, or has the owner's tokens revoked.",
    ),
    _slip(
        "ack-not-fenced",
        _ACK,
        "",
        "if v[1] ~= ARGV[3] or v[2] ~= ARGV[2] then",
        "if false then",
        "A node that has lost a party goes on acknowledging for it.",
    ),
    _slip(
        "detach-not-fenced",
        _SESSION,
        "operation.detach",
        "caller ~= '' and v[1] == epoch and v[2] == caller",
        "caller ~= ''",
        "The late detach of the old node detaches the party from the new one.",
    ),
    _slip(
        "worker-not-fenced",
        _WORKERS,
        "operation.update",
        "record[EPOCH] ~= tonumber(epoch)",
        "false",
        "A node that has lost a worker speaks for it, and does not learn that it has moved.",
    ),
    _slip(
        "claim-keeps-the-epoch",
        _CLAIMS,
        "claim",
        "tonumber(v[1]) + 1",
        "math.max(1, tonumber(v[1]))",
        "A claim of a session reuses the epoch of the one before.",
    ),
    _slip(
        "worker-claim-keeps-the-epoch",
        _WORKERS,
        "operation.claim",
        "record[EPOCH] + 1",
        "record[EPOCH]",
        "A claim of a worker reuses the epoch of the one before.",
    ),
    _slip(
        "unpair-keeps-the-epoch",
        _SESSION,
        "unpair",
        ", 'worker_epoch', math.max(asked, held) + 1",
        "",
        "A session is taken from its worker under the epoch the worker's node still writes with.",
    ),
    _slip(
        "append-repeated-is-stored-twice",
        _APPEND,
        "",
        "tonumber(v[4]), tonumber(ARGV[8])",
        "tonumber(v[4]), math.max(tonumber(ARGV[8]), tonumber(v[3]) + 1)",
        "An append that is sent again after a lost reply is stored again.",
    ),
    _slip(
        "claim-repeated-is-a-second-claim",
        _SESSION,
        "operation.claim_client",
        "if before then",
        "if false then",
        "A claim that is sent again after a lost reply is judged again, with a token it has used itself.",
    ),
    _slip(
        "late-claim-granted",
        _SESSION,
        "operation.claim_client",
        "if is_late(last_ms, now_ms) then",
        "if false then",
        "A claim asked for long ago comes after its token has been rotated, and is called theft.",
    ),
    _slip(
        "claim-mixes-the-directions",
        _SESSION,
        "operation.claim_worker_side",
        "claim('worker', nonce, tonumber(received), tonumber(acked), now_ms, 0,",
        "claim('worker', nonce, tonumber(acked), tonumber(received), now_ms, 0,",
        "What a worker has received counts as what it has sent.",
    ),
    _slip(
        "ack-goes-back",
        _ACK,
        "",
        "if tonumber(ack) > tonumber(v[4]) then",
        "if tonumber(ack) ~= tonumber(v[4]) then",
        "An older ack that comes later counts.",
    ),
    _slip(
        "backlog-measured-from-the-wrong-end",
        _APPEND,
        "",
        "final - acked > tonumber(ARGV[5])",
        "final - last > tonumber(ARGV[5])",
        "A log grows as long as the receiver does not ack.",
    ),
    _slip(
        "receiver-not-woken",
        _APPEND,
        "",
        "answer = {final, acked, peer} wake = true",
        "answer = {final, acked, peer}",
        "What is appended for a party at another node waits there until some other event makes it look.",
    ),
    _slip(
        "session-outlives-its-end",
        _SESSION,
        "finish",
        "redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[7])",
        "",
        "An ended session stays in the store.",
    ),
    _slip(
        "down-log-outlives-its-session",
        _SESSION,
        "finish",
        "redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[7])",
        "redis.call('DEL', KEYS[1], KEYS[2], KEYS[7])",
        "One of the two logs is not removed with its session.",
    ),
    _slip(
        "forgotten-session-counts-as-alive",
        _REGISTRY,
        "operation.forget",
        "redis.call('ZREM', ALIVE, session)",
        "",
        "An ended session stays in the index of the living.",
    ),
    _slip(
        "reseed-with-acked-for-last",
        _RESEED,
        "reseed_log",
        "math.max(stored, tonumber(last))",
        "math.max(stored, tonumber(acked))",
        "A store that came back empty begins again at a seq that has been used.",
    ),
    _slip(
        "capacity-ignored",
        _WORKERS,
        "count_of",
        "return redis.call('ZLEXCOUNT', PAIRED, '[' .. name .. '\\0', '(' .. name .. '\\1')",
        "return math.min(1, redis.call('ZLEXCOUNT', PAIRED, '[' .. name .. '\\0', '(' .. name .. '\\1'))",
        "A worker counts as having one session, however many it has.",
    ),
    _slip(
        "paired-session-reserved-again",
        _WORKERS,
        "operation.reserve",
        "redis.call('ZSCORE', WAITING, session) and record",
        "redis.call('HGET', LINE, session) and record",
        "Two nodes that match at the same time give one session to two workers.",
    ),
    _slip(
        "released-session-not-in-line",
        _WORKERS,
        "operation.remove",
        "release(session, name, again)",
        "release(session, name, '0')",
        "The sessions of a worker that was given up wait for no other.",
    ),
    _slip(
        "want-outlives-its-line",
        _LINE,
        "stand",
        "redis.call('HINCRBY', WANTED, node, -1) <= 0",
        "redis.call('HINCRBY', WANTED, node, -1) < 0",
        "What a session wanted stays in the tree of wants when it has gone.",
        ("tests/store/test_length.py", "tests/store/test_waiting_lines.py"),
    ),
    _slip(
        "dead-node-counts-as-live",
        _NODES,
        "operation.list_nodes",
        "'(' .. now_ms, '+inf'",
        "'-inf', '+inf'",
        "A node whose lease has ended goes on counting as live.",
    ),
    _slip(
        "pace-forgets-what-was-taken",
        _NODES,
        "operation.take_pace",
        "level - tonumber(tokens)",
        "level",
        "The cluster's budget is never used up.",
    ),
    _slip(
        "replay-begins-one-late",
        _LOOK,
        "",
        "tonumber(head[reads_down and HEAD.down_acked or HEAD.up_acked])) + 1",
        "tonumber(head[reads_down and HEAD.down_acked or HEAD.up_acked])) + 2",
        "A replay from the store leaves out its first message.",
    ),
)

_LENGTH = "tests/store/test_length.py::"

AT_LENGTH = (
    _slip(
        "unacked-trimmed-at-each-hundredth-ack",
        _ACK,
        "",
        "'MINID', '~', ack .. '-1')",
        "'MINID', '=', string.format('%.0f-1', ack + (tonumber(ack) % 100 == 0 and 1 or 0)))",
        "Each hundredth ack trims one message that was not acked.",
        (_LENGTH + "test_no_ack_of_hundreds_takes_more_than_it_covers", "-k", "redis"),
    ),
    _slip(
        "unacked-trimmed-with-an-append",
        _APPEND,
        "",
        "'MINID', '~', ack .. '-1')",
        "'MINID', '~', ack + 1 .. '-1')",
        "An ack that rides on an append trims a block of the log that has one unacked message.",
        (_LENGTH + "test_no_ack_of_hundreds_takes_more_than_it_covers", "-k", "redis"),
    ),
    _slip(
        "unacked-trimmed-by-a-claim",
        _HEAD,
        "acknowledge",
        "'MINID', '~', id(seq + 1)",
        "'MINID', '~', id(seq + 2)",
        "The ack of a claim trims a block of the log that has one unacked message.",
        (_LENGTH + "test_no_claim_of_hundreds_takes_more_than_it_covers", "-k", "redis"),
    ),
    _slip(
        "history-bytes-drift",
        _APPEND,
        "",
        "bytes + (sealed and SEALED_BYTES or SEAL_BYTES) + 1 - #item",
        "bytes + (sealed and SEALED_BYTES or SEAL_BYTES) - #item",
        "The bytes of a history are counted one too few for each message that has left it.",
        (_LENGTH + "test_a_full_history_stays_exact", "-k", "redis"),
    ),
    _slip(
        "history-bytes-drift-upwards",
        _APPEND,
        "",
        "bytes = bytes + #ARGV[j] - (string.byte(ARGV[j]) == SEAL_MARK and SEALED_BYTES or SEAL_BYTES)",
        "bytes = bytes + #ARGV[j]",
        "The bytes of a history are counted with their seals, and taken away without.",
        (_LENGTH + "test_a_full_history_stays_exact", "-k", "redis"),
    ),
    _slip(
        "epochs-as-text",
        _APPEND,
        "",
        "tonumber(ARGV[3]) > epoch and -4 or -3",
        "ARGV[3] > v[1] and -4 or -3",
        "From the tenth claim on a node that has lost a party is told that the store has lost its claim.",
        (_LENGTH + "test_epochs_of_two_digits_are_numbers", "-k", "redis"),
    ),
    _slip(
        "epochs-of-acks-as-text",
        _ACK,
        "",
        "tonumber(ARGV[3]) > epoch and -4 or -3",
        "ARGV[3] > v[1] and -4 or -3",
        "From the tenth claim on a node that acks for a party it has lost is told that the store has lost its claim.",
        (_LENGTH + "test_epochs_of_two_digits_are_numbers", "-k", "redis"),
    ),
    _slip(
        "epochs-of-a-reseed-as-text",
        _RESEED,
        "reseed_side",
        "local newer = tonumber(epoch) > known",
        "local newer = epoch > v[1]",
        "From the tenth claim on a node that gives a session back brings the holder before the last one.",
        (_LENGTH + "test_epochs_of_two_digits_are_numbers", "-k", "redis"),
    ),
    _slip(
        "line-read-to-five",
        _LINE,
        "operation.list_suited",
        "read_line(heads[i][2], math.floor(limit / lines), found)",
        "read_line(heads[i][2], math.min(5, math.floor(limit / lines)), found)",
        "Of a waiting line only the first five are ever matched in one pass.",
        (_LENGTH + "test_a_long_line_is_read_as_far_as_is_asked", "-k", "redis"),
    ),
    _slip(
        "requeued-without-want",
        _LINE,
        "requeue",
        "stand(session, order, want)",
        "want = '{}' redis.call('HSET', LINE, session, order .. ' ' .. want) stand(session, order, want)",
        "A session that its worker gave back is matched with any worker.",
        (_LENGTH + "test_a_session_that_waits_again_wants_what_it_wanted", "-k", "redis"),
    ),
    _slip(
        "given-back-without-want",
        _WORKERS,
        "operation.reseed",
        "ARGV[i + 1] .. ' ' .. ARGV[i + 2]",
        "ARGV[i + 1] .. ' {}'",
        "A session that a node gives back with its worker is matched with any worker when that one has gone.",
        (_LENGTH + "test_a_session_that_waits_again_wants_what_it_wanted", "-k", "redis"),
    ),
)

HTTP = (
    _slip(
        "page-begins-with-the-last-of-the-page-before",
        _REGISTRY,
        "operation.list_sessions_of",
        "'(' .. held(holder, after)",
        "'[' .. held(holder, after)",
        "Each page of the sessions of a subject begins with the last one of the page before.",
    ),
    _slip(
        "read-for-any-tenant",
        _HEAD,
        "is_allowed",
        "string.sub(v[1], 1, #text) == text",
        "#v[1] > #text",
        "A service that is bound to a tenant is shown the sessions of another one.",
    ),
    _slip(
        "pair-not-given-back",
        _RESEED,
        "reseed",
        "if known[HEAD.pair] == '0' then",
        "if known[HEAD.pair] == 0 then",
        "A session that wants no worker gets one after the store has lost it.",
    ),
)

LUA: tuple[Bug, ...] = (*AGAIN, *AT_LENGTH, *HTTP)
