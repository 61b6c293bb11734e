"""`signald token`: what an operator is told of a token, and that no reader of the screen can use any of it."""

import io
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from signald.cli import main
from signald.core.rooms import read_patterns
from signald.exit_codes import ExitCode
from signald.http.fetch import Fetched, FetchFailed
from signald.service.rooms.rights import Rights
from tests.jwks import EC_KEY, ED_KEY, jwk, key_set

SECRET = "a shared secret of at least 32 bytes"
OTHER = "another secret of at least 32 bytes!"
CONFIG = f"""[auth]
jwt_secret = "{SECRET}"
jwt_issuer = "core"
jwt_audience = "signald"
"""

Output = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration."""
    path = tmp_path / "signald.toml"
    path.write_text(CONFIG)
    return path


def signed(
    change: dict[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None
) -> str:
    """Return a token that is good for a day, changed; None leaves a claim out. (A parameter is made when the tests are collected.)"""
    now = time.time()
    said = {
        "sub": "ann",
        "role": "client",
        "iat": now,
        "exp": now + 86_400,
        "iss": "core",
        "aud": "signald",
        **(change or {}),
    }
    claims = {name: value for name, value in said.items() if value is not None}
    return jwt.api_jws.encode(
        json.dumps(claims).encode(), key, algorithm, headers=None if kid is None else {"kid": kid}
    )


def inspected(capsys: Output, token: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Inspect a token; return the exit code and the answer."""
    code = main(["token", "inspect", token, "--json", *arguments])
    said = capsys.readouterr()
    assert token not in said.out + said.err
    return code, json.loads(said.out)


def test_a_good_token(file: Path, capsys: Output) -> None:
    """It exits with 0 and says header, claims and times; the token and its signature are not shown."""
    token = signed()
    assert inspected(capsys, token, "--config", str(file))[1]["valid"] is True
    assert main(["token", "inspect", token, "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("valid\n")
    assert 'claims: sub = "ann"' in out
    assert "in 24 h" in out or "in 23 h" in out
    assert not any(part in out for part in token.split("."))


def test_rooms_are_said_as_patterns_and_rights(file: Path, capsys: Output) -> None:
    """Each pattern with its rights is in the claim as a node reads it."""
    mint = ["token", "mint", "--subject", "ann", "--config", str(file)]
    rooms = [
        "--rooms",
        "canvas:*=join,publish",
        "--rooms",
        "lobby=join",
        "--rooms",
        "*=state",
        "--rooms",
        "lobby=publish",
    ]
    assert main([*mint, "--role", "client", *rooms]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"], audience="signald")
    assert claims["rooms"] == {"canvas:*": ["join", "publish"], "lobby": ["join", "publish"], "*": ["state"]}
    rights = Rights(read_patterns(claims["rooms"]))
    assert rights.of("canvas:42") == {"join", "publish", "state"}
    assert main([*mint, "--role", "worker"]) == 0
    assert "rooms" not in jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"], audience="signald")


@pytest.mark.parametrize(
    "rooms", ["", "lobby", "=join", "lobby=", "lobby=join,", "lobby=read", "a b=join", "can*as=join", "**=join"]
)
def test_rooms_that_would_give_no_right_are_refused(file: Path, capsys: Output, rooms: str) -> None:
    """A node passes a mistake over, so it is said where it is made; a service needs none."""
    mint = ["token", "mint", "--subject", "ann", "--config", str(file)]
    assert main([*mint, "--role", "client", "--rooms", rooms]) == ExitCode.USAGE
    assert main([*mint, "--role", "service", "--rooms", "lobby=join"]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "room" in said.err


def test_it_is_read_from_standard_input(file: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is in no list of processes; as a whole header it is taken too."""
    for text in (signed(), f"Bearer {signed()}\n", f"  bearer   {signed()}  "):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert main(["token", "inspect", "--config", str(file)]) == 0
    assert "valid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (signed({"exp": 5}), "expired at 1970-01-01T00:00:05Z"),
        (signed({"exp": None}), "exp is missing"),
        (signed({"exp": 10**400}), "exp is missing"),
        (signed({"nbf": 4_000_000_000}), "not valid before 2096-"),
        (signed({"nbf": "now"}), "nbf is no time"),
        (signed({"sub": None}), "sub is missing"),
        (signed({"sub": "a\x1fb"}), "sub is missing"),
        (signed({"tenant": 5}), "tenant"),
        (signed({"role": "admin"}), "role is missing or wrong"),
        (signed({"role": "service", "scope": 5}), "scope is no list"),
        (signed({"role": "service", "scope": ["openid"]}), "scope grants nothing"),
        (signed({"iss": "another"}), "iss is not 'core'"),
        (signed({"aud": ["x"]}), "aud is not 'signald'"),
        (signed(key=OTHER), "signature was not made with"),
        (signed(algorithm="HS512", key=SECRET * 2), "is signed with HS512, and HS256 is taken"),
        (signed(key=EC_KEY, algorithm="ES256"), "is signed with ES256"),
        ("no token", "no JWT"),
        ("", "no JWT"),
        ("x" * 9000, "9000 characters"),
    ],
    ids=lambda value: value if len(value) < 40 and "." not in value else "",
)
def test_a_token_that_is_refused_says_why(file: Path, capsys: Output, token: str, why: str) -> None:
    """Each rule of a node has its words, and the exit code is one of its own."""
    if token:
        code, said = inspected(capsys, token, "--config", str(file))
        assert any(why in problem for problem in said["problems"]), said["problems"]
        assert (code, said["valid"]) == (ExitCode.INVALID_TOKEN, False)
    else:
        assert main(["token", "inspect", "", "--config", str(file)]) == ExitCode.INVALID_TOKEN


def test_without_a_key_nothing_is_verified(capsys: Output) -> None:
    """What the token says is shown, and that this proves nothing."""
    code, said = inspected(capsys, signed(key=OTHER))
    assert (code, said["valid"], said["verified"]) == (0, False, False)
    assert main(["token", "inspect", signed()]) == 0
    assert capsys.readouterr().out.endswith("not verified: give --config or --secret-file\n")


def test_nothing_in_a_token_moves_the_terminal(capsys: Output) -> None:
    """A claim is a stranger's text."""
    main(["token", "inspect", signed({"sub": "a\x1b[2J\u202eb", "\x07": "\ud83d"})])
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()


def test_a_key_set_names_its_key(tmp_path: Path, capsys: Output) -> None:
    """Which key is missing is said by its kid."""
    (tmp_path / "jwks.json").write_bytes(key_set(jwk(EC_KEY, "a"), jwk(ED_KEY, "b")))
    file = tmp_path / "signald.toml"
    file.write_text('[auth]\njwks_file = "jwks.json"\n')
    for token, why in (
        (signed(key=EC_KEY, algorithm="ES256", kid="a"), ""),
        (signed(key=EC_KEY, algorithm="ES256"), ""),
        (signed(key=EC_KEY, algorithm="ES256", kid="c"), "no key 'c' for ES256"),
        (signed(key=EC_KEY, algorithm="ES256", kid="b"), "no key 'b' for ES256"),
        (signed(), "names no key"),
    ):
        _, said = inspected(capsys, token, "--config", str(file))
        assert said["problems"] == [] if not why else why in said["problems"][0]


def test_a_key_set_is_fetched(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a URL the issuer is asked once; when it does not answer, that is said and nothing is called valid."""
    file = tmp_path / "signald.toml"
    file.write_text('[auth]\njwks_url = "https://issuer.example/jwks"\n')
    answer: list[Any] = [Fetched(key_set(jwk(EC_KEY, "a")), None)]

    async def get(_: str) -> Fetched:
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]  # type: ignore[no-any-return]

    monkeypatch.setattr("signald.service.jwks._HttpGet", lambda: get)
    token = signed(key=EC_KEY, algorithm="ES256", kid="a")
    assert inspected(capsys, token, "--config", str(file))[1]["valid"]
    other = signed(key=EC_KEY, algorithm="ES256", kid="b")
    assert inspected(capsys, other, "--config", str(file))[1]["problems"] == ["the issuer publishes no key 'b'"]
    for answer[0], why in ((FetchFailed("it is dead"), "it is dead"), (Fetched(b"<html>", None), "not a JWK set")):
        assert main(["token", "inspect", token, "--config", str(file)]) == ExitCode.INVALID_TOKEN
        said = capsys.readouterr()
        assert why in said.err
        assert "the keys of the issuer are not here" in said.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["inspect", "x", "--config", "a", "--secret-file", "b"], ExitCode.USAGE),
        (["inspect", "x", "--secret-file", "none"], ExitCode.CONFIGURATION),
        (["mint", "--role", "client", "--subject", "a", "--scope", "jobs", "--secret-file", "secret"], ExitCode.USAGE),
        (["revoke", "ann", "--url", "http://127.0.0.1:1"], ExitCode.UNAVAILABLE),
        (["revoke"], ExitCode.USAGE),
    ],
)
def test_a_command_that_cannot_be_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, arguments: list[str], code: int
) -> None:
    """One line says why."""
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text(SECRET)
    assert main(["token", *arguments]) == code
    assert capsys.readouterr().err.startswith("signald: ") or code in (ExitCode.CONFIGURATION, ExitCode.USAGE)
