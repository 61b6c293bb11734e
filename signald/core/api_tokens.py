"""API tokens: the signed statement by which a party asks over HTTP. A node verifies it without its store.

It is a JWT (HS256) with the `kid` of its key and a `typ` of its own. It says which client or worker it is for, when it was made and when
it runs out. Two guards keep it apart from a JWT of the operator. Its `typ` is another one, and its key is derived, so that no text
signs both. A JWT of the operator also needs `sub` and `role`, which an API token has not.
"""

from typing import Annotated, Literal

import jwt
import msgspec
from jwt.utils import base64url_decode
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from signald.core.callers import Caller
from signald.core.wants import subject_of, tenant_of
from signald.wire.messages import API_TOKEN_MAX

TYPE = "signald-api+jwt"

TOKEN_CHARS_MAX = API_TOKEN_MAX

KID_CHARS_MAX = 32

ALGORITHM = "HS256"

_TIME_MAX = 2**53

_Seconds = Annotated[int, Meta(ge=0, lt=_TIME_MAX)]


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["HS256"]
    kid: Annotated[str, Meta(min_length=1, max_length=KID_CHARS_MAX)]
    typ: Literal["signald-api+jwt"]


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    """What an API token says."""

    kind: Literal["client", "worker"]
    owner: Annotated[str, Meta(min_length=1, max_length=128)]
    """The id of the session or of the worker."""
    principal: str
    """"" for an anonymous party."""
    iat: _Seconds = 0
    """When it was made, in seconds since 1970."""
    exp: _Seconds = 0
    """When it runs out, likewise."""
    auth_time: Annotated[float, Meta(gt=-_TIME_MAX, lt=_TIME_MAX)] | None = None
    """When the credential was issued by which the party was let in, likewise; None: it does not say. A revocation is judged by it: a node
    that has not heard of the revocation yet may make a token after it."""
    rooms: dict[str, tuple[str, ...]] | UnsetType = UNSET
    """What that credential had as its claim `rooms`. It is no longer there than here, so a token has room for it."""

    @property
    def caller(self) -> Caller:
        """The caller that shows it."""
        session, worker = (self.owner, "") if self.kind == "client" else ("", self.owner)
        tenant = tenant_of(self.principal)
        rooms = None if self.rooms is UNSET else self.rooms
        return Caller(self.kind, self.principal, subject_of(self.principal), tenant, session, worker, rooms=rooms)


_header = msgspec.json.Decoder(_Header)
_statement = msgspec.json.Decoder(Statement)
_jws = jwt.PyJWS(algorithms=[ALGORITHM])


def mint(said: Statement, kid: str, key: bytes, now_ms: int, life_ms: int) -> str:
    """Return a token that says `said`, good from `now_ms` for `life_ms`, signed with `key` (`api_keys.signing_key`).

    It runs out with a whole second, so that it lives up to a second longer than its holder is told.
    """
    said = structs.replace(said, iat=now_ms // 1000, exp=-(-(now_ms + life_ms) // 1000))
    return _jws.encode(msgspec.json.encode(said), key, ALGORITHM, headers={"kid": kid, "typ": TYPE})


def kid_in(token: str) -> str | None:
    """Return the id of the key that `token` names; None when it has not the form of an API token. Never raises."""
    if len(token) > TOKEN_CHARS_MAX or not token.isascii() or token.count(".") != 2:
        return None
    try:
        return _header.decode(base64url_decode(token.partition(".")[0])).kid
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def read(token: str, key: bytes, now_ms: int) -> Statement | None:
    """Return what `token` says, if `key` has signed it and it has not run out. Never raises."""
    if kid_in(token) is None:
        return None
    try:
        payload = _jws.decode_complete(token, key, algorithms=[ALGORITHM])["payload"]
        said = _statement.decode(payload)
    # Beside its own errors PyJWT lets some of the parsers it stands on through, on hostile input.
    except (jwt.PyJWTError, msgspec.DecodeError, ValueError, TypeError, RecursionError):
        return None
    return said if now_ms < said.exp * 1000 else None
