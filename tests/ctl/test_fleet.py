"""Several nodes behind one name: found whole or not at all, drained together, recalled when the gate stays shut."""

import io
import json
import os
import signal
from pathlib import Path
from threading import Timer

import pytest

from signald.cli import main
from signald.ctl import fleet
from signald.ctl.client import CtlError
from signald.exit_codes import ExitCode
from tests.ctl.pods import TOKEN, Pod, open_pods

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask often, and with the token."""
    monkeypatch.setattr(fleet, "POLL_S", 0.01)
    monkeypatch.setenv("SIGNALD_ADMIN_TOKEN", TOKEN)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def status_of(error: pytest.ExceptionInfo[CtlError]) -> int:
    """The exit status an error is worth."""
    return error.value.status


def test_every_node_of_the_release_is_found_and_no_other() -> None:
    """The name covers both releases; a gate asks one."""
    with open_pods(Pod("b1", "blue"), Pod("b2", "blue"), Pod("g1", "green")) as pods:
        assert [member.name for member in pods.fleet("blue").find()] == ["b1", "b2"]
        assert [member.name for member in pods.fleet().find()] == ["b1", "b2", "g1"]
        assert pods.fleet("none").find() == []


def test_a_live_node_that_the_name_does_not_know_is_not_passed_over() -> None:
    """Name services lag: the cluster's own list shows which pod is missing."""
    with open_pods(Pod("b1", "blue"), Pod("b2", "blue"), Pod("g1", "green")) as pods:
        pods.behind = [pod for pod in pods.pods if pod.name != "b2"]
        with pytest.raises(CtlError, match="b2 is live and does not answer behind pods") as error:
            pods.fleet("blue").find()
        assert status_of(error) == os.EX_TEMPFAIL
        assert [member.name for member in pods.fleet("green").find()] == ["g1"]


def test_a_dead_address_does_no_harm() -> None:
    """A pod that has ended keeps its address for a moment; the cluster's list does not have it."""
    gone = Pod("b2", "blue", live=False)
    with open_pods(gone):
        pass
    with open_pods(Pod("b1", "blue")) as pods:
        pods.behind.append(gone)
        assert [member.name for member in pods.fleet("blue").find()] == ["b1"]
        pods.behind = [gone]
        with pytest.raises(CtlError, match="does not answer") as error:
            pods.fleet("blue").find()
        assert status_of(error) == os.EX_UNAVAILABLE
        pods.behind = []
        with pytest.raises(CtlError, match="pods has no address"):
            pods.fleet("blue").find()


def test_all_nodes_are_told_before_any_is_waited_for() -> None:
    """Workers of one old node must not be sent to another old one."""
    slow, other, heir = Pod("b1", "blue", moves_after=5), Pod("b2", "blue", moves_after=0), Pod("g1", "green")
    with open_pods(slow, other, heir) as pods:
        members, done = fleet.hand_over(pods.fleet("blue"), "green", "rollout", timeout_s=30, out=io.StringIO())
        assert done
        assert [member.name for member in members] == ["b1", "b2"]
        assert slow.asked == other.asked == ["drain"]
        assert slow.parties == other.parties == ["workers"]
        assert heir.asked == []


def test_a_node_that_comes_while_the_others_drain_is_drained_as_well() -> None:
    """An autoscaler does not know of the gate."""
    first, late = Pod("b1", "blue", moves_after=8), Pod("b2", "blue", live=False)
    with open_pods(first, late) as pods:
        pods.behind = [first]

        def come() -> None:
            with pods.lock:
                late.live = True
            pods.behind = [first, late]

        timer = Timer(0.03, come)
        timer.start()
        _, done = fleet.drain(pods.fleet("blue"), ["workers"], "rollout", timeout_s=30, out=io.StringIO())
        timer.join()
        assert done
        assert first.asked == late.asked == ["drain"]


def test_a_release_without_a_live_node_has_nothing_to_hand_over() -> None:
    """Pods that crash at once must not keep the release that mends them out."""
    with open_pods(Pod("g1", "green")) as pods:
        assert fleet.hand_over(pods.fleet("blue"), "green", "rollout", timeout_s=30, out=io.StringIO()) == ([], True)


def test_a_gate_that_fails_recalls_everybody() -> None:
    """In no time, or with a party that stayed: the old release takes workers again."""
    slow, done_soon, heir = Pod("b1", "blue", moves_after=-1), Pod("b2", "blue", moves_after=0), Pod("g1", "green")
    with open_pods(slow, done_soon, heir) as pods:
        out = io.StringIO()
        _, done = fleet.hand_over(pods.fleet("blue"), "green", "rollout", timeout_s=0.2, out=out)
        assert not done
        assert slow.asked == done_soon.asked == ["drain", "abort"]
        assert "the drains are called off" in out.getvalue()
        slow.moves_after, slow.stayed = 0, 1
        _, done = fleet.hand_over(pods.fleet("blue"), "green", "rollout", timeout_s=30, out=io.StringIO())
        assert not done
        assert slow.asked[-1] == "abort"


def test_sigterm_recalls_everybody() -> None:
    """A rollout that is aborted ends its gate's job: no other program would call the drains off."""
    slow = Pod("b1", "blue", moves_after=-1)
    with open_pods(slow, Pod("g1", "green")) as pods:
        timer = Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        before = signal.getsignal(signal.SIGTERM)
        _, done = fleet.hand_over(pods.fleet("blue"), "green", "rollout", timeout_s=30, out=io.StringIO())
        assert not done
        timer.join()
        assert slow.asked == ["drain", "abort"]
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_drain_that_somebody_calls_off_is_not_begun_again() -> None:
    """An operator's abort wins over a gate that runs."""
    slow = Pod("b1", "blue", moves_after=-1)
    with open_pods(slow) as pods:

        def call_off() -> None:
            with pods.lock:
                slow.order("abort", {})

        timer = Timer(0.2, call_off)
        timer.start()
        _, done = fleet.drain(pods.fleet("blue"), ["workers"], "rollout", timeout_s=30, out=io.StringIO())
        timer.join()
        assert not done
        assert slow.asked == ["drain", "abort"]


def test_the_heirs_are_recalled_and_one_must_be_ready() -> None:
    """After a rollback the release that takes over is the one that was drained before."""
    old, heir = Pod("g1", "green"), Pod("b1", "blue", parties=["workers"])
    with open_pods(old, heir) as pods:
        _, done = fleet.hand_over(pods.fleet("green"), "blue", "rollback", timeout_s=30, out=io.StringIO())
        assert done
        assert heir.asked == ["abort"]
        assert old.asked == ["drain"]
        heir.by_signal, heir.parties = True, ["clients", "workers"]
        with pytest.raises(CtlError, match="no node of release blue is ready") as error:
            fleet.hand_over(pods.fleet("green"), "blue", "rollback", timeout_s=30, out=io.StringIO())
        assert status_of(error) == os.EX_TEMPFAIL
        assert heir.asked == ["abort"], "what a signal has begun is not called off"


def test_a_node_that_ends_meanwhile_is_waited_for_until_it_is_gone() -> None:
    """It takes no orders, and moves all parties itself."""
    going, other = Pod("b1", "blue", by_signal=True, parties=["clients", "workers"]), Pod("b2", "blue", moves_after=0)
    with open_pods(going, other) as pods:

        def end() -> None:
            with pods.lock:
                going.live = False
            pods.behind = [other]

        timer = Timer(0.2, end)
        timer.start()
        members, done = fleet.drain(pods.fleet("blue"), ["workers"], "rollout", timeout_s=30, out=io.StringIO())
        timer.join()
        assert done
        assert [member.name for member in members] == ["b2"]
        assert going.asked == []


def test_receipts_of_all_are_held_against_the_conditions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lost session of one node is enough; a node that has not drained has lost nothing."""
    first, second = Pod("b1", "blue", receipt={"lost": 0}), Pod("b2", "blue", receipt={"lost": 0})
    with open_pods(first, second, Pod("b3", "blue"), Pod("g1", "green", receipt={"lost": 9})) as pods:
        monkeypatch.setattr("signald.ctl.fleet.resolve", pods.resolve)
        gate = ["ctl", "receipt", "--all-of", "http://pods:8081", "--release", "blue", "--fail-if", "lost>0"]
        assert main(gate) == 0
        assert "b3\nhas not drained" in capsys.readouterr().out
        second.receipt = {"lost": 2}
        assert main([*gate, "--json"]) == ExitCode.CONDITION_HOLDS
        captured = capsys.readouterr()
        assert captured.err == "signald: lost>0 holds of the receipt of b2\n"
        assert json.loads(captured.out)["receipts"]["b2"] == {"totals": {"lost": 2}}
        first.receipt = second.receipt = None
        assert main(gate) == os.EX_DATAERR


def test_the_commands_take_a_fleet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """status, drain, handover and abort do for all nodes what they do for one."""
    first, second = Pod("b1", "blue", moves_after=0), Pod("b2", "blue", moves_after=0)
    with open_pods(first, second, Pod("g1", "green")) as pods:
        monkeypatch.setattr("signald.ctl.fleet.resolve", pods.resolve)
        many = ["--all-of", "http://pods:8081", "--release", "blue"]
        assert main(["ctl", "status", *many]) == 0
        assert capsys.readouterr().out.count("(blue): ready") == 2
        assert main(["ctl", "handover", "--workers", "--wait", "--to", "green", *many]) == 0
        assert first.asked == second.asked == ["drain"]
        assert main(["ctl", "drain", "--clients", "--wait", *many, "--json"]) == 0
        assert [one["node"] for one in json.loads(capsys.readouterr().out.splitlines()[-1])["nodes"]] == ["b1", "b2"]
        assert second.parties == ["clients", "workers"]
        assert main(["ctl", "abort", *many]) == 0
        assert second.status()["drain"] is None
        second.stayed = 3
        assert main(["ctl", "drain", "--wait", *many]) == os.EX_TEMPFAIL


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--release", "blue"],
        ["status", "--all-of", "https://pods:8081"],
        ["status", "--all-of", "pods:8081"],
        ["status", "--all-of", "http://pods:8081", "--url", "http://pod:8081"],
        ["drain", "--all-of", "http://pods:8081"],
        ["handover", "--all-of", "http://pods:8081"],
        ["handover", "--wait", "--to", "green"],
        ["handover", "--wait", "--to", "green", "--all-of", "http://pods:8081"],
        ["handover", "--wait", "--to", "green", "--release", "green", "--all-of", "http://pods:8081"],
        ["receipt", "b1", "--all-of", "http://pods:8081"],
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """Before any pod is asked."""
    assert main(["ctl", *arguments]) == os.EX_USAGE


def test_a_name_that_does_not_resolve_says_so() -> None:
    """.invalid is reserved for that."""
    with pytest.raises(CtlError, match=r"pods\.invalid cannot be resolved") as error:
        fleet.Fleet("http://pods.invalid:8081", TOKEN).find()
    assert status_of(error) == os.EX_UNAVAILABLE


def test_a_name_resolves_to_all_its_addresses() -> None:
    """Each once, whatever kinds of sockets there are."""
    assert ("127.0.0.1", 8081) in fleet.resolve("localhost", 8081)
    assert fleet.resolve("127.0.0.1", 8081) == [("127.0.0.1", 8081)]
