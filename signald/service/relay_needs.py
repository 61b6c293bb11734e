"""What the relay needs of its node: settings, and a receiver of its reports."""

from typing import Literal, Protocol

import attrs

from signald.core.head import Party
from signald.core.session import News
from signald.service.attached import LiveSession, PartyLink


@attrs.frozen
class RelaySettings:
    """What the relay must know of the configuration."""

    node: str
    backlog_messages_max: int
    backlog_bytes_max: int
    history_messages_max: int
    claim_ahead_max: int
    logs_bytes_max: int


class RelayEvents(Protocol):
    """What the relay reports to the hub."""

    def superseded(self, session: LiveSession, party: Party) -> None:
        """A newer claim holds `party`; its link here is to go."""

    def news(self, session: LiveSession, news: News) -> None:
        """The store's head of `session` differed from what was known."""

    def missing(self, session: LiveSession) -> None:
        """The store has lost `session`, or it has ended."""

    def behind(self, session: LiveSession) -> None:
        """The store knows less of `session` than this node."""

    def logs_bytes(self) -> int:
        """Return the bytes that the logs of all sessions hold here."""

    def history_bytes_max(self, session: LiveSession) -> int:
        """Return how many bytes of its chat history are kept now."""

    def last_words(self, session: LiveSession) -> None:
        """What a party had said here before it went has been stored."""

    def job_over(self, session: LiveSession) -> None:
        """The last piece of a job has been stored, and the job has ended in the same step."""

    def lost(
        self,
        link: PartyLink,
        session: str,
        direction: Literal["sent", "received"],
        lost: tuple[int, int],
        *,
        shown: bool,
    ) -> None:
        """The party of `link` is to be told that messages are lost; `shown`: the store shows that they are."""

    def spent(self, session: LiveSession) -> None:
        """The numbers of `session` have run out."""
