// Clients against scripted nodes: `node scripted.mjs CASES`, where CASES is JSON: [{name, url, slowMs, gives, least}, ...]. Prints what came of each.

import { WebSocket } from "ws";
import { connect } from "../src/index.js";

const SAYS = 20;
const HANG_MS = 45_000;

interface Case {
  name: string;
  url: string;
  slowMs: number;
  gives: number;
  /** So many numbers do not come. */
  least: number;
}

interface Told {
  heard: number[];
  events: string[];
  error: string | null;
  hung: boolean;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function talk({ url, slowMs, gives, least }: Case): Promise<Told> {
  const told: Told = { heard: [], events: [], error: null, hung: true };
  const client = connect({
    url,
    WebSocket,
    backoff: { baseS: 0.01, capS: 0.05, goingAwayS: 0.02, refusedS: 0.02 },
    timing: { connectS: 1, answerS: 1, pongTimeoutS: 1, closeS: 0.3, retireS: 0.6 },
    bounds: { inboxBytesMax: 2 * 1024 * 1024 },
  });
  client.on("lifecycle", ({ type }) => told.events.push(type));
  const over = client.closed.then((error) => {
    told.error = error?.name ?? null;
    told.hung = false;
  });
  await Promise.race([client.ready.catch(() => {}), over]);
  await sleep(slowMs);
  let allHere!: () => void;
  const heardAll = new Promise<void>((resolve) => (allHere = resolve));
  client.on("message", ({ data }) => {
    told.heard.push((data as { n: number }).n);
    if (told.heard.length >= gives - least) allHere();
  });
  const speak = async (): Promise<void> => {
    const stored: Promise<void>[] = [];
    for (let n = 1; n <= SAYS; n++) {
      stored.push(client.send({ n }).stored);
      await sleep(5);
    }
    await Promise.all(stored);
    await heardAll;
    await sleep(100); // a number that comes twice would come now
    await client.bye("done");
  };
  await Promise.race([speak().catch(() => over), over, sleep(HANG_MS)]);
  return told;
}

const cases: Case[] = JSON.parse(process.argv[2]!);
const results = await Promise.all(cases.map(async (one) => [one.name, await talk(one)] as const));
console.log(JSON.stringify(Object.fromEntries(results)));
process.exit(0);
