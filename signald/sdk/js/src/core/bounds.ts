// The bounds of a session at its client, and the pace at which it sends. No I/O.

export interface Bounds {
  unackedMessagesMax: number;
  unackedBytesMax: number;
  /** Above it the driver hands on nothing until the application catches up. */
  inboxMessagesMax: number;
  inboxBytesMax: number;
  /** Until the service says its own; so is `jsonDepthMax`. */
  messageBytesMax: number;
  jsonDepthMax: number;
  /** The pause (seconds) after a refusal that names none. */
  pauseS: number;
}

export const DEFAULT_BOUNDS: Bounds = {
  unackedMessagesMax: 1000,
  unackedBytesMax: 4 * 1024 * 1024,
  inboxMessagesMax: 4096,
  inboxBytesMax: 16 * 1024 * 1024,
  messageBytesMax: 65536,
  jsonDepthMax: 32,
  pauseS: 0.5,
};

/** The rest of a wait that rounding leaves may be too short for a timer to reach a later time. */
const WAIT_MIN_S = 1e-6;

/** Keeps a client a little below the message rate that the service named: messages that leave evenly may arrive in bunches. */
export class Pace {
  readonly #perS: number;
  readonly #burst: number;
  #tokens = 0;
  #at: number | null = null;

  constructor(perS: number, burst: number) {
    this.#perS = Math.max(perS * 0.95, 0.001);
    this.#burst = Math.max(1, burst * 0.9);
  }

  /** Begin a new connection, with a whole burst. */
  reset(): void {
    this.#at = null;
  }

  /** Take the place of one message and return 0, or return how long to wait for it (seconds). */
  take(now: number): number {
    if (this.#at === null) {
      this.#tokens = this.#burst;
      this.#at = now;
    } else if (now > this.#at) {
      this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perS);
      this.#at = now;
    }
    if (this.#tokens >= 1) {
      this.#tokens -= 1;
      return 0;
    }
    return Math.max((1 - this.#tokens) / this.#perS, WAIT_MIN_S);
  }
}
