"""Slips in API tokens and in the rules for callers: what a named test must notice, because the simulation asks nothing over HTTP."""

from tests.planted.bug import Bug

_KEYS = "signald/core/api_keys.py"
_TOKENS = "signald/core/api_tokens.py"
_SERVICE = "signald/service/api_tokens.py"
_CALLERS = "signald/service/api/callers.py"
_AUTH = "signald/http/api/auth.py"
_CORS = "signald/http/api/cors.py"

_TEST_KEYS = "tests/core/test_api_keys.py"
_TEST_TOKENS = "tests/core/test_api_tokens.py"
_TEST_SERVICE = "tests/service/test_api_tokens.py"
_TEST_CALLERS = "tests/service/test_http_callers.py"
_TEST_AUTH = "tests/http/api/test_auth.py"

CALLERS = (
    Bug(
        "key-signs-when-announced",
        _KEYS,
        "renewed",
        "ApiKey(now_ms + LEAD_MS, life_ms, candidate)",
        "ApiKey(now_ms, life_ms, candidate)",
        "liveness",
        "A new key of API tokens signs before the other nodes know it.",
        (_TEST_KEYS,),
    ),
    Bug(
        "key-dropped-with-its-successor",
        _KEYS,
        "renewed",
        "keys[place + 1].signs_from_ms + keys[place].life_ms + LEAD_MS <= now_ms",
        "keys[place + 1].signs_from_ms + LEAD_MS <= now_ms",
        "liveness",
        "A key is forgotten while tokens that it has signed still live.",
        (_TEST_KEYS,),
    ),
    Bug(
        "api-token-outlives-its-time",
        _TOKENS,
        "read",
        "return said if now_ms < said.exp * 1000 else None",
        "return said if now_ms < (said.exp + 3600) * 1000 else None",
        "token-once",
        "An API token is good for an hour after it has run out.",
        (_TEST_TOKENS,),
    ),
    Bug(
        "api-token-as-old-as-itself",
        _SERVICE,
        "ApiTokens.issue",
        "auth_time=shown.issued_at if shown is not None else None",
        "auth_time=self._context.now_ms() / 1000",
        "token-once",
        "A token that is renewed after a revocation outlives it.",
        (_TEST_CALLERS,),
    ),
    Bug(
        "renewal-too-late",
        _SERVICE,
        "ApiTokens.issue",
        "round(token.ttl_ms * RENEW_AT)",
        "round(token.ttl_ms * 0.7)",
        "liveness",
        "The next API token comes after two thirds of the life of the last one.",
        (_TEST_SERVICE,),
    ),
    Bug(
        "unknown-key-asks-each-time",
        _SERVICE,
        "ApiTokens._ask_for_keys",
        "trio.current_time() - self._read_at >= LEARN_EVERY_S",
        "trio.current_time() >= self._read_at",
        "liveness",
        "Each token with an unknown key asks the store.",
        (_TEST_SERVICE,),
    ),
    Bug(
        "failed-reading-has-no-end",
        _SERVICE,
        "ApiTokens._learn",
        "finally:\n        self._read_at = trio.current_time()",
        "finally:\n        pass",
        "liveness",
        "Callers that show an unknown key wait in turn for a store that is away.",
        (_TEST_SERVICE,),
    ),
    Bug(
        "cookie-of-a-service",
        _CALLERS,
        "HttpCallers.known",
        "self._of_jwt(shown, IN_COOKIE if cookie else IN_HEADER)",
        "self._of_jwt(shown, IN_HEADER)",
        "nobody-hurts",
        "A page acts for a backend by a cookie.",
        (_TEST_CALLERS,),
    ),
    Bug(
        "any-origin-sends-cookies",
        _AUTH,
        "Authentication._shown",
        "if origin is not None and origin not in allowed:\n",
        "if origin is not None and origin not in allowed and '*' not in allowed:\n",
        "nobody-hurts",
        "With `*` in the list a page of any site acts with the cookie of its visitor.",
        (_TEST_AUTH,),
    ),
    Bug(
        "same-site-counts-as-same-origin",
        _AUTH,
        "Authentication._shown",
        "site not in ('same-origin', 'none')",
        "site not in ('same-origin', 'same-site', 'none')",
        "nobody-hurts",
        "A neighbouring host of the same site acts with the cookie of its visitor.",
        (_TEST_AUTH,),
    ),
    Bug(
        "any-session-of-a-client",
        _AUTH,
        "session_of",
        "if asked not in (None, caller.session):",
        'if asked == "":',
        "nobody-hurts",
        "A client that names another session is answered about its own.",
        (_TEST_AUTH,),
    ),
    Bug(
        "cors-names-any-origin",
        _CORS,
        "Cors._granted",
        "return {'access-control-allow-origin': '*'} if '*' in allowed else None",
        "return {'access-control-allow-origin': origin} if '*' in allowed else None",
        "nobody-hurts",
        "With `*` in the list the answer names the origin of the page.",
        (_TEST_AUTH,),
    ),
)
