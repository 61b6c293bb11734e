"""The names that an application uses, the same for Trio and asyncio. `signald.sdk.trio` and `signald.sdk.asyncio` give them on."""

from signald.sdk.backoff import Backoff, Health
from signald.sdk.blob_core import Blob
from signald.sdk.bounds import Bounds
from signald.sdk.client_core import ClientState
from signald.sdk.client_jobs import JobPart
from signald.sdk.dialing import DialFailed
from signald.sdk.errors import ApiRefused, BlobFailed, JobFailed, Refused, RoomGone, SessionGone, StreamOver, Unreadable
from signald.sdk.events import (
    AuthExpiring,
    Disconnected,
    Gone,
    HandedOver,
    LifecycleEvent,
    LogLost,
    MessageReceived,
    Paired,
    PeerAway,
    PeerGone,
    RealtimeReceived,
    ReceiptUpTo,
    Replaced,
    Resumed,
    Waiting,
)
from signald.sdk.front.blobs import BlobStream, RemoteBlob
from signald.sdk.front.client import Client, open_client
from signald.sdk.front.client_jobs import Job
from signald.sdk.front.departure import Leave, Mode
from signald.sdk.front.handover import HandoverSocket, UpstreamGone, handover_socket
from signald.sdk.front.jobs import JobHandler, WorkerJob
from signald.sdk.front.rooms import Room
from signald.sdk.front.serving import run_worker
from signald.sdk.front.stage import Env
from signald.sdk.front.streams import OutStream
from signald.sdk.front.worker import Worker, open_worker
from signald.sdk.front.worker_session import Handler, WorkerSession
from signald.sdk.network import Carrier, CarrierClosed, Dial
from signald.sdk.party_records import Timing
from signald.sdk.room_events import (
    MembersChanged,
    PublicationRefused,
    Record,
    RecordsChanged,
    RoomLagged,
    RoomPublication,
    RoomReset,
    RoomUpdate,
)
from signald.sdk.streams_core import StreamText

__all__ = [
    "ApiRefused",
    "AuthExpiring",
    "Backoff",
    "Blob",
    "BlobFailed",
    "BlobStream",
    "Bounds",
    "Carrier",
    "CarrierClosed",
    "Client",
    "ClientState",
    "Dial",
    "DialFailed",
    "Disconnected",
    "Env",
    "Gone",
    "HandedOver",
    "Handler",
    "HandoverSocket",
    "Health",
    "Job",
    "JobFailed",
    "JobHandler",
    "JobPart",
    "Leave",
    "LifecycleEvent",
    "LogLost",
    "MembersChanged",
    "MessageReceived",
    "Mode",
    "OutStream",
    "Paired",
    "PeerAway",
    "PeerGone",
    "PublicationRefused",
    "RealtimeReceived",
    "ReceiptUpTo",
    "Record",
    "RecordsChanged",
    "Refused",
    "RemoteBlob",
    "Replaced",
    "Resumed",
    "Room",
    "RoomGone",
    "RoomLagged",
    "RoomPublication",
    "RoomReset",
    "RoomUpdate",
    "SessionGone",
    "StreamOver",
    "StreamText",
    "Timing",
    "Unreadable",
    "UpstreamGone",
    "Waiting",
    "Worker",
    "WorkerJob",
    "WorkerSession",
    "handover_socket",
    "open_client",
    "open_worker",
    "run_worker",
]
