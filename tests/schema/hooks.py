"""What schemathesis loads before it runs (`hooks` of its configuration)."""

from typing import Any

import schemathesis


def exact(value: Any) -> Any:
    """Write each whole number without a fraction. JSON Schema takes `1.0` for an integer; signald's types are strict."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [exact(one) for one in value]
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    return value


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Change the body of each request that is drawn."""
    return exact(body)
