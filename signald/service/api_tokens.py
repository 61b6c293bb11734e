"""The API tokens of a node: their keys, which the cluster shares, and the next token for each connected party that asked for them.

begin, run_keys     keep the keys of the store in memory             core/api_keys.py has the rule of their rotation
issue, make         sign a token
run_renewals        give each party its next token in time           one task for all links
read                verify a token: without the store, unless its key is unknown here
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import Literal, NamedTuple

import structlog
import trio
from msgspec import structs

from signald.core import api_tokens
from signald.core.api_keys import READ_EVERY_S, SECRET_BYTES, ApiKey, kid_of, signer, signing_key
from signald.core.api_tokens import Statement
from signald.errors import StoreUnavailable
from signald.service.attached import ApiToken, PartyLink
from signald.service.context import Context
from signald.service.events import LinkOver
from signald.store.registry.ops import ReadApiKeys

log = structlog.get_logger(__name__)

LEARN_EVERY_S = 1.0
"""Least time between two readings of the keys for tokens whose key is unknown: a flood of them costs the store no more than this.
A token of a live node is never refused for it, because its key was announced much longer ago (`api_keys.LEAD_MS`)."""

RENEW_AT = 0.5
"""The part of its life after which a token is followed by the next. Two passes later it was told, by 0.6 of its life; the protocol
promises two thirds."""

PASS = 0.05
"""The time of one pass over all parties that have asked, as a part of a token's life."""

LINKS_AT_ONCE = 64
"""Parties that are looked at in one go: with a new token for each, 3 ms of work (40 µs for one)."""


class _Asking(NamedTuple):
    """A party that has asked for API tokens."""

    link: PartyLink
    due_ms: int
    """When it is to have its next one (time of the store)."""


class ApiTokens:
    """See the module. A node has one."""

    def __init__(self, context: Context, rooms_of: Callable[[PartyLink], Mapping[str, Sequence[str]] | None]) -> None:
        """`rooms_of` returns what a token for the party of a link says of rooms: pattern → rights; None: nothing."""
        self._context = context
        self._rooms_of = rooms_of
        self._stored: tuple[ApiKey, ...] = ()
        """The keys of the store, as it was read last."""
        self._signing: dict[str, bytes] = {}
        """Id of a stored key → what it signs with."""
        self._own: tuple[str, dict[str, bytes]] = ("", {})
        """The keys of the configuration as text, and likewise."""
        self._asking: dict[str, _Asking] = {}
        """The parties here that have asked for API tokens, by their session or worker: no more than there are links."""
        self._turn = trio.Lock()
        self._read_at = float("-inf")
        """When the last reading of the keys was over (trio time)."""
        self._read = False
        """Whether the store has answered it."""
        context.events.subscribe(LinkOver, self._over)

    # --- keys -------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Have a key to sign with. Raises StoreUnavailable."""
        async with self._turn:
            await self._learn()

    async def run_keys(self) -> None:
        """Read the keys of the store again and again, until cancelled: each is known here before any node signs with it."""
        while True:
            with trio.move_on_after(READ_EVERY_S):
                await self._context.config_changed.wait()  # it may hold no keys any more
            with suppress(StoreUnavailable):
                async with self._turn:
                    await self._learn()

    async def _learn(self) -> None:
        """Read the keys of the store. The caller has the turn."""
        self._read = False
        try:
            self._keep(await self._ask())
            self._read = True
        finally:
            self._read_at = trio.current_time()

    async def _ask(self) -> tuple[ApiKey, ...]:
        config, context = self._context.config.auth, self._context
        life_ms = round(config.api_token_ttl_s * 1000)
        rotate_ms = round(config.api_token_rotate_s * 1000)
        now, makes = context.now_ms(), not config.api_token_key
        # Entropy is drawn when a key may be due, and not for each reading: the first answer tells.
        due = len(self._stored) == 1 and now - self._stored[0].signs_from_ms >= rotate_ms
        candidate = context.entropy.token_bytes(SECRET_BYTES) if due and makes else b""
        found = await context.committer.call(ReadApiKeys(self._stored, candidate, rotate_ms, life_ms, now))
        if not found.keys and makes:
            candidate = context.entropy.token_bytes(SECRET_BYTES)
            found = await context.committer.call(ReadApiKeys((), candidate, rotate_ms, life_ms, now))
        return found.keys

    def _keep(self, keys: tuple[ApiKey, ...]) -> None:
        if keys == self._stored:
            return
        for key in keys:
            if kid_of(key.secret) not in self._signing:
                log.info("api_key_known", kid=kid_of(key.secret), signs_from_ms=key.signs_from_ms)
        self._stored = keys
        self._signing = {kid_of(key.secret): signing_key(key.secret) for key in keys}

    def _configured(self) -> dict[str, bytes]:
        text = self._context.config.auth.api_token_key
        # When the keys have just gone from the configuration, they sign until those of the store are known.
        if text != self._own[0] and (text or self._stored):
            secrets = [hashlib.sha256(one.encode()).digest() for one in text.split()]
            self._own = (text, {kid_of(secret): signing_key(secret) for secret in secrets})
        return self._own[1]

    # --- making -----------------------------------------------------------------------------------------------------

    def make(self, kind: Literal["client", "worker"], owner: str, principal: str) -> ApiToken:
        """Sign a token for a session (`client`) or a worker, that acts for `principal`; the caller vouches for it now."""
        return self._make(Statement(kind, owner, principal, auth_time=self._context.now_ms() / 1000))

    def _make(self, said: Statement) -> ApiToken:
        now = self._context.now_ms()
        ttl_ms = round(self._context.config.auth.api_token_ttl_s * 1000)
        kid, key = self._signer(now)
        return ApiToken(api_tokens.mint(said, kid, key, now, ttl_ms), ttl_ms)

    def _signer(self, now_ms: int) -> tuple[str, bytes]:
        if own := self._configured():
            return next(iter(own.items()))
        key = signer(self._stored, now_ms)
        assert key is not None, "`begin` has read the keys, and there always is one"
        kid = kid_of(key.secret)
        return kid, self._signing[kid]

    def issue(self, link: PartyLink) -> ApiToken:
        """Sign the first token for the party of `link`. The next ones come by `run_renewals`, for as long as it is here.

        It is void once its credential is: a node that learns late of a revocation cannot make tokens that outlive it.
        """
        shown = link.credential
        said = Statement(
            link.party, link.owner, link.principal, auth_time=shown.issued_at if shown is not None else None
        )
        rooms = self._rooms_of(link)
        if rooms is not None:
            said = structs.replace(said, rooms={pattern: tuple(words) for pattern, words in rooms.items()})
        token = self._make(said)
        self._asking[link.owner] = _Asking(link, self._context.now_ms() + round(token.ttl_ms * RENEW_AT))
        return token

    def _over(self, event: LinkOver) -> None:
        asking = self._asking.get(event.owner)
        if asking is not None and asking.link.over:
            del self._asking[event.owner]

    async def run_renewals(self) -> None:
        """Give each party that has asked for API tokens its next one in time. Runs until cancelled."""
        while True:
            owners = list(self._asking)
            pause_s = self._context.config.auth.api_token_ttl_s * PASS / max(1, ceil(len(owners) / LINKS_AT_ONCE))
            changed = self._context.config_changed
            for start in range(0, max(1, len(owners)), LINKS_AT_ONCE):
                with trio.move_on_after(pause_s):
                    await changed.wait()
                if changed.is_set():
                    break  # the tokens may have another life from now on, and the passes another pace
                self._renew(owners[start : start + LINKS_AT_ONCE])

    def _renew(self, owners: Sequence[str]) -> None:
        now = self._context.now_ms()
        for owner in owners:
            asking = self._asking.get(owner)
            if asking is None:
                continue
            if asking.link.over:
                del self._asking[owner]
            elif asking.due_ms <= now and not asking.link.ending:
                asking.link.api_token(self.issue(asking.link))
        self._context.writes.flush()

    # --- reading ----------------------------------------------------------------------------------------------------

    def read_known(self, token: str) -> Statement | None:
        """Verify `token` by the keys that are known here; None when it is not good, or its key is another one."""
        kid = api_tokens.kid_in(token)
        key = self._key(kid) if kid is not None else None
        return None if key is None else api_tokens.read(token, key, self._context.now_ms())

    async def read(self, token: str) -> Statement | None:
        """Verify `token`; None when it is no API token, or not good any more.

        Raises StoreUnavailable when its key is not known here and the store cannot be asked for it.
        """
        kid = api_tokens.kid_in(token)
        if kid is not None and self._key(kid) is None:
            await self._ask_for_keys()
        return self.read_known(token)

    def _key(self, kid: str) -> bytes | None:
        return self._configured().get(kid) or self._signing.get(kid)

    async def _ask_for_keys(self) -> None:
        """Read the keys, unless they were read a moment ago: all that ask meanwhile wait for one reading."""
        async with self._turn:
            if trio.current_time() - self._read_at >= LEARN_EVERY_S:
                await self._learn()
            elif not self._read:
                raise StoreUnavailable("the keys of API tokens cannot be read")
