"""How it is carried: the only place that knows WebSocket."""
