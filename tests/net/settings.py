"""Settings of a listener that serves the paths of `signald.v1`."""

from typing import Any

from signald.net.endpoints import Endpoint
from signald.net.settings import NetSettings
from signald.wire.messages import SUBPROTOCOL

ENDPOINTS = {"/v1/client": Endpoint((SUBPROTOCOL,)), "/v1/worker": Endpoint((SUBPROTOCOL,))}


def settings_of(**limits: Any) -> NetSettings:
    """The defaults of the configuration, but for `limits`."""
    return NetSettings(endpoints=ENDPOINTS, **limits)
