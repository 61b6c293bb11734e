"""The whole of `signald ctl`, in one place to load from."""

from signald.ctl.commands import app
from signald.ctl.events import app as events

app.command(events)

__all__ = ["app"]
