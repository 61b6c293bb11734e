"""The forms of a store URL: one list for the check of the configuration, for the opening of a store, and for every message."""

FORMS = {
    "memory": "memory:",
    "sqlite": "sqlite:PATH",
    "redis": "redis://HOST",
    "rediss": "rediss://HOST",
    "redis+sentinel": "redis+sentinel://HOST,HOST/SERVICE",
    "rediss+sentinel": "rediss+sentinel://HOST,HOST/SERVICE",
    "redis+cluster": "redis+cluster://HOST,HOST",
    "rediss+cluster": "rediss+cluster://HOST,HOST",
}
"""The scheme of each form, and the form as an operator writes it."""

REDIS_FORMS = (
    "redis[s]://[user:password@]host[:port][/db], redis[s]+sentinel://[user:password@]host[:port],.../service[/db], "
    "redis[s]+cluster://[user:password@]host[:port],..."
)
"""The forms of Redis with all their parts; `store.redis_url` reads these."""


def scheme_of(url: str) -> str:
    """Return the text before the first colon; the URL may have no form at all."""
    return url.partition(":")[0]


def is_redis(url: str) -> bool:
    """Tell whether the form of `url` is one of Redis, by its scheme alone."""
    return scheme_of(url).partition("+")[0] in ("redis", "rediss")


def is_same_store(one: str, other: str) -> bool:
    """Tell whether two store URLs name one store: those of one Redis may differ in servers, login and options."""
    return one == other or (_redis_store(one) is not None and _redis_store(one) == _redis_store(other))


def _redis_store(url: str) -> tuple[str, ...] | None:
    """Return the parts of a Redis URL that name the store (kind, service, database); None for another store."""
    scheme, _, rest = url.partition("://")
    base, _, form = scheme.partition("+")
    if base not in ("redis", "rediss"):
        return None
    parts = [part for part in rest.partition("?")[0].partition("/")[2].split("/") if part]
    if len(parts) < (2 if form == "sentinel" else 1):
        parts.append("0")
    return form, *parts
