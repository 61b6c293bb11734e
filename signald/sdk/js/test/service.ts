// A small honest service for tests of the front: it keeps sessions, stores what it is sent, and tells of each connection.

import { type WebSocket, WebSocketServer } from "ws";
import type { AddressInfo } from "node:net";

interface Kept {
  id: string;
  token: string;
  stored: unknown[];
  /** What the worker has said, from seq 1 on. */
  said: unknown[];
  acked: number;
  socket: WebSocket | null;
}

export class Service {
  readonly sessions: Kept[] = [];
  /** The opening messages, in their order. */
  readonly openings: Record<string, any>[] = [];
  /** Credentials that were shown on a connection that was open already. */
  readonly shown: unknown[] = [];
  /** False: nothing is stored, as while a store is away. */
  stores = true;
  readonly #server: WebSocketServer;
  #tokens = 0;

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on("connection", (socket) => {
      socket.on("error", () => {});
      socket.on("message", (data: Buffer, binary) => {
        const end = binary ? 2 + data.readUInt16BE() : data.length;
        const message = JSON.parse(data.subarray(binary ? 2 : 0, end).toString());
        this.#heard(socket, binary ? { ...message, data: [...data.subarray(end)] } : message);
      });
    });
  }

  static async start(port = 0): Promise<Service> {
    const server = new WebSocketServer({ port, host: "127.0.0.1", handleProtocols: () => "signald.v1" });
    await new Promise<void>((resolve) => server.once("listening", resolve));
    return new Service(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Say something as the worker of a session. */
  say(session: Kept, data: unknown): void {
    session.said.push(data);
    session.socket?.send(JSON.stringify({ type: "message", seq: session.said.length, data }));
  }

  /** Break all connections. */
  cut(): void {
    for (const socket of this.#server.clients) socket.terminate();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #heard(socket: WebSocket, message: Record<string, any>): void {
    const session = this.sessions.find((one) => one.socket === socket);
    switch (message["type"]) {
      case "connect":
      case "restore_session":
        this.openings.push(message);
        this.#opened(socket, message);
        break;
      case "message":
        if (!this.stores || !session) break;
        if (message["seq"] === session.stored.length + 1) session.stored.push(message["data"]);
        socket.send(JSON.stringify({ type: "ack", seq: session.stored.length }));
        break;
      case "ack":
        if (session) session.acked = message["seq"];
        break;
      case "auth":
        this.shown.push(message["auth"]);
        break;
      case "ping":
        socket.send('{"type":"pong"}');
        break;
      case "bye":
        socket.close(1000, "bye");
    }
  }

  #opened(socket: WebSocket, message: Record<string, any>): void {
    let session = this.sessions.find(({ token }) => token === message["recovery_token"]);
    const restored = session !== undefined;
    if (message["type"] === "restore_session" && !session) {
      socket.close(4404, "nothing to resume");
      return;
    }
    session ??= { id: `s_${this.sessions.length + 1}`, token: "", stored: [], said: [], acked: 0, socket: null };
    if (!restored) this.sessions.push(session);
    session.socket?.close(4409, "superseded");
    session.socket = socket;
    session.token = `token-${++this.#tokens}`;
    const answer = { session: session.id, recovery_token: session.token, token_ttl_ms: 60000, heartbeat_ms: 20000, peer: { state: "paired", id: "w_1" }, ...(message["api"] && { api_token: `api-${this.#tokens}` }) };
    const limits = { message_bytes: 65536, messages_per_s: 1000, messages_burst: 1000, backlog_messages: 1000 };
    if (!restored) socket.send(JSON.stringify({ type: "session_started", ...answer, next_seq: 1, limits }));
    else {
      const from: number = message["received"];
      socket.send(JSON.stringify({ type: "session_restored", ...answer, accepted: session.stored.length, replaying: session.said.length - from }));
      for (let seq = from + 1; seq <= session.said.length; seq++) socket.send(JSON.stringify({ type: "message", seq, data: session.said[seq - 1] }));
    }
  }
}
