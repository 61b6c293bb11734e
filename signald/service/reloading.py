"""Reload: the configuration is read again while all parties stay connected. It is applied at once, or not at all.

What a connection was told when it opened (limits, timeouts) holds for it until it closes; a drain keeps the budgets it began
with. Everything else of the keys marked in `config.sections` holds from the moment of the reload.
"""

import ssl
from collections.abc import Callable
from contextlib import nullcontext

import attrs
import structlog
import trio

from signald.config import Config, ConfigError, Problem
from signald.config.changes import Change, Source, compare, fingerprints
from signald.config.seal_keys import KeyFile
from signald.config.store_urls import is_same_store
from signald.errors import StoreMisused
from signald.service.auth import Authenticator
from signald.service.context import Context
from signald.service.supervision import Supervision
from signald.service.tls import tls_context
from signald.store.open import check_url, read_keys

log = structlog.get_logger(__name__)

REREAD_EVERY_S = 5.0
"""Between two looks for another login while the store refuses this one: a password is changed by hand, or by a job."""


@attrs.frozen
class Prepared:
    """What a configuration stands for, made ready before anything is changed."""

    config: Config
    auth: Authenticator
    tls: ssl.SSLContext | None
    seal_keys: KeyFile
    """Those of `store.encryption_keys_file`."""


def prepare(config: Config, where: str = "") -> Prepared:
    """Load the keys and certificates of `config`, and read its store URL. Raises ConfigError with every problem, each at `where`."""
    problems: list[Problem] = []
    auth: Authenticator | None = None
    tls: ssl.SSLContext | None = None
    try:
        auth = Authenticator.from_config(config.auth)
    except ConfigError as error:
        problems += error.problems
    try:
        tls = tls_context(config.listen)
    except ConfigError as error:
        problems += error.problems
    try:
        check_url(config.store.url)
    except StoreMisused as error:
        problems.append(Problem("", "store.url_file" if config.store.url_file else "store.url", str(error)))
    seal_keys = KeyFile()
    try:
        seal_keys = read_keys(config.store.encryption_keys_file)
    except StoreMisused as error:
        problems.append(Problem("", "store.encryption_keys_file", str(error)))
    if auth is None or problems:
        raise ConfigError([attrs.evolve(problem, where=where) for problem in problems])
    return Prepared(config, auth, tls, seal_keys)


class Reloader:
    """See the module. One for each process; `reload` may be called by several at once, and they take turns."""

    def __init__(
        self,
        source: Source,
        context: Context,
        check: Callable[[Config], None],
        apply: Callable[[Prepared], None],
        supervision: Supervision | None = None,
    ) -> None:
        """`check` raises ConfigError for what this process cannot do; `apply` tells every part that holds settings, and cannot fail."""
        self._source = source
        self._context = context
        self._check = check
        self._apply = apply
        self._supervision = supervision
        self._known = fingerprints(context.config)
        self._turn = trio.Lock()
        self._refused = context.inboxes.store_refused

    async def reload(self) -> Change:
        """Read and apply. Raises ConfigError with every problem, and then nothing has changed."""
        supervision = self._supervision
        async with self._turn:
            with supervision.reloading() if supervision is not None else nullcontext():
                try:
                    # Files may be on a disk that is slow today.
                    change, prepared = await trio.to_thread.run_sync(self._prepare, self._context.config)
                    self._check(change.config)
                except ConfigError as error:
                    self._context.counts.reloaded(ok=False, at_s=self._context.now_ms() / 1000)
                    log.error("config_refused", problems=[str(one) for one in error.problems])  # noqa: TRY400
                    raise
                self._apply(prepared)
                self._known = change.fingerprints
                self._context.counts.reloaded(ok=True, at_s=self._context.now_ms() / 1000)
                log.info("config_reloaded", applied=list(change.applied), needs_restart=list(change.needs_restart))
                return change

    async def run_store_url(self) -> None:
        """Read the store's URL again after each refusal, until cancelled; what else has changed waits for a reload."""
        while True:
            await self._refused.wait()
            async with self._turn:
                try:
                    prepared = await trio.to_thread.run_sync(self._store_renewed, self._context.config)
                except ConfigError:
                    prepared = None  # half-way through an edit, perhaps; a reload says what is wrong
                if prepared is not None:
                    self._apply(prepared)
                    log.warning("store_url_read_again")
            await trio.sleep(REREAD_EVERY_S)
            self._refused.clear()

    def _store_renewed(self, running: Config) -> Prepared | None:
        store = self._source.read(running).store
        if store.url == running.store.url or not is_same_store(store.url, running.store.url):
            return None
        renewed = attrs.evolve(running.store, url=store.url, url_file=store.url_file)
        return prepare(attrs.evolve(running, store=renewed), str(self._source.path or ""))

    def _prepare(self, running: Config) -> tuple[Change, Prepared]:
        change = compare(running, self._source.read(running), self._known)
        return change, prepare(change.config, str(self._source.path or ""))
