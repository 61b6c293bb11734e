// The page's parts and what joins them. Everything that is said goes through one session: see link.js.

import { Beats } from "./beats.js";
import { Canvas } from "./canvas.js";
import { Chat } from "./chat.js";
import { open } from "./link.js";
import { Strip } from "./strip.js";
import { Video } from "./video.js";

const STATES = {
  connecting: "connecting",
  open: "connected",
  moving: "moving to the next node",
  waiting: "finding the next node",
  closed: "the session is over: reload the page",
};
/** Below this a page that looks for a node is still said to be connected: a word that comes and goes in a blink only unsettles. */
const WORTH_A_WORD_MS = 400;
const NEW_RUN_MS = 3000;

const start = await (await fetch("start.json")).json();
document.getElementById("version").textContent = start.version;

const link = await open(start);
const strip = new Strip();
const beats = new Beats(link, strip);
const chat = new Chat(link);
const canvas = new Canvas(link.name);
new Video(link, start.video);

showState(link.state);
link.onState(showState);
link.onMessage((message) => beats.hear(message));
// From the first connection on: what it takes to load a page is no gap.
const begun = link.onState((state) => {
  if (state !== "open") return;
  begun();
  beats.begin();
});

const deploys = await link.join(start.rooms.deploys, { state: true });
strip.follow(deploys, beats, chat);
canvas.enter(await link.join(start.rooms.canvas, { state: true, presence: { name: link.name } }));

/** Say how the connection is; a short absence is not worth a word. */
function showState(state) {
  const pill = document.getElementById("connection");
  clearTimeout(showState.timer);
  const show = () => {
    pill.dataset.state = state;
    document.getElementById("connection-text").textContent = STATES[state] ?? state;
  };
  if (state === "moving" || state === "waiting") {
    showState.timer = setTimeout(() => {
      show();
      if (state === "waiting") showState.timer = setTimeout(lookForNewRun, NEW_RUN_MS);
    }, WORTH_A_WORD_MS);
  } else show();
}

/** The demo may have been started again: then this page belongs to a run that is gone, and begins anew. */
async function lookForNewRun() {
  try {
    const now = await (await fetch("start.json", { cache: "no-store" })).json();
    if (now.run !== start.run) location.reload();
  } catch {
    // The demo has ended, or is being started.
  }
  showState.timer = setTimeout(lookForNewRun, NEW_RUN_MS);
}
