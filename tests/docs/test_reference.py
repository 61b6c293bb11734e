"""docs/reference is up to date, and leaves nothing out that an application imports."""

import re

from signald.sdk import asyncio as on_asyncio
from tests.docs.reference import FOLDER, render


def test_the_reference_is_up_to_date() -> None:
    """`python -m tests.docs` has been run after the last change of a docstring or signature."""
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert there == render()


def test_every_public_name_has_a_section_with_a_text() -> None:
    """Each name of `signald.sdk.asyncio` has a signature and a docstring in the reference."""
    pages = "\n".join(render().values())
    sections = {found[1]: found[2] for found in re.finditer(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", pages)}
    assert set(on_asyncio.__all__) <= sections.keys()
    assert not [name for name in on_asyncio.__all__ if len(sections[name].partition("```\n\n")[2]) < 10]


def test_a_section_has_signature_members_and_errors() -> None:
    """Arguments have the words of their source, inherited methods stand beside own ones, and errors are a list."""
    page = render()["sdk.md"]
    client = page.partition("\n## Client\n")[2].partition("\n## ")[0]
    assert "### Client.send\n" in client
    assert "### Client.cancel\n\n```python\ndef cancel(stream: str, reason: str = '') -> None\n```" in client
    assert "- `SessionGone`: the session has ended." in client
    assert "| `peer_state` | The last known state of the worker" in client
    assert "_drain" not in page
    assert "async with open_client(\n    urls: Urls,\n    *,\n    auth: Auth = None," in page
