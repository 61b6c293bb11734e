"""The section `[auth]`."""

import attrs

from signald.config.keys import key


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
        "Cookie in which a browser shows its JWT (role client) to the HTTP API and at a WebSocket. Empty: none is read. It is held to "
        "listen.allowed_origins.",
        reload=True,
    )
