"""The rules between keys. Each check yields the keys that break its rule, and the remedy."""

import base64
import ipaddress
import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from signald.config.media_urls import FORMS as MEDIA_FORMS
from signald.config.media_urls import OFF, bucket_and_prefix, media_scheme
from signald.config.origins import origin_problem
from signald.config.problems import suggestion
from signald.config.sections import (
    AdminConfig,
    AuthConfig,
    BlobsConfig,
    Config,
    CoreConfig,
    DrainConfig,
    ListenConfig,
    NodeConfig,
    RoomsConfig,
)
from signald.config.store_urls import FORMS

Finding = tuple[tuple[str, ...], str]

# RFC 7518 3.2 wants a key at least as long as the hash.
HMAC_SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
PUBLIC_KEY_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

API_TOKEN_KEY_BYTES_MIN = 32
API_TOKEN_KEYS_MAX = 4
"""A rotation by hand needs two at a time, and a rotation that was restarted three."""

WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105
WEBHOOK_SECRET_BYTES_MIN, WEBHOOK_SECRET_BYTES_MAX = 24, 64
"""The bounds of the Standard Webhooks specification 1.0.0."""

ADMIN_TOKEN_CHARS_MIN = 32
# The capacity of sockaddr_un on Linux, less the final NUL.
SOCKET_PATH_BYTES_MAX = 107

NODE_ID_CHARS_MAX = 253
"""The bound of a name in Kubernetes; a host name has at most 64."""
RELEASE_CHARS_MAX = 128
"""A commit hash has 64, an image tag 128."""

ROOM_RIGHTS = ("join", "publish", "state")
"""The words of the claim `rooms`, from the contract of the wire."""

_node_id = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

# A replica means nothing without a second server, a disk nothing in memory.
_acks = {"memory": ("process",), "sqlite": ("process", "disk")}

UNCHECKED_WORDS = ("false", "no", "0")
"""What turns the check of the host name off in a URL of Redis, as `store.redis_connection` reads it."""

_phase_budgets = (
    "unready_s",
    "successor_timeout_s",
    "worker_timeout_s",
    "client_timeout_s",
    "terminate_timeout_s",
    "flush_timeout_s",
    "close_timeout_s",
    "margin_s",
)

# A token of RFC 9110: what RFC 6265 lets a cookie be called.
_cookie_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_prefix = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,62}[A-Za-z0-9])?")
_host = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`, where an IPv6 host stands in brackets; port 0 is allowed.

    Raises ValueError that says what is expected.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        known = _is_ip(host) and ":" in host
    else:
        known = _host.fullmatch(host) is not None
    if not colon or not known or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f'expected host:port such as 127.0.0.1:8080 or [::1]:8080, got "{text}"')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    return _is_ip(host) and ipaddress.ip_address(host).is_loopback


def cross_checks(config: Config) -> Iterator[Finding]:
    """Yield every rule between keys that `config` breaks."""
    yield from _node(config.node)
    yield from _listen(config.listen, config.auth)
    yield from _store(config)
    yield from _auth(config.auth)
    yield from _api_tokens(config.auth)
    yield from _core(config.core)
    yield from _limits(config)
    yield from _blobs(config)
    yield from _rooms(config.rooms)
    yield from _drain(config.drain)
    yield from _deepstream(config)
    yield from _admin(config.admin)


def fit_node_id(name: str, chars_max: int) -> str:
    """Return `name`, a host's, with each character that a node id may not have replaced, in at most `chars_max` characters."""
    fitting = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:chars_max].strip("._-")
    return fitting or "node"


def _node(node: NodeConfig) -> Iterator[Finding]:
    # The id is part of a file name, of keys and channels in the store, and of lines for people.
    if len(node.id) > NODE_ID_CHARS_MAX:
        yield ("node.id",), f"has {len(node.id)} characters, and at most {NODE_ID_CHARS_MAX} are allowed"
    elif not _node_id.fullmatch(node.id):
        rule = 'letters and digits of ASCII, and ".", "_" and "-" between them'
        yield ("node.id",), f"expected {rule}, such as signald-0, got {node.id!a}"
    if len(node.release) > RELEASE_CHARS_MAX:
        yield ("node.release",), f"has {len(node.release)} characters, and at most {RELEASE_CHARS_MAX} are allowed"


def _admin(admin: AdminConfig) -> Iterator[Finding]:
    if admin.token and len(admin.token) < ADMIN_TOKEN_CHARS_MIN:
        yield ("admin.token", "admin.token_file"), f"the token has fewer than {ADMIN_TOKEN_CHARS_MIN} characters"
    if len(os.fsencode(admin.socket)) > SOCKET_PATH_BYTES_MAX:
        yield ("admin.socket",), f"longer than the {SOCKET_PATH_BYTES_MAX} bytes a Unix socket may have"


def _listen(listen: ListenConfig, auth: AuthConfig) -> Iterator[Finding]:
    addresses: dict[str, list[tuple[str, int]]] = {}
    for key, texts in (("listen.websocket", listen.websocket), ("listen.http", listen.http)):
        try:
            addresses[key] = [parse_address(text) for text in texts]
        except ValueError as error:
            yield (key,), str(error)
    for key, host in ((key, host) for key, pairs in addresses.items() for host, _ in pairs):
        if not is_loopback(host) and not has_key(auth) and not auth.insecure:
            keys = "auth.jwt_secret_file, auth.jwt_public_key_file or auth.jwks_url"
            remedy = f"set {keys}, or auth.insecure = true to admit anonymous parties"
            yield (key, "auth.insecure"), f"reachable from other machines while no auth key is set: {remedy}"
    fixed = {key: [pair for pair in pairs if pair[1] != 0] for key, pairs in addresses.items()}
    if set(fixed.get("listen.websocket", ())) & set(fixed.get("listen.http", ())):
        yield ("listen.http", "listen.websocket"), "must differ"
    for key, pairs in fixed.items():
        if len(set(pairs)) < len(pairs):
            yield (key,), "names an address twice"
    if bool(listen.tls_certificate_file) != bool(listen.tls_key_file):
        missing = "tls_key_file" if listen.tls_certificate_file else "tls_certificate_file"
        yield ("listen.tls_certificate_file", "listen.tls_key_file"), f"TLS needs both: {missing} is missing"
    for origin in listen.allowed_origins:
        if problem := origin_problem(origin):
            yield ("listen.allowed_origins",), problem
    for proxy in listen.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            yield ("listen.trusted_proxies",), f'expected an address or a network such as 10.0.0.0/8, got "{proxy}"'


def _store(config: Config) -> Iterator[Finding]:
    if not _prefix.fullmatch(config.store.key_prefix):
        yield ("store.key_prefix",), "expected 1 to 64 letters, digits and . _ - : with a letter or digit at both ends"
    # No message shows the URL: it may hold a password.
    keys = ("store.url", "store.url_file")
    scheme, colon, rest = config.store.url.partition(":")
    if not colon or scheme not in FORMS:
        # Only a word before "//" is surely a scheme; any other text might be a part of a password.
        hint = suggestion(scheme, FORMS) if rest.startswith("//") else ""
        yield keys, f"expected a URL with one of {', '.join(FORMS)} before the colon{hint}"
        return
    if config.store.encryption_keys_file and config.blobs.redirect:
        sealed = "store.encryption_keys_file", "blobs.redirect"
        yield sealed, "behind a signed URL the bytes of a blob are sealed: remove blobs.redirect"
    if scheme == "memory" and rest:
        yield keys, "memory: takes nothing after the colon"
    if scheme == "sqlite" and not rest.lstrip("/"):
        yield keys, "sqlite: needs the path of a file, such as sqlite:/var/lib/signald/signald.db"
    if scheme.startswith("redis"):
        yield from ((keys, message) for message in _redis_faults(scheme, config.store.url))
        if config.store.require_tls and (message := _open_redis(scheme, rest)):
            yield ("store.require_tls", *keys), message
    if config.store.ack not in _acks.get(scheme, (config.store.ack,)):
        words = " or ".join(f'"{word}"' for word in _acks[scheme])
        yield ("store.ack", *keys), f'"{config.store.ack}" is more than a {scheme} store can promise: use {words}'


def _open_redis(scheme: str, rest: str) -> str:
    """Return why others could read or change what goes to Redis by this URL, which must have TLS and a login; "" when they cannot."""
    if not scheme.startswith("rediss"):
        return "needs TLS: write rediss:// (rediss+sentinel://, rediss+cluster://) in store.url"
    netloc, _, query = rest.removeprefix("//").partition("?")
    login, _, _ = netloc.partition("/")[0].rpartition("@")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not login.partition(":")[2] and not options.get("ssl_certfile"):
        return "needs a login: a user and a password in store.url, or ssl_certfile= for a certificate of the client"
    if options.get("ssl_check_hostname", "true").lower() in UNCHECKED_WORDS:
        return "needs a certificate of the server's name: remove ssl_check_hostname from store.url"
    if "sentinel" in scheme and not options.get("sentinel_password") and not options.get("ssl_certfile"):
        return "needs a login for the Sentinels as well: sentinel_password= in store.url"
    return ""


def _redis_faults(scheme: str, url: str) -> Iterator[str]:
    # Several hosts stand before the path, and a password may hold a bracket, so urlsplit cannot be used. `store.redis_url`
    # checks the rest of the URL.
    netloc, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    hosts = netloc.rpartition("@")[2]
    if not hosts or any(not host for host in hosts.split(",")):
        yield f"{scheme}:// needs a host"
    if any(host.count("[") != host.count("]") for host in hosts.split(",")):
        yield f"{scheme}:// has a host with brackets that do not match"
    if scheme.endswith("+sentinel") and not path:
        yield f"{scheme}:// needs the name of the service: redis+sentinel://HOST,HOST/SERVICE"


def has_key(auth: AuthConfig) -> bool:
    """Tell whether parties must show a token."""
    # Asked for each publication in a room, so no names are made as `_public_keys` does.
    secret = auth.jwt_secret or auth.jwt_secret_file
    return bool(secret or auth.jwt_public_key_file or auth.jwks_file or auth.jwks_url)


def _public_keys(auth: AuthConfig) -> tuple[str, ...]:
    """Return the keys that say where public keys are."""
    names = ("jwt_public_key_file", "jwks_file", "jwks_url")
    return tuple(f"auth.{name}" for name in names if getattr(auth, name))


def _auth(auth: AuthConfig) -> Iterator[Finding]:
    secret_keys = ("auth.jwt_secret", "auth.jwt_secret_file")
    public = _public_keys(auth)
    # An algorithm that is no HMAC is a problem of its own, below.
    bytes_min = max([HMAC_SECRET_BYTES_MIN.get(name, 0) for name in auth.jwt_algorithms] + [32])
    if auth.jwt_secret and len(auth.jwt_secret.encode()) < bytes_min:
        yield secret_keys, f"must be at least {bytes_min} bytes long: openssl rand -base64 48 makes a good one"
    if auth.jwt_secret and public:
        yield (*public, *secret_keys), "a shared secret is set too: keep one of them"
    if len(public) > 1:
        yield public, f"{', '.join(public[1:])} is set too: keep one of them"
    if auth.insecure and has_key(auth):
        yield ("auth.insecure",), "a key is set too: remove insecure, or the key"
    allowed = PUBLIC_KEY_ALGORITHMS if public else tuple(HMAC_SECRET_BYTES_MIN)
    for name in auth.jwt_algorithms:
        if name not in allowed:
            kind = "a public key" if public else "a shared secret"
            hint = suggestion(name, allowed)
            yield ("auth.jwt_algorithms",), f'"{name}" does not go with {kind}: use {", ".join(allowed)}{hint}'
    if auth.jwks_url and (problem := _jwks_url_problem(auth)):
        yield ("auth.jwks_url", "auth.jwks_allow_http"), problem


def _jwks_url_problem(auth: AuthConfig) -> str:
    """Return why the URL cannot be used; "" when it can."""
    if problem := _url_problem(auth.jwks_url, "https://issuer.example/.well-known/jwks.json", "a JWK set is public"):
        return problem
    if _is_readable_between(auth.jwks_url) and not auth.jwks_allow_http:
        return "http lets any machine between replace the keys: use https, or set jwks_allow_http"
    return ""


def _url_problem(url: str, example: str, why: str) -> str:
    """Return why `url` is none that signald calls; "" when it is one. The text shows nothing of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        return f"expected a URL such as {example}"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return f"must hold no user, password or fragment: {why}"
    return ""


def _is_readable_between(url: str) -> bool:
    """Tell whether machines between here and the host read and change what is sent."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _core(core: CoreConfig) -> Iterator[Finding]:
    for name in ("authorize_url", "events_url"):
        url = getattr(core, name)
        if not url:
            continue
        if problem := _url_problem(url, "https://core.example/signald", "core.secret_file proves who asks"):
            yield (f"core.{name}",), problem
        elif _is_readable_between(url) and not core.allow_http:
            problem = "http lets any machine between read and change what is said: use https, or set allow_http"
            yield (f"core.{name}", "core.allow_http"), problem
    for name in ("secret", "secret_previous"):
        if (text := getattr(core, name)) and (problem := _webhook_secret_problem(text)):
            yield (f"core.{name}", f"core.{name}_file"), problem
    if core.secret_previous and not core.secret:
        yield ("core.secret_previous", "core.secret_previous_file"), "there is no new one: set core.secret_file"


def _webhook_secret_problem(text: str) -> str:
    """Return why `text` is no secret of Standard Webhooks; "" when it is one. The text shows nothing of it."""
    remedy = f"{WEBHOOK_SECRET_PREFIX}$(openssl rand -base64 32) makes a good one"
    if not text.startswith(WEBHOOK_SECRET_PREFIX):
        return f'must begin with "{WEBHOOK_SECRET_PREFIX}": {remedy}'
    try:
        size = len(base64.b64decode(text[len(WEBHOOK_SECRET_PREFIX) :], validate=True))
    except ValueError:
        return f'needs base64 with its padding behind "{WEBHOOK_SECRET_PREFIX}": {remedy}'
    if not WEBHOOK_SECRET_BYTES_MIN <= size <= WEBHOOK_SECRET_BYTES_MAX:
        return f"has {size} bytes, {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX} are allowed: {remedy}"
    return ""


def _api_tokens(auth: AuthConfig) -> Iterator[Finding]:
    keys = auth.api_token_key.split()
    names = ("auth.api_token_key", "auth.api_token_key_file")
    if any(len(one.encode()) < API_TOKEN_KEY_BYTES_MIN for one in keys):
        yield (
            names,
            f"each key must be at least {API_TOKEN_KEY_BYTES_MIN} bytes long: openssl rand -base64 48 makes a good one",
        )
    if len(keys) > API_TOKEN_KEYS_MAX:
        yield names, f"holds {len(keys)} keys, and at most {API_TOKEN_KEYS_MAX} are taken"
    if auth.jwt_secret and auth.jwt_secret in keys:
        yield (*names, "auth.jwt_secret"), "is the shared secret of the JWTs too: make a key of its own"
    if auth.cookie_name and not _cookie_name.fullmatch(auth.cookie_name):
        yield ("auth.cookie_name",), "expected letters, digits and any of !#$%&'*+.^_`|~-"


def _limits(config: Config) -> Iterator[Finding]:
    limits = config.limits
    for name in ("send_queue_bytes_max", "backlog_bytes_max"):
        if getattr(limits, name) < limits.message_bytes_max:
            message = f"must hold at least one message of limits.message_bytes_max ({limits.message_bytes_max})"
            yield (f"limits.{name}", "limits.message_bytes_max"), message


def _blobs(config: Config) -> Iterator[Finding]:
    blobs, url = config.blobs, config.blobs.url
    scheme, colon, rest = url.partition(":")
    if url and url != OFF and (not colon or scheme not in MEDIA_FORMS):
        hint = suggestion(scheme, MEDIA_FORMS)
        yield ("blobs.url",), f"expected off, or a URL with one of {', '.join(MEDIA_FORMS)} before the colon{hint}"
        return
    if scheme == "memory" and rest:
        yield ("blobs.url",), "memory: takes nothing after the colon"
    if scheme == "memory" and not config.store.url.startswith("memory:"):
        message = (
            "memory: goes with a memory store only: another store outlives the bytes, and other nodes do not have them"
        )
        yield ("blobs.url", "store.url"), message
    if scheme == "file" and not rest.strip("/"):
        yield ("blobs.url",), "file: needs the path of a directory, such as file:/var/lib/signald/blobs"
    if scheme == "s3":
        yield from _s3(blobs)
    for name in ("endpoint", "access_key", "secret_key"):
        if getattr(blobs, name) and media_scheme(config) != "s3":
            yield (f"blobs.{name}", "blobs.url"), "goes with s3 only: set blobs.url to s3://BUCKET/PREFIX"
    if blobs.redirect and media_scheme(config) != "s3":
        yield ("blobs.redirect", "blobs.url"), "needs s3: a directory and memory have no signed URLs"
    for small, large in (("bytes_max", "principal_bytes_max"), ("uploads_of_principal_max", "uploads_in_progress_max")):
        if getattr(blobs, small) > getattr(blobs, large):
            yield (f"blobs.{large}", f"blobs.{small}"), f"is less than blobs.{small} ({getattr(blobs, small)})"


def _s3(blobs: BlobsConfig) -> Iterator[Finding]:
    try:
        bucket_and_prefix(blobs.url)
    except ValueError as error:
        yield ("blobs.url",), str(error)
    if blobs.endpoint and (problem := _endpoint_problem(blobs.endpoint)):
        yield ("blobs.endpoint",), problem
    names = ("access_key", "secret_key")
    missing = [name for name in names if not getattr(blobs, name) and not getattr(blobs, f"{name}_file")]
    keys = tuple(f"blobs.{name}{file}" for name in names for file in ("", "_file"))
    if blobs.credentials == "environment" and len(missing) < len(names):
        yield ("blobs.credentials", *keys), 'a key is set too: remove it, or set credentials = "keys"'
    elif blobs.credentials == "keys" and missing:
        absent = " and ".join(f"{name}_file" for name in missing)
        yield keys, f'{absent} missing: s3 needs both, or credentials = "environment"'


def _endpoint_problem(endpoint: str) -> str:
    """Return why an endpoint of S3 cannot be used; "" when it can. The text shows nothing of it: it may hold a password."""
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or not endpoint.isascii() or not endpoint.isprintable():
        return "expected a URL such as https://minio.example:9000"
    if (
        parts.username is not None
        or parts.password is not None
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        return "must hold no user, password, path, query or fragment"
    return ""


def _rooms(rooms: RoomsConfig) -> Iterator[Finding]:
    for word in rooms.default_rights:
        if word not in ROOM_RIGHTS:
            hint = suggestion(word, ROOM_RIGHTS)
            yield ("rooms.default_rights",), f'"{word}" is no right: use {", ".join(ROOM_RIGHTS)}{hint}'


def drain_needs_s(drain: DrainConfig) -> tuple[float, str]:
    """Return the least stop timeout that holds the drain, and how it comes about."""
    budgets = sum(getattr(drain, name) for name in _phase_budgets)
    ending = drain.timeout_s + drain.margin_s
    if budgets > ending:
        return budgets, "the budgets of the phases and margin_s"
    return ending, f"timeout_s {drain.timeout_s:g} and margin_s {drain.margin_s:g}"


def _drain(drain: DrainConfig) -> Iterator[Finding]:
    budgets = {name: getattr(drain, name) for name in _phase_budgets}
    total = sum(budgets.values())
    limit = f"stop_timeout_s is {drain.stop_timeout_s:g} s"
    if total > drain.stop_timeout_s:
        longest = max(budgets, key=lambda name: budgets[name])
        remedy = f"raise it (and the supervisor's limit) or shorten a phase; the longest is {longest}"
        keys = ("drain.stop_timeout_s", *(f"drain.{name}" for name in budgets))
        yield keys, f"the budgets of the phases add up to {total:g} s, {limit}: {remedy}"
    ending = drain.timeout_s + drain.margin_s
    if ending > drain.stop_timeout_s:
        keys = ("drain.timeout_s", "drain.margin_s", "drain.stop_timeout_s")
        yield keys, f"timeout_s and margin_s add up to {ending:g} s, {limit}: signald would be killed before it is done"


def _deepstream(config: Config) -> Iterator[Finding]:
    drain, apps = config.drain, config.deepstream
    if not config.profiles.deepstream or apps.on_drain != "terminate":
        return
    needed = drain.unready_s + apps.terminate_timeout_s + drain.flush_timeout_s + drain.close_timeout_s
    if needed > drain.timeout_s:
        keys = ("deepstream.terminate_timeout_s", "drain.timeout_s")
        what = f"with unready_s, flush and close an app's time to clean up takes {needed:g} s, drain.timeout_s is {drain.timeout_s:g} s"
        yield keys, f"{what}: raise that, or apps are cut off earlier than they are told"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
