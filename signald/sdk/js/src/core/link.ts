// A connection as the core sees it. No I/O.

import type { Frame, Wire } from "./frames.js";

export class Link {
  state: "opening" | "current" | "retiring" | "closed" = "opening";
  readonly url: string;
  readonly openedAt: number;
  /** It was opened beside a living connection. */
  moving: boolean;
  /** The recovery token shown on it. */
  readonly token: string | null;
  /** Frames that are written before any other. */
  control: Frame[] = [];
  /** A callback of the driver: `write` may have something. */
  changed: () => void = () => {};
  /** A callback of the driver: `due` must be called again, because `state` changed. */
  turned: () => void = () => {};
  lastReceivedAt: number;
  heartbeatS = Infinity;
  pingedAt: number | null = null;
  retiredAt = Infinity;
  /** The last fatal error: it explains the close that follows. */
  refusal: Wire | null = null;

  constructor(url: string, now: number, moving: boolean, token: string | null) {
    this.url = url;
    this.openedAt = this.lastReceivedAt = now;
    this.moving = moving;
    this.token = token;
  }
}
