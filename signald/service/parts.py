"""The parts of a node that a party's opening and its link work with, made once by the hub and handed on whole."""

import attrs

from signald.net.admission import SetupGate
from signald.service.api_tokens import ApiTokens
from signald.service.assigning import Assignments
from signald.service.attachments import Attachments
from signald.service.auth import Authenticator
from signald.service.batches import Batches
from signald.service.blobs import BlobDesk
from signald.service.context import Context
from signald.service.credentials import Credentials
from signald.service.endings import Endings
from signald.service.giving_up import GivingUp
from signald.service.holdings import Holdings
from signald.service.hooks.authorising import Authoriser
from signald.service.hooks.reasking import Reasking
from signald.service.jobs import JobDesk
from signald.service.losses import Losses
from signald.service.relay import Relay
from signald.service.retries import Retries
from signald.service.rooms.desk import RoomDesk
from signald.service.terminating import Terminations


@attrs.define
class Parts:
    """See the module."""

    context: Context
    gate: SetupGate
    """Which parties may come in now."""
    auth: Authenticator
    """Tells which party it is. A reload replaces it."""
    api_tokens: ApiTokens
    attachments: Attachments
    relay: Relay
    batches: Batches
    holdings: Holdings
    losses: Losses
    retries: Retries
    endings: Endings
    jobs: JobDesk
    assignments: Assignments
    giving_up: GivingUp
    credentials: Credentials
    blobs: BlobDesk
    authoriser: Authoriser
    reasking: Reasking
    rooms: RoomDesk
    terminations: Terminations
