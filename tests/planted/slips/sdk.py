"""Slips in the SDK, which is the other side of every promise."""

from tests.planted.bug import Bug

_SDK_CORE = "signald/sdk/core.py"
_SDK_PARTY = "signald/sdk/party_core.py"
_SDK_WORKER = "signald/sdk/worker_core.py"
_SDK_CLIENT = "signald/sdk/client_core.py"
_SDK_BACKOFF = "signald/sdk/backoff.py"
_SDK_VALUES = "signald/sdk/values.py"
_SDK_DECODING = "signald/sdk/decoding.py"
_CODEC = "signald/wire/codec.py"

SDK = (
    Bug(
        "sdk-acks-what-it-received",
        _SDK_CORE,
        "SessionCore.receive",
        "self.received = self._behind_lost(seq)",
        "self.received = self.finished = self._behind_lost(seq)",
        "exactly-once",
        "A message is acked before the application has it.",
    ),
    Bug(
        "sdk-dedupes-nothing",
        _SDK_CORE,
        "SessionCore.receive",
        (
            "    if seq <= self.received:\n"
            "        self.ack_again()\n"
            "        return False\n"
            "    if seq != self.received + 1:\n"
        ),
        "    if seq > self.received + 1:\n",
        "exactly-once",
        "A message that is replayed reaches the application again.",
    ),
    Bug(
        "sdk-resends-nothing",
        _SDK_CORE,
        "SessionCore.attach",
        "    self.sent = self.accepted\n",
        "",
        "liveness",
        "What was on its way when the connection broke is not sent again.",
    ),
    Bug(
        "sdk-waiting-ack-forgotten",
        _SDK_CORE,
        "SessionCore.wake_at",
        ", self._ack_at)",
        ", NEVER)",
        "liveness",
        "The ack of the last pieces leaves only when something else is written.",
        ("tests/sdk/test_core.py::test_acks_of_pieces_gather",),
    ),
    Bug(
        "sdk-drops-what-is-unacked",
        _SDK_CORE,
        "SessionCore.attach",
        "self.acked(accepted)",
        "self.acked(self.sent)",
        "exactly-once",
        "What was on its way when the connection broke counts as stored.",
    ),
    Bug(
        "sdk-does-not-go-back",
        _SDK_CORE,
        "SessionCore.refused",
        "    self.sent = expected - 1\n",
        "",
        "liveness",
        "What signald refused is not offered again.",
    ),
    Bug(
        "sdk-breaks-before-it-makes",
        _SDK_PARTY,
        "PartyCore.goaway",
        "    self._move = message\n",
        ("    self._move = message\n    self.lost(link, None, 'told to go', now)\n"),
        "one-hop",
        "A party that is told to go leaves before it has somewhere to go.",
    ),
    Bug(
        "sdk-connects-twice",
        _SDK_PARTY,
        "PartyCore.plan",
        "if self.over is not None or self.opening is not None:",
        "if self.over is not None:",
        "one-hop",
        "A second connection is opened while the first waits for its answer.",
    ),
    Bug(
        "sdk-comes-back-in-step",
        _SDK_BACKOFF,
        "Backoff.delay_s",
        "entropy.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(tries, 63)))",
        "min(self.cap_s, self.base_s * 2.0 ** min(tries, 63))",
        "paced",
        "All parties of a node that died come back at the same moment.",
    ),
    Bug(
        "sdk-keeps-what-it-lost",
        _SDK_WORKER,
        "WorkerCore._reconnected",
        "if name not in kept and name in self.sessions:",
        "if name in kept and name not in self.sessions:",
        "single-owner",
        "A worker goes on with sessions that were given to others while it was away.",
    ),
    Bug(
        "sdk-hears-the-peer-from-the-node-it-left",
        _SDK_CLIENT,
        "ClientCore._dispatch",
        "case PeerChanged() if link is self.current:",
        "case PeerChanged():",
        "sticky",
        "What a node that was left says of the worker overrides what the new one said.",
    ),
    Bug(
        "sdk-odd-value-ends-its-reader",
        _SDK_VALUES,
        "read",
        "(msgspec.DecodeError, UnicodeDecodeError, RecursionError)",
        "UnicodeDecodeError",
        "nobody-hurts",
        "A value that Python cannot hold ends the worker that gets it.",
    ),
    Bug(
        "sdk-depth-is-no-decoding-error",
        _SDK_DECODING,
        "_decode",
        (
            "        return (decoder.decode(payload), binary)\n"
            "    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:\n"
        ),
        (
            "        return (decoder.decode(payload), binary)\n"
            "    except (msgspec.DecodeError, UnicodeDecodeError) as error:\n"
        ),
        "nobody-hurts",
        "A frame that is nested too deep ends the program that gets it.",
    ),
    Bug(
        "sdk-negative-deadline-believed",
        _SDK_WORKER,
        "WorkerCore._asked",
        "max(message.deadline_ms, 0)))",
        "message.deadline_ms))",
        "nobody-hurts",
        "A deadline that is over ends the worker with an error instead of in order.",
    ),
    Bug(
        "sdk-never-rests",
        _SDK_BACKOFF,
        "Schedule._rest_s",
        ">= QUICK_MAX",
        "< 0",
        "nobody-hurts",
        "A service that answers and then breaks every connection keeps a party dialling.",
    ),
    Bug(
        "wrong-frame-of-a-worker-is-an-error-of-the-node",
        _CODEC,
        "session_of",
        "UnicodeDecodeError, RecursionError):",
        "UnicodeDecodeError):",
        "nobody-hurts",
        "The session of a frame that is nested too deep is looked for in a way that fails.",
    ),
)
