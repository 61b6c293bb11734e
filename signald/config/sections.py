"""Every key an operator can set: its type, default, unit, range and why it is what it is.

This file is the one source of the configuration. The reference file `conf/signald.toml`, the tables of
`docs/configuration.md` and the loader's checks are derived from it, and tests hold them together.
Units stand last in the names: `_s` seconds, `_ms` milliseconds, `_max` an upper bound, `_per_s` a rate.
"""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class ListenConfig:
    """The addresses that signald listens on, and the origins that may open a WebSocket there."""

    websocket: tuple[str, ...] = key(
        ("127.0.0.1:8080",),
        "Addresses of the WebSocket listener for clients and workers: one, or a list. Port 0 lets the system choose one. "
        'An IPv6 address takes no IPv4: ["0.0.0.0:8080", "[::]:8080"] listens on both.',
        unit="host:port",
        one_or_more=True,
    )
    http: tuple[str, ...] = key(
        ("127.0.0.1:8081",),
        "Addresses of the HTTP listener, likewise: health and operation. Keep it off the public network.",
        unit="host:port",
        one_or_more=True,
    )
    tls_certificate_file: str = key(
        "",
        "PEM certificate chain of the WebSocket listener. Empty: plain TCP, TLS ends in front of signald.",
        unit="path",
        reload=True,
    )
    tls_key_file: str = key("", "PEM private key that belongs to the certificate.", unit="path", reload=True)
    backlog: int = key(
        4096,
        "TCP connections the kernel queues before they are accepted; a node that takes over another's "
        "parties sees them all arrive within seconds. The kernel's own limit (somaxconn) also applies.",
        unit="connections",
    )
    allowed_origins: tuple[str, ...] = key(
        (),
        'Web origins (scheme://host[:port]) whose pages may connect; "*" admits all. Empty: any request with an '
        "Origin header is refused with 403, which leaves SDKs outside browsers.",
        reload=True,
    )
    trusted_proxies: tuple[str, ...] = key(
        (),
        "Addresses or networks (CIDR) of proxies whose X-Forwarded-For is believed. Empty: the TCP peer counts.",
        reload=True,
    )


@attrs.frozen
class StoreConfig:
    """The store of sessions, logs and tokens; nodes that share a store form one cluster."""

    url: str = key(
        "sqlite:signald.db",
        "memory: (lost with the process), sqlite:PATH (one host, relative to the working directory), "
        "redis://, rediss:// (TLS), redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST. A reload applies another "
        "login, other addresses and TLS options of Redis; another kind of store, service or database needs a restart.",
        secret=True,
        reload=True,
    )
    url_file: str = key(
        "",
        "File that holds the URL instead, for a URL with a password. Excludes url. It is read again by a reload, and when Redis "
        "refuses the login.",
        unit="path",
        reload=True,
    )
    key_prefix: str = key(
        "signald",
        "Redis only: what the names of all keys and channels begin with, as in signald:{...}. Clusters that share a Redis "
        "differ in it, or in the database of the URL. Letters, digits and . _ - : only, as ACL rules are written with it.",
    )
    ack: Literal["process", "replica", "disk"] = key(
        "process",
        "What an ack promises the sender: the message survives the death of any signald process, of the "
        "primary store (replica), or of the power (disk). Each step costs latency.",
    )
    connect_timeout_s: float = key(1.0, "Longest wait for a connection to the store.", unit="seconds")
    command_timeout_s: float = key(
        2.0, "Longest wait for an answer of the store; after it the outcome counts as unknown.", unit="seconds"
    )
    poll_interval_s: float = key(
        0.005,
        "SQLite only: how often a node looks for changes of another process on the same file, and only while "
        "another node is registered. It is the delay of a message that crosses nodes.",
        unit="seconds",
    )
    batch_ops_max: int = key(
        512,
        "Most operations in one round trip to the store. Larger batches carry more under load and make the "
        "single operation wait longer.",
        unit="operations",
    )


@attrs.frozen
class NodeConfig:
    """The identity of this process in the cluster."""

    id: str = key(
        "",
        "Name of this node, unique in the cluster: at most 253 letters and digits, with dots, underscores and hyphens "
        "between them. A process is refused while another live one has its id. Empty: host name and a random suffix.",
    )
    release: str = key(
        "", "Release this node runs, shown by health and used to tell old from new. Empty: the package version."
    )
    lease_ttl_s: float = key(
        10.0,
        "A node silent for this long counts as dead and its parties as detached. Shorter finds a dead node "
        "sooner and mistakes a slow one for dead.",
        unit="seconds",
        at_least=1,
    )


@attrs.frozen
class AuthConfig:
    """The credentials of parties. Without a key every party is anonymous, which is refused beyond loopback."""

    insecure: bool = key(
        False,
        "Admit anonymous parties on every address. Only for networks that are closed otherwise.",
        reload=True,
    )
    jwt_secret: str = key(
        "", "Shared secret of HS256 tokens, at least 32 bytes (HS384: 48, HS512: 64).", secret=True, reload=True
    )
    jwt_secret_file: str = key(
        "",
        "File that holds the shared secret; white space around it is dropped. Excludes jwt_secret.",
        unit="path",
        reload=True,
    )
    jwt_public_key_file: str = key(
        "",
        "PEM public key (RSA, EC or Ed25519) that tokens are verified with. Excludes a shared secret.",
        unit="path",
        reload=True,
    )
    jwks_file: str = key(
        "",
        "JWK set (RFC 7517) whose public keys all count; a token names its key by kid. Excludes the other keys. A reload reads it again.",
        unit="path",
        reload=True,
    )
    jwks_url: str = key(
        "",
        "URL where the issuer publishes its JWK set, likewise; it is fetched in the background, and again for an unknown kid. It must be "
        "https, or http to loopback. A private CA goes into SSL_CERT_FILE.",
        unit="URL",
        reload=True,
    )
    jwks_allow_http: bool = key(
        False,
        "Fetch jwks_url over http from other hosts too. Any machine between can put its own keys in; only for a mesh that encrypts.",
        reload=True,
    )
    jwks_life_s: float = key(
        300.0,
        "How long a fetched set counts as new, unless the answer's max-age says it (between 60 s and 1 hour). It is refreshed before that, "
        "and a key that the issuer withdraws is refused at the latest then.",
        unit="seconds",
        at_least=60,
        at_most=3600,
        reload=True,
    )
    jwks_refetch_s: float = key(
        10.0,
        "Least time between two fetches that tokens with an unknown kid can cause: a flood of them asks the issuer this often.",
        unit="seconds",
        at_least=1,
        at_most=300,
        reload=True,
    )
    jwks_stale_max_s: float = key(
        86_400.0,
        "How long the last good set goes on while the URL gives no other; after it no JWT is judged (1013). An issuer that is away for a "
        "day issues nothing either, so its tokens have run out by then.",
        unit="seconds",
        at_least=3600,
        reload=True,
    )
    jwt_algorithms: tuple[str, ...] = key(
        (),
        "Algorithms that are accepted. Empty: the one that fits the key, or that a JWK names. HS* never goes with a public key.",
        reload=True,
    )
    jwt_issuer: str = key("", "Required iss claim. Empty: any.", reload=True)
    jwt_audience: str = key("", "Required aud claim. Empty: any.", reload=True)
    expiry_grace_s: float = key(
        0.0,
        "How long a connected party whose JWT has run out may take to send a new one (`auth`); then it is closed with 4401. 0: a JWT "
        "counts at the opening only. SDKs before 0.3 know no `auth`.",
        unit="seconds",
        at_least=0,
        at_most=3600,
        reload=True,
    )
    revoked_keep_s: float = key(
        2_592_000.0,
        "How long a revoked subject is remembered: no shorter than the longest life of a token, which would be good again after it.",
        unit="seconds",
        at_least=3600,
        reload=True,
    )
    leeway_s: float = key(
        5.0,
        "Tolerated difference of clocks when exp and nbf are checked.",
        unit="seconds",
        at_least=0,
        at_most=300,
        reload=True,
    )
    api_token_ttl_s: float = key(
        900.0,
        "How long an API token is good. A connected party is given the next one when half of it is over. A token cannot be called back one "
        "by one, so a short life bounds what a stolen one is worth.",
        unit="seconds",
        at_least=5,
        at_most=86_400,
        reload=True,
    )
    api_token_rotate_s: float = key(
        86_400.0,
        "How long a key that signald has made signs API tokens before the next one takes its place. The one before stays until its last "
        "token has run out, so a rotation refuses none.",
        unit="seconds",
        at_least=600,
        reload=True,
    )
    api_token_key: str = key(
        "",
        "Keys of API tokens instead of those that signald makes and keeps in the store: one or several with blanks between, of at least 32 "
        "bytes. The first signs, all verify. Every node of a cluster needs the same.",
        secret=True,
        reload=True,
    )
    api_token_key_file: str = key(
        "",
        "File that holds these keys; white space around them is dropped. Excludes api_token_key.",
        unit="path",
        reload=True,
    )
    cookie_name: str = key(
        "",
        "Cookie in which a browser shows its JWT (role client) to the HTTP API. Empty: none is read. Requests with it are held to "
        "listen.allowed_origins.",
        reload=True,
    )


@attrs.frozen
class LimitsConfig:
    """The bounds of one connection, and of all together. Every queue of signald is bounded by one of these."""

    message_bytes_max: int = key(
        65_536,
        "Largest message; a larger one closes the connection with 1009. Media belongs on its own channel.",
        unit="bytes",
        at_least=1024,
        at_most=16_777_216,
        reload=True,
    )
    fragments_max: int = key(
        128,
        "Most WebSocket fragments of one message; endless tiny ones are a way to burn CPU.",
        unit="fragments",
        reload=True,
    )
    json_depth_max: int = key(32, "Deepest nesting of a JSON message.", unit="levels", at_most=512, reload=True)
    send_queue_bytes_max: int = key(
        1_048_576,
        "Bytes waiting to be written to one connection. When full the sender is held back; at twice this the "
        "connection is closed with 4508 (slow consumer).",
        unit="bytes",
        reload=True,
    )
    send_queue_messages_max: int = key(1000, "The same, counted in messages.", unit="messages", reload=True)
    send_queues_bytes_max: int = key(
        100_663_296,
        "The bytes of all send queues of this node to which a write waits. Beyond it the largest queues are closed with 4508: a "
        "hundred peers that take nothing, or four thousand that are 24 KiB late.",
        unit="bytes",
        at_least=8_388_608,
        reload=True,
    )
    logs_bytes_max: int = key(
        201_326_592,
        "Bytes of messages that this node holds in memory for all sessions: not stored yet, or not acked. Beyond it senders whose "
        "session holds more than 16 KiB are pushed back (backlog). Four thousand sessions have 48 KiB each.",
        unit="bytes",
        at_least=8_388_608,
        reload=True,
    )
    requests_per_s: float = key(
        20.0,
        "HTTP requests per second of one principal (without a credential: of one address) in the long run: as many as messages. "
        "Beyond it 429. 0: no limit.",
        unit="requests/s",
        at_least=0,
        reload=True,
    )
    requests_burst: int = key(
        100, "HTTP requests of one principal at once before the rate applies.", unit="requests", reload=True
    )
    request_bodies_bytes_max: int = key(
        33_554_432,
        "Bytes of all HTTP bodies that this node holds in memory: five hundred of message_bytes_max. Beyond it 503. Bodies that "
        "are passed on in pieces do not count.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    messages_per_s: float = key(
        20.0,
        "Messages per second a client may send in the long run; a person and an app stay far below.",
        unit="messages/s",
        reload=True,
    )
    messages_burst: int = key(
        100, "Messages a client may send at once before the rate applies.", unit="messages", reload=True
    )
    backlog_messages_max: int = key(
        1000,
        "Messages stored for a receiver that has not acked them. When full the sender is pushed back, "
        "nothing is dropped.",
        unit="messages",
        reload=True,
    )
    backlog_bytes_max: int = key(1_048_576, "The same, counted in bytes.", unit="bytes", reload=True)
    sessions_max: int = key(
        50_000,
        "Sessions alive in the store, of all nodes; a further new one is refused with busy, a resume never. A session takes 3 KiB "
        "in Redis, and what it holds. One address or principal may have admission.address_share of them.",
        unit="sessions",
        reload=True,
    )
    address_bytes_max: int = key(
        33_554_432,
        "Bytes that the clients of one address (an IPv6 /64) make the store keep through this node: meta, messages not acked, "
        "history. Beyond it a session with more than 16 KiB not acked is pushed back (backlog), so that those whose worker acks go on.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    trails_bytes_max: int = key(
        268_435_456,
        "Bytes in the store that the trails of all sessions take, which outlive them (session.trail_keep_s). Beyond it the "
        "trails whose last step is the oldest are removed. A session that comes, is paired and goes takes about 1 KiB: 250,000 "
        "of them.",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    sessions_per_worker_max: int = key(
        1000,
        "Most sessions of one worker, whatever capacity it announces.",
        unit="sessions",
        reload=True,
    )
    claim_ahead_max: int = key(
        2_000_000,
        "How far beyond the stored numbers of its session a party is believed (`received`, `acked`, acks). Honest parties "
        "know more than a store that was restored from a snapshot: a day at 20 messages/s is 1,728,000. A claim beyond it is "
        "refused, and the session kept.",
        unit="messages",
        at_least=0,
        at_most=1_000_000_000_000,
        reload=True,
    )


@attrs.frozen
class TimeoutsConfig:
    """How long signald waits for the other side of a connection."""

    handshake_s: float = key(5.0, "TLS and WebSocket handshake, each.", unit="seconds", reload=True)
    hello_s: float = key(
        5.0, "From the handshake to the party's opening message; then 4408.", unit="seconds", reload=True
    )
    ping_interval_s: float = key(
        20.0,
        "Silence after which signald pings. Keep it below every proxy's idle timeout.",
        unit="seconds",
        reload=True,
    )
    pong_timeout_s: float = key(
        20.0, "Wait for the pong; then the connection is closed with 4408.", unit="seconds", reload=True
    )
    write_s: float = key(
        10.0, "A write that makes no progress for this long cuts the connection.", unit="seconds", reload=True
    )
    close_s: float = key(5.0, "Wait for the peer's half of the closing handshake.", unit="seconds", reload=True)
    http_body_s: float = key(
        10.0,
        "Silence within the body of an HTTP request before its connection is cut; as write_s for the other direction.",
        unit="seconds",
        reload=True,
    )
    http_idle_s: float = key(
        75.0,
        "Silence between two HTTP requests before the connection is closed. Longer than the minute for which proxies keep "
        "theirs, so that a proxy does not send a request into a connection that is being closed.",
        unit="seconds",
        reload=True,
    )
    assign_s: float = key(
        5.0,
        "A worker's time to accept or refuse a session before another worker is asked.",
        unit="seconds",
        reload=True,
    )


@attrs.frozen
class SessionConfig:
    """The state that outlives a connection, and for how long."""

    resume_ttl_s: float = key(
        300.0,
        "A session whose client stays away longer than this ends. It covers a page reload, a tunnel, a deploy.",
        unit="seconds",
        reload=True,
    )
    history_messages_max: int = key(
        100,
        "Messages of the chat history kept for a reload or a new worker.",
        unit="messages",
        at_least=0,
        reload=True,
    )
    history_bytes_max: int = key(262_144, "The same, counted in bytes.", unit="bytes", at_least=0, reload=True)
    trail_steps_max: int = key(
        100,
        "Steps of a session's way (started, paired, told to go, resumed ...) kept for ctl trace. 0: none.",
        unit="steps",
        at_least=0,
        at_most=10_000,
        reload=True,
    )
    trail_keep_s: float = key(
        86_400.0,
        "How long they are kept after the last of them, beyond the session's end, as far as limits.trails_bytes_max goes.",
        unit="seconds",
        reload=True,
    )


@attrs.frozen
class WorkerConfig:
    """The sessions of a worker that is away: how long they wait for it, and what follows."""

    resume_timeout_s: float = key(
        10.0,
        "How long a worker may be away and still find its sessions; longer delays the rescue of those whose "
        "worker is dead.",
        unit="seconds",
        reload=True,
    )
    on_loss: Literal["reassign", "hold", "end"] = key(
        "reassign",
        "After that time: give the session to another worker with its chat history, hold it for the same "
        "worker until it expires, or end it.",
        reload=True,
    )
    failures_max: int = key(
        5,
        "Hand-outs of a session that may fail at the same message (the worker was lost, or gave the session back) before "
        "the session is set aside. Fewer would set sessions aside when several workers fail by chance; each more may cost "
        "another worker.",
        unit="hand-outs",
        reload=True,
    )
    adopt_streams_s: float = key(
        10.0,
        "How long a worker that gets a session with open streams may take to speak in them, before signald ends them as "
        "interrupted. Long enough to load a conversation and begin an answer; until then its client sees it as going on.",
        unit="seconds",
        reload=True,
    )


@attrs.frozen
class JobsConfig:
    """Jobs: their bounds, and how long they are kept."""

    in_flight_max: int = key(
        100,
        "Unfinished jobs of one session; one more is answered 429. A client that waits for a hundred results waits for its worker.",
        unit="jobs",
        at_least=1,
        at_most=1000,
        reload=True,
    )
    input_bytes_max: int = key(
        0,
        "Longest input of a job; a longer one is answered 413. It travels to its worker in one message, so it is never more than "
        "limits.message_bytes_max less 1 KiB, and 0 is as much as that.",
        unit="bytes",
        at_least=0,
        reload=True,
    )
    result_bytes_max: int = key(
        1_048_576,
        "All that is kept of the result of one job; with more the job is failed. Larger results are blobs.",
        unit="bytes",
        at_least=1024,
        at_most=16_777_216,
        reload=True,
    )
    keep_s: float = key(
        3600.0,
        "How long a job that has ended is kept, with its result and its idempotency key, also beyond the end of its session. A program "
        "that retries for an hour makes one job.",
        unit="seconds",
        at_least=1,
        at_most=604_800,
        reload=True,
    )
    failures_max: int = key(
        3,
        "Workers that may be lost with a job before it is failed. Two may be lost by chance; a job that kills workers costs three.",
        unit="workers",
        at_least=1,
        reload=True,
    )
    cancel_timeout_s: float = key(
        10.0,
        "How long a worker has to end a job itself that is cancelled by request.",
        unit="seconds",
        at_least=0,
        reload=True,
    )


@attrs.frozen
class BlobsConfig:
    """Blobs, such as voice messages: where their bytes lie, and how many of them."""

    url: str = key(
        "",
        "file:PATH (a directory of signald's own, relative to the working directory), s3://BUCKET/PREFIX, memory: (with a memory "
        "store), or off. Empty: beside the SQLite file, with .blobs behind its name; with Redis none, as its nodes may share no disk.",
    )
    endpoint: str = key(
        "",
        "S3 only: the URL of another service than AWS, such as https://minio.example:9000. Buckets are part of the path there.",
        unit="URL",
    )
    region: str = key("us-east-1", "S3 only: the region of the bucket, which signatures name.")
    credentials: Literal["keys", "environment"] = key(
        "keys",
        "S3 only: keys takes access_key and secret_key alone. environment takes what AWS gives a process: AWS_ACCESS_KEY_ID and its "
        "kin, a web identity, or the role of the machine.",
    )
    access_key: str = key("", "S3 only: the id of the access key.", secret=True)
    access_key_file: str = key("", "File that holds the id instead. Excludes access_key.", unit="path")
    secret_key: str = key("", "S3 only: the secret of the access key.", secret=True)
    secret_key_file: str = key("", "File that holds the secret instead. Excludes secret_key.", unit="path")
    spool_directory: str = key(
        "",
        "S3 only: where an upload waits until it is whole, up to uploads_in_progress_max x bytes_max. On a disk: in a tmpfs it "
        "would take memory. Empty: $CACHE_DIRECTORY, which systemd sets, else the temporary directory of the system.",
        unit="path",
    )
    bytes_max: int = key(
        10_485_760,
        "Longest blob; a longer one is answered 413. Ten minutes of speech in Opus are 2 MiB, in 128 kbit/s MP3 9 MiB.",
        unit="bytes",
        at_least=1024,
        at_most=5_368_709_120,
        reload=True,
    )
    principal_bytes_max: int = key(
        1_073_741_824,
        "All blobs of one principal, or of one anonymous session; one more is refused. Five hundred voice messages of ten minutes.",
        unit="bytes",
        at_least=1024,
        reload=True,
    )
    keep_s: float = key(
        2_592_000.0,
        "How long a blob is kept: 30 days.",
        unit="seconds",
        at_least=1,
        reload=True,
    )
    redirect: bool = key(
        False,
        "S3 only: answer a download with a redirect to a signed URL of the endpoint, so that the bytes do not go through the node. The "
        "client must reach the endpoint.",
        reload=True,
    )
    uploads_in_progress_max: int = key(
        64,
        "Uploads under way at once at this node; one more is answered 503. Each holds 64 KiB, a file, and two descriptors.",
        unit="uploads",
        at_least=1,
        reload=True,
    )
    uploads_of_principal_max: int = key(
        8,
        "Of them, those of one principal or anonymous session; one more is answered 429.",
        unit="uploads",
        at_least=1,
        reload=True,
    )
    downloads_in_progress_max: int = key(
        64,
        "Downloads through this node at once; one more is answered 503. Each holds up to two pieces of 64 KiB.",
        unit="downloads",
        at_least=1,
        reload=True,
    )
    threads: int = key(
        16,
        "Calls of the disk or of S3 at once; more wait. With a service that answers in 20 ms, 16 carry 50 MiB/s.",
        unit="threads",
        at_least=1,
        at_most=256,
    )
    timeout_s: float = key(
        10.0,
        "S3 only: for one request, its body of at most 5 MiB included; it is tried twice. An abandoned call ends with it, within the "
        "minute after which the bytes of a lost upload are deleted.",
        unit="seconds",
        at_least=0.1,
        at_most=25,
    )


@attrs.frozen
class RoomsConfig:
    """Rooms: what one may hold, how long it is kept, and what a party without the claim `rooms` may do."""

    members_max: int = key(
        1000,
        "Members of one room; a join beyond it is refused. A publication is written to each, which takes a node some milliseconds.",
        unit="members",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    records_max: int = key(
        10_000,
        "Records of one room; a publication that would make more is refused. A large drawing has a few thousand shapes.",
        unit="records",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    record_bytes_max: int = key(
        65_536,
        "Largest record, with its id. A joiner gets it in one frame, so it is never more than 64 KiB. Media are blobs.",
        unit="bytes",
        at_least=256,
        at_most=65_536,
        reload=True,
    )
    room_bytes_max: int = key(
        8_388_608,
        "All that a room holds beside its log: records, the snapshot, and the updates behind it. A joiner gets all of it.",
        unit="bytes",
        at_least=65_536,
        at_most=67_108_864,
        reload=True,
    )
    history_messages_max: int = key(
        1000,
        "Publications of one room that are kept for members that come back. Three quarters of a minute at the rate of a client.",
        unit="messages",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    history_bytes_max: int = key(
        4_194_304,
        "The same, counted in bytes: a thousand of 4 KiB.",
        unit="bytes",
        at_least=65_536,
        at_most=67_108_864,
        reload=True,
    )
    tombstones_max: int = key(
        1000,
        "Removed records that are remembered, so that a member that comes back gets what has changed, and not all records anew.",
        unit="records",
        at_least=0,
        at_most=100_000,
        reload=True,
    )
    keep_s: float = key(
        86_400.0,
        "How long a room without members is kept: a day, after which whoever wants its content has saved it elsewhere.",
        unit="seconds",
        at_least=1,
        at_most=31_536_000,
        reload=True,
    )
    default_rights: tuple[str, ...] = key(
        (),
        "What a party may do in every room whose token has no claim rooms, and which the core server gives none either: join, publish, "
        "state. Empty: nothing. Without auth everything is allowed.",
        reload=True,
    )


@attrs.frozen
class CoreConfig:
    """The core server of the operator's application: it is asked before a new party is let in, and told what happens."""

    authorize_url: str = key(
        "",
        "Where each new party is asked for by POST before it is let in. Empty: a good credential is enough. It may be an inner "
        "address. It must be https, or http to loopback.",
        unit="URL",
        reload=True,
    )
    authorize_timeout_s: float = key(
        2.0,
        "For one such question with its answer; after it the core server counts as away. An opening waits this long at most.",
        unit="seconds",
        at_least=0.05,
        at_most=30,
        reload=True,
    )
    on_failure: Literal["closed", "open"] = key(
        "closed",
        "While the core server is away: refuse new parties (core_unavailable, 1013), or let them in without its settings. Parties that "
        "resume never wait for it.",
        reload=True,
    )
    authorize_cache_max: int = key(
        10_000,
        "Answers with ttl_ms that a node keeps, in 16 MiB at most; the one not used for longest goes first. 0: each party is asked for.",
        unit="answers",
        at_least=0,
        at_most=1_000_000,
        reload=True,
    )
    authorize_in_flight_max: int = key(
        64,
        "Questions of this node that wait for an answer at once; the next waits for one of them, within its own time. A core server that "
        "answers in 20 ms is asked 3,200 times a second so.",
        unit="questions",
        at_least=1,
        at_most=1024,
        reload=True,
    )
    breaker_failures_max: int = key(
        5,
        "Failures in a row after which the core server counts as away without being asked, so that new parties need not wait for a "
        "time-out each.",
        unit="failures",
        at_least=1,
        reload=True,
    )
    breaker_pause_s: float = key(
        5.0,
        "How long it is not asked then; after it a single party's question tries whether it is back.",
        unit="seconds",
        at_least=0.1,
        at_most=300,
        reload=True,
    )
    allow_http: bool = key(
        False,
        "Speak http with other hosts too. Any machine between can read claims and change answers; only for a mesh that encrypts.",
        reload=True,
    )
    secret: str = key(
        "",
        "Secret of Standard Webhooks (whsec_ and the base64 of 24 to 64 bytes) that signs what the core server is sent. Empty: nothing "
        "is signed.",
        secret=True,
        reload=True,
    )
    secret_file: str = key("", "File that holds it instead. Excludes secret.", unit="path", reload=True)
    secret_previous: str = key(
        "",
        "The secret before. While it is set both sign, so that the core server can change to the new one at any moment.",
        secret=True,
        reload=True,
    )
    secret_previous_file: str = key(
        "", "File that holds it instead. Excludes secret_previous.", unit="path", reload=True
    )
    events_url: str = key(
        "",
        "Where the events in the lives of sessions, workers, jobs and deploys are told by POST. Empty: no event is stored, and none told. "
        "It may be an inner address. It must be https, or http to loopback.",
        unit="URL",
        reload=True,
    )
    events_timeout_s: float = key(
        10.0,
        "For one event with its answer; after it the event is tried again. A receiver should answer first and work then.",
        unit="seconds",
        at_least=0.1,
        at_most=60,
        reload=True,
    )
    events_keep_s: float = key(
        86_400.0,
        "For how long an event is tried again after it has happened; then it is dropped and counted. A day outlasts a repair.",
        unit="seconds",
        at_least=60,
        at_most=86_400,
        reload=True,
    )
    events_queue_max: int = key(
        1000,
        "Events of one session (worker, cluster) that wait; beyond it new ones are dropped and counted. A session has a dozen in its life, "
        "and two for each absence of its client. At 200 bytes each, 200 KB of the store.",
        unit="events",
        at_least=10,
        at_most=100_000,
        reload=True,
    )
    events_in_flight_max: int = key(
        16,
        "Events that a node tells at once, each of another session. A receiver that answers in 20 ms gets 800 in a second so.",
        unit="events",
        at_least=1,
        at_most=1024,
        reload=True,
    )


@attrs.frozen
class AdmissionConfig:
    """The load that a node admits at once. An admitted party is never evicted to make room; an unknown peer may be."""

    connections_max: int = key(
        20_000,
        "Open connections of this node. Each also needs a file descriptor.",
        unit="connections",
        reload=True,
    )
    handshakes_in_progress_max: int = key(
        4096,
        "WebSocket handshakes under way at once, and behind them as many connections without an opening message. When all are "
        "taken, the oldest silent peer gives way to a newcomer. As many as the kernel queues; each needs a file descriptor.",
        unit="handshakes",
        reload=True,
    )
    http_connections_max: int = key(
        1024,
        "HTTP connections on the WebSocket listener, beside connections_max; each needs a file descriptor. When all are taken, an "
        "idle one gives way, or one of the address with the most. A core answers about 1,500 requests per second.",
        unit="connections",
        reload=True,
    )
    strangers_bytes_max: int = key(
        33_554_432,
        "Bytes received from all peers that are not let in yet: a thousand full requests and as many small opening messages; and as "
        "many again of parties' messages that are not complete. Beyond it the largest of the address with the most is closed (1013).",
        unit="bytes",
        at_least=1_048_576,
        reload=True,
    )
    address_share: float = key(
        0.5,
        "Part of the connections and of the set-ups that one remote address (an IPv6 /64) may hold, and the clients of one "
        "principal, so that others find room. A half lets a proxy that is not in listen.trusted_proxies carry a busy node; lower it "
        "where addresses and subjects are real, and set it to 1 where all clients have one subject.",
        unit="share",
        at_most=1,
        reload=True,
    )
    setups_in_progress_max: int = key(
        256,
        "Sessions being started or resumed at once; it bounds the load on the store in a storm.",
        unit="set-ups",
        reload=True,
    )
    resume_reserved_share: float = key(
        0.5,
        "Part of the set-ups only resumes may use, so that new sessions cannot starve those that wait to continue.",
        unit="share",
        at_least=0,
        at_most=1,
        reload=True,
    )
    connects_per_s: float = key(
        0.0,
        "New connections per second from one remote address. 0: no limit, as many people share one address.",
        unit="connections/s",
        at_least=0,
        reload=True,
    )
    connects_burst: int = key(100, "Connections of one address admitted at once.", unit="connections", reload=True)
    retry_after_ms: int = key(
        1000,
        "Least wait that a refused party is told; each gets a random addition.",
        unit="milliseconds",
        reload=True,
    )


@attrs.frozen
class DrainConfig:
    """Budgets of a shutdown. Their sum must fit `stop_timeout_s` or the configuration is refused."""

    timeout_s: float = key(
        60.0,
        "From the start of a drain to its end; what is not done by then is closed with 1001.",
        unit="seconds",
        reload=True,
    )
    stop_timeout_s: float = key(
        75.0,
        "What the supervisor grants before it kills: TimeoutStopSec of systemd, terminationGracePeriodSeconds of "
        "Kubernetes less its preStop time.",
        unit="seconds",
        reload=True,
    )
    margin_s: float = key(
        5.0,
        "Kept free before the supervisor's limit, so that signald always ends by itself.",
        unit="seconds",
        at_least=0,
        reload=True,
    )
    unready_s: float = key(
        0.0,
        "Pause after readiness turned false, for load balancers that take a while to notice. 10 to 20 s where "
        "no preStop pause is configured.",
        unit="seconds",
        at_least=0,
        reload=True,
    )
    successor_timeout_s: float = key(
        10.0,
        "Wait for a ready node to hand over to; none: parties are told to come back (1012).",
        unit="seconds",
        reload=True,
    )
    worker_timeout_s: float = key(
        10.0,
        "A worker's time to claim its sessions on the successor before it is given up.",
        unit="seconds",
        reload=True,
    )
    client_timeout_s: float = key(
        10.0,
        "A client's time to resume on the successor before it is closed with 1001.",
        unit="seconds",
        reload=True,
    )
    terminate_timeout_s: float = key(
        10.0,
        "Wait for app_terminated of workers that do not speak handover.",
        unit="seconds",
        reload=True,
    )
    flush_timeout_s: float = key(
        2.0,
        "Time for send queues and appends under way, and for the receipt.",
        unit="seconds",
        reload=True,
    )
    close_timeout_s: float = key(2.0, "Time for the closing handshakes of what is left.", unit="seconds", reload=True)


@attrs.frozen
class PaceConfig:
    """The rate at which drains move parties: one budget for the whole cluster."""

    sessions_per_s: float = key(
        200.0,
        "Sessions moved per second by all draining nodes together. Slowed when successors fall behind, hurried "
        "when the deadline nears.",
        unit="sessions/s",
        reload=True,
    )
    gap_max_s: float = key(
        1.0,
        "Longest pause between two parties that are told to go, however slow the successors are.",
        unit="seconds",
        at_most=60,
        reload=True,
    )


@attrs.frozen
class AdminConfig:
    """The access of operators to this node. `signald ctl` uses the Unix socket unless it is given a URL."""

    socket: str = key(
        "",
        "Unix socket of the admin API; only the user signald runs as, and root, can open it. Empty: the node's id with "
        ".sock, in $RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/signald, else /tmp/signald-UID. off: no socket.",
        unit="path",
    )
    token: str = key(
        "",
        "Bearer token that opens the admin API on listen.http as well, at least 32 characters.",
        secret=True,
        reload=True,
    )
    token_file: str = key(
        "",
        "File that holds the token instead. Neither: the admin API is on the Unix socket only.",
        unit="path",
        reload=True,
    )


@attrs.frozen
class LogConfig:
    """The lines that signald writes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = key("info", "Least severity that is written.", reload=True)
    format: Literal["auto", "json", "console"] = key(
        "auto",
        "json: one object per line, for collectors. console: text for a person. auto: console where standard error is a "
        "terminal, else json.",
        reload=True,
    )


@attrs.frozen
class TelemetryConfig:
    """Spans of OpenTelemetry, which need the extra signald[otel]. Metrics are at /metrics, always."""

    otlp_endpoint: str = key(
        "",
        "Where spans are sent, by OTLP over HTTP, such as http://127.0.0.1:4318. Empty: nowhere, unless "
        "OTEL_EXPORTER_OTLP_ENDPOINT says so.",
        unit="URL",
    )


@attrs.frozen
class Config:
    """The whole configuration. `Config()` holds the defaults; `load` fills and checks it."""

    listen: ListenConfig = attrs.field(factory=ListenConfig)
    store: StoreConfig = attrs.field(factory=StoreConfig)
    node: NodeConfig = attrs.field(factory=NodeConfig)
    auth: AuthConfig = attrs.field(factory=AuthConfig)
    limits: LimitsConfig = attrs.field(factory=LimitsConfig)
    timeouts: TimeoutsConfig = attrs.field(factory=TimeoutsConfig)
    session: SessionConfig = attrs.field(factory=SessionConfig)
    worker: WorkerConfig = attrs.field(factory=WorkerConfig)
    jobs: JobsConfig = attrs.field(factory=JobsConfig)
    blobs: BlobsConfig = attrs.field(factory=BlobsConfig)
    rooms: RoomsConfig = attrs.field(factory=RoomsConfig)
    core: CoreConfig = attrs.field(factory=CoreConfig)
    admission: AdmissionConfig = attrs.field(factory=AdmissionConfig)
    drain: DrainConfig = attrs.field(factory=DrainConfig)
    pace: PaceConfig = attrs.field(factory=PaceConfig)
    admin: AdminConfig = attrs.field(factory=AdminConfig)
    log: LogConfig = attrs.field(factory=LogConfig)
    telemetry: TelemetryConfig = attrs.field(factory=TelemetryConfig)


SECTIONS: dict[str, type] = {field.name: field.type for field in attrs.fields(Config) if field.type is not None}
