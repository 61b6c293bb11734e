"""The commands of `signald token`: make a token, look into one, void those of a subject."""

import json as json_module
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import trio
from cyclopts import App, Parameter

from signald.config import AuthConfig, ConfigError, Problem, load
from signald.ctl.client import CtlError
from signald.ctl.commands import HERE, Target
from signald.exit_codes import ExitCode
from signald.printable import printable
from signald.service.auth import Authenticator, is_time, mint
from signald.service.inspection import Inspection, inspect, moment
from signald.service.jwks import fill

app = App(name="token", help="Tokens that clients, workers and services show.")


@app.command(name="mint")
def mint_token(
    *,
    role: Literal["client", "worker", "service"],
    subject: str,
    ttl_s: float = 3600.0,
    tenant: str | None = None,
    scope: list[str] | None = None,
    rooms: list[str] | None = None,
    config: Path | None = None,
    secret_file: Path | None = None,
) -> int:
    """Print a token signed with the shared secret, for development and for workers.

    Parameters
    ----------
    role
        The kind of party that may show the token; a service speaks over HTTP only.
    subject
        The principal of the party; a session belongs to the principal that started it.
    ttl_s
        Seconds until the token expires.
    tenant
        The tenant of the subject.
    scope
        What a service may use: jobs, sessions, rooms, blobs or users; may be given several times. Without one: all.
    rooms
        What a client or a worker may do in rooms, as PATTERN=RIGHTS, such as canvas:*=join,publish; may be given several times. The rights
        are join, publish and state. Without one the token says nothing of rooms, and rooms.default_rights counts.
    config
        Take the secret, issuer, audience and algorithm from this configuration file.
    secret_file
        Take the secret from this file instead.
    """
    auth = _auth(config, secret_file)
    if not auth.jwt_secret:
        raise CtlError(_no_secret(auth), ExitCode.CONFIGURATION)
    try:
        claim = None if rooms is None else _rooms(rooms)
        now = time.time()
        print(mint(auth, subject=subject, role=role, ttl_s=ttl_s, now=now, tenant=tenant, scope=scope, rooms=claim))
    except ValueError as error:
        raise CtlError(str(error), ExitCode.USAGE) from None
    return ExitCode.OK


@app.command(name="inspect")
def inspect_token(
    shown: str = "-",
    /,
    *,
    config: Path | None = None,
    secret_file: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what a token says, and whether a node would take it; exit with 82 if not. The token itself is not shown again.

    Parameters
    ----------
    shown
        The token; - reads it from standard input, where it is in no list of processes and no history of a shell.
    config
        Verify it with the keys, issuer and audience of this configuration file, as a node with it would.
    secret_file
        Verify it with the shared secret in this file instead.
    json
        Print one JSON object.
    """
    text = sys.stdin.read() if shown == "-" else shown
    scheme, _, rest = text.strip().partition(" ")
    bearer = rest.strip() if scheme.lower() == "bearer" else text.strip()
    authenticator = Authenticator.from_config(_auth(config, secret_file))
    now = time.time()
    if authenticator.remote is not None and (why := trio.run(fill, authenticator.remote, now)):
        print(f"signald: {printable(why)}", file=sys.stderr)
    found = inspect(authenticator, bearer, now)
    print(_as_json(found) if json else _as_text(found, now))
    return ExitCode.INVALID_TOKEN if found.problems else ExitCode.OK


@app.command
def revoke(subject: str, /, *, tenant: str | None = None, target: Target = HERE) -> int:
    """Void the tokens of a subject that were issued before now, on all nodes, and end its connections; any node can be asked.

    Parameters
    ----------
    subject
        The subject (sub) of the tokens.
    tenant
        Its tenant; without one only tokens without a tenant are meant.
    """
    answer = target.client().post("revoke", {"subject": subject, "tenant": tenant})
    at_s = answer["revoked_at_ms"] / 1000
    target.print(answer, f"tokens of {printable(subject)} that were issued before {moment(at_s)} are void")
    return ExitCode.OK


def _rooms(said: list[str]) -> dict[str, list[str]]:
    """Read `--rooms`. The rights of a pattern that stands twice are joined."""
    claim: dict[str, list[str]] = {}
    for one in said:
        pattern, _, rights = one.rpartition("=")
        claim.setdefault(pattern, []).extend([right.strip() for right in rights.split(",")])
    return claim


def _auth(config: Path | None, secret_file: Path | None) -> AuthConfig:
    if config is not None and secret_file is not None:
        raise CtlError("give --config or --secret-file, not both", ExitCode.USAGE)
    if secret_file is None:
        return load(config, os.environ).auth
    try:
        return load(None, {"SIGNALD_AUTH__JWT_SECRET_FILE": str(secret_file)}).auth
    except ConfigError as error:
        raise ConfigError([Problem("--secret-file", "", problem.message) for problem in error.problems]) from None


def _no_secret(auth: AuthConfig) -> str:
    if auth.jwt_public_key_file or auth.jwks_file or auth.jwks_url:
        return "tokens are verified with a public key: mint them where the private key is"
    return "there is no shared secret: set auth.jwt_secret_file in the configuration, or give --secret-file"


def _as_json(found: Inspection) -> str:
    said: dict[str, Any] = {
        "header": found.header,
        "claims": found.claims,
        "verified": found.verified,
        "valid": found.verified and not found.problems,
        "problems": list(found.problems),
    }
    return json_module.dumps(said)


def _as_text(found: Inspection, now: float) -> str:
    lines: list[str] = []
    for name, part in (("header", found.header), ("claims", found.claims)):
        for key, value in (part or {}).items():
            said = f" ({_when(value, now)})" if key in ("exp", "iat", "nbf") and is_time(value) else ""
            shown = printable(json_module.dumps(value, ensure_ascii=False))
            lines.append(f"{name}: {printable(key)} = {shown}{said}")
    lines += [f"refused: it {printable(problem)}" for problem in found.problems]
    if not found.problems:
        lines.append("valid" if found.verified else "not verified: give --config or --secret-file")
    return "\n".join(lines)


def _when(seconds: float, now: float) -> str:
    away = seconds - now
    unit, size = next(
        ((unit, size) for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)) if abs(away) >= size), ("s", 1)
    )
    distance = f"{abs(away) / size:.0f} {unit}"
    return f"{moment(seconds)}, {f'in {distance}' if away > 0 else f'{distance} ago'}"
