"""The inputs of the vectors, by topic."""

from typing import Any

from tests.vectors.scenarios.codes import CODES
from tests.vectors.scenarios.credentials import CREDENTIALS
from tests.vectors.scenarios.jobs import JOBS
from tests.vectors.scenarios.messages import MESSAGES
from tests.vectors.scenarios.moves import MOVES
from tests.vectors.scenarios.opening import OPENING
from tests.vectors.scenarios.requests import REQUESTS
from tests.vectors.scenarios.resume import RESUME
from tests.vectors.scenarios.rooms import ROOMS
from tests.vectors.scenarios.streams import STREAMS
from tests.vectors.scenarios.workers import WORKERS

TOPICS: dict[str, list[dict[str, Any]]] = {
    "codes": CODES,
    "credentials": CREDENTIALS,
    "jobs": JOBS,
    "messages": MESSAGES,
    "moves": MOVES,
    "opening": OPENING,
    "requests": REQUESTS,
    "resume": RESUME,
    "rooms": ROOMS,
    "streams": STREAMS,
    "workers": WORKERS,
}
