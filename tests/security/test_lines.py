"""The list of what an attacker tries, and the test that tries it; many stand with the part of signald that they are about."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent

LINES: dict[str, tuple[str, ...]] = {
    "a token is replayed after rotation": (
        "service/test_recovery.py::test_after_the_new_token_was_used_the_old_one_is_theft",
        "service/test_recovery.py::test_any_frame_shows_that_the_new_token_has_arrived",
        "service/test_recovery.py::test_a_workers_old_token_is_theft_as_well",
        "real/test_tokens.py::test_a_used_token_revokes_all",
    ),
    "the recovery token of A with the bearer token of B": (
        "service/test_opening.py::test_nobody_resumes_anothers_session",
        "security/test_credentials.py::test_a_recovery_token_is_no_bearer_token_and_the_other_way_round",
    ),
    "a credential in a header that opens more than one in a message": (
        "security/test_credentials.py::test_the_credential_of_the_handshake_is_judged_like_that_of_the_message",
    ),
    "an expired token": (
        "security/test_credentials.py::test_an_expired_token_opens_nothing",
        "security/test_credentials.py::test_an_expired_recovery_token_resumes_nothing",
    ),
    "a token that is cut, extended, or of another tenant": (
        "security/test_credentials.py::test_a_recovery_token_that_is_not_exactly_it_resumes_nothing",
        "security/test_credentials.py::test_the_same_name_in_another_tenant_is_somebody_else",
        "real/test_tokens.py::test_a_token_of_another_kind_resumes_nothing",
    ),
    "a forged bearer token": (
        "service/test_auth.py::test_anything_but_a_token_signed_with_the_key_is_no_credential",
        "service/test_auth.py::test_a_public_key_is_never_a_shared_secret",
        "service/test_auth.py::test_refusals_say_the_same_whatever_was_wrong",
    ),
    "a token in the query string": (
        "security/test_credentials.py::test_a_token_shown_in_a_url_is_refused_before_anything_else",
    ),
    "two parallel resumes with one token": (
        "service/test_recovery.py::test_of_two_that_resume_at_once_the_later_holds_the_session",
    ),
    "the answer to a resume is lost": (
        "service/test_recovery.py::test_a_lost_answer_locks_nobody_out",
        "real/test_tokens.py::test_a_lost_answer_locks_no_client_out",
    ),
    "Origin missing, null, evil, with a trick in its suffix or case": (
        "security/test_credentials.py::test_only_pages_on_the_list_may_connect",
    ),
    "a message of 64 KiB and a byte, 129 fragments, empty fragments": (
        "security/test_limits.py::test_one_more_is_too_big",
        "net/test_attacks.py::test_broken_rules_are_named_and_the_socket_is_not_kept",
    ),
    "unmasked frames, reserved bits, an oversized close reason": (
        "net/test_attacks.py::test_broken_rules_are_named_and_the_socket_is_not_kept",
        "conformance/test_attacked_service.py::test_nobody_else_notices",
    ),
    "a flood of pings": (
        "net/test_attacks.py::test_a_ping_flood_is_closed_with_1008",
        "conformance/test_wire.py::test_each_close_stands_on_the_wire",
        "service/test_limits.py::test_a_client_that_floods_with_other_frames_is_closed_and_may_resume",
        "service/test_limits.py::test_a_party_that_does_not_begin_is_not_answered_for_ever",
    ),
    "the 10,001st message in a window": (
        "security/test_limits.py::test_the_10001st_message_of_a_burst_is_pushed_back",
        "service/test_limits.py::test_a_client_that_floods_is_closed_and_may_resume",
    ),
    "secrets in the log": (
        "security/test_secrets.py::test_no_secret_is_logged_not_even_in_a_traceback",
        "security/test_secrets.py::test_no_secret_is_written_by_a_process",
        "security/test_secrets.py::test_a_store_that_turns_us_away_is_not_named_with_its_password",
        "security/test_secrets.py::test_messages_and_tokens_are_not_in_reprs",
    ),
    "the store's password is stolen": (
        "security/test_platform.py::test_the_user_of_signald_may_do_nothing_else",
        "security/test_platform.py::test_a_script_of_the_user_of_signald_may_not_either",
    ),
    "TLS below 1.2": ("security/test_platform.py::test_tls_below_1_2_is_not_spoken",),
}
"""What is tried → the test that tries it, as `file::function` below tests/."""


def functions_of(file: Path) -> set[str]:
    """Return the names of the functions in a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("line", LINES)
def test_each_line_has_its_test(line: str) -> None:
    """Whatever is renamed or moved: no line is left without the tests it names."""
    assert LINES[line]
    for named in LINES[line]:
        file, _, function = named.partition("::")
        assert function in functions_of(TESTS / file), named


def test_no_test_of_this_folder_is_not_listed() -> None:
    """A test that stands here is one of a line."""
    listed = {named for tests in LINES.values() for named in tests}
    here = {
        f"security/{file.name}::{name}"
        for file in (TESTS / "security").glob("test_*.py")
        for name in functions_of(file)
        if name.startswith("test_") and file.name != Path(__file__).name
    }
    assert here <= listed
