"""What a node would be scraped for, without a socket."""

from collections import Counter
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from signald.daemon import observed as observed_of
from signald.http.metrics import CountAnswers, metrics_routes
from signald.node import Node
from signald.service.meters import node_registry


class Scraper:
    """The metrics of one node, asked for as an ASGI server would."""

    def __init__(self, node: Node | None) -> None:
        self.answers: Counter[int] = Counter()
        observed = None
        if node is not None:
            observed = observed_of(node, self.answers)
        self.app = CountAnswers(Starlette(routes=metrics_routes(node_registry(lambda: observed))), self.answers)

    async def get(self, path: str = "/metrics", accept: str = "") -> tuple[int, dict[str, str], str]:
        """Ask for `path`; returns status, headers and text."""
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"accept", accept.encode())]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
        await self.app(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]).decode()

    async def families(self) -> dict[str, Family]:
        """Everything exported, by the name of the family as a parser sees it."""
        _, _, text = await self.get()
        return {family.name: family for family in text_string_to_metric_families(text)}

    async def value(self, sample: str, **labels: str) -> float:
        """The value of one sample."""
        for family in (await self.families()).values():
            for one in family.samples:
                if one.name == sample and one.labels == labels:
                    return float(one.value)
        raise KeyError(f"{sample} {labels}")
