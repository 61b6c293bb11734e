"""What `check-config` says of the keys of the store, and of a Redis that others can read."""

import base64
from pathlib import Path

import pytest

from signald.config.loading import load
from signald.config.problems import ConfigError

BASE = {"SIGNALD_AUTH__INSECURE": "true"}


def problems(env: dict[str, str]) -> list[tuple[str, str]]:
    """Return key and message of each problem."""
    try:
        load(None, {**BASE, **env})
    except ConfigError as error:
        return [(problem.key, problem.message) for problem in error.problems]
    return []


def test_the_file_of_keys(tmp_path: Path) -> None:
    """It is read and checked whole; beside it no signed URL can be given away."""
    keys, secret = tmp_path / "keys", base64.b64encode(bytes(32)).decode()
    env = {"SIGNALD_STORE__ENCRYPTION_KEYS_FILE": str(keys)}
    assert [key for key, _ in problems(env)] == ["store.encryption_keys_file"]
    keys.write_text(f"one {secret}\n")
    keys.chmod(0o644)
    ((key, message),) = problems(env)
    assert (key, "chmod 0400" in message, secret in message) == ("store.encryption_keys_file", True, False)
    keys.chmod(0o400)
    assert problems(env) == []
    assert load(None, {**BASE, **env}).store.encryption_keys_file == str(keys)
    media = {
        "SIGNALD_BLOBS__URL": "s3://bucket",
        "SIGNALD_BLOBS__CREDENTIALS": "environment",
        "SIGNALD_BLOBS__REDIRECT": "true",
    }
    assert [message for _, message in problems({**env, **media})] == [
        "behind a signed URL the bytes of a blob are sealed: remove blobs.redirect"
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://user:pass@host", "needs TLS"),
        ("redis+sentinel://user:pass@host/service", "needs TLS"),
        ("rediss://host", "needs a login"),
        ("rediss://user@host", "needs a login"),
        ("rediss://user:@host", "needs a login"),
        ("rediss://user:pass@host?ssl_check_hostname=false", "needs a certificate"),
        ("rediss+sentinel://user:pass@host/service", "Sentinels"),
        ("rediss://user:pass@host", ""),
        ("rediss://:pass@host/3", ""),
        ("rediss+cluster://user:pass@host,other", ""),
        ("rediss+sentinel://user:pass@host/service?sentinel_password=pass", ""),
        ("sqlite:store.db", ""),
    ],
)
def test_require_tls(url: str, said: str) -> None:
    """Redis is refused without TLS, a login, or a check of its certificate; no message shows the URL."""
    env = {"SIGNALD_STORE__URL": url}
    assert problems(env) == []
    found = problems({**env, "SIGNALD_STORE__REQUIRE_TLS": "true"})
    assert bool(found) == bool(said)
    for _, message in found:
        assert said in message
        assert "pass@" not in message
