"""The section `[node]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class NodeConfig:
    """The identity of this process in the cluster."""

    id: str = key(
        "",
        "Name of this node, unique in the cluster: at most 253 letters and digits, with dots, underscores and hyphens "
        "between them. A process is refused while another live one has its id. Empty: host name and a random suffix.",
    )
    release: str = key(
        "", "Release this node runs, shown by health and used to tell old from new. Empty: the package version."
    )
    lease_ttl_s: float = key(
        10.0,
        "A node silent for this long counts as dead and its parties as detached. Shorter finds a dead node "
        "sooner and mistakes a slow one for dead.",
        unit="seconds",
        at_least=1,
    )
