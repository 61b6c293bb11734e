"""Every key an operator can set: its type, default, unit, range and why it is what it is. One module has one section, or a few small ones.

This package is the one source of the configuration. The reference file `conf/signald.toml`, the tables of
`docs/configuration.md` and the loader's checks are derived from it, and tests hold them together.
Units stand last in the names: `_s` seconds, `_ms` milliseconds, `_max` an upper bound, `_per_s` a rate.
"""

import attrs

from signald.config.sections.admission import AdmissionConfig
from signald.config.sections.auth import AuthConfig
from signald.config.sections.blobs import BlobsConfig
from signald.config.sections.core import CoreConfig
from signald.config.sections.deepstream import DeepstreamConfig
from signald.config.sections.drain import DrainConfig, PaceConfig
from signald.config.sections.jobs import JobsConfig
from signald.config.sections.limits import LimitsConfig
from signald.config.sections.listen import ListenConfig
from signald.config.sections.node import NodeConfig
from signald.config.sections.operation import AdminConfig, LogConfig, TelemetryConfig
from signald.config.sections.profiles import ProfilesConfig
from signald.config.sections.rooms import RoomsConfig
from signald.config.sections.session import SessionConfig
from signald.config.sections.store import StoreConfig
from signald.config.sections.timeouts import TimeoutsConfig
from signald.config.sections.worker import WorkerConfig

__all__ = [
    "SECTIONS",
    "AdminConfig",
    "AdmissionConfig",
    "AuthConfig",
    "BlobsConfig",
    "Config",
    "CoreConfig",
    "DeepstreamConfig",
    "DrainConfig",
    "JobsConfig",
    "LimitsConfig",
    "ListenConfig",
    "LogConfig",
    "NodeConfig",
    "PaceConfig",
    "ProfilesConfig",
    "RoomsConfig",
    "SessionConfig",
    "StoreConfig",
    "TimeoutsConfig",
    "WorkerConfig",
]


@attrs.frozen
class Config:
    """The whole configuration. `Config()` holds the defaults; `load` fills and checks it."""

    listen: ListenConfig = attrs.field(factory=ListenConfig)
    store: StoreConfig = attrs.field(factory=StoreConfig)
    node: NodeConfig = attrs.field(factory=NodeConfig)
    auth: AuthConfig = attrs.field(factory=AuthConfig)
    limits: LimitsConfig = attrs.field(factory=LimitsConfig)
    timeouts: TimeoutsConfig = attrs.field(factory=TimeoutsConfig)
    session: SessionConfig = attrs.field(factory=SessionConfig)
    worker: WorkerConfig = attrs.field(factory=WorkerConfig)
    jobs: JobsConfig = attrs.field(factory=JobsConfig)
    blobs: BlobsConfig = attrs.field(factory=BlobsConfig)
    rooms: RoomsConfig = attrs.field(factory=RoomsConfig)
    profiles: ProfilesConfig = attrs.field(factory=ProfilesConfig)
    deepstream: DeepstreamConfig = attrs.field(factory=DeepstreamConfig)
    core: CoreConfig = attrs.field(factory=CoreConfig)
    admission: AdmissionConfig = attrs.field(factory=AdmissionConfig)
    drain: DrainConfig = attrs.field(factory=DrainConfig)
    pace: PaceConfig = attrs.field(factory=PaceConfig)
    admin: AdminConfig = attrs.field(factory=AdminConfig)
    log: LogConfig = attrs.field(factory=LogConfig)
    telemetry: TelemetryConfig = attrs.field(factory=TelemetryConfig)


SECTIONS: dict[str, type] = {field.name: field.type for field in attrs.fields(Config) if field.type is not None}
