"""The task that fetches the JWK set of `auth.jwks_url`: before its life ends, and again when tokens name a key that is not in it.

Each set is left in the store, so that a node which starts while the issuer is away goes on with what the others know.

A fetch that fails changes nothing: the last good set goes on until `auth.jwks_stale_max_s`, and tokens that no set can judge are put
off (`key_sets.KeysAway`). How often the issuer is asked does not depend on parties: a flood of unknown keys causes one fetch each
`auth.jwks_refetch_s`, and failures are retried ever more slowly.
"""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

import structlog
import trio

from signald.core.jwks import SET_BYTES_MAX, BadKeySet, parse
from signald.errors import StoreUnavailable
from signald.http.fetch import Fetched, Fetcher, FetchFailed
from signald.service.context import Context
from signald.service.key_sets import RemoteKeys
from signald.service.races import either
from signald.store.registry.ops import GetKeySet, KeepKeySet

log = structlog.get_logger(__name__)

FETCH_S = 5.0
"""For one fetch, whatever the server does. An issuer answers in a tenth of a second."""

LIFE_MIN_S, LIFE_MAX_S = 60.0, 3600.0
"""The bounds of a max-age: a shorter one would ask without end, and with a longer one a withdrawn key lives on."""

REFRESH_FROM, REFRESH_TO = 0.7, 0.9
"""The part of the life after which a set is refreshed: before its end, and not on all nodes at once."""

RETRY_MAX_S = 30.0
"""The longest pause after a failure: short beside any life, and no load for an issuer that starts."""

LOG_EVERY_S = 60.0
"""How often an issuer that stays away is said, unless the reason changes."""

ACCEPT = "application/jwk-set+json, application/json"

OUTCOMES = ("fetched", "failed", "refused")
"""Of a fetch: no document came, or the document was no usable set."""

OUR_ERROR = "an error of signald, which its log has shown"

Get = Callable[[str], Awaitable[Fetched]]


class Source(Protocol):
    """Gives the set that is in force; None where there is no URL."""

    def __call__(self) -> RemoteKeys | None: ...


class JwksFetcher:
    """See the module. One for each node."""

    def __init__(self, context: Context, remote: Source, get: Get | None = None) -> None:
        """`remote` gives the set to keep; `get` fetches a document, by HTTP unless a test says otherwise."""
        self._context = context
        self._remote = remote
        self._get = get or _HttpGet()
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._failures = 0
        self._said: tuple[str, float] = "", -float("inf")

    @property
    def age_s(self) -> float:
        """How long ago the set in force was fetched, in seconds; 0 where there is none."""
        remote = self._remote()
        return 0.0 if remote is None or remote.keys is None else self._now() - remote.fetched_at

    def _now(self) -> float:
        return self._context.now_ms() / 1000

    async def run(self) -> None:
        """Keep the set of the configuration in force, until cancelled."""
        while True:
            changed = self._context.config_changed
            remote = self._remote()
            if remote is None:
                await changed.wait()
                continue
            pause = await self._refresh(remote)
            if remote.keys is None:
                await self._recall(remote)
            await self._rest(remote, changed, pause)

    async def wait_first(self) -> None:
        """Wait until there is a set to judge by; returns at once where there is no URL."""
        while (remote := self._remote()) is not None and remote.keys is None:
            changed = self._context.config_changed
            await either(remote.first, changed)

    async def _rest(self, remote: RemoteKeys, changed: trio.Event, pause: float) -> None:
        """Wait for the next fetch: after `pause`, or once it is asked for, but not too soon; a reload fetches at once."""
        floor = pause if self._failures else self._context.config.auth.jwks_refetch_s
        with trio.move_on_after(pause) as due:
            with trio.move_on_after(floor):
                await changed.wait()
                return
            await either(remote.wanted, changed)
        if due.cancelled_caught:
            remote.forget_asked()

    async def _refresh(self, remote: RemoteKeys) -> float:
        """Fetch once. Returns after how many seconds to do it again."""
        number = remote.begin()
        remote.wanted = trio.Event()
        try:
            fetched = await self._get(remote.url)
            keys = parse(fetched.body, remote.allowed)
        except FetchFailed as error:
            return self._failed(remote, "failed", str(error))
        except BadKeySet as error:
            return self._failed(remote, "refused", f"the answer {error}")
        except Exception:
            # An error of signald or of the library: it must not end a node that holds connections.
            if self._said[0] != OUR_ERROR:
                log.exception("jwks_failed")
            return self._failed(remote, "failed", OUR_ERROR)
        now, config = self._now(), self._context.config.auth
        if remote.body != fetched.body:
            named = [key.kid for key in keys.keys]
            log.info("jwks_fetched", host=_host(remote), keys=named, left_out=list(keys.left_out))
        elif self._failures:
            log.info("jwks_back", host=_host(remote))
        remote.adopt(number, fetched.body, keys, now, now + config.jwks_stale_max_s)
        self._context.submit(KeepKeySet(_source(remote), fetched.body, round(now * 1000)))
        self.outcomes["fetched"] += 1
        self._failures = 0
        self._said = "", -float("inf")
        life = config.jwks_life_s if fetched.max_age_s is None else min(max(LIFE_MIN_S, fetched.max_age_s), LIFE_MAX_S)
        return life * self._context.entropy.uniform(REFRESH_FROM, REFRESH_TO)

    async def _recall(self, remote: RemoteKeys) -> None:
        """Go on with the set that another node, or an earlier life of this one, has left in the store, if it counts still."""
        try:
            kept = await self._context.committer.call(GetKeySet(_source(remote)))
            keys = parse(kept.body, remote.allowed) if kept.body else None
        except (StoreUnavailable, BadKeySet):
            return  # asked again behind the next fetch
        good_until = kept.fetched_ms / 1000 + self._context.config.auth.jwks_stale_max_s
        if keys is None or self._now() >= good_until or remote.keys is not None:
            return
        remote.recall(kept.body, keys, kept.fetched_ms / 1000, good_until)
        log.warning("jwks_recalled", host=_host(remote), keys=[key.kid for key in keys.keys], age_s=round(self.age_s))

    def _failed(self, remote: RemoteKeys, outcome: str, why: str) -> float:
        self.outcomes[outcome] += 1
        self._failures += 1
        said, at = self._said
        if why != said or trio.current_time() - at >= LOG_EVERY_S:
            self._said = why, trio.current_time()
            left_s = max(0.0, remote.good_until - self._now())
            log.warning("jwks_away", host=_host(remote), why=why, good_for_s=round(left_s))
        pause = min(RETRY_MAX_S, 2.0 ** min(self._failures - 1, 10))
        return pause * self._context.entropy.uniform(0.75, 1.25)


async def fill(remote: RemoteKeys, now: float) -> str:
    """Fetch the set of `remote` once, for a command; return why it did not come, "" when it has."""
    number = remote.begin()
    try:
        fetched = await _HttpGet()(remote.url)
        keys = parse(fetched.body, remote.allowed)
    except FetchFailed as error:
        return str(error)
    except BadKeySet as error:
        return f"the answer {error}"
    remote.adopt(number, fetched.body, keys, now, now + LIFE_MAX_S)
    return ""


class _HttpGet:
    """Fetches by HTTP. The trusted certificates are read at the first fetch and then kept."""

    def __init__(self) -> None:
        self._fetcher: Fetcher | None = None

    async def __call__(self, url: str) -> Fetched:
        if self._fetcher is None:
            self._fetcher = await Fetcher.make(timeout_s=FETCH_S, bytes_max=SET_BYTES_MAX)
        return await self._fetcher.get(url, ACCEPT)


def _source(remote: RemoteKeys) -> str:
    """How the store tells the sets of issuers apart, without their URLs."""
    return hashlib.sha256(remote.url.encode()).hexdigest()[:32]


def _host(remote: RemoteKeys) -> str:
    """What is logged of a URL: its path may hold a name that is meant for few."""
    return urlsplit(remote.url).hostname or ""
