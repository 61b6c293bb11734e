// Pictures from the worker. They go from peer to peer; what goes through signald is the agreement about them, which a deploy must not disturb.

import { Call } from "./call.js";

const POLL_MS = 500;
const SHOWN = "signald-demo-video";

const byId = (id) => document.getElementById(id);

export class Video {
  longestMs = 0;
  lastAt = null;

  constructor(link, there) {
    this.link = link;
    this.element = byId("video");
    if (!there) {
      byId("how").hidden = false;
      byId("film-hint").textContent = "Not installed here.";
      byId("copy").addEventListener("click", () => this.copy());
      return;
    }
    byId("screen").hidden = false;
    byId("play").addEventListener("click", () => this.begin());
    // A page that was loaded again shows what it has shown: the worker answers its new offer with another call.
    if (sessionStorage.getItem(SHOWN) !== null) this.begin();
  }

  async copy() {
    await navigator.clipboard.writeText(byId("command").textContent);
    byId("copy").textContent = "Copied";
  }

  begin() {
    sessionStorage.setItem(SHOWN, "yes");
    byId("play").hidden = true;
    byId("film-figures").hidden = false;
    this.call = new Call(this.link.client);
    this.call.on("track", (event) => {
      this.element.srcObject = event.streams[0] ?? new MediaStream([event.track]);
      this.element.play().catch(() => {});
    });
    if ("requestVideoFrameCallback" in this.element) this.element.requestVideoFrameCallback((now) => this.frame(now));
    setInterval(() => this.count(), POLL_MS);
    document.addEventListener("visibilitychange", () => {
      this.lastAt = null;
    });
  }

  /** A picture is on the screen. The first second does not count: the decoder finds its pace. */
  frame(now) {
    this.beganAt ??= now;
    if (this.lastAt !== null && now - this.beganAt > 1500) this.longestMs = Math.max(this.longestMs, now - this.lastAt);
    this.lastAt = now;
    this.element.requestVideoFrameCallback((next) => this.frame(next));
  }

  async count() {
    for (const report of (await this.call.pc.getStats()).values()) {
      if (report.type !== "inbound-rtp" || report.kind !== "video") continue;
      byId("frames").textContent = (report.framesDecoded ?? 0).toLocaleString("en");
      byId("packets-lost").textContent = Math.max(0, report.packetsLost ?? 0);
    }
    byId("frame-gap").textContent = this.longestMs ? `${Math.round(this.longestMs)} ms` : "–";
    byId("restarts").textContent = this.call.restarts;
  }
}
