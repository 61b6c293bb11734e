// Calls: who gives way, what a move touches, when ICE is restarted, and what a lost worker means. Connections are fakes; the session is real.

import assert from "node:assert/strict";
import test from "node:test";
import { type Client, connect } from "../src/index.js";
import { TestService, type WorkerSession } from "../src/test/index.js";
import { call, type Call, type CallOptions, Negotiation, type Signal } from "../src/webrtc/index.js";
import { FakePeerConnection } from "./peer_connection.js";
import { sleep, until } from "./waits.js";

/** Both ends of a call over the service of tests. */
class Scene {
  /** What the page has said, and what the worker has. */
  readonly said: Signal[] = [];
  readonly answered: Signal[] = [];
  readonly pages: FakePeerConnection[] = [];
  readonly workers: { pc: FakePeerConnection; negotiation: Negotiation; session: WorkerSession }[] = [];
  readonly errors: unknown[] = [];
  readonly events: string[] = [];
  readonly service: TestService;
  readonly client: Client;
  readonly call: Call;

  constructor(options: CallOptions = {}) {
    const { pages } = this;
    this.service = new TestService({ worker: (session) => this.#serve(session) });
    this.client = connect({ url: this.service.url, WebSocket: this.service.WebSocket, storage: null, backoff: { baseS: 0.001, capS: 0.01 } });
    class Page extends FakePeerConnection {
      constructor() {
        super("page");
        pages.push(this);
      }
    }
    this.call = call(this.client, {
      recvonly: ["video"],
      restartEveryMs: 30,
      disconnectedMs: 60,
      RTCPeerConnection: Page as unknown as NonNullable<CallOptions["RTCPeerConnection"]>,
      ...options,
    });
    this.call.on("error", (error) => this.errors.push(error));
    this.call.on("connection", () => this.events.push("connection"));
    this.client.on("lifecycle", ({ type }) => this.events.push(type));
  }

  get page(): FakePeerConnection {
    return this.pages.at(-1)!;
  }

  get worker(): FakePeerConnection {
    return this.workers.at(-1)!.pc;
  }

  /** Wait until both ends have described themselves. */
  async agreed(): Promise<void> {
    const same = (): boolean =>
      this.workers.length > 0 &&
      this.page.signalingState === "stable" &&
      this.worker.signalingState === "stable" &&
      this.page.remoteDescription?.sdp === this.worker.localDescription?.sdp &&
      this.worker.remoteDescription?.sdp === this.page.localDescription?.sdp &&
      this.page.remoteDescription != null;
    await until(same, () => `agreed: ${this.page.signalingState} ${this.workers.at(-1)?.pc.signalingState}`);
  }

  async #serve(session: WorkerSession): Promise<void> {
    const pc = new FakePeerConnection("worker");
    let id: string | undefined;
    const negotiation = new Negotiation(pc as unknown as RTCPeerConnection, {
      polite: false,
      say: (signal) => {
        if (session.signal.aborted) return;
        this.answered.push(signal);
        session.send({ ...signal, ...(id === undefined ? {} : { call: id }) }, { kind: "signal", history: false });
      },
      failed: (error) => this.errors.push(error),
    });
    this.workers.push({ pc, negotiation, session });
    for await (const message of session) {
      const signal = message.data as Signal;
      this.said.push(signal);
      id = signal.call;
      negotiation.hear(signal);
    }
  }
}

async function scene(body: (scene: Scene) => Promise<void>, options: CallOptions = {}): Promise<void> {
  const all = new Scene(options);
  try {
    await body(all);
    assert.deepEqual(all.service.errors, []);
    assert.deepEqual(all.errors, []);
  } finally {
    all.client.close();
  }
}

/** Wait for a return of the client after a kill. */
async function killed({ service, events }: Scene): Promise<void> {
  const before = events.filter((one) => one === "resumed").length;
  service.kill();
  await until(() => events.filter((one) => one === "resumed").length > before, "resumed");
}

test("calls", async (whole) => {
  await whole.test("page and worker agree, and candidates come behind their description", () =>
    scene(async (all) => {
      const found = (): unknown => setTimeout(() => all.page.find(`of ${all.page.fragment}`));
      all.page.addEventListener("signalingstatechange", found, { once: true });
      await all.agreed();
      all.worker.find("of the worker");
      await until(() => all.worker.added.length === 1 && all.page.added.length === 1, "added");
      assert.equal(all.worker.added[0]!.candidate, `of ${all.page.fragment}`);
      assert.equal(all.page.added[0]!.remote, all.worker.fragment);
      assert.equal(all.service.session.chatHistory.length, 0);
    }),
  );

  await whole.test("a deploy between offer and answer, and between candidates, changes nothing", () =>
    scene(async (all) => {
      await all.client.ready;
      const deploys = [all.service.deploy()];
      await until(() => all.said.some(({ description }) => description), "offered");
      deploys.push(all.service.deploy());
      await all.agreed();
      for (let number = 0; number < 20; number++) {
        all.page.find(String(number));
        all.worker.find(String(number));
        if (number % 10 === 2) await all.service.deploy();
        if (number === 11) await killed(all);
      }
      await Promise.all(deploys);
      await until(() => all.worker.added.length === 20 && all.page.added.length === 20, "added");
      const inOrder = Array.from({ length: 20 }, (_, number) => String(number));
      assert.deepEqual(all.worker.added.map(({ candidate }) => candidate), inOrder);
      assert.deepEqual(all.page.added.map(({ candidate }) => candidate), inOrder);
      assert.equal(all.said.filter(({ description }) => description).length, 1);
      assert.equal(all.call.restarts, 0);
      assert.equal(all.pages.length, 1);
    }),
  );

  await whole.test("deploys and a kill in a call say nothing, and restart nothing", () =>
    scene(async (all) => {
      await all.agreed();
      all.page.ice("connected");
      const before = all.said.length;
      for (let deploys = 0; deploys < 4; deploys++) await all.service.deploy();
      await killed(all);
      await sleep(50);
      assert.equal(all.said.length, before);
      assert.equal(all.answered.length, 1);
      assert.equal(all.call.restarts, 0);
      assert.equal(all.pages.length, 1);
    }),
  );

  await whole.test("when both offer at once, also during a move, the page gives way and both are heard", async () => {
    for (let round = 0; round < 8; round++) {
      await scene(async (all) => {
        await all.agreed();
        const moved = round % 2 ? all.service.deploy() : null;
        all.page.change();
        all.worker.change();
        await moved;
        await sleep(30);
        await all.agreed();
        assert.equal(all.worker.rollbacks, 0);
        const offers = (signals: Signal[]): number => signals.filter(({ description }) => description?.type === "offer").length;
        assert(offers(all.said) >= 2, "the page's change is offered");
        assert(offers(all.answered) >= 1, "the worker's change is offered");
      });
    }
  });

  await whole.test("a candidate of an offer or of a time that is over is dropped", () =>
    scene(async (all) => {
      await all.agreed();
      const old = all.page.fragment;
      all.page.ice("failed");
      await until(() => all.page.fragment !== old, "restarted");
      await all.agreed();
      all.page.find("late", old);
      all.page.find("new");
      await until(() => all.worker.added.length > 0, "added");
      assert.deepEqual(all.worker.added.map(({ candidate }) => candidate), ["new"]);
    }),
  );

  await whole.test("ICE that has failed is restarted once, and only when the session is back", () =>
    scene(async (all) => {
      await all.agreed();
      const [page, worker] = [all.page.fragment, all.worker.fragment];
      all.service.stop();
      await until(() => all.client.state === "offline", "offline");
      all.page.ice("failed");
      await sleep(80);
      assert.equal(all.call.restarts, 0);
      assert.equal(all.page.fragment, page);
      all.service.start();
      await until(() => all.call.restarts === 1, "restarted");
      await until(() => all.page.fragment !== page && all.worker.fragment !== worker, "new fragments");
      await all.agreed();
      all.page.ice("connected");
      await sleep(80);
      assert.equal(all.call.restarts, 1);
      assert.equal(all.pages.length, 1);
    }),
  );

  await whole.test("ICE that mends itself while the session is away is not restarted", () =>
    scene(async (all) => {
      await all.agreed();
      all.service.stop();
      await until(() => all.client.state === "offline", "offline");
      all.page.ice("failed");
      all.page.ice("connected");
      all.service.start();
      await until(() => all.client.state === "open", "open");
      await sleep(50);
      assert.equal(all.call.restarts, 0);
    }),
  );

  await whole.test("ICE that is disconnected for a moment is left alone, and for long is restarted", () =>
    scene(async (all) => {
      await all.agreed();
      all.page.ice("disconnected");
      await sleep(10);
      all.page.ice("connected");
      await sleep(120);
      assert.equal(all.call.restarts, 0);
      all.page.ice("disconnected");
      await until(() => all.call.restarts === 1, "restarted");
    }),
  );

  await whole.test("a failure while something is negotiated is not forgotten", () =>
    scene(async (all) => {
      await all.agreed();
      const offered = new Promise<void>((resolve) =>
        all.page.addEventListener("signalingstatechange", () => {
          if (all.page.signalingState !== "have-local-offer") return;
          if (all.call.restarts === 0) all.page.ice("failed");
          resolve();
        }),
      );
      all.page.change();
      await offered;
      assert.equal(all.call.restarts, 0);
      await until(() => all.call.restarts === 1, "restarted");
      await all.agreed();
    }),
  );

  await whole.test("another worker is another connection, and signals of the one before are dropped", () =>
    scene(async (all) => {
      await all.agreed();
      const [first, id] = [all.page, all.said[0]!.call!];
      all.service.loseWorker();
      await until(() => all.pages.length === 2 && all.workers.length === 2, "another connection");
      await all.agreed();
      assert(first.closed);
      assert(!all.page.closed);
      assert(all.events.includes("connection"));
      assert.notEqual(all.said.at(-1)!.call, id);
      all.workers.at(-1)!.session.send({ call: id, candidate: { candidate: "old" } }, { kind: "signal", history: false });
      all.worker.find("new");
      await until(() => all.page.added.length > 0, "added");
      assert.deepEqual(all.page.added.map(({ candidate }) => candidate), ["new"]);
      assert.equal(all.call.restarts, 0);
    }),
  );

  await whole.test("a call that is closed says nothing more, and ends with its session", async () => {
    await scene(async (all) => {
      await all.agreed();
      const before = all.said.length;
      all.call.close();
      all.page.find("late");
      await sleep(30);
      assert(all.page.closed);
      assert.equal(all.said.length, before);
      assert.equal(all.client.state, "open");
    });
    await scene(async (all) => {
      await all.agreed();
      await all.client.bye();
      assert(all.page.closed);
    });
  });
});
