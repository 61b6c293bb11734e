// What happens underneath: the moves of the nodes, which come as records of a room, over the round trips of this page.

/** What the graph shows: a minute; half of it on a phone, where its lines would touch. */
const SPAN_MS = 60_000;
const SPAN_OF_PHONE_MS = 30_000;
const PHONE_WIDTH = 560;
const WORD_WIDTH = 76;
/** The last pixel of the graph stands for this moment; a little room keeps what has just come from sticking to the edge. */
const AHEAD_MS = 600;
const LEVELS_MS = [1, 10, 100, 1000];
const TOP_MS = 5000;
const WORDS = { deploy: "deploy", rollback: "rollback", kill: "kill" };
const SIGNS = { deploy: "▲", rollback: "◀", kill: "✕" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const night = matchMedia("(prefers-color-scheme: dark)");

const byId = (id) => document.getElementById(id);
export const inMs = (ms) => (ms === null ? "–" : ms < 1000 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`);

export class Strip {
  moves = new Map();
  items = new Map();
  show = null;
  wished = null;

  constructor() {
    this.canvas = byId("graph");
    this.pen = this.canvas.getContext("2d");
    new ResizeObserver(() => this.fit()).observe(this.canvas);
    night.addEventListener("change", () => this.fit());
    this.fit();
    this.drawnAt = 0;
    const frame = (now) => {
      // Thirty pictures a second are smooth enough for a line that creeps; one a second for readers that want no motion.
      if (now - this.drawnAt > (calm.matches ? 1000 : 32)) {
        this.drawnAt = now;
        this.draw();
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    setInterval(() => this.tell(), 250);
  }

  watch(beats) {
    this.beats = beats;
  }

  follow(room, beats, chat) {
    this.room = room;
    this.chat = chat;
    for (const button of document.querySelectorAll(".move")) {
      button.addEventListener("click", () => this.wish(button.dataset.do));
    }
    byId("by-itself").addEventListener("click", () => this.wish(this.show?.by_itself === false ? "go" : "stop"));
    room.on("change", () => this.read());
    this.read();
  }

  wish(what) {
    this.wished = what;
    this.room.publish({ do: what }, { kind: "wish" });
  }

  read() {
    const there = new Set();
    for (const [id, record] of entries(this.room.records)) {
      if (id === "show") this.show = record;
      else if (typeof record.n === "number" && record.kind in WORDS) {
        there.add(record.n);
        this.take(record);
      }
    }
    for (const n of this.moves.keys()) {
      if (!there.has(n)) {
        this.moves.delete(n);
        this.items.get(n)?.remove();
        this.items.delete(n);
      }
    }
    this.tell();
  }

  take(record) {
    const known = this.moves.get(record.n);
    if (known?.state === record.state) return;
    const now = performance.now();
    const move = known ?? { n: record.n, kind: record.kind, from: null, to: null, gapMs: null };
    const first = known === undefined;
    Object.assign(move, { state: record.state, release: record.release, theirGapMs: record.gap_ms, tookMs: record.took_ms });
    // Of a move that began before this page came, the clock of the machine tells when.
    const at = now - Math.max(0, Date.now() - record.at_ms);
    if (record.state !== "starting" && move.from === null) {
      move.from = first && record.state === "done" ? at : Math.max(at, now - 1000);
      if (record.state === "moving") this.chat.cut(move);
    }
    if (record.state === "done") {
      move.to = first ? move.from + (record.took_ms ?? 0) : now;
      move.seen = !first;
      if (move.seen) this.measure(move);
    }
    this.moves.set(move.n, move);
    this.list(move);
    if (record.state === "done" && this.wished === record.kind) {
      this.wished = null;
      byId("announce").textContent = `${WORDS[record.kind]} done, release ${record.release}; the longest wait was ${inMs(this.gapOf(move))}.`;
    }
  }

  /** A round trip is over; it may be the longest of a move that it was under way in. */
  trip(at, ms) {
    for (const move of this.moves.values()) {
      if (move.from === null || move.state === "starting" || at + ms < move.from || (move.to !== null && at > move.to)) continue;
      if (move.to !== null && !move.seen) continue;
      if (move.gapMs === null || ms > move.gapMs) {
        move.gapMs = ms;
        if (move.state === "done") this.list(move);
      }
    }
  }

  measure(move) {
    const longest = this.beats.longestBetween(move.from, move.to);
    if (longest !== null && (move.gapMs === null || longest > move.gapMs)) move.gapMs = longest;
  }

  /** What this page has waited; of a move that it has not seen, what the demo's own client has. */
  gapOf(move) {
    return move.gapMs ?? move.theirGapMs ?? null;
  }

  list(move) {
    let item = this.items.get(move.n);
    if (item === undefined) {
      item = document.createElement("li");
      item.innerHTML = '<span class="what"></span><span class="cost"></span>';
      item.className = move.kind;
      this.items.set(move.n, item);
      byId("moves").prepend(item);
    }
    item.classList.toggle("under-way", move.state !== "done");
    item.querySelector(".what").textContent = `${WORDS[move.kind]} ${move.release}`;
    const cost = { starting: "starts", moving: "moves", done: inMs(this.gapOf(move)) }[move.state];
    item.querySelector(".cost").textContent = cost;
  }

  tell() {
    const { beats, show } = this;
    if (!beats) return;
    const now = performance.now();
    const waiting = beats.waitingMs(now);
    byId("longest").textContent = beats.count ? inMs(Math.max(beats.longestMs, waiting > 500 ? waiting : 0)) : "–";
    const last = beats.trips.at(-1);
    byId("trip").textContent = last ? inMs(waiting > 500 ? waiting : last.ms) : "–";
    byId("count").textContent = beats.count.toLocaleString("en");
    for (const [id, value] of Object.entries(beats.faults)) {
      byId(id).textContent = value;
      byId(id).parentElement.classList.toggle("wrong", value > 0);
    }
    if (show) {
      const busy = [...this.moves.values()].find((move) => move.state !== "done");
      const left = Math.max(0, Math.ceil((show.due_ms - Date.now()) / 1000));
      byId("next").textContent = busy
        ? `release ${show.release}, ${WORDS[busy.kind]} under way`
        : show.by_itself
          ? `release ${show.release}, the next move in ${left} s`
          : `release ${show.release}, paused`;
      byId("by-itself").textContent = show.by_itself ? "Pause" : "Go on";
    }
    const done = [...this.moves.values()].filter((move) => move.state === "done").length;
    this.canvas.setAttribute(
      "aria-label",
      `The round trips of this page in the last minute: now ${last ? inMs(last.ms) : "unknown"}, at most ${inMs(beats.longestMs)}, over ${done} moves of the nodes.`,
    );
  }

  // --- the graph -----------------------------------------------------------------------------------------------------

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    this.width = width;
    this.span = width < PHONE_WIDTH ? SPAN_OF_PHONE_MS : SPAN_MS;
    this.height = height;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const names = ["deploy", "rollback", "kill", "beat", "accent", "line", "soft", "sunk"];
    this.colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.draw();
  }

  draw() {
    const { pen, width, height, colors, beats } = this;
    if (!width) return;
    const now = performance.now();
    const top = 24;
    const bottom = height - 10;
    const x = (at) => width - ((now + AHEAD_MS - at) / this.span) * width;
    const y = (ms) => bottom - (Math.log(Math.max(ms, 1)) / Math.log(TOP_MS)) * (bottom - top);
    pen.clearRect(0, 0, width, height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.lineWidth = 1;
    for (const level of LEVELS_MS) {
      pen.strokeStyle = colors.line;
      pen.beginPath();
      pen.moveTo(0, Math.round(y(level)) + 0.5);
      pen.lineTo(width, Math.round(y(level)) + 0.5);
      pen.stroke();
    }
    this.drawMoves(x, top, bottom, now);
    if (beats) this.drawTrips(x, y, bottom, now);
    pen.textAlign = "left";
    for (const level of LEVELS_MS.slice(1)) {
      const label = inMs(level).replace("1.0", "1");
      pen.strokeStyle = colors.sunk;
      pen.lineWidth = 4;
      pen.strokeText(label, 8, y(level) - 1);
      pen.fillStyle = colors.soft;
      pen.fillText(label, 8, y(level) - 1);
    }
  }

  drawTrips(x, y, bottom, now) {
    const { pen, colors, beats } = this;
    const wide = Math.max(1.5, Math.min(3, (this.width / this.span) * 150));
    pen.lineCap = "round";
    pen.lineWidth = wide;
    pen.strokeStyle = colors.beat;
    pen.beginPath();
    for (const { at, ms } of beats.trips) {
      const here = x(at);
      if (here < -4) continue;
      pen.moveTo(here, bottom);
      pen.lineTo(here, Math.min(y(ms), bottom - 2));
    }
    pen.stroke();
    // What waits for its answer grows while it waits.
    pen.strokeStyle = colors.accent;
    pen.beginPath();
    for (const { at } of beats.asked.values()) {
      if (!beats.honest(at)) continue;
      pen.moveTo(x(at), bottom);
      pen.lineTo(x(at), Math.min(y(now - at), bottom - 2));
    }
    pen.stroke();
  }

  drawMoves(x, top, bottom, now) {
    const { pen, colors, width } = this;
    for (const move of this.moves.values()) {
      if (move.from === null) continue;
      const from = x(move.from);
      const to = Math.max(x(move.to ?? now), from + 3);
      if (to < 0) continue;
      pen.fillStyle = colors[move.kind];
      pen.globalAlpha = 0.16;
      pen.fillRect(from, top - 4, to - from, bottom - top + 4);
      pen.globalAlpha = 1;
      pen.fillRect(from, top - 4, 1.5, bottom - top + 4);
      // What has just happened is told at the edge, to the left.
      const atEdge = from > width - WORD_WIDTH;
      pen.textAlign = atEdge ? "right" : "left";
      pen.textBaseline = "bottom";
      const gap = move.state === "done" ? inMs(this.gapOf(move)) : "";
      pen.font = "600 11px system-ui, sans-serif";
      pen.fillText(`${SIGNS[move.kind]} ${gap}`, atEdge ? width - 6 : from, top - 6);
      pen.font = "11px system-ui, sans-serif";
    }
  }
}

export function entries(records) {
  return records instanceof Map ? records.entries() : Object.entries(records);
}
