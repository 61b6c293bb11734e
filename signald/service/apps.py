"""The apps of the cluster as an operator sees them, and the order to end one.

An app is a worker that is known by its name (`ids.is_named`). The registry has all of them; how far one is, the node knows best that it
is attached to, and others tell by its record.
"""

from typing import Any

from signald.core.wants import subject_of, tenant_of
from signald.errors import OperationRefused
from signald.ids import is_named
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.terminating import Terminations
from signald.store.base import WAKE_TERMINATE
from signald.store.registry.ops import ListWorkers, Signal, WorkerInfo

Json = dict[str, Any]


class Apps:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments, terminations: Terminations) -> None:
        self._context = context
        self._attachments = attachments
        self._terminations = terminations

    async def listed(self, limit: int) -> Json:
        """Return the apps of the cluster by instance, at most `limit` of them, and how many there are in each state."""
        apps = [self._json(info) for info in await self._known()]
        states: dict[str, int] = {}
        for app in apps:
            states[app["state"]] = states.get(app["state"], 0) + 1
        return {"node": self._context.node, "total": len(apps), "states": states, "apps": apps[:limit]}

    async def terminate(self, instance: str, tenant: str | None) -> Json:
        """Ask an app to clean up, at whichever node it is. Without a `tenant` the instance must be one of one tenant only.

        Raises OperationRefused when it is not known, is away, or is one of several.
        """
        found = [info for info in await self._known() if info.instance == instance]
        if tenant is not None:
            found = [info for info in found if tenant_of(info.principal) == tenant]
        if not found:
            raise OperationRefused("unknown", "unknown-app", f"there is no app {instance}")
        if len(found) > 1:
            raise OperationRefused("state", "several-apps", f"{instance} is an app of several tenants: say which")
        (info,) = found
        if not info.node:
            raise OperationRefused("state", "app-away", f"{instance} is not connected")
        if info.node == self._context.node:
            self._terminations.order(info.id)
        else:
            await self._context.committer.call(Signal(info.node, WAKE_TERMINATE + info.id.encode()))
        return {"instance": instance, "worker": info.id, "node": info.node}

    async def _known(self) -> list[WorkerInfo]:
        listed = await self._context.committer.call(ListWorkers())
        return sorted([info for info in listed.workers if is_named(info.id)], key=lambda info: (info.instance, info.id))

    def _json(self, info: WorkerInfo) -> Json:
        away_ms = 0 if info.node else max(0, self._context.now_ms() - info.away_since_ms)
        return {
            "instance": info.instance,
            "state": self._state(info),
            "node": info.node,
            "subject": subject_of(info.principal),
            "tenant": tenant_of(info.principal),
            "worker": info.id,
            "sessions": info.assigned,
            "away_s": round(away_ms / 1000, 1),
        }

    def _state(self, info: WorkerInfo) -> str:
        if not info.node:
            return "disconnected"
        link = self._attachments.workers.get(info.id)
        asked = info.leaving if link is None else self._terminations.has(link)
        return "terminating" if asked else "authenticated"
