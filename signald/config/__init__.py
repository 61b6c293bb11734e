"""The configuration: typed sections, a strict loader that reports every problem at once, and the reference text."""

from signald.config.checks import has_key, is_loopback, parse_address
from signald.config.loading import load, load_comparable, load_with_origins
from signald.config.memory import cgroup_limit, check_memory, memory_problem
from signald.config.moves import check_moves, drain_moves
from signald.config.problems import ConfigError, Problem
from signald.config.reference import render_markdown, render_toml
from signald.config.schema import schema
from signald.config.sections import (
    AdminConfig,
    AdmissionConfig,
    AuthConfig,
    BlobsConfig,
    Config,
    CoreConfig,
    DrainConfig,
    JobsConfig,
    LimitsConfig,
    ListenConfig,
    LogConfig,
    NodeConfig,
    PaceConfig,
    RoomsConfig,
    SessionConfig,
    StoreConfig,
    TimeoutsConfig,
    WorkerConfig,
)
from signald.config.stop_timeouts import check_stop_timeouts

__all__ = [
    "AdminConfig",
    "AdmissionConfig",
    "AuthConfig",
    "BlobsConfig",
    "Config",
    "ConfigError",
    "CoreConfig",
    "DrainConfig",
    "JobsConfig",
    "LimitsConfig",
    "ListenConfig",
    "LogConfig",
    "NodeConfig",
    "PaceConfig",
    "Problem",
    "RoomsConfig",
    "SessionConfig",
    "StoreConfig",
    "TimeoutsConfig",
    "WorkerConfig",
    "cgroup_limit",
    "check_memory",
    "check_moves",
    "check_stop_timeouts",
    "drain_moves",
    "has_key",
    "is_loopback",
    "load",
    "load_comparable",
    "load_with_origins",
    "memory_problem",
    "parse_address",
    "render_markdown",
    "render_toml",
    "schema",
]
