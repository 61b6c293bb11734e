"""Reload: the configuration is read again while everybody stays connected. It is applied at once, or not at all.

What a connection was told when it opened (limits, timeouts) holds for it until it closes; a drain keeps the budgets it began
with. Everything else of the keys marked in `config.sections` holds from the moment of the reload.
"""

import ssl
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from signald.config import Config, ConfigError, Problem
from signald.config.reloading import Change, Source, compare, fingerprints
from signald.service.auth import Authenticator
from signald.service.tls import tls_context

if TYPE_CHECKING:
    from signald.service.hub import Hub
    from signald.service.supervision import Supervision

log = structlog.get_logger(__name__)


@attrs.frozen
class Prepared:
    """What a configuration stands for, made ready before anything is changed."""

    config: Config
    auth: Authenticator
    tls: ssl.SSLContext | None


def prepare(config: Config, where: str = "") -> Prepared:
    """Load the keys and certificates of `config`. Raises ConfigError with every problem, each at `where`."""
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
    if auth is None or problems:
        raise ConfigError([attrs.evolve(problem, where=where) for problem in problems])
    return Prepared(config, auth, tls)


class Reloader:
    """See the module. One for each process; `reload` may be called by several at once, and they take turns."""

    def __init__(
        self,
        source: Source,
        hub: "Hub",
        check: Callable[[Config], None],
        apply: Callable[[Prepared], None],
        supervision: "Supervision | None" = None,
    ) -> None:
        """`check` raises ConfigError for what this process cannot do; `apply` tells all who hold settings, and cannot fail."""
        self._source = source
        self._hub = hub
        self._check = check
        self._apply = apply
        self._supervision = supervision
        self._known = fingerprints(hub.config)
        self._turn = trio.Lock()

    async def reload(self) -> Change:
        """Read and apply. Raises ConfigError with every problem, and then nothing has changed."""
        supervision = self._supervision
        async with self._turn:
            with supervision.reloading() if supervision is not None else nullcontext():
                try:
                    # Files may be on a disk that is slow today.
                    change, prepared = await trio.to_thread.run_sync(self._prepare, self._hub.config)
                    self._check(change.config)
                except ConfigError as error:
                    self._hub.counts.reloaded(ok=False, at_s=self._hub.store.now_ms() / 1000)
                    log.error("config_refused", problems=[str(one) for one in error.problems])  # noqa: TRY400
                    raise
                self._apply(prepared)
                self._known = change.fingerprints
                self._hub.counts.reloaded(ok=True, at_s=self._hub.store.now_ms() / 1000)
                log.info("config_reloaded", applied=list(change.applied), needs_restart=list(change.needs_restart))
                return change

    def _prepare(self, running: Config) -> tuple[Change, Prepared]:
        change = compare(running, self._source.read(running), self._known)
        return change, prepare(change.config, str(self._source.path or ""))
