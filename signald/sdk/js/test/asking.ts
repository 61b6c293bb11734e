// A client that uploads, reads and has jobs done until SIGTERM: `node asking.mjs URL...`. Prints JSON at the end.

import { randomBytes } from "node:crypto";
import { WebSocket } from "ws";
import { blobs } from "../src/blobs.js";
import { historyOf } from "../src/history.js";
import { connect } from "../src/index.js";
import { type Job, jobs } from "../src/jobs.js";
import { readEvents } from "../src/sse.js";

const BLOB_BYTES = 300_000;

const client = connect({ url: process.argv.slice(2), api: true, WebSocket, backoff: { baseS: 0.1, capS: 1, goingAwayS: 0.2, refusedS: 0.5 } });
const work = jobs(client);
const told = { rounds: 0, jobs: [] as string[], wrong: [] as unknown[], messages: 0, events: [] as string[], history: [] as unknown[], listed: [] as string[] };
let asking = true;

process.once("SIGTERM", () => {
  asking = false;
});
client.on("message", () => (told.messages += 1));

async function text(job: Job): Promise<string> {
  let said = "";
  let attempt = 0;
  for await (const part of job) {
    if (part.attempt > attempt) said = "";
    attempt = part.attempt;
    if (typeof part.data === "string") said += part.data;
  }
  return said;
}

/** One blob, and one job that names it, by way of what was uploaded. */
async function round(number: number): Promise<void> {
  const bytes = randomBytes(BLOB_BYTES);
  const blob = await blobs(client).upload(bytes, { contentType: "audio/ogg" });
  const job = await work.submit("count", { to: number, blob: blob.id }, { key: `job ${number}`.replace(" ", "-") });
  told.jobs.push(job.id);
  const [said, result, whole] = await Promise.all([text(job), job.result(), blobs(client).read(blob.id)]);
  const part = await blobs(client).open(blob.id, { start: 1000, end: 2000 });
  const pieces: Uint8Array[] = [];
  for await (const piece of part) pieces.push(piece);
  const numbers = Array.from({ length: number }, (_, one) => one + 1).join(" ");
  const right = said === numbers && result === numbers && bytes.equals(whole) && bytes.subarray(1000, 2000).equals(Buffer.concat(pieces));
  if (!right) told.wrong.push({ number, said, result, blob: bytes.equals(whole) });
  await blobs(client).delete(blob.id);
}

await client.ready;
await client.send("hello").stored;
console.log("talking");
while (asking) {
  await round(told.rounds + 1);
  told.rounds += 1;
  await new Promise((resolve) => setTimeout(resolve, 200));
}
const address = (): string => `${client.api!.url}/v1/jobs/${told.jobs.at(-1)}/events`;
for await (const { event, data } of readEvents(address, { getToken: () => client.api!.token })) {
  told.events.push(event === "end" ? `end: ${JSON.parse(data).state}` : (JSON.parse(data).data ?? ""));
}
for await (const { from, data } of historyOf(client, { limit: 10 })) told.history.push([from, data]);
const listed = await fetch(`${client.api!.url}/v1/jobs?limit=200`, { headers: { authorization: `Bearer ${client.api!.token}` } });
told.listed = ((await listed.json()) as { jobs: { job: string }[] }).jobs.map(({ job }) => job);
await client.bye();
console.log(JSON.stringify(told));
