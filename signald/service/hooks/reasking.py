"""Sessions whose answer of the core server has run out: after their client's resume it is asked again, and a no ends them.

No resume waits for that. While the core server is away a session goes on, and is asked for again later: a right that was granted is not
taken back because a server fails.
"""

from collections import OrderedDict

import structlog
import trio

from signald.core.authorising import Question
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.auth import Verified
from signald.service.context import Context
from signald.service.endings import Endings
from signald.service.events import RightsChanged
from signald.service.hooks.authorising import Authoriser, question_of
from signald.store.session.ops import KeepAnswer

log = structlog.get_logger(__name__)

ASKERS = 4
"""Questions of this kind at once: new parties, which wait for their answers, find most of the places free."""

DUE_MAX = 10_000
"""Sessions that wait to be asked for. The session that waits longest gives way: it is asked for after its next resume."""


class Reasking:
    """See the module. One for each node."""

    def __init__(self, context: Context, attachments: Attachments, endings: Endings, authoriser: Authoriser) -> None:
        self._context = context
        self._attachments = attachments
        self._endings = endings
        self._authoriser = authoriser
        self._due: OrderedDict[str, Question] = OrderedDict()
        self._more = trio.Event()

    @property
    def waiting(self) -> int:
        """How many sessions wait to be asked for."""
        return len(self._due)

    def resumed(self, session: LiveSession, credential: Verified, remote: str) -> None:
        """The client of `session` has resumed with `credential`: it is asked for if the answer has run out."""
        if not self._context.config.core.authorize_url or not 0 < session.asked_until_ms <= self._context.now_ms():
            return
        question = question_of(credential, remote, want=session.want, meta=session.meta, session=session.id)
        self._put(session.id, question)

    def _put(self, session: str, question: Question) -> None:
        self._due.pop(session, None)
        self._due[session] = question
        if len(self._due) > DUE_MAX:
            self._due.popitem(last=False)
        self._more.set()
        self._more = trio.Event()

    async def run(self) -> None:
        """Ask for the sessions that are due, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(ASKERS):
                nursery.start_soon(self._ask_in_turn)

    async def _ask_in_turn(self) -> None:
        while True:
            if not self._due:
                await self._more.wait()
                continue
            session, question = self._due.popitem(last=False)
            core = self._context.config.core
            if core.authorize_url and not await self._ask(session, question):
                self._put(session, question)
                await trio.sleep(core.breaker_pause_s * self._context.entropy.uniform(1.0, 2.0))

    async def _ask(self, name: str, question: Question) -> bool:
        """Ask for a session, and do as the answer says; False when that is to be done again."""
        session = self._attachments.sessions.get(name)
        if session is None or not session.client.is_here:
            return True  # when its client comes back, it is asked for there
        grant = await self._authoriser.ask(question)
        if grant is None:
            return False
        try:
            if not grant.allow:
                log.info("core_refused", session=name)
                await self._endings.forbidden(name, grant.reason or "not allowed")
                return True
        except StoreUnavailable:
            return False
        until_ms = grant.until_ms(self._context.now_ms())
        session.answered(grant.settings, grant.rooms, until_ms)
        self._context.submit(KeepAnswer(name, grant.settings, grant.rooms, until_ms))
        self._context.events.emit(RightsChanged("client", (name,)))
        return True
