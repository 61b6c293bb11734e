"""The documentation, held to the code: what the code says appears in the pages, and what the pages name exists."""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import attrs
import msgspec
import pytest
from msgspec import Struct

import signald.sdk.trio as sdk
from signald import cli
from signald.config import Config
from signald.core.exits import EXITS
from signald.core.life import EventType
from signald.core.streams import REFUSALS
from signald.exit_codes import MEANINGS, ExitCode
from signald.service import refusals
from signald.service.events import Events
from signald.store.redis import ACL
from signald.wire import codec, messages, rooms
from signald.wire.close_codes import ADVICE
from signald.wire.fields import Inbound, Outbound

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "signald").rglob("*.py"))}


def message_types() -> Iterator[tuple[str, type[Struct]]]:
    """Every message of both ways with its name on the wire."""
    for kind in (vars(messages) | vars(rooms)).values():
        if isinstance(kind, type) and issubclass(kind, Inbound | Outbound):
            config = kind.__struct_config__
            if config.tag is not None and kind not in (Inbound, Outbound):
                yield str(config.tag), kind


TYPES = list(message_types())


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first line is `heading`, cell by cell."""
    lines = page[page.index(heading) :].splitlines()[2:]
    table: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of `language` ("" for none) in `page`."""
    found: list[str] = []
    fence: str | None = None
    lines: list[str] = []
    for line in page.splitlines():
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif fence is None:
            fence, lines = line.lstrip()[3:], []
        else:
            if fence == language:
                found.append("\n".join(lines))
            fence = None
    return found


def calls(package: str = "") -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Every call in the code of `package`: what it is called on, the name, the arguments."""
    for path, tree in SOURCES.items():
        if not path.is_relative_to(ROOT / "signald" / package):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute):
                    yield ast.unparse(node.func.value), node.func.attr, node.args
                elif isinstance(node.func, ast.Name):
                    yield "", node.func.id, node.args


def texts(arguments: list[ast.expr], place: int) -> set[str]:
    """The constant text at `place` of a call's arguments, if there is one."""
    if place < len(arguments):
        argument = arguments[place]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return {argument.value}
    return set()


def error_codes() -> set[str]:
    """Every code of an `error` that signald can send."""
    found: set[str] = set()
    for owner, name, arguments in [*calls("dialects"), *calls("service")]:
        if (name == "error" and owner.endswith(("link", "self"))) or name == "ErrorMessage":
            found |= texts(arguments, 0)
        elif name in ("fail", "Turned"):
            found |= texts(arguments, 1)
    found |= {row.error[0] for row in EXITS.values() if row.error is not None} | set(REFUSALS.values())
    context = cast("Any", SimpleNamespace(events=Events()))
    return found | {refusals.refused(context, reason).error for reason in refusals.REFUSALS}


@pytest.mark.parametrize(("tag", "kind"), TYPES, ids=[kind.__name__ for _, kind in TYPES])
def test_every_message_and_field_is_described(tag: str, kind: type[Struct]) -> None:
    """Each message type, and each of its fields, stands in docs/protocol.md."""
    assert f"`{tag}`" in PROTOCOL
    for field in kind.__struct_fields__:
        named = (f"`{field}`", f"`{field}?`", f'"{field}":')
        assert any(name in PROTOCOL for name in named), f"{tag}: {field}"


def test_codec_and_document_know_the_same_types() -> None:
    """The types the codec takes from clients and workers are those of the messages."""
    inbound = {tag for tag, kind in TYPES if issubclass(kind, Inbound)}
    assert inbound == codec.CLIENT_TYPES | codec.WORKER_TYPES


def test_error_codes_are_those_of_the_code() -> None:
    """The table of error codes names each code that can be sent, and none that cannot."""
    table = rows(PROTOCOL, "| code | fatal, close |")
    assert {row[0].strip("`") for row in table} == error_codes()


def test_close_codes_are_those_of_the_table_in_the_code() -> None:
    """The table of close codes says what `ADVICE` says: meaning, may reconnect, may resume."""
    documented = {
        int(code): (meaning, reconnect, resume)
        for code, _, meaning, reconnect, resume in rows(PROTOCOL, "| code | name |")
        if code.isdecimal()
    }
    assert documented.keys() == {int(code) for code in ADVICE}
    words = {True: "yes", False: "no"}
    for code, advice in ADVICE.items():
        meaning, reconnect, resume = documented[int(code)]
        assert (reconnect, resume) == (words[advice.may_reconnect], words[advice.may_resume]), code
        assert meaning.startswith(advice.meaning.partition(";")[0]), code


def test_examples_decode() -> None:
    """Every JSON example in docs/protocol.md is a message as the code understands it."""
    kinds: dict[str, list[type[Struct]]] = {}
    for tag, kind in TYPES:
        kinds.setdefault(tag, []).append(kind)
    seen: set[str] = set()
    for block in blocks(PROTOCOL, "json"):
        for text in re.findall(r"^\{.*?(?=^\{|\Z)", block, re.DOTALL | re.MULTILINE):
            example = json.loads(text)
            if "type" not in example:
                continue
            seen.add(example["type"])
            assert any(is_valid(text, kind) for kind in kinds[example["type"]]), text
    assert len(seen) > 15


def is_valid(text: str, kind: type[Struct]) -> bool:
    """Tell whether `text` is a message of `kind`, without a field that `kind` does not know."""
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        return False
    return set(json.loads(text)) - {"type"} <= set(kind.__struct_fields__)


def commands(page: str) -> Iterator[list[str]]:
    """The signald commands in the plain blocks of `page`."""
    for block in blocks(page, ""):
        for line in block.splitlines():
            if line.startswith(".venv/bin/signald "):
                yield line.split()[1:]
            elif line.startswith("signald/demo/run"):
                yield ["demo", *line.split()[1:]]


def test_commands_of_the_readme_are_accepted() -> None:
    """Each command line in the README is one the CLI takes, with its options."""
    found = list(commands(README))
    assert ["demo"] in found
    assert len(found) > 2
    for command in found:
        cli.app.parse_args(command, exit_on_error=False, print_error=False)


def test_commands_named_in_passing_exist() -> None:
    """Each `signald something` in any page is a command."""
    for page in PAGES:
        for name in re.findall(r"`signald ([a-z][a-z-]*)", re.sub(r"\s+", " ", page.read_text())):
            assert name in cli.app, f"{page.name}: signald {name}"


def test_readme_begins_with_what_it_is_its_promise_and_the_first_command() -> None:
    """The README opens with one sentence, one promise, and the one command that makes its environment and runs the demo."""
    title, sentence, promise, *_ = README.split("\n\n")
    assert title == "# signald"
    assert sentence.count(". ") == 0
    assert promise.startswith("It promises ")
    assert blocks(README, "")[0].splitlines() == ["signald/demo/run"]
    assert os.access(ROOT / "signald/demo/run", os.X_OK)
    assert (ROOT / "tests/run").is_file()


def test_programs_of_the_readme_compile_and_import_what_there_is() -> None:
    """The README's Python programs are valid, and the SDK has every name they import."""
    programs = blocks(README, "python")
    assert len(programs) == 2
    for program in programs:
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom) and node.module == "signald.sdk.trio":
                assert {alias.name for alias in node.names} <= set(sdk.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page leads to a file, and its anchor to a heading there."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, link


def names_in_the_code() -> tuple[dict[str, set[str]], set[str]]:
    """Classes with the names defined in them, and all functions."""
    classes: dict[str, set[str]] = {}
    functions: set[str] = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.add(node.name)
            elif isinstance(node, ast.ClassDef):
                names = classes.setdefault(node.name, set())
                for part in ast.walk(node):
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                        names.add(part.name)
                    elif isinstance(part, ast.AnnAssign | ast.Assign):
                        targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                        names |= {
                            one.attr if isinstance(one, ast.Attribute) else one.id
                            for one in targets
                            if isinstance(one, ast.Attribute | ast.Name)
                        }
    return classes, functions


def test_the_architecture_uses_real_names() -> None:
    """Each `Class.name`, and each `_function`, in docs/architecture.md is in the code."""
    classes, functions = names_in_the_code()
    pairs = set(re.findall(r"\b([A-Z][A-Za-z]+)\.([a-z_]+)\b", ARCHITECTURE))
    assert len(pairs) > 30
    for owner, name in pairs:
        assert name in classes.get(owner, set()), f"{owner}.{name}"
    for name in set(re.findall(r"(?<![\w.`])_[a-z][a-z_]+\b", ARCHITECTURE)):
        assert name in functions, name


TOLD = {*get_args(EventType), "worker.registered", "worker.lost"}
"""The types of the events that a core server is told of look like keys."""


def test_keys_named_in_the_pages_exist() -> None:
    """Each `section.key` that a page names is a key of the configuration."""
    sections = {
        field.name: {one.name for one in attrs.fields(cast("Any", field.type))} for field in attrs.fields(Config)
    }
    found = 0
    for page in PAGES:
        if (
            page.name in ("sdk.md", "streaming.md", "testing-your-app.md", "workers.md")
            or page.parent.name == "reference"
        ):
            continue  # their `session` and `worker` are objects
        for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", page.read_text()):
            if section in sections and key != "py" and f"{section}.{key}" not in TOLD:
                found += 1
                assert key in sections[section], f"{page.name}: {section}.{key}"
    assert found > 50


def test_exit_codes_are_those_of_the_code() -> None:
    """The table of docs/operations.md is that of the code to the letter, each code is used, and no command ends with another."""
    assert rows(OPERATIONS, "| code | meaning |") == [[str(int(code)), meaning] for code, meaning in MEANINGS.items()]
    assert list(MEANINGS) == list(ExitCode)
    assert len(set(MEANINGS.values())) == len(ExitCode)
    commands = {
        path: tree
        for path, tree in SOURCES.items()
        if {"ctl", "demo"} & set(path.parts) or path.stem in ("cli", "daemon", "token_commands")
    }
    used = {
        node.attr
        for tree in commands.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ExitCode"
    }
    assert used == set(ExitCode.__members__)
    for path, tree in commands.items():
        others = [
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("EX_")
        ]
        assert others == [], path


def test_events_are_those_of_the_code() -> None:
    """The table of docs/operations.md names each event that a node logs at its level, and none that it does not."""
    logged = {
        (event, "error" if name == "exception" else name)
        for owner, name, arguments in calls()
        if owner == "log" and name in ("debug", "info", "warning", "error", "exception")
        for event in texts(arguments, 0)
        if event.replace("_", "").isalpha()  # a sentence is said by an SDK, or by a thread that cannot be mended
    }
    documented = {
        (event, level)
        for events, level, _ in rows(OPERATIONS, "| event | level |")
        for event in re.findall(r"`(\w+)`", events)
    }
    assert documented == logged | {
        ("log_lines_dropped", "warning")
    }  # written by the sink itself, which all others go through


def test_the_acl_line_is_the_one_of_the_store() -> None:
    """What docs/operations.md tells to allow in Redis is what the store needs."""
    line = next(block for block in blocks(OPERATIONS, "") if "ACL SETUSER" in block)
    assert " ".join(line.split()) == f"ACL SETUSER signald on >PASSWORD {ACL}"


def test_decisions_are_numbered_without_gaps() -> None:
    """The decisions are 0001, 0002 and so on, and each title carries its number."""
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for number, page in enumerate(pages, start=1):
        assert page.read_text().startswith(f"# {number}. ")


def test_each_test_that_the_security_page_names_exists() -> None:
    """A bound that nothing holds is a promise only: each `test_...`, `Test...` and file of tests named there is one."""
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")
    }
    defined = {name for text in sources.values() for name in re.findall(r"\b(?:def|class) (\w+)", text)}
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = {quoted for quoted in re.findall(r"`([^`]+)`", page) if re.search(r"(^|[/:])(test_|Test)", quoted)}
    assert len(named) > 50
    missing = []
    for quoted in named:
        file, *names = quoted.split("::") if ".py" in quoted else ("", *quoted.split("::"))
        files = [text for path, text in sources.items() if f"/{path}".endswith(f"/{file}")] if file else []
        if (file and not files) or not all(
            any(f" {name}" in text for text in files) if files else name in defined for name in names
        ):
            missing.append(quoted)
    assert not missing
    endings = [quoted.removeprefix("…_").removeprefix("…") for quoted in re.findall(r"`(…[^`]+)`", page)]
    assert all(any(name.startswith("test_") and name.endswith(ending) for name in defined) for ending in endings)
