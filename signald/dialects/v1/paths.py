"""The paths at which the two parties connect."""

from collections.abc import Mapping

from signald.core.head import Party

PATHS: Mapping[Party, str] = {"client": "/v1/client", "worker": "/v1/worker"}

PARTY_AT: Mapping[str, Party] = {path: party for party, path in PATHS.items()}
