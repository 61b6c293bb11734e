"""The section `[profiles]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class ProfilesConfig:
    """Wires of programs that exist, spoken beside `signald.v1`, each at paths of its own. Where one is off, its paths are not there."""

    deepstream: bool = key(
        False,
        "Speak the wire of a DeepStream fleet at /deepstream/ws. Off, because a path that no program uses is only there to be attacked.",
    )
    canvas: bool = key(
        False,
        "Speak the wire of a collaborative canvas at /ws/{session_id}. Off for the same reason.",
    )
