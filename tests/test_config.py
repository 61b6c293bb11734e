"""The configuration: what loads, what is refused, and how the refusal is said."""

import base64
import tomllib
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import signald
from signald.config import (
    AuthConfig,
    BlobsConfig,
    Config,
    ConfigError,
    DrainConfig,
    StoreConfig,
    has_key,
    is_loopback,
    load,
    parse_address,
    render_markdown,
    render_toml,
)
from signald.config.keys import key_info
from signald.config.media_urls import media_url
from signald.config.problems import Problem
from signald.config.sections import SECTIONS

ROOT = Path(__file__).parent.parent
WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(24)).decode()}"
SECRET = "correct horse battery staple, said twice"
S3_KEYS = 'access_key = "a"\nsecret_key = "b"\n'
API_KEY = "correct-horse-battery-staple-said-twice"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a configuration file and returns its path."""

    def write_file(text: str) -> Path:
        path = tmp_path / "signald.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems_of(path: Path | None, env: dict[str, str] | None = None) -> list[Problem]:
    """Load what must be refused and return its problems."""
    with pytest.raises(ConfigError) as caught:
        load(path, env or {})
    return list(caught.value.problems)


def only_problem_of(path: Path | None, env: dict[str, str] | None = None) -> Problem:
    problems = problems_of(path, env)
    assert len(problems) == 1, problems
    return problems[0]


def all_keys() -> list[str]:
    return [f"{section}.{field.name}" for section, cls in SECTIONS.items() for field in attrs.fields(cls)]


# Defaults and the texts derived from them.


def test_nothing_given_loads_the_defaults_with_a_named_node() -> None:
    """Without file and environment the defaults hold; node id and release are filled in."""
    config = load(None, {})
    assert attrs.evolve(config, node=Config().node) == Config()
    assert config.node.release == signald.__version__
    assert config.node.id != load(None, {}).node.id


def test_reference_file_is_what_the_code_says() -> None:
    """conf/signald.toml is the rendering of the sections, to the byte."""
    assert (ROOT / "conf/signald.toml").read_text(encoding="utf-8") == render_toml()


def test_reference_file_lists_every_key_and_no_other_with_its_default() -> None:
    """The reference, read as TOML, has exactly the keys of the code, and their defaults as values."""
    values = tomllib.loads((ROOT / "conf/signald.toml").read_text(encoding="utf-8"))
    defaults = attrs.asdict(
        Config(), value_serializer=lambda _, __, value: list(value) if isinstance(value, tuple) else value
    )
    for key in ("websocket", "http"):
        # One address stands without brackets.
        defaults["listen"][key] = defaults["listen"][key][0]
    assert values == defaults


def test_reference_file_loads_to_the_defaults() -> None:
    """Starting from the reference file changes nothing."""
    config = load(ROOT / "conf/signald.toml", {})
    assert attrs.evolve(config, node=Config().node) == Config()


def test_documentation_lists_every_key() -> None:
    """docs/configuration.md contains the tables of the code, and so each key with its default."""
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert render_markdown() in text
    assert [key for key in all_keys() if f"| `{key}` |" not in text] == []


def test_every_key_is_documented_and_numbers_carry_a_unit() -> None:
    """A key says what it does, and a number says what it counts."""
    for cls in SECTIONS.values():
        assert cls.__doc__
        for field in attrs.fields(cls):
            assert key_info(field).doc.endswith("."), field.name
            assert bool(key_info(field).unit) >= (field.type in (int, float)), field.name


# Types, names and places.


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(write: Write) -> None:
    """One run of check-config shows every mistake, each with file, line, key and what to do."""
    path = write('[limits]\nmesage_bytes_max = 5\nfragments_max = "5"\n\n[worker]\non_loss = "reasign"\n[lisen]\n')
    assert [str(problem) for problem in problems_of(path)] == [
        f'{path}:2: limits.mesage_bytes_max: unknown key; did you mean "message_bytes_max"?',
        f'{path}:3: limits.fragments_max: expected an integer, got text ("5")',
        f'{path}:6: worker.on_loss: expected one of "reassign", "hold", "end", got text ("reasign"); did you mean "reassign"?',
        f'{path}:7: unknown section "lisen"; did you mean "listen"?',
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.fragments_max", '"5"'),
        ("limits.fragments_max", "1.9"),
        ("limits.fragments_max", "5.0"),
        ("limits.fragments_max", "true"),
        ("limits.messages_per_s", "true"),
        ("limits.messages_per_s", '"20"'),
        ("limits.messages_per_s", "inf"),
        ("limits.messages_per_s", "nan"),
        ("limits.fragments_max", "1979-05-27"),
        ("auth.insecure", "1"),
        ("auth.insecure", '"true"'),
        ("node.id", "5"),
        ("node.id", "true"),
        ("node.id", '"two\\nlines"'),
        ("listen.allowed_origins", '"*"'),
        ("listen.allowed_origins", "[1]"),
        ("log.level", "3"),
        ("limits.fragments_max", "{a = 1}"),
    ],
)
def test_no_value_is_coerced(write: Write, key: str, value: str) -> None:
    """A value of another type is refused, however well it could be converted."""
    section, _, name = key.partition(".")
    assert only_problem_of(write(f"[{section}]\n{name} = {value}\n")).key == key


def test_an_integer_is_accepted_for_a_number(write: Write) -> None:
    """`5` is a fine way to write 5.0 seconds."""
    value = load(write("[timeouts]\nhello_s = 3\n"), {}).timeouts.hello_s
    assert value == 3.0
    assert type(value) is float


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.fragments_max", "0"),
        ("timeouts.hello_s", "0"),
        ("timeouts.hello_s", "-1"),
        ("admission.resume_reserved_share", "1.01"),
        ("admission.resume_reserved_share", "-0.01"),
        ("admission.connects_per_s", "-1"),
        ("limits.json_depth_max", "513"),
        ("pace.gap_max_s", "61"),
    ],
)
def test_a_number_out_of_range_is_refused(write: Write, key: str, value: str) -> None:
    """Zero, negative and absurd numbers are refused with the range that holds."""
    section, _, name = key.partition(".")
    problem = only_problem_of(write(f"[{section}]\n{name} = {value}\n"))
    assert problem.key == key
    assert problem.message.startswith("must be ")


def test_an_integer_of_more_than_64_bits_is_refused(write: Write) -> None:
    """What no number of the machine can hold is a problem of the file, and not a crash."""
    problem = only_problem_of(write(f"[admission]\nconnections_max = {'9' * 400}\n"))
    assert problem.key == "admission.connections_max"
    assert problem.message == "is too large: an integer has 64 bits"


@pytest.mark.parametrize(
    ("key", "value"),
    [("admission.connects_per_s", "0"), ("admission.resume_reserved_share", "1"), ("drain.unready_s", "0")],
)
def test_the_ends_of_a_range_belong_to_it(write: Write, key: str, value: str) -> None:
    """Zero is a value where the documentation gives it a meaning."""
    section, _, name = key.partition(".")
    assert getattr(getattr(load(write(f"[{section}]\n{name} = {value}\n"), {}), section), name) == int(value)


def test_a_key_in_the_wrong_section_is_sent_home(write: Write) -> None:
    """A key that exists elsewhere is refused with the section it belongs to, and so is one outside any."""
    path = write("message_bytes_max = 3\n[limits]\nresume_ttl_s = 3\n")
    assert [problem.message for problem in problems_of(path)] == [
        '"message_bytes_max" stands outside any section; did you mean [limits] message_bytes_max?',
        "unknown key; did you mean [session] resume_ttl_s?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[limits]\n"fragments_max" = 0\n', 2),
        ("limits.fragments_max = 0\n", 1),
        ("# a comment\n\n[ limits ]\n  fragments_max=0\n", 4),
        ('[listen]\nallowed_origins = [\n  "https://a.example",\n]\n[limits]\nfragments_max = 0\n', 6),
        ("limits = {fragments_max = 0}\n", 1),
    ],
)
def test_the_line_of_a_problem_is_found_in_every_spelling(write: Write, text: str, line: int) -> None:
    """Quoted, dotted, indented and inline keys are found at their line."""
    path = write(text)
    assert only_problem_of(path).where == f"{path}:{line}"


def test_broken_toml_is_reported_with_line_and_column(write: Write) -> None:
    """A syntax error says where it is."""
    path = write("[limits]\nfragments_max = = 5\n")
    problem = only_problem_of(path)
    assert problem.where == f"{path}:2:17"
    assert "not valid TOML" in problem.message


def test_a_store_url_with_a_broken_bracket_is_a_problem_of_that_key() -> None:
    """What Python's reader of URLs will not read is a mistake in the configuration, not a failure of the loader."""
    assert only_problem_of(None, {"SIGNALD_STORE__URL": "redis://]a"}).key == "store.url"


@pytest.mark.parametrize("prefix", ["", "a b", "a{b", "*", ":a", "a:", "a@b", "x" * 65, "ä"])
def test_a_key_prefix_that_redis_would_not_take_is_refused(prefix: str) -> None:
    """Braces would move keys to other slots, and a pattern would widen what an ACL allows."""
    assert only_problem_of(None, {"SIGNALD_STORE__KEY_PREFIX": prefix}).key == "store.key_prefix"


@pytest.mark.parametrize("prefix", ["signald", "a", "app:signald", "a.b_c-d:9", "x" * 64])
def test_key_prefixes(prefix: str) -> None:
    """What several applications on one Redis agree on."""
    assert load(None, {"SIGNALD_STORE__KEY_PREFIX": prefix}).store.key_prefix == prefix


def test_an_integer_of_thousands_of_digits_is_refused_like_any_other_mistake(write: Write) -> None:
    """Python reads no such integer, and says so in its own way; the file and the environment both have a problem then."""
    assert "4300 digits" in only_problem_of(write(f"[listen]\nbacklog = {'1' * 5000}\n")).message
    assert only_problem_of(None, {"SIGNALD_LISTEN__BACKLOG": "1" * 5000}).key == "listen.backlog"
    assert only_problem_of(None, {"SIGNALD_LISTEN__BACKLOG": "[" * 5000}).key == "listen.backlog"


def test_a_file_that_cannot_be_read_is_one_clear_problem(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is not text are named, without a traceback."""
    assert only_problem_of(tmp_path / "none.toml").message == "cannot be read: No such file or directory"
    assert "cannot be read" in only_problem_of(tmp_path).message
    (tmp_path / "binary.toml").write_bytes(b"[node]\nid = '\xff'\n")
    assert str(only_problem_of(tmp_path / "binary.toml")).endswith(":2: is not UTF-8 text")


# Environment.


def test_environment_overrides_the_file_with_typed_values(write: Write) -> None:
    """Each type can be given as SIGNALD_SECTION__KEY, and wins over the file."""
    path = write("[limits]\nfragments_max = 3\njson_depth_max = 7\n")
    config = load(
        path,
        {
            "SIGNALD_LIMITS__FRAGMENTS_MAX": "4",
            "SIGNALD_TIMEOUTS__HELLO_S": "1.5",
            "SIGNALD_LISTEN__ALLOWED_ORIGINS": "https://a.example, https://b.example",
            "SIGNALD_AUTH__INSECURE": "true",
            "SIGNALD_NODE__ID": "007",
            "SIGNALD_LOG__LEVEL": "debug",
        },
    )
    assert (config.limits.fragments_max, config.limits.json_depth_max) == (4, 7)
    assert config.timeouts.hello_s == 1.5
    assert config.listen.allowed_origins == ("https://a.example", "https://b.example")
    assert config.auth.insecure is True
    assert config.node.id == "007"
    assert config.log.level == "debug"


@pytest.mark.parametrize("text", ["five", "1\njson_depth_max = 2", "", "1.5", '"1"', "true"])
def test_an_environment_value_of_the_wrong_type_is_named_by_its_variable(text: str) -> None:
    """The problem names the variable, because there is no file to look into."""
    problem = only_problem_of(None, {"SIGNALD_LIMITS__FRAGMENTS_MAX": text})
    assert problem.where == "SIGNALD_LIMITS__FRAGMENTS_MAX"


def test_a_mistyped_variable_is_refused_with_a_suggestion() -> None:
    """SIGNALD_ variables with two underscores are ours: unknown ones are mistakes."""
    problem = only_problem_of(None, {"SIGNALD_LIMIT__FRAGMENT_MAX": "5"})
    assert str(problem) == (
        "SIGNALD_LIMIT__FRAGMENT_MAX: unknown variable; did you mean SIGNALD_LIMITS__FRAGMENTS_MAX?"
    )


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes sets SIGNALD_SERVICE_HOST and the like for a service named signald."""
    load(None, {"SIGNALD_SERVICE_HOST": "10.0.0.1", "SIGNALD_PORT": "tcp://10.0.0.1", "OTHER__KEY": "1"})


def test_environment_mends_a_mistake_of_the_file(write: Write) -> None:
    """A value the environment replaces is not used, so its mistake does not count."""
    path = write('[limits]\nfragments_max = "x"\n')
    assert load(path, {"SIGNALD_LIMITS__FRAGMENTS_MAX": "9"}).limits.fragments_max == 9


# Secrets and files.


def test_a_secret_file_fills_its_key_stripped_and_relative_to_the_configuration(write: Write, tmp_path: Path) -> None:
    """auth.jwt_secret_file and store.url_file are read from beside the configuration."""
    (tmp_path / "secret").write_text(f"\n{SECRET}\n\n")
    (tmp_path / "url").write_text("redis://:hunter2@localhost/0\n")
    config = load(write('[auth]\njwt_secret_file = "secret"\n[store]\nurl_file = "url"\n'), {})
    assert config.auth.jwt_secret == SECRET
    assert config.store.url == "redis://:hunter2@localhost/0"


def test_credentials_directory_is_expanded(write: Write, tmp_path: Path) -> None:
    """systemd's LoadCredential works by ${CREDENTIALS_DIRECTORY}; without it the problem says that systemd sets it."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "jwt").write_text(SECRET)
    path = write('[auth]\njwt_secret_file = "${CREDENTIALS_DIRECTORY}/jwt"\n')
    assert load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}).auth.jwt_secret == SECRET
    assert "LoadCredential" in only_problem_of(path).message


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"line one, long enough for a key\nline two"])
def test_a_secret_file_that_holds_no_secret_is_refused(write: Write, tmp_path: Path, content: bytes) -> None:
    """Empty files, bytes that are not text and several lines are surely not what was meant."""
    (tmp_path / "secret").write_bytes(content)
    problem = only_problem_of(write('[auth]\njwt_secret_file = "secret"\n'))
    assert problem.key == "auth.jwt_secret_file"
    assert "line one" not in str(problem)


def test_a_file_that_is_missing_is_one_problem(write: Write) -> None:
    """A missing secret or key file is reported once, not again as missing auth."""
    path = write('[auth]\njwt_secret_file = "none"\n[listen]\nwebsocket = "0.0.0.0:1"\n')
    assert "none cannot be read" in only_problem_of(path).message


def test_a_secret_given_twice_in_one_place_is_refused_but_environment_wins(write: Write, tmp_path: Path) -> None:
    """In one layer key and key_file contradict each other; across layers the environment decides."""
    (tmp_path / "secret").write_text(SECRET)
    both = write(f'[auth]\njwt_secret = "{SECRET}"\njwt_secret_file = "secret"\n')
    assert only_problem_of(both).message == "auth.jwt_secret is set too: keep one of them"
    file = write('[auth]\njwt_secret_file = "secret"\n')
    assert load(file, {"SIGNALD_AUTH__JWT_SECRET": SECRET[::-1]}).auth.jwt_secret == SECRET[::-1]
    plain = write(f'[auth]\njwt_secret = "{SECRET[::-1]}"\n')
    assert load(plain, {"SIGNALD_AUTH__JWT_SECRET_FILE": str(tmp_path / "secret")}).auth.jwt_secret == SECRET


def test_keys_of_api_tokens_come_from_a_file(write: Write, tmp_path: Path) -> None:
    """Several on one line, of which the first signs; nothing of them is shown."""
    (tmp_path / "keys").write_text(f"{API_KEY} {API_KEY[::-1]}\n")
    auth = load(write('[auth]\napi_token_key_file = "keys"\n'), {}).auth
    assert auth.api_token_key.split() == [API_KEY, API_KEY[::-1]]
    assert API_KEY not in repr(auth)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ('api_token_key = "55555"', "auth.api_token_key", "at least 32 bytes"),
        (f'api_token_key = "{API_KEY} 55555"', "auth.api_token_key", "at least 32 bytes"),
        (f'api_token_key = "{" ".join([API_KEY + str(n) for n in range(5)])}"', "auth.api_token_key", "at most 4"),
        (f'jwt_secret = "{API_KEY}"\napi_token_key = "{API_KEY}"', "auth.api_token_key", "a key of its own"),
        ("api_token_ttl_s = 1", "auth.api_token_ttl_s", "at least 5"),
        ("api_token_rotate_s = 60", "auth.api_token_rotate_s", "at least 600"),
        ('cookie_name = "a=b"', "auth.cookie_name", "letters, digits"),
        ('cookie_name = "a b"', "auth.cookie_name", "letters, digits"),
    ],
)
def test_what_callers_of_the_api_show_is_checked(write: Write, text: str, key: str, says: str) -> None:
    """Keys that are short, many or the JWTs' own, lives that are too short, names that no cookie can have."""
    problem = only_problem_of(write(f"[auth]\n{text}\n"))
    assert problem.key == key
    assert says in problem.message
    assert "55555" not in str(problem)


def test_paths_become_absolute(write: Write, tmp_path: Path) -> None:
    """A certificate beside the configuration is found wherever signald is started."""
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("x")
    listen = load(write('[listen]\ntls_certificate_file = "c.pem"\ntls_key_file = "k.pem"\n'), {}).listen
    assert (listen.tls_certificate_file, listen.tls_key_file) == (str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))


def test_secrets_are_not_shown_by_repr() -> None:
    """A Config can be logged: it shows neither the shared secret nor the store's URL."""
    config = Config(auth=AuthConfig(jwt_secret=SECRET), store=StoreConfig(url="redis://:hunter2@h/0"))
    assert SECRET not in repr(config)
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    "text",
    [
        "[auth]\njwt_secret = 55555\n",
        '[auth]\njwt_secret = "55555"\n',
        '[auth]\njwt_secret = ["55555"]\n',
        '[auth]\njwt_secret = "55555\\u0007"\n',
        '[store]\nurl = "reddis://:55555@h/0"\n',
        '[store]\nurl = "55555://x"\n',
        '[store]\nurl = "redis://:55555@"\n',
        '[store]\nurl = "redis+sentinel://:55555@a,b"\n',
        '[store]\nurl = "redis://h/0"\nurl_file = "x"\n[auth]\njwt_sekret = "55555"\n',
    ],
)
def test_secrets_are_not_shown_by_errors(write: Write, text: str) -> None:
    """Whatever is wrong with a secret, the error does not repeat it."""
    problems = problems_of(write(text))
    assert "55555" not in str(ConfigError(problems))


# Rules between keys.


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "signald.example"])
@pytest.mark.parametrize("key", ["websocket", "http"])
def test_an_open_address_without_auth_is_refused(write: Write, host: str, key: str) -> None:
    """Anonymous parties are admitted beyond loopback only when the operator says so."""
    text = f'[listen]\n{key} = "{host}:9000"\n'
    assert only_problem_of(write(text)).key == f"listen.{key}"
    load(write(text + "[auth]\ninsecure = true\n"), {})
    load(write(text + f'[auth]\njwt_secret = "{SECRET}"\n'), {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost"])
def test_loopback_needs_no_auth(write: Write, host: str) -> None:
    """On loopback a newcomer starts without keys."""
    load(write(f'[listen]\nwebsocket = "{host}:9000"\n'), {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('jwks_url = "https://issuer.example/jwks"', ""),
        ('jwks_url = "http://127.0.0.1:9/jwks"', ""),
        ('jwks_url = "http://[::1]:9/jwks"', ""),
        ('jwks_url = "http://issuer.mesh/jwks"\njwks_allow_http = true', ""),
        ('jwks_url = "http://issuer.mesh/jwks"', "use https"),
        ('jwks_url = "https://ann:hunter2@issuer.example/jwks"', "no user, password"),
        ('jwks_url = "https://issuer.example/jwks#hunter2"', "fragment"),
        ('jwks_url = "file:///etc/hunter2"', "expected a URL"),
        ('jwks_url = "https:///hunter2"', "expected a URL"),
        ('jwks_url = "https://issuer.example:hunter2/"', "expected a URL"),
        ('jwks_url = "https://[hunter2/"', "expected a URL"),
        ('jwks_url = "hunter2"', "expected a URL"),
        ('jwks_url = "https://issuer.example/jwks"\njwt_algorithms = ["HS256"]', "does not go with a public key"),
        ('jwks_url = "https://issuer.example/jwks"\njwt_public_key_file = "p.pem"', "auth.jwks_url is set too"),
        (f'jwks_url = "https://issuer.example/jwks"\njwt_secret = "{SECRET}"', "a shared secret is set too"),
        ('jwks_url = "https://issuer.example/jwks"\ninsecure = true', "a key is set too"),
    ],
)
def test_a_url_of_keys_is_one_that_can_be_trusted(write: Write, tmp_path: Path, text: str, why: str) -> None:
    """Over https, or on this machine; one source of keys; and no error shows what a URL may hold."""
    (tmp_path / "p.pem").write_text("x")
    file = write(f"[auth]\n{text}\n")
    if not why:
        assert has_key(load(file, {}).auth)
        return
    message = only_problem_of(file).message
    assert why in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('authorize_url = "https://core.example/signald"', ""),
        ('authorize_url = "http://[::1]:9/"', ""),
        ('authorize_url = "http://core.mesh/"\nallow_http = true', ""),
        ('authorize_url = "http://core.mesh/hunter2"', "use https"),
        ('authorize_url = "https://ann:hunter2@core.example/"', "no user, password"),
        ('authorize_url = "https://core.example/hunter2 x"', "expected a URL"),
        ('authorize_url = "hunter2"', "expected a URL"),
        (f'secret = "{WEBHOOK_SECRET}"\nsecret_previous = "{WEBHOOK_SECRET}"', ""),
        ('secret = "hunter2"', "must begin with"),
        ('secret = "whsec_hunter2"', "base64"),
        ('secret = "whsec_aHVudGVyMg=="', "has 7 bytes"),
        (f'secret = "{WEBHOOK_SECRET}"\nsecret_previous = "hunter2"', "must begin with"),
        (f'secret_previous = "{WEBHOOK_SECRET}"', "no new one"),
        (f'secret = "{WEBHOOK_SECRET}"\nsecret_file = "hunter2"', "set too"),
    ],
)
def test_the_core_server_is_reached_safely(write: Write, text: str, why: str) -> None:
    """Over https, or on this machine; signed by a secret that cannot be guessed; and no error shows what a URL may hold."""
    file = write(f"[core]\n{text}\n")
    if not why:
        config = load(file, {})
        assert config.core.authorize_url or config.core.secret
        assert WEBHOOK_SECRET not in repr(config)
        return
    problem = only_problem_of(file)
    assert why in problem.message
    assert "hunter2" not in problem.message


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "host", "host:", "host:x", "host:65536", "::1:80", "[h]:80", "h:-1"]
)
def test_an_address_that_is_not_host_and_port_is_refused(text: str) -> None:
    """An address is a host, a colon and a port; IPv6 stands in brackets."""
    with pytest.raises(ValueError, match="expected host:port"):
        parse_address(text)


@given(host=st.one_of(st.ip_addresses().map(str), st.just("localhost")), port=st.integers(0, 65535))
def test_every_address_parses_to_its_parts(host: str, port: int) -> None:
    """parse_address gives back what was put in, for every IP address and port."""
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert parse_address(text) == (host, port)


def test_loopback_is_told_from_the_rest() -> None:
    """Names other than localhost count as reachable: what they resolve to may change."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.1", "localhost.example", "")))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[listen]\nwebsocket = "127.0.0.1:9"\nhttp = "127.0.0.1:9"\n', "listen.http"),
        ('[listen]\nallowed_origins = ["https://a.example/"]\n', "listen.allowed_origins"),
        ('[listen]\nallowed_origins = ["a.example"]\n', "listen.allowed_origins"),
        ('[listen]\nallowed_origins = ["https://A.example"]\n', "listen.allowed_origins"),
        ('[listen]\ntrusted_proxies = ["10.0.0.0/33"]\n', "listen.trusted_proxies"),
        ('[store]\nurl = "signald.db"\n', "store.url"),
        ('[store]\nurl = "sqlite:"\n', "store.url"),
        ('[store]\nurl = "memory:x"\n', "store.url"),
        ('[store]\nurl = "redis://"\n', "store.url"),
        ('[store]\nurl = "redis+sentinel://a,b"\n', "store.url"),
        ('[store]\nurl = "redis+cluster://a,,b"\n', "store.url"),
        ('[store]\nack = "replica"\n', "store.ack"),
        ('[store]\nurl = "memory:"\nack = "disk"\n', "store.ack"),
        ('[auth]\njwt_secret = "short"\n', "auth.jwt_secret"),
        (f'[auth]\njwt_secret = "{SECRET}"\njwt_algorithms = ["HS512"]\n', "auth.jwt_secret"),
        (f'[auth]\njwt_secret = "{SECRET}"\njwt_algorithms = ["RS256"]\n', "auth.jwt_algorithms"),
        (f'[auth]\njwt_secret = "{SECRET}"\njwt_algorithms = ["none"]\n', "auth.jwt_algorithms"),
        (f'[auth]\njwt_secret = "{SECRET}"\ninsecure = true\n', "auth.insecure"),
        ("[limits]\nsend_queue_bytes_max = 65535\n", "limits.send_queue_bytes_max"),
        ("[limits]\nbacklog_bytes_max = 65535\n", "limits.backlog_bytes_max"),
        ('[blobs]\nurl = "/var/lib/blobs"\n', "blobs.url"),
        ('[blobs]\nurl = "fil:/var/lib/blobs"\n', "blobs.url"),
        ('[blobs]\nurl = "file:"\n', "blobs.url"),
        ('[blobs]\nurl = "file:///"\n', "blobs.url"),
        ('[blobs]\nurl = "memory:"\n', "blobs.url"),
        ('[store]\nurl = "memory:"\n[blobs]\nurl = "memory:x"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://Bucket"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3:bucket"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket/../x"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket/x?y"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://id:secret@bucket"\n', "blobs.url"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket"\nendpoint = "minio:9000"\n', "blobs.endpoint"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket"\nendpoint = "https://a:b@minio"\n', "blobs.endpoint"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket"\nendpoint = "https://minio/bucket"\n', "blobs.endpoint"),
        (f'[blobs]\n{S3_KEYS}url = "s3://bucket"\ncredentials = "environment"\n', "blobs.credentials"),
        ('[blobs]\nurl = "s3://bucket"\n', "blobs.access_key"),
        ('[blobs]\nurl = "s3://bucket"\naccess_key = "a"\n', "blobs.access_key"),
        ('[blobs]\nurl = "s3://bucket"\nsecret_key = "a"\n', "blobs.access_key"),
        ('[blobs]\nendpoint = "https://minio"\n', "blobs.endpoint"),
        ('[blobs]\naccess_key = "a"\n', "blobs.access_key"),
        ("[blobs]\nredirect = true\n", "blobs.redirect"),
        ("[blobs]\nprincipal_bytes_max = 10485759\n", "blobs.principal_bytes_max"),
        ("[blobs]\nuploads_in_progress_max = 7\n", "blobs.uploads_in_progress_max"),
        ('[rooms]\ndefault_rights = ["join", "publsh"]\n', "rooms.default_rights"),
        ("[drain]\ntimeout_s = 101\n", "drain.timeout_s"),
        ("[drain]\nworker_timeout_s = 66.1\n", "drain.stop_timeout_s"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(write: Write, text: str, key: str) -> None:
    """What cannot work together is refused at load, named by the key to change."""
    assert only_problem_of(write(text)).key == key


def test_half_a_credential_of_s3_is_named(write: Write, tmp_path: Path) -> None:
    """Which half is missing, and what would do without both; no problem shows the half that is there."""
    text = '[blobs]\nurl = "s3://bucket"\naccess_key = "AKIAEXAMPLE"\n'
    problem = only_problem_of(write(text))
    assert problem.message == 'secret_key_file missing: s3 needs both, or credentials = "environment"'
    assert "AKIAEXAMPLE" not in repr(load(write(f'{text}secret_key = "a"\n'), {}))
    (tmp_path / "secret").write_text("wJalr\n")
    assert load(write(f'{text}secret_key_file = "secret"\n'), {}).blobs.secret_key == "wJalr"
    assert only_problem_of(write(f'{text}secret_key_file = "absent"\n')).key == "blobs.secret_key_file"
    assert load(write('[blobs]\nurl = "s3://bucket/a/b"\ncredentials = "environment"\n'), {})


@pytest.mark.parametrize(
    ("store", "url", "media"),
    [
        ("sqlite:signald.db", "", "file:signald.db.blobs"),
        ("sqlite:/var/lib/signald/signald.db", "", "file:/var/lib/signald/signald.db.blobs"),
        ("sqlite:signald.db", "off", ""),
        ("sqlite:signald.db", "file:elsewhere", "file:elsewhere"),
        ("memory:", "", "memory:"),
        ("redis://h", "", ""),
        ("rediss+cluster://h", "", ""),
        ("redis+sentinel://h/s", "file:/shared", "file:/shared"),
    ],
)
def test_where_the_media_are(store: str, url: str, media: str) -> None:
    """Beside what keeps the records; with Redis nowhere, unless the operator says where."""
    config = attrs.evolve(Config(), store=StoreConfig(url=store), blobs=BlobsConfig(url=url))
    assert media_url(config) == media


def test_tls_needs_certificate_and_key(write: Write, tmp_path: Path) -> None:
    """One half of a TLS pair is refused."""
    (tmp_path / "c.pem").write_text("x")
    assert "tls_key_file is missing" in only_problem_of(write('[listen]\ntls_certificate_file = "c.pem"\n')).message
    assert "tls_certificate_file is missing" in only_problem_of(write('[listen]\ntls_key_file = "c.pem"\n')).message


def test_a_public_key_excludes_shared_secrets_and_their_algorithms(write: Write, tmp_path: Path) -> None:
    """HS* with a public key would let any holder of the public key sign tokens."""
    (tmp_path / "p.pem").write_text("x")
    file = '[auth]\njwt_public_key_file = "p.pem"\n'
    assert only_problem_of(write(file + 'jwt_algorithms = ["HS256"]\n')).key == "auth.jwt_algorithms"
    assert only_problem_of(write(file + f'jwt_secret = "{SECRET}"\n')).key == "auth.jwt_public_key_file"
    assert has_key(load(write(file + 'jwt_algorithms = ["ES256", "EdDSA"]\n'), {}).auth)


@pytest.mark.parametrize(
    "url",
    [
        "memory:",
        "sqlite:/var/lib/signald/signald.db",
        "redis://localhost",
        "rediss://user:p%40ss@host:6380/3",
        "redis+sentinel://a:26379,b:26379/signald",
        "redis+cluster://a:7000,b:7001",
        "rediss+sentinel://a,b/signald",
        "rediss+cluster://a,b",
    ],
)
def test_every_kind_of_store_is_accepted(write: Write, url: str) -> None:
    """The schemes of the documentation load as they are."""
    assert load(write(f'[store]\nurl = "{url}"\n'), {}).store.url == url


budget = st.floats(0.01, 30)


@given(
    drain=st.builds(
        DrainConfig,
        timeout_s=budget, stop_timeout_s=st.floats(1, 200), margin_s=budget, unready_s=budget,
        successor_timeout_s=budget, worker_timeout_s=budget, client_timeout_s=budget, terminate_timeout_s=budget,
        flush_timeout_s=budget, close_timeout_s=budget,
    )
)  # fmt: skip
def test_drain_budgets_load_only_when_they_fit_the_stop_timeout(drain: DrainConfig) -> None:
    """bounded: a configuration that loads can always finish its drain before the supervisor kills."""
    values = attrs.asdict(drain)
    env = {f"SIGNALD_DRAIN__{name.upper()}": repr(value) for name, value in values.items()}
    phases = sum(values.values()) - drain.timeout_s - drain.stop_timeout_s
    try:
        load(None, env)
    except ConfigError:
        assert max(phases, drain.timeout_s + drain.margin_s) > drain.stop_timeout_s - 1e-9
    else:
        assert max(phases, drain.timeout_s + drain.margin_s) <= drain.stop_timeout_s + 1e-9


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("https://b.example:443", '"https://b.example"'),
        ("http://b.example:80", '"http://b.example"'),
        ("https://A.example", '"https://a.example"'),
        ("https://b.example/", '"https://b.example"'),
        ("https://b\u00fccher.example", '"https://xn--bcher-kva.example"'),
        ("https://*.b.example", "no wildcard"),
        ("https://user@b.example", "scheme://host"),
    ],
)
def test_an_origin_that_never_matches_is_refused_with_the_form_that_does(write: Write, origin: str, said: str) -> None:
    """Browsers send one form of an origin; another one loads, matches nothing, and looks like a working rule."""
    assert said in only_problem_of(write(f'[listen]\nallowed_origins = ["{origin}"]\n')).message


@pytest.mark.parametrize(
    "origin", ["https://a.example", "http://a.example:8080", "https://[2001:db8::1]:8443", "null-app://x"]
)
def test_an_origin_as_browsers_send_it_loads(write: Write, origin: str) -> None:
    """Scheme, host and a port that is not the scheme's own, in lower case and ASCII."""
    assert load(write(f'[listen]\nallowed_origins = ["{origin}"]\n'), {}).listen.allowed_origins == (origin,)


def test_an_address_to_listen_on_is_one_or_a_list(write: Write) -> None:
    """One text, a list, or in the environment a list separated by commas: both stacks need two addresses."""
    both = ("127.0.0.1:9000", "[::1]:9000")
    assert load(write('[listen]\nwebsocket = "127.0.0.1:9000"\n'), {}).listen.websocket == both[:1]
    assert load(write('[listen]\nwebsocket = ["127.0.0.1:9000", "[::1]:9000"]\n'), {}).listen.websocket == both
    assert load(None, {"SIGNALD_LISTEN__HTTP": "127.0.0.1:9000, [::1]:9000"}).listen.http == both
    assert "at least one" in only_problem_of(write("[listen]\nwebsocket = []\n")).message
    assert "twice" in only_problem_of(write('[listen]\nwebsocket = ["[::1]:9", "[::1]:9"]\n')).message
    assert only_problem_of(write('[listen]\nwebsocket = ["127.0.0.1:9", "nowhere"]\n')).key == "listen.websocket"
    load(write('[listen]\nwebsocket = ["127.0.0.1:0", "127.0.0.1:0"]\n'), {})


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Editors on Windows begin UTF-8 files with a mark; the configuration and files of secrets load all the same."""
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + SECRET.encode())
    path = tmp_path / "signald.toml"
    path.write_bytes(b'\xef\xbb\xbf[auth]\njwt_secret_file = "secret"\n')
    assert load(path, {}).auth.jwt_secret == SECRET
