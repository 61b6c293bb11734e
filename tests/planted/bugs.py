"""The planted bugs: small slips in the real code, as data. Each is one that a tired author could make and a reader overlook.

A bug replaces one text of one function by another. What it should break is an invariant of the design, by its name; a campaign
plants one at a time and asks whether the simulation notices, or the tests that the bug names.
"""

from tests.planted.bug import Bug
from tests.planted.slips.agenda import AGENDA
from tests.planted.slips.app_testing import APP_TESTING
from tests.planted.slips.blobs import BLOBS
from tests.planted.slips.callers import CALLERS
from tests.planted.slips.canvas import CANVAS
from tests.planted.slips.core import CORE
from tests.planted.slips.crashes import CRASHES
from tests.planted.slips.deepstream import DEEPSTREAM
from tests.planted.slips.events import EVENTS
from tests.planted.slips.hooks import HOOKS
from tests.planted.slips.http import HTTP
from tests.planted.slips.jobs import STREAMS_AND_JOBS
from tests.planted.slips.js import JS
from tests.planted.slips.lua import LUA
from tests.planted.slips.media import MEDIA
from tests.planted.slips.named import NAMED
from tests.planted.slips.poison import POISON
from tests.planted.slips.polling import POLLING
from tests.planted.slips.recalls import RECALLS
from tests.planted.slips.room_callers import ROOM_CALLERS
from tests.planted.slips.room_service import ROOM_SERVICE
from tests.planted.slips.rooms import ROOMS
from tests.planted.slips.sdk import SDK
from tests.planted.slips.sdk_asyncio_carriers import SDK_ASYNCIO_CARRIERS
from tests.planted.slips.sdk_carriers import SDK_CARRIERS
from tests.planted.slips.sdk_cores import SDK_CORES
from tests.planted.slips.sdk_fronts import SDK_FRONTS
from tests.planted.slips.sdk_leaving import SDK_LEAVING
from tests.planted.slips.sdk_rooms import SDK_ROOMS
from tests.planted.slips.sealing import SEALING
from tests.planted.slips.service import SERVICE
from tests.planted.slips.shelf import SHELF
from tests.planted.slips.store import STORE
from tests.planted.slips.telling import TELLING

BUGS: tuple[Bug, ...] = (
    *STORE, *CORE, *SERVICE, *SDK, *POISON, *HTTP, *LUA, *NAMED, *CALLERS, *STREAMS_AND_JOBS, *CRASHES, *RECALLS,
    *AGENDA, *APP_TESTING, *BLOBS, *CANVAS, *DEEPSTREAM, *EVENTS, *HOOKS, *MEDIA, *POLLING, *ROOMS, *ROOM_CALLERS, *ROOM_SERVICE,
    *JS, *SEALING,
    *SDK_ASYNCIO_CARRIERS, *SDK_CARRIERS, *SDK_CORES, *SDK_FRONTS, *SDK_LEAVING, *SDK_ROOMS, *SHELF, *TELLING,
)  # fmt: skip
