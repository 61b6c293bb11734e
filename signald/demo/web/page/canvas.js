// The shared canvas: a room whose records are strokes. A stroke grows by properties of its record, a piece of its line each; so what was drawn is
// sent once, and all tabs see it grow. Pens of others are their presence.

import { entries } from "./strip.js";

/** The canvas has its own measure, so that a phone and a desk see one picture. */
const WIDE = 1200;
const HIGH = 900;
const LINE = 7;
const INKS = ["Ink", "Blue", "Green", "Orange", "Pink", "Violet"];
/** Between two pieces of a stroke, and two words about the pen: a smooth line for others at fifteen messages a second. */
const PIECE_MS = 66;
const STROKE_PIECES = 120;
/** The name beside a pen, at least so large on the screen. */
const NAME_PX = 12;
const STEP = 12;
const LEAP = 60;
const night = matchMedia("(prefers-color-scheme: dark)");

const byId = (id) => document.getElementById(id);

export class Canvas {
  stroke = null;
  own = [];
  ink = Math.floor(Math.random() * INKS.length);
  spot = { x: WIDE / 2, y: HIGH / 2 };
  keyed = false;

  constructor(name) {
    this.name = name;
    this.paper = byId("paper");
    this.canvas = byId("strokes");
    this.pen = this.canvas.getContext("2d");
    this.offerInks();
  }

  /** The room is there: draw, and let draw. */
  enter(room) {
    this.room = room;
    this.listen();
    new ResizeObserver(() => this.fit()).observe(this.canvas);
    night.addEventListener("change", () => this.fit());
    room.on("change", () => this.redraw());
    room.on("members", () => this.redraw());
    this.fit();
    this.tell();
  }

  offerInks() {
    for (const [number, name] of INKS.entries()) {
      const label = document.createElement("label");
      label.className = `ink-${number}`;
      label.innerHTML = '<input type="radio" name="ink"><span aria-hidden="true"></span>';
      const radio = label.querySelector("input");
      radio.setAttribute("aria-label", name);
      radio.checked = number === this.ink;
      radio.addEventListener("change", () => {
        this.ink = number;
        this.tell();
      });
      byId("inks").append(label);
    }
  }

  listen() {
    const { canvas, paper } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.keyed = false;
      this.goTo(this.place(event));
      this.down();
    });
    canvas.addEventListener("pointermove", (event) => {
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const each of moves.length ? moves : [event]) this.goTo(this.place(each));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.up());
    paper.addEventListener("keydown", (event) => this.key(event));
    paper.addEventListener("blur", () => {
      if (this.keyed) this.up();
      this.keyed = false;
      this.redraw();
    });
    byId("undo").addEventListener("click", () => {
      const last = this.own.pop();
      if (last !== undefined) this.room.remove(last);
    });
    byId("clear").addEventListener("click", () => {
      const all = [...entries(this.room.records)].map(([id]) => id);
      this.own = [];
      // A publication takes two thousand changes.
      for (let from = 0; from < all.length; from += 1000) this.room.remove(...all.slice(from, from + 1000));
    });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * WIDE, y: ((event.clientY - box.top) / box.height) * HIGH };
  }

  key(event) {
    const far = event.shiftKey ? LEAP : STEP;
    const ways = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const way = ways[event.key];
    if (way) this.goTo({ x: this.spot.x + way[0], y: this.spot.y + way[1] });
    else if (event.key === " ") {
      if (this.stroke) this.up();
      else this.down();
      byId("announce").textContent = this.stroke ? "Pen down" : "Pen up";
    } else if (event.key === "Escape") this.up();
    else return;
    this.keyed = true;
    event.preventDefault();
    this.redraw();
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  goTo({ x, y }) {
    this.spot = { x: Math.round(Math.min(Math.max(x, 0), WIDE)), y: Math.round(Math.min(Math.max(y, 0), HIGH)) };
    if (this.stroke) {
      this.stroke.piece.push(this.spot.x, this.spot.y);
      this.redraw();
    }
    this.later();
  }

  down() {
    const id = `s${Date.now().toString(36)}-${crypto.randomUUID().slice(0, 8)}`;
    this.stroke = { id, ink: this.ink, pieces: 0, piece: [this.spot.x, this.spot.y] };
    this.own.push(id);
    this.room.put(id, { ink: this.ink });
    this.later();
    this.redraw();
  }

  up() {
    if (!this.stroke) return;
    this.say();
    this.stroke = null;
    this.redraw();
  }

  /** Tell the others soon, and not more often than they need. */
  later() {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.say();
      this.tell();
    }, PIECE_MS);
  }

  say() {
    const { stroke } = this;
    if (!stroke?.piece.length) return;
    const ended = stroke.piece.slice(-2);
    this.room.patch(stroke.id, { [`p${String(stroke.pieces).padStart(3, "0")}`]: stroke.piece });
    stroke.pieces += 1;
    stroke.piece = [];
    if (stroke.pieces >= STROKE_PIECES) {
      // A record has its bound: a long line goes on in another one, from where this one ends.
      this.down();
      this.stroke.piece = [...ended];
    }
  }

  tell() {
    this.room?.setPresence({ name: this.name, ink: this.ink, x: this.spot.x, y: this.spot.y, down: this.stroke !== null });
  }

  // --- the picture ---------------------------------------------------------------------------------------------------

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.scale = (width * scale) / WIDE;
    const style = getComputedStyle(document.documentElement);
    this.colors = INKS.map((_, number) => style.getPropertyValue(`--ink-${number}`).trim());
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const { pen, canvas, room } = this;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = LINE;
    let strokes = 0;
    for (const [id, record] of [...entries(room.records)].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const line = lineOf(record);
      if (id === this.stroke?.id) line.push(...this.stroke.piece);
      this.drawLine(line, record.ink);
      strokes += 1;
    }
    const others = this.drawPens();
    byId("paper-empty").hidden = strokes > 0 || this.keyed;
    byId("here").textContent = others ? `${others === 1 ? "One other" : `${others} others`} here.` : "You are alone here.";
    this.paper.setAttribute("aria-label", `Shared canvas, ${strokes} ${strokes === 1 ? "stroke" : "strokes"}`);
  }

  drawLine(line, ink) {
    const { pen } = this;
    if (line.length < 2) return;
    pen.strokeStyle = this.colors[ink] ?? this.colors[0];
    pen.beginPath();
    pen.moveTo(line[0], line[1]);
    // Through the middles between the points: a hand draws no corners.
    for (let at = 2; at + 3 < line.length; at += 2) {
      pen.quadraticCurveTo(line[at], line[at + 1], (line[at] + line[at + 2]) / 2, (line[at + 1] + line[at + 3]) / 2);
    }
    pen.lineTo(line.at(-2), line.at(-1));
    pen.stroke();
  }

  drawPens() {
    const { pen, room } = this;
    let others = 0;
    pen.font = `${Math.max(26, (NAME_PX * (devicePixelRatio || 1)) / this.scale)}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const [member, said] of entries(room.members)) {
      if (member === room.member) continue;
      others += 1;
      if (typeof said?.x !== "number" || typeof said?.y !== "number") continue;
      pen.fillStyle = this.colors[said.ink] ?? this.colors[0];
      pen.beginPath();
      pen.arc(said.x, said.y, said.down ? 11 : 8, 0, 2 * Math.PI);
      pen.fill();
      const name = String(said.name ?? "").slice(0, 24);
      pen.textAlign = said.x > WIDE - 220 ? "right" : "left";
      pen.fillText(name, said.x + (said.x > WIDE - 220 ? -20 : 20), said.y);
    }
    if (this.keyed) {
      const { x, y } = this.spot;
      pen.strokeStyle = this.colors[this.ink];
      pen.lineWidth = 3;
      pen.beginPath();
      pen.arc(x, y, this.stroke ? 10 : 18, 0, 2 * Math.PI);
      pen.moveTo(x - 28, y);
      pen.lineTo(x + 28, y);
      pen.moveTo(x, y - 28);
      pen.lineTo(x, y + 28);
      pen.stroke();
    }
    return others;
  }
}

function lineOf(record) {
  const pieces = Object.keys(record).filter((key) => key.startsWith("p")).sort();
  return pieces.flatMap((key) => (Array.isArray(record[key]) ? record[key] : []));
}
