"""Redis that moves under load: every server at a new address, another password, a file that says where it is."""

import signal
from pathlib import Path

import pytest
import trio

from tests.real.harness import HOST, Settings, logged, until
from tests.real.redis_scene import GOES_ON_S, Scene, talking
from tests.store.redis_servers import Server, form_cluster, meet, servers, serves_all

pytestmark = pytest.mark.real

OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes")
DEFAULT_URL = "sqlite:signald.db"
"""What `store.url` says where nothing is said, so that `store.url_file` may stand beside it."""


def moved(home: Path, server: Server) -> Server:
    """The same server, with its data, at another address; to be started when the old one has ended."""
    made = Server(home / "moved", *OPTIONS)
    made._home = server._home
    return made


async def test_every_primary_of_a_cluster_moves(tmp_path: Path) -> None:
    """Addresses change one after another, until none of those in the URL is left: no party notices more than a pause."""
    members = [Server(tmp_path / "redis", *OPTIONS) for _ in range(3)]
    async with servers(*members):
        await form_cluster(members)
        url = f"redis+cluster://{','.join(f'{HOST}:{member.port}' for member in members)}"
        async with talking(tmp_path, url, within_s=240) as scene:
            now = list(members)
            try:
                for place, member in enumerate(members):
                    await member.kill()
                    now[place] = moved(tmp_path, member)
                    await now[place].start()
                    for other in now:
                        if other is not now[place]:
                            meet(now[place], other)
                    await until(lambda: all(map(serves_all, now)), 30)
                    await scene.talk.goes_on(5, GOES_ON_S)
                    await scene.ready()
                await scene.ends_well()
            finally:
                for server in now:
                    await server.kill()


FIRST, SECOND, THIRD = "right-horse-1", "right-horse-2", "right-horse-3"


class Login:
    """A user of Redis whose password is in a file, as a secret mounted into a node is."""

    def __init__(self, redis: Server, file: Path) -> None:
        self.redis = redis
        self.file = file
        self.settings: Settings = {"store": {"url_file": str(file)}}

    def say(self, password: str) -> None:
        """Have the file say this password."""
        self.file.write_text(f"redis://u:{password}@{HOST}:{self.redis.port}\n")

    def allow(self, *passwords: str) -> None:
        """Have Redis take these passwords and no others, and end what was logged in before."""
        rules = [f">{password}" for password in passwords]
        self.redis.ask("ACL", "SETUSER", "u", "on", "resetpass", *rules, "~*", "&*", "+@all")
        self.redis.ask("CLIENT", "KILL", "USER", "u")


async def reload(scene: Scene) -> None:
    """Send SIGHUP to both nodes, and wait until it is done."""
    for node in scene.pair:
        before = len(logged(node, "config_reloaded"))
        node.send_signal(signal.SIGHUP)
        await until(lambda node=node, before=before: len(logged(node, "config_reloaded")) > before, 10)


async def test_a_password_is_changed(tmp_path: Path) -> None:
    """With notice: both hold, a reload takes the new one, the old one goes. Without: the file is read when Redis refuses."""
    redis = Server(tmp_path / "redis")
    async with servers(redis):
        login = Login(redis, tmp_path / "url")
        login.say(FIRST)
        login.allow(FIRST)
        async with talking(tmp_path, DEFAULT_URL, login.settings) as scene:
            login.allow(FIRST, SECOND)
            login.say(SECOND)
            await reload(scene)
            for node in scene.pair:
                assert logged(node, "config_reloaded")[-1]["applied"] == ["store.url"]
            login.allow(SECOND)
            await scene.talk.goes_on(5, GOES_ON_S)

            login.allow(THIRD)
            await scene.degraded()
            answered = scene.talk.answered
            await trio.sleep(1)
            assert scene.talk.answered == answered
            login.say(THIRD)
            await scene.ends_well()
            for node in scene.pair:
                assert logged(node, "store_url_read_again")
                text = node.log.read_text()
                assert not any(password in text for password in (FIRST, SECOND, THIRD))


async def test_another_store_waits_for_a_restart(tmp_path: Path) -> None:
    """A reload that names another database is said, and changes nothing of where sessions are."""
    redis = Server(tmp_path / "redis")
    async with servers(redis):
        login = Login(redis, tmp_path / "url")
        login.say(FIRST)
        login.allow(FIRST)
        async with talking(tmp_path, DEFAULT_URL, login.settings) as scene:
            login.file.write_text(login.file.read_text().strip() + "/1")
            await reload(scene)
            for node in scene.pair:
                assert logged(node, "config_reloaded")[-1]["needs_restart"] == ["store.url"]
            await scene.ends_well()
            assert b"db1" not in redis.ask("INFO", "keyspace")
