"""The section `[store]`."""

from typing import Literal

import attrs

from signald.config.keys import key


@attrs.frozen
class StoreConfig:
    """The store of sessions, logs and tokens; nodes that share a store form one cluster."""

    url: str = key(
        "sqlite:signald.db",
        "memory: (lost with the process), sqlite:PATH (one host, relative to the working directory), "
        "redis://, rediss:// (TLS), redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST. A reload applies another "
        "login, other addresses and TLS options of Redis; another kind of store, service or database needs a restart.",
        secret=True,
        reload=True,
    )
    url_file: str = key(
        "",
        "File that holds the URL instead, for a URL with a password. Excludes url. It is read again by a reload, and when Redis "
        "refuses the login.",
        unit="path",
        reload=True,
    )
    key_prefix: str = key(
        "signald",
        "Redis only: what the names of all keys and channels begin with, as in signald:{...}. Clusters that share a Redis "
        "differ in it, or in the database of the URL. Letters, digits and . _ - : only, as ACL rules are written with it.",
    )
    ack: Literal["process", "replica", "disk"] = key(
        "process",
        "What an ack promises the sender: the message survives the death of any signald process, of the "
        "primary store (replica), or of the power (disk). Each step costs latency.",
    )
    encryption_keys_file: str = key(
        "",
        "File of the keys under which messages and what else parties say is sealed in the store (docs/security.md says which records): a "
        "line is a name and `openssl rand -base64 32`, the last line is the newest key. It opens and seals; the others open. Values are "
        "sealed once all live nodes have the key. Empty: values are kept plain.",
        unit="path",
        reload=True,
    )
    require_tls: bool = key(
        False,
        "Redis only: refuse a store.url without TLS, without a password, or whose certificate is not checked.",
    )
    connect_timeout_s: float = key(1.0, "Longest wait for a connection to the store.", unit="seconds")
    command_timeout_s: float = key(
        2.0, "Longest wait for an answer of the store; after it the outcome counts as unknown.", unit="seconds"
    )
    poll_interval_s: float = key(
        0.005,
        "SQLite only: how often a node looks for changes of another process on the same file, and only while "
        "another node is registered. It is the delay of a message that crosses nodes.",
        unit="seconds",
    )
    batch_ops_max: int = key(
        512,
        "Most operations in one round trip to the store. Larger batches carry more under load and make the "
        "single operation wait longer.",
        unit="operations",
    )
