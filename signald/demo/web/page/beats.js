// The page's proof: numbered questions at a steady rate, each answered by the worker with a number of its own. A hole in the numbers is a loss,
// a repeat a duplicate. The longest wait for an answer is the gap that a visitor could have noticed.

const BEAT_MS = 200;
/** So many round trips are drawn: a minute of them and some more. */
const KEPT = 400;
/** A tab that is not looked at is served late by its browser, so its round trips say nothing of the nodes. */
const seen = () => document.visibilityState === "visible";

/** One direction's numbers, as they arrive. */
class Numbers {
  next = 1;
  missing = new Set();
  doubled = 0;
  late = 0;

  receive(number) {
    if (number === this.next) this.next += 1;
    else if (number > this.next) {
      // The worker answers within a window; a hole of more than this is a fault of the page's own counting, and is shown as one loss.
      for (let hole = Math.max(this.next, number - KEPT); hole < number; hole += 1) this.missing.add(hole);
      this.next = number + 1;
    } else if (this.missing.delete(number)) this.late += 1;
    else this.doubled += 1;
  }
}

export class Beats {
  /** Round trips that are over: {at, ms}, by the page's monotonic clock; at is when the question was asked. */
  trips = [];
  /** Questions without an answer: number → {at, seen}. */
  asked = new Map();
  longestMs = 0;
  count = 0;

  constructor(link, strip) {
    this.link = link;
    this.strip = strip;
    this.page = crypto.randomUUID();
    this.number = 0;
    this.answers = new Numbers();
    this.theirs = { lost: 0, doubled: 0, late: 0 };
    this.hiddenAt = seen() ? -Infinity : performance.now();
    document.addEventListener("visibilitychange", () => {
      this.hiddenAt = performance.now();
    });
    strip.watch(this);
  }

  begin() {
    setInterval(() => this.ask(), BEAT_MS);
    this.ask();
  }

  ask() {
    // A page that gets no answers asks no further: what it would learn it knows already, and a queue must have an end.
    if (this.asked.size >= KEPT) return;
    this.number += 1;
    this.asked.set(this.number, { at: performance.now() });
    this.link.send({ page: this.page, n: this.number }, { kind: "beat", history: false });
  }

  hear(message) {
    const said = message.data;
    if (message.kind !== "beat" || said?.page !== this.page) return;
    this.answers.receive(said.n);
    this.theirs = said;
    this.count += 2;
    const question = this.asked.get(said.to);
    if (question === undefined) return;
    this.asked.delete(said.to);
    const ms = performance.now() - question.at;
    if (!this.honest(question.at)) return;
    this.trips.push({ at: question.at, ms });
    if (this.trips.length > KEPT) this.trips.shift();
    if (ms > this.longestMs) this.longestMs = ms;
    this.strip.trip(question.at, ms);
  }

  /** Whether the page was looked at all the time since. */
  honest(at) {
    return seen() && this.hiddenAt < at;
  }

  /** What went wrong with the numbers of both directions; what waits for its answer is not lost. */
  get faults() {
    return {
      lost: this.answers.missing.size + this.theirs.lost,
      doubled: this.answers.doubled + this.theirs.doubled,
      late: this.answers.late + this.theirs.late,
    };
  }

  /** How long the eldest question has been waiting, in ms. */
  waitingMs(now) {
    for (const { at } of this.asked.values()) return this.honest(at) ? now - at : 0;
    return 0;
  }

  /** The longest round trip that was under way between two moments, or null when none was seen. */
  longestBetween(from, to) {
    let longest = null;
    for (const { at, ms } of this.trips) {
      if (at <= to && at + ms >= from && (longest === null || ms > longest)) longest = ms;
    }
    return longest;
  }
}
