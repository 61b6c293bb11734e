// The entry `signald/webrtc`: a call between a page and its worker, agreed upon by messages of the session.

import type { Client } from "../client.js";
import type { Lifecycle, Message } from "../events.js";
import { Negotiation, type Signal } from "./negotiation.js";

export { Negotiation, type Connection, type NegotiationOptions, type Signal } from "./negotiation.js";

export interface CallOptions {
  /** The kind of the messages; those of other kinds are left alone. */
  kind?: string;
  /** The client of a session is the polite side. */
  polite?: boolean;
  rtcConfig?: RTCConfiguration;
  /** Tracks to be received, and not sent. */
  recvonly?: readonly ("audio" | "video")[];
  /** Tracks of the page, as of `getUserMedia`. */
  stream?: MediaStream;
  /** Anything else that a new connection needs: data channels, transceivers. Called for each connection, also the one behind a lost worker. */
  setup?: (pc: RTCPeerConnection) => void;
  /** See `NegotiationOptions`. */
  disconnectedMs?: number;
  restartEveryMs?: number;
  /** A class of connections, where the platform has none. */
  RTCPeerConnection?: new (config?: RTCConfiguration) => RTCPeerConnection;
}

export interface CallEvents {
  track: RTCTrackEvent;
  /** The state of the connection: `RTCPeerConnection.connectionState`. */
  state: RTCPeerConnectionState;
  /** Another connection takes the place of the one before: tracks come anew. */
  connection: RTCPeerConnection;
  /** The connection refused a description or a candidate. The call goes on. */
  error: unknown;
}

type Listener<E extends keyof CallEvents> = (event: CallEvents[E]) => void;

/** Call the worker of the client's session; it goes on through deploys, and begins anew with another worker. */
export function call(client: Client, options: CallOptions = {}): Call {
  return new Call(client, options);
}

const KIND = "signal";

export class Call {
  readonly #client: Client;
  readonly #options: CallOptions;
  readonly #listeners = new Map<keyof CallEvents, Set<Listener<any>>>();
  readonly #stops: (() => void)[];
  #id = "";
  #negotiation!: Negotiation;
  #pc!: RTCPeerConnection;
  #restartsBefore = 0;
  #closed = false;

  constructor(client: Client, options: CallOptions) {
    this.#client = client;
    this.#options = options;
    this.#begin();
    this.#stops = [
      client.on("message", (message) => this.#hear(message)),
      client.on("state", (state) => (state === "closed" ? this.close() : this.#negotiation.carried(state !== "offline"))),
      client.on("lifecycle", (event) => this.#lives(event)),
    ];
  }

  /** The connection; another one after the worker was replaced. */
  get pc(): RTCPeerConnection {
    return this.#pc;
  }

  /** How often ICE was restarted. */
  get restarts(): number {
    return this.#restartsBefore + this.#negotiation.restarts;
  }

  /** Hear of events; the function that is returned ends it. */
  on<E extends keyof CallEvents>(name: E, listener: Listener<E>): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => void all.delete(listener);
  }

  /** Hang up. The session goes on. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const stop of this.#stops) stop();
    this.#negotiation.close();
    this.#emit("state", "closed");
  }

  #begin(): void {
    const { rtcConfig, recvonly = [], stream, setup, kind = KIND, polite = true, disconnectedMs, restartEveryMs } = this.#options;
    const Connection = this.#options.RTCPeerConnection ?? RTCPeerConnection;
    const id = (this.#id = Math.random().toString(36).slice(2, 10));
    const pc = (this.#pc = new Connection(rtcConfig));
    this.#negotiation = new Negotiation(pc, {
      polite,
      say: (signal) => this.#client.state !== "closed" && this.#client.send({ call: id, ...signal }, { kind, history: false }),
      failed: (error) => this.#emit("error", error),
      ...(disconnectedMs === undefined ? {} : { disconnectedMs }),
      ...(restartEveryMs === undefined ? {} : { restartEveryMs }),
    });
    this.#negotiation.carried(this.#client.state !== "offline");
    pc.addEventListener("track", (event) => this.#emit("track", event));
    pc.addEventListener("connectionstatechange", () => this.#emit("state", pc.connectionState));
    for (const media of recvonly) pc.addTransceiver(media, { direction: "recvonly" });
    for (const track of stream?.getTracks() ?? []) pc.addTrack(track, stream!);
    setup?.(pc);
  }

  #hear(message: Message): void {
    if (message.kind !== (this.#options.kind ?? KIND)) return;
    const signal = message.data as Signal | null;
    // One of a connection that is given up. A worker that names no call has one only.
    if (typeof signal !== "object" || signal === null || (signal.call !== undefined && signal.call !== this.#id)) return;
    this.#negotiation.hear(signal);
  }

  #lives(event: Lifecycle): void {
    // The other end of the connection is gone with its worker, or what was said is lost: nothing of it can be mended.
    if (event.type !== "replaced" && event.type !== "log_lost") return;
    this.#restartsBefore += this.#negotiation.restarts;
    this.#negotiation.close();
    this.#begin();
    this.#emit("connection", this.#pc);
  }

  #emit<E extends keyof CallEvents>(name: E, event: CallEvents[E]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        console.error("signald: an error of the application", error);
      }
    }
  }
}
