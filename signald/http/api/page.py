"""`/docs`: the two documents as one page of HTML, for a reader with a browser of any kind.

The page is made on the node from the documents alone. It has no script, and nothing in it comes from another host: the policy of the
page allows its one style sheet, by its hash, and nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from signald.http.api.schemas import Json

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,h3{font-family:ui-monospace,monospace}code{font-size:.9em}"
    "table{border-collapse:collapse;margin:.5rem 0 1rem;width:100%}"
    "th,td{text-align:left;vertical-align:top;padding:.25rem .5rem;border-bottom:1px solid #8884}"
    "h2{margin-top:3rem;border-bottom:2px solid}h3{margin-top:2rem}"
    "nav ul{columns:18rem;padding-left:1rem}"
)

POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""

_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "maxItems": "at most {} entries",
    "maxProperties": "at most {} entries",
    "pattern": "like {}",
}
"""Key of a schema → how the page says it."""


def page(openapi: Json, asyncapi: Json) -> str:
    """Return the page of two documents."""
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    operations = [(path, method, one) for path, methods in openapi["paths"].items() for method, one in methods.items()]
    parts = [
        f"<h1>{escape(title)}</h1>",
        '<p>The same as data: <a href="/openapi.json">/openapi.json</a>, <a href="/asyncapi.json">/asyncapi.json</a>.</p>',
        _contents(operations, asyncapi),
        '<h2 id="http">HTTP</h2>',
        _prose(openapi["info"]["description"]),
        *(_operation(openapi, *one) for one in operations),
        '<h2 id="credentials">Credentials</h2>',
        _table(("name", ""), ((_code(name), _prose(one["description"])) for name, one in _schemes(openapi))),
        '<h2 id="objects">Objects of HTTP</h2>',
        *(_schema("object", name, schema) for name, schema in openapi["components"]["schemas"].items()),
        '<h2 id="websocket">WebSocket</h2>',
        _prose(asyncapi["info"]["description"]),
        *(_channel(asyncapi, name, channel) for name, channel in asyncapi["channels"].items()),
        '<h2 id="messages">Messages</h2>',
        *(_schema("message", name, schema) for name, schema in asyncapi["components"]["schemas"].items()),
        '<h2 id="errors">Error codes</h2>',
        _error_codes(asyncapi),
        '<h2 id="closes">Close codes</h2>',
        _close_codes(asyncapi),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _schemes(openapi: Json) -> Iterable[tuple[str, Json]]:
    schemes: dict[str, Json] = openapi["components"]["securitySchemes"]
    return schemes.items()


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _prose(text: str) -> str:
    """Render paragraphs with `code` and **strong** words; all else is text."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        shown = escape(paragraph)
        shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
        shown = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
        paragraphs.append(f"<p>{shown}</p>")
    return "".join(paragraphs)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table; the cells are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def _contents(operations: Iterable[tuple[str, str, Json]], asyncapi: Json) -> str:
    entries = [(one["operationId"], f"{method.upper()} {path}") for path, method, one in operations]
    entries += [(f"channel-{name}", channel["address"]) for name, channel in asyncapi["channels"].items()]
    entries += [(name, name) for name in ("credentials", "objects", "messages", "errors", "closes")]
    links = "".join(f'<li><a href="#{escape(anchor)}">{escape(text)}</a></li>' for anchor, text in entries)
    return f"<nav><ul>{links}</ul></nav>"


def _operation(openapi: Json, path: str, method: str, one: Json) -> str:
    callers = [name for requirement in one["security"] for name in requirement]
    asked = "Credential: " + " or ".join(_code(name) for name in callers) if callers else "Without a credential."
    parameters = (
        (
            _code(parameter["name"]),
            escape(parameter["in"]),
            _type(parameter["schema"]),
            "" if parameter["required"] else "optional",
            _words(parameter.get("description", "")),
        )
        for parameter in one.get("parameters", ())
    )
    return (
        f'<h3 id="{escape(one["operationId"])}">{escape(method.upper())} {escape(path)}</h3>'
        f"<p>{_words(one['summary'])}. {asked}</p>"
        + (_prose(one["description"]) if "description" in one else "")
        + _table(("parameter", "in", "type", "", "meaning"), parameters)
        + _body(one.get("requestBody"))
        + _table(("status", "answer", "body"), _answers(openapi, one["responses"]))
    )


def _body(body: Json | None) -> str:
    if body is None:
        return ""
    kinds = ", ".join(f"{_code(media)} {_type(one.get('schema', {}))}" for media, one in body["content"].items())
    return f"<p>Body: {kinds}</p>" + (_prose(body["description"]) if "description" in body else "")


def _answers(openapi: Json, answers: Json) -> Iterator[tuple[str, str, str]]:
    for status, given in answers.items():
        answer = openapi["components"]["responses"][given["$ref"].rpartition("/")[2]] if "$ref" in given else given
        headers = "".join(
            f"<br>{_code(name)}: {_words(header['description'])}" for name, header in answer.get("headers", {}).items()
        )
        kinds = ", ".join(
            f"{_code(media)} {_type(one.get('schema', {}))}" for media, one in answer.get("content", {}).items()
        )
        yield escape(status), _words(answer["description"]) + headers, kinds


def _words(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _type(schema: Json) -> str:
    """Say in one line what values a schema takes."""
    if "$ref" in schema:
        return _code(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(_code(value) for value in schema["enum"])
    name = schema.get("type", "any")
    if name == "array":
        name = f"list of {_type(schema.get('items', {}))}"
    elif name == "object" and "additionalProperties" in schema:
        name = f"object: text → {_type(schema['additionalProperties'])}"
    bounds = [words.format(_code(schema[key])) for key, words in _BOUNDS.items() if key in schema]
    return ", ".join([name, *bounds])


def _schema(place: str, name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    fields = (
        (
            _code(field),
            _type(kind),
            "" if field in required else "optional",
            _words(kind.get("description", "")),
        )
        for field, kind in schema.get("properties", {}).items()
    )
    return (
        f'<h3 id="{escape(place)}-{escape(name)}">{escape(name)}</h3>'
        + _prose(schema.get("description", ""))
        + _table(("field", "type", "", "meaning"), fields)
    )


def _channel(asyncapi: Json, name: str, channel: Json) -> str:
    rows = []
    for operation in asyncapi["operations"].values():
        if operation["channel"]["$ref"].endswith(f"/{name}"):
            ids = [reference["$ref"].rpartition("/")[2] for reference in operation["messages"]]
            links = ", ".join(_message_link(asyncapi, one) for one in ids)
            rows.append((_words(operation["summary"]), links))
    return (
        f'<h3 id="channel-{escape(name)}">{escape(channel["address"])}</h3>'
        f"{_prose(channel['description'])}{_table(('', 'messages'), rows)}"
    )


def _message_link(asyncapi: Json, name: str) -> str:
    message = asyncapi["components"]["messages"][name]
    schema = message.get("headers", message["payload"])["$ref"].rpartition("/")[2]
    return f'<a href="#message-{escape(schema)}">{escape(message["title"])}</a>'


def _error_codes(asyncapi: Json) -> str:
    codes = asyncapi["components"]["messages"]["ErrorMessage"]["x-error-codes"]
    rows = (
        (_code(row["code"]), escape(str(row["close"] or "")), escape(", ".join(row["parties"])), _words(row["meaning"]))
        for row in codes
    )
    return _table(("code", "close", "sent to", "meaning"), rows)


def _close_codes(asyncapi: Json) -> str:
    words = {True: "yes", False: "no"}
    rows = (
        (_code(row["code"]), _words(row["meaning"]), words[row["reconnect"]], words[row["resume"]])
        for row in asyncapi["x-close-codes"]
    )
    return _table(("code", "meaning", "reconnect", "resume"), rows)
