"""Slips in the public cluster of `signald.testing`: a test of an author that passes by mistake hides what breaks in production."""

from tests.planted.bug import Bug

_FLEET = "signald/testing/app/fleet.py"
_FAULTS = "signald/testing/app/faults.py"
_STEPS = "signald/testing/app/steps.py"
_PARTIES = "signald/testing/app/parties.py"
_CLUSTER = "signald/testing/app/cluster.py"
_RUNNING = "signald/testing/app/running.py"
_FRAMES = "signald/testing/app/frames.py"
_PLUGIN = "signald/pytest_plugin.py"

_DEPLOYS = "tests/testing/app/test_deploys.py::"
_WORKERS = "tests/testing/app/test_worker_deploys.py::"
_TESTS = "tests/testing/app/test_faults.py::"

APP_TESTING = (
    Bug(
        "testing-step-not-held",
        _FLEET,
        "Fleet._sees",
        "    wire.down.stalled_from, wire.down.stalled_until = (trio.current_time(), float('inf'))\n",
        "",
        "liveness",
        "The frame of a step arrives while the test still acts in it.",
        (f"{_DEPLOYS}test_a_step_waits_for_the_test",),
    ),
    Bug(
        "testing-routes-to-a-node-that-drains",
        _FLEET,
        "Fleet._signal",
        "    self._told.add(name)\n",
        "",
        "one-hop",
        "A new connection goes to a node that has had SIGTERM.",
        (f"{_DEPLOYS}test_a_node_that_drains_gets_no_new_connection",),
    ),
    Bug(
        "testing-rollback-leaves-the-new-release",
        _FLEET,
        "Fleet.rollback",
        "    self._release -= 1\n",
        "",
        "one-hop",
        "A rollback starts one more node of the release that is to go.",
        (f"{_DEPLOYS}test_a_rollback_in_the_middle_of_a_deploy",),
    ),
    Bug(
        "testing-loop-left-early-holds-for-ever",
        _STEPS,
        "Script.close",
        "    while self._waiting:\n        self._waiting.popleft().go_on()\n",
        "",
        "liveness",
        "Steps that were held when the test left its loop are held for ever.",
        (f"{_DEPLOYS}test_steps_that_wait_are_let_go",),
    ),
    Bug(
        "testing-crash-says-goodbye",
        _PARTIES,
        "WorkerProcess.crash",
        "    await self._bridge.run(self._kill_party)\n",
        "    await self.worker.leave()\n",
        "exactly-once",
        "A worker that crashes leaves in good order instead.",
        (f"{_DEPLOYS}test_a_worker_that_crashes",),
    ),
    Bug(
        "testing-worker-deploy-hands-nothing-over",
        _PARTIES,
        "WorkerProcess.replace",
        "leaving.start_soon(worker.drain, leave, 'deploy')",
        "leaving.start_soon(worker.leave, 'deploy')",
        "liveness",
        "The worker that is deployed waits for its sessions to end, and no test sees a handover.",
        (f"{_WORKERS}test_a_worker_that_is_deployed",),
    ),
    Bug(
        "testing-worker-deploy-keeps-the-release",
        _PARTIES,
        "WorkerProcess.replace",
        "    self._handler = handler or self._handler\n",
        "",
        "exactly-once",
        "The next release of a handler is never run.",
        (f"{_WORKERS}test_the_next_release_of_a_handler",),
    ),
    Bug(
        "testing-worker-deploy-shows-no-move",
        _STEPS,
        "of_a_worker",
        "('peer', 'replaced')",
        "('peer', 'assigned')",
        "liveness",
        "The frame by which a client hears of the next worker is not held.",
        (f"{_WORKERS}test_a_deploy_of_a_worker_step_by_step",),
    ),
    Bug(
        "testing-handler-errors-swallowed",
        _CLUSTER,
        "SignaldCluster.worker",
        "    if process.errors and (not may_raise):\n        raise process.errors[0]\n",
        "",
        "nobody-hurts",
        "An assertion that fails in a handler does not fail the test.",
        (f"{_TESTS}test_an_error_of_a_handler_comes_out",),
    ),
    Bug(
        "testing-delay-forgotten-by-new-connections",
        _FAULTS,
        "PartyNetwork.harm",
        "    wire.up.delay_s = wire.down.delay_s = weather.delay_s\n",
        "    wire.up.delay_s = wire.down.delay_s = weather.delay_s if wire in self.wires[:-1] else 0.0\n",
        "liveness",
        "A delay of a party does not hold for the connection that it opens next.",
        (f"{_TESTS}test_delay",),
    ),
    Bug(
        "testing-answer-arrives-though-lost",
        _FAULTS,
        "PartyNetwork._tap",
        "        wire.reset('its answer is lost')\n",
        "",
        "exactly-once",
        "The answer that is to be lost arrives, so the test of a lost answer tests nothing.",
        (f"{_TESTS}test_a_lost_answer",),
    ),
    Bug(
        "testing-time-never-over",
        _RUNNING,
        "cluster_on",
        "    if scope.cancelled_caught:\n",
        "    if scope.cancelled_caught and within_s < 0:\n",
        "bounded",
        "A test that has waited in vain passes.",
        (f"{_TESTS}test_a_test_that_waits_in_vain_ends",),
    ),
    Bug(
        "testing-transcript-shows-every-field",
        _FRAMES,
        "words",
        "for name in (*SHOWN, 'bytes') if name in fields",
        "for name in fields",
        "token-once",
        "The transcript of a failed test, which goes into the log of a CI, holds recovery tokens.",
        (f"{_TESTS}test_jobs_streams_rooms_and_blobs_over_a_deploy",),
    ),
    Bug(
        "testing-seed-without-scheduler",
        _RUNNING,
        "seeded",
        "with determined_by(seed, fast=False):",
        "with determined_by(random.SystemRandom().randrange(1 << 31), fast=False):",
        "twin",
        "The order of ready tasks does not follow the seed.",
        (f"{_DEPLOYS}test_a_seed_repeats_a_run_byte_for_byte",),
    ),
    Bug(
        "testing-mark-before-the-command-line",
        _PLUGIN,
        "_options",
        "options['seed'] = item.config.stash.get(_seed, seed_of_environment(options.get('seed', SEED)))",
        "options.setdefault('seed', item.config.stash.get(_seed, seed_of_environment(SEED)))",
        "twin",
        "A failed test is run again with the seed of its mark instead of the one that is asked for.",
        ("tests/testing/app/test_plugin.py::test_it_runs_async_tests",),
    ),
)
