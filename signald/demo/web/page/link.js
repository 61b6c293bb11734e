// The page's one session. What the page needs of it stands here, so the rest of the page reads like a page.

import { connect } from "./client.js";

const CREATURES = ["heron", "otter", "lynx", "finch", "hare", "newt", "ibis", "mole", "wren", "seal", "toad", "moth"];
const MANNERS = ["calm", "quick", "shy", "bold", "merry", "sleepy", "curious", "gentle"];
/** As many entries of the chat history as signald keeps: a page that was loaded again shows what was said. */
const HISTORY = 100;

export async function open(start) {
  const name = nameOfTab();
  // The token of the session is kept in sessionStorage, under a name of this run: a reload goes on with the session.
  const client = await connect({
    url: start.url,
    want: start.want,
    metadata: { name },
    history: HISTORY,
    storageKey: `signald-demo-${start.run}`,
  });
  return {
    client,
    name,
    get state() {
      return client.state;
    },
    onState: (fn) => client.on("state", () => fn(client.state)),
    onMessage: (fn) => client.on("message", fn),
    onStream: (fn) => client.on("stream", fn),
    onHistory: (fn) => client.on("history", fn),
    send: (data, options) => client.send(data, options),
    cancel: (stream) => client.cancel(stream),
    join: (room, options) => client.rooms.join(room, options),
  };
}

function nameOfTab() {
  const known = sessionStorage.getItem("signald-demo-name");
  if (known !== null) return known;
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const name = `${pick(MANNERS)} ${pick(CREATURES)}`;
  sessionStorage.setItem("signald-demo-name", name);
  return name;
}
