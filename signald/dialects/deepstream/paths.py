"""The paths of the dialect."""

WEBSOCKET, HEALTH = "/deepstream/ws", "/deepstream/health"
