"""Redis behind Sentinel, under load: the primary dies, hangs, or dies with messages no replica has."""

from pathlib import Path

import pytest
import trio

from signald.sdk.events import LogLost
from tests.real.harness import Address, Settings, kill, logged, open_nodes, open_talk, until
from tests.real.redis_scene import GOES_ON_S, talking
from tests.real.watched import ACK_REPLICA, watched

pytestmark = pytest.mark.real


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_failover_loses_nothing_that_a_replica_has(tmp_path: Path, how: str) -> None:
    """`ack` replica: what was acked is there after a failover; a primary that comes back and has not heard acks nothing."""
    async with watched(tmp_path) as redis, talking(tmp_path, redis.url, ACK_REPLICA) as scene:
        old = redis.primary
        if how == "killed":
            await old.kill()
        else:
            old.freeze()
        await redis.failed_over()
        if how == "killed":
            await old.start()
        else:
            old.thaw()
        # It still says that it is one, and takes whatever it is told.
        assert old.ask("ROLE")[0] == b"master"
        answered = scene.talk.answered
        await trio.sleep(3.5)  # longer than WAIT waits
        assert scene.talk.answered == answered, "acked by a primary without a replica"
        await redis.follow()
        await scene.ends_well()


async def test_a_failover_with_an_old_tail(tmp_path: Path) -> None:
    """With a plain ack the replica may have less than was acked: the nodes that live give it back, and no party notices."""
    async with watched(tmp_path) as redis, talking(tmp_path, redis.url) as scene:
        redis.cut_replication()
        await scene.talk.goes_on(10)
        for chatter in scene.talk.chatters:
            assert redis.missing_at_replica(chatter.client.session) > 5
        await redis.primary.kill()
        await redis.failed_over()
        await scene.ends_well()
        for node in scene.pair:
            assert logged(node, "store_went_back"), "from here on a party that claims more rings the alarm"


async def test_what_nobody_can_give_back_is_said(tmp_path: Path) -> None:
    """With the nodes gone as well the tail is lost: both parties are told which seqs, and no seq is used twice."""
    settings: Settings = {"worker": {"resume_timeout_s": 120.0}}
    first, second = Address(), Address()
    async with watched(tmp_path) as redis, open_nodes(tmp_path, redis.url, settings) as nodes, open_talk(180) as talk:
        pair = [await nodes.start("first", first), await nodes.start("second", second)]
        worker = await talk.worker("worker", second.url)
        chatter = await talk.client("client", first.url)
        for _ in range(3):
            await chatter.ask()
        await until(lambda: chatter.answered == 3, 10, talk.account())
        await trio.sleep(1.5)  # acks, and what else is due: all of it is to be at the replica
        redis.cut_replication()
        session = worker.sessions[chatter.client.session]
        await kill(pair[1])
        for _ in range(5):
            await chatter.ask()
        await chatter.client.flush()
        await kill(pair[0])
        assert redis.missing_at_replica(chatter.client.session) == 5
        await redis.primary.kill()
        await redis.failed_over()
        await nodes.start("first-again", first)
        await nodes.start("second-again", second)
        await until(lambda: chatter.saw(LogLost), GOES_ON_S, talk.account())
        assert chatter.saw(LogLost) == [LogLost(4, 8)]
        for _ in range(4):
            await chatter.ask()
        await until(lambda: chatter.ledger.replies.sent == 7, GOES_ON_S, talk.account())
        await until(lambda: chatter.ledger.replies.lost == 0, GOES_ON_S, talk.account())
        assert (chatter.ledger.questions.lost, chatter.ledger.questions.duplicated) == (5, 0)
        assert chatter.ledger.questions.reordered == 0
        assert [event for event in session.events() if isinstance(event, LogLost)] == [LogLost(4, 8)]
