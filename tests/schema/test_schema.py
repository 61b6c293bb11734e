"""The quick share of the campaign: schemathesis on a real node, and proof that it would find a lie."""

import json
from pathlib import Path

import httpx2
import pytest
import trio

from tests.schema.campaign import cases, faults, run
from tests.schema.served import Caller, serving

pytestmark = pytest.mark.real

EXAMPLES = 5
SEED = 20261130


@pytest.mark.parametrize("caller", ["client", "service"])
async def test_a_node_is_as_it_describes_itself(caller: Caller, tmp_path: Path) -> None:
    """Every check of schemathesis holds for each operation: statuses, bodies, headers, credentials, refusals; no fault is logged."""
    with trio.fail_after(300):
        async with serving(tmp_path) as served:
            outcome = await run(served, caller, EXAMPLES, SEED, tmp_path)
            assert not outcome.failed, outcome.said
            assert cases(outcome) > 10
            assert faults(served) == []


async def test_a_document_that_lies_is_found_out(tmp_path: Path) -> None:
    """A status, a body and a header that the node does not answer with are failures of the campaign."""
    with trio.fail_after(120):
        async with serving(tmp_path) as served:
            document = await trio.to_thread.run_sync(lambda: httpx2.get(f"{served.url}/openapi.json").json())
            docs = document["paths"]["/docs"]["get"]["responses"]
            docs["200"]["headers"]["X-Lie"] = {"required": True, "schema": {"type": "string"}}
            schema = {"type": "object", "required": ["lie"]}
            document["paths"]["/asyncapi.json"]["get"]["responses"]["200"]["content"]["application/json"]["schema"] = (
                schema
            )
            lie = tmp_path / "lie.json"
            lie.write_text(json.dumps(document))
            outcome = await run(served, "nobody", 2, SEED, tmp_path, lie)
            assert outcome.failed
            for found in ("X-Lie", "'lie'"):
                assert found.strip("'") in outcome.said
