"""The plugin of pytest, in runs of pytest of its own: with pytest-trio and without, its seed, and what a failure shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import signald.testing.asyncio  # noqa: F401 - runs of pytest within this process keep what it has imported, and import nothing twice

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[3] / "docs" / "testing-your-app.md"
PLAIN = ("-p", "no:trio", "-p", "no:anyio")

DEPLOY = """
    import pytest
    from signald.testing import SignaldCluster

    async def shout(session):
        async for message in session:
            await session.send(message.data.upper())

    @pytest.fixture
    def word():
        return "before"

    @pytest.mark.signald(nodes=2)
    async def test_deploy(word, signald_cluster):
        assert isinstance(signald_cluster, SignaldCluster)
        assert len(signald_cluster.nodes) == 2
        async with signald_cluster.worker(shout), signald_cluster.client() as client:
            await client.send(word)
            await signald_cluster.deploy()
            assert (await anext(client)).data == "BEFORE"
        print(signald_cluster.transcript())

    @pytest.mark.signald(seed=3)
    class TestMarks:
        async def test_of_the_class(self, signald_cluster, request):
            print("worker id", await self.worker(signald_cluster))

        @pytest.mark.signald(seed=4)
        async def test_of_the_function(self, signald_cluster):
            print("worker id", await self.worker(signald_cluster))

        async def worker(self, cluster):
            async with cluster.worker(shout) as process:
                return process.worker.worker
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project without settings."""
    monkeypatch.delenv("SIGNALD_SEED", raising=False)
    return pytester


@pytest.mark.parametrize("mode", ["plain", "trio"])
def test_it_runs_async_tests(project: pytest.Pytester, mode: str) -> None:
    """By itself, or within pytest-trio, in virtual time, with marks and other fixtures."""
    project.makepyfile(DEPLOY)
    if mode == "trio":
        project.makeini("[pytest]\ntrio_mode = true")
    result = project.runpytest_inprocess(*(PLAIN if mode == "plain" else ()), "--strict-markers", "-s")
    result.assert_outcomes(passed=3)
    first, second = re.findall(r"worker id (\w+)", result.stdout.str())
    assert first != second
    result = project.runpytest_inprocess(*(PLAIN if mode == "plain" else ()), "-s", "-k", "Marks", "--signald-seed=4")
    assert re.findall(r"worker id (\w+)", result.stdout.str()) == [second, second]


def test_both_ways_are_one_run(project: pytest.Pytester) -> None:
    """pytest-trio changes the transcript of a seed in nothing but what it starts itself: the ids of all parties are equal."""
    project.makepyfile(DEPLOY)
    ids = set()
    for mode in (PLAIN, ("-o", "trio_mode=true")):
        text = project.runpytest_inprocess(*mode, "-s", "--signald-seed=9").stdout.str()
        ids.add(tuple(sorted(set(re.findall(r"\b[sw]_\w{24}\b", text)))))
    assert len(ids) == 1
    assert len(ids.pop()) >= 3


def test_fixtures_of_pytest_trio_take_the_cluster(project: pytest.Pytester) -> None:
    """They run in the same virtual time; a clock of the test is used."""
    project.makepyfile("""
        import pytest, trio

        async def shout(session):
            async for message in session:
                await session.send(message.data.upper())

        @pytest.fixture
        async def client(signald_cluster):
            async with signald_cluster.worker(shout), signald_cluster.client() as client:
                yield client

        @pytest.mark.trio
        async def test_client(client):
            await client.send("a")
            await trio.sleep(3600 / 10)
            assert (await anext(client)).data == "A"

        @pytest.mark.trio
        async def test_clock(signald_cluster, autojump_clock, client):
            assert autojump_clock.current_time() == trio.current_time()
    """)
    project.runpytest_inprocess().assert_outcomes(passed=2)


@pytest.mark.parametrize("mode", [PLAIN, ("-o", "trio_mode=true")])
def test_a_failure_shows_its_seed_and_its_transcript(project: pytest.Pytester, mode: tuple[str, ...]) -> None:
    """Only a failure does; a random seed is a number there, by which the run is repeated."""
    project.makepyfile("""
        async def test_fails(signald_cluster):
            async with signald_cluster.client():
                signald_cluster.note("now it fails")
                assert 1 == 2

        async def test_passes(signald_cluster):
            signald_cluster.note("all is well")
    """)
    result = project.runpytest_inprocess(*mode, "--signald-seed=random", "-rA")
    result.assert_outcomes(failed=1, passed=1)
    text = result.stdout.str()
    assert "AssertionError" in text or "assert 1 == 2" in text
    assert "now it fails" in text
    assert "◂ node-1 session_started" in text
    assert "all is well" not in text
    assert re.search(r"run it again by --signald-seed=\d+", text)


def test_a_test_in_vain_fails_within_pytest_trio_too(project: pytest.Pytester) -> None:
    """The cluster ends it after its time."""
    project.makepyfile("""
        import pytest

        @pytest.mark.signald(within_s=30)
        async def test_waits(signald_cluster):
            async with signald_cluster.client() as client:
                await anext(client)
    """)
    result = project.runpytest_inprocess("-o", "trio_mode=true")
    result.assert_outcomes(failed=1)
    assert "RunTooLong" in result.stdout.str()


def test_what_cannot_run_is_told(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is not async, a fixture without pytest-trio, and a seed that is none."""
    project.makepyfile("""
        import pytest

        def test_sync(signald_cluster):
            signald_cluster.nodes

        @pytest.fixture
        def nodes(signald_cluster):
            return signald_cluster.nodes

        async def test_by_a_fixture(signald_cluster, nodes):
            pass
    """)
    result = project.runpytest_inprocess(*PLAIN)
    result.assert_outcomes(failed=1, errors=1)
    assert result.stdout.str().count("signald_cluster.nodes: the cluster runs in async tests on Trio") >= 2
    assert (
        "--signald-seed is a number, or random: four" in project.runpytest_inprocess("--signald-seed=four").stderr.str()
    )


def test_the_plugin_imports_nothing_until_it_is_asked() -> None:
    """Each run of pytest loads it where signald is installed: neither Trio nor the SDK nor a node comes with it."""
    program = (
        "import signald.pytest_plugin, sys; "
        "print([name for name in sys.modules if name.startswith(('signald.', 'trio')) and name != 'signald.pytest_plugin'])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_signald_test_needs_no_plugin(project: pytest.Pytester) -> None:
    """Fixtures and parameters come behind the cluster."""
    project.makepyfile("""
        import pytest
        from signald.testing import signald_test

        @pytest.mark.parametrize("nodes", [1, 2])
        @signald_test(nodes=2)
        async def test_parameters(cluster, nodes, tmp_path):
            assert len(cluster.nodes) == 2 and tmp_path.exists()

        @signald_test
        async def test_fails(cluster):
            assert cluster.nodes == []
    """)
    result = project.runpytest_inprocess("-p", "no:signald", *PLAIN)
    result.assert_outcomes(passed=2, failed=1)
    assert "run it again by SIGNALD_SEED=1" in result.stdout.str()


@pytest.mark.real
def test_the_examples_of_the_page_run(project: pytest.Pytester) -> None:
    """Each is a whole test module of at most twenty-two lines, and its tests pass as printed."""
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 4
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 22 for text in examples)
    project.makepyfile(**{f"test_{number}": text for number, text in enumerate(examples)})
    result = project.runpytest_inprocess(*PLAIN, "-s")
    result.assert_outcomes(passed=4)
    assert "client_goaway node-1 client-1" in result.stdout.str()
