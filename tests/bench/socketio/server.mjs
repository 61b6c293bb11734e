// The Socket.IO server of `python -m tests.bench rooms`: node server.mjs PORT REDIS_URL pubsub|streams
//
// Every connection is in one room. What one says goes to all others there, those of other servers by an adapter for Redis: by Pub/Sub, which
// keeps nothing, or by a stream, out of which a connection that comes back gets what it has missed.

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, url, kind] = process.argv.slice(2);

async function connected() {
  const client = createClient({ url });
  await client.connect();
  return client;
}

const options = { transports: ["websocket"], serveClient: false };
if (kind === "streams") {
  options.adapter = createStreamsAdapter(await connected());
  options.connectionStateRecovery = {};
} else {
  options.adapter = createAdapter(await connected(), await connected());
}
const http = createServer();
const io = new Server(http, options);
io.on("connection", (socket) => {
  socket.join("bench");
  socket.on("say", (data) => socket.to("bench").emit("said", data));
});
http.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 }, () => console.log("serving"));
