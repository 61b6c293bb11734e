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
    Bug(
        "sdk-upload-gets-a-key-for-each-try",
        "signald/sdk/front/api.py",
        "Api.request",
        "said = {**tries.begin(), **headers}",
        "said = {**tries.begin(), **headers, 'idempotency-key': f'key-{tries.count}'}",
        "exactly-once",
        "An upload that is made again after its answer was lost is kept a second time.",
        ("tests/sdk/test_trio_blobs.py::test_an_upload_that_breaks_is_made_again",),
    ),
    Bug(
        "sdk-download-goes-on-from-its-start",
        "signald/sdk/blob_core.py",
        "Reading.headers",
        "f'bytes={self.position}-{last}'",
        "f'bytes={self.start}-{last}'",
        "exactly-once",
        "After a break the bytes that are here already are fetched again in the place of the missing ones.",
        ("tests/sdk/test_trio_blobs.py::test_a_download_that_breaks_goes_on_where_it_was",),
    ),
    Bug(
        "sdk-token-goes-to-the-signed-url",
        "signald/sdk/front/blobs.py",
        "BlobStream._begin",
        "self._asked(*place, {})",
        "self._asked(*place, shown)",
        "nobody-hurts",
        "A service that keeps media is shown the API token of a party.",
        ("tests/sdk/test_trio_blobs.py::test_a_signed_url_gets_no_credential",),
    ),
    Bug(
        "sdk-named-blob-is-any-path",
        "signald/sdk/blob_core.py",
        "target_of",
        "if blob and (not _ID.fullmatch(blob)):",
        "if not isinstance(blob, str):",
        "nobody-hurts",
        "What a peer names as a blob leads the reader's token to another request.",
        ("tests/sdk/test_trio_blobs.py::test_a_worker_names_its_session_and_no_name_leads_elsewhere",),
    ),
    Bug(
        "sdk-full-shelf-asked-for-ever",
        "signald/sdk/api_core.py",
        "Answer.is_passing",
        " and (not kind.endswith('-full'))",
        "",
        "liveness",
        "An upload for which there is no room is made again and again, and its caller is not told.",
        ("tests/sdk/test_trio_blobs.py::test_what_is_refused_raises",),
    ),
    Bug(
        "sdk-refusal-of-a-long-body-not-heard",
        "signald/sdk/requests.py",
        "Reply._refusal",
        "if self.status < 400:",
        "if self.status < 600:",
        "liveness",
        "A node that refuses a body and resets the connection is asked the same again and again.",
        ("tests/sdk/test_requests.py::test_a_refusal_whose_words_are_lost_counts_by_its_status",),
    ),
)
