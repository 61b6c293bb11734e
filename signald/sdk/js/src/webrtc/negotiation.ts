// Perfect negotiation (https://www.w3.org/TR/webrtc/#perfect-negotiation-example) over messages that arrive once and in order.
//
// The roles are fixed: the client is polite, the worker is not. A move of the session to another node touches nothing here, because media needs
// no signaling once it flows. ICE is restarted only when ICE itself has failed, and only when there is a session to say so.

/** What one side says to the other. The messages are carried reliably and in order, so a candidate comes behind its description. */
export interface Signal {
  /** Which connection is meant: another text is another RTCPeerConnection. Absent: the one that there is. */
  call?: string;
  description?: RTCSessionDescriptionInit;
  candidate?: RTCIceCandidateInit | null;
}

/** What is used of an `RTCPeerConnection`. */
export type Connection = Pick<
  RTCPeerConnection,
  | "signalingState"
  | "iceConnectionState"
  | "localDescription"
  | "remoteDescription"
  | "setLocalDescription"
  | "setRemoteDescription"
  | "addIceCandidate"
  | "restartIce"
  | "addEventListener"
  | "close"
>;

export interface NegotiationOptions {
  /** Gives way when both sides offer at once. The client is polite, its worker is not. */
  polite: boolean;
  say: (signal: Signal) => void;
  /** Told of errors of the connection; the negotiation goes on. */
  failed?: (error: unknown) => void;
  /** How long ICE may be `disconnected` before it is restarted. Packets lost for a moment mend themselves. */
  disconnectedMs?: number;
  /** Between two restarts: one that fails at once is not tried in a circle. */
  restartEveryMs?: number;
}

const DISCONNECTED_MS = 5000;
const RESTART_EVERY_MS = 2000;
/** Signals that wait for the ones before them. A peer that says more than a browser's candidates is none. */
const SIGNALS_MAX = 1000;

/** The negotiation of one connection. */
export class Negotiation {
  /** How often ICE was restarted from here. */
  restarts = 0;
  readonly #pc: Connection;
  readonly #options: NegotiationOptions;
  #makingOffer = false;
  #settingAnswer = false;
  /** A session is there that carries signals. */
  #carried = true;
  #closed = false;
  #restartDue = false;
  /** A restart is on its way: until its answer is here, what fails is what it replaces. */
  #restarting = false;
  #restartedAt = -Infinity;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(pc: Connection, options: NegotiationOptions) {
    this.#pc = pc;
    this.#options = options;
    pc.addEventListener("negotiationneeded", () => void this.#offer());
    pc.addEventListener("icecandidate", ({ candidate }) => candidate && this.#say({ candidate: candidate.toJSON() }));
    pc.addEventListener("iceconnectionstatechange", () => this.#look());
    pc.addEventListener("signalingstatechange", () => this.#restart());
  }

  /** Take a signal of the other side. */
  hear(signal: Signal): void {
    if (this.#closed) return;
    if (this.#waiting >= SIGNALS_MAX) {
      this.#fail(new Error("too many signals"));
      return;
    }
    this.#waiting += 1;
    this.#last = this.#last.then(async () => {
      this.#waiting -= 1;
      if (this.#closed) return;
      try {
        if (signal.description) await this.#described(signal.description);
        else if (signal.candidate) await this.#found(signal.candidate);
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  /** Note whether a session is there that carries signals; a restart of ICE waits for it. */
  carried(there: boolean): void {
    this.#carried = there;
    this.#restart();
  }

  /** Close the connection. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#clear();
    this.#pc.close();
  }

  async #offer(): Promise<void> {
    if (this.#closed) return;
    try {
      this.#makingOffer = true;
      await this.#pc.setLocalDescription();
      this.#sayDescription();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#makingOffer = false;
      this.#restart();
    }
  }

  async #described(description: RTCSessionDescriptionInit): Promise<void> {
    const pc = this.#pc;
    const ready = !this.#makingOffer && (pc.signalingState === "stable" || this.#settingAnswer);
    const collides = description.type === "offer" && !ready;
    if (collides && !this.#options.polite) return; // the other side gives way; candidates of this offer have a fragment that is not known
    // An answer to an offer that was given up, as by a page that has been loaded again.
    if (description.type === "answer" && pc.signalingState !== "have-local-offer") return;
    this.#settingAnswer = description.type === "answer";
    try {
      await pc.setRemoteDescription(description);
      if (this.#settingAnswer) this.#restarting = false;
    } finally {
      this.#settingAnswer = false;
    }
    if (description.type === "offer" && !this.#closed) {
      await pc.setLocalDescription();
      this.#sayDescription();
    }
  }

  async #found(candidate: RTCIceCandidateInit): Promise<void> {
    const fragment = fragmentOf(candidate);
    const known = fragmentsOf(this.#pc.remoteDescription?.sdp ?? "");
    // Of the time before a restart, or of an offer that was not taken.
    if (!known.size || (fragment !== null && !known.has(fragment))) return;
    await this.#pc.addIceCandidate(candidate);
  }

  #sayDescription(): void {
    const description = this.#pc.localDescription;
    if (description) this.#say({ description: { type: description.type, sdp: description.sdp } });
  }

  #say(signal: Signal): void {
    if (!this.#closed) this.#options.say(signal);
  }

  // --- ICE --------------------------------------------------------------------------------------------------------

  #look(): void {
    const state = this.#pc.iceConnectionState;
    if (state === "failed") this.#wantRestart();
    else if (state === "disconnected") this.#later(this.#options.disconnectedMs ?? DISCONNECTED_MS, () => this.#wantRestart());
    else if (state === "connected" || state === "completed" || state === "closed") this.#clear();
  }

  #wantRestart(): void {
    this.#clear();
    this.#restartDue = !this.#restarting;
    this.#restart();
  }

  /** Restart ICE, if that is due: with a session that carries the offer, and behind what is negotiated now. */
  #restart(): void {
    if (!this.#restartDue || !this.#carried || this.#closed) return;
    if (this.#makingOffer || this.#pc.signalingState !== "stable") return;
    const wait = this.#restartedAt + (this.#options.restartEveryMs ?? RESTART_EVERY_MS) - performance.now();
    if (wait > 0) {
      this.#later(wait, () => this.#restart());
      return;
    }
    this.#restartDue = false;
    this.#restarting = true;
    this.#restartedAt = performance.now();
    this.restarts += 1;
    this.#pc.restartIce();
  }

  #later(ms: number, then: () => void): void {
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      then();
    }, ms);
  }

  /** ICE has come about again, or will be restarted: nothing is waited for. */
  #clear(): void {
    this.#restartDue = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #fail(error: unknown): void {
    if (!this.#closed) this.#options.failed?.(error);
  }
}

function fragmentOf({ usernameFragment, candidate }: RTCIceCandidateInit): string | null {
  return usernameFragment ?? /\bufrag (\S+)/.exec(candidate ?? "")?.[1] ?? null;
}

function fragmentsOf(sdp: string): Set<string> {
  return new Set([...sdp.matchAll(/^a=ice-ufrag:(\S+)/gm)].map(([, fragment]) => fragment!));
}
