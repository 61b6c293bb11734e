// A connection of tests: the states of signaling and the fragments of ICE as a browser has them, without media. Each operation takes a while.

type Kind = "offer" | "answer";

let fragments = 0;

export class FakePeerConnection extends EventTarget {
  signalingState: RTCSignalingState = "stable";
  iceConnectionState: RTCIceConnectionState = "new";
  connectionState: RTCPeerConnectionState = "new";
  localDescription: { type: Kind; sdp: string } | null = null;
  remoteDescription: { type: Kind; sdp: string } | null = null;
  /** Candidates that were added, and the fragment of the remote description that they met. */
  readonly added: { candidate: string; remote: string }[] = [];
  closed = false;
  /** Offers that were rolled back for one of the other side. */
  rollbacks = 0;
  readonly #name: string;
  #fragment = "";
  #needed = false;
  #restart = false;
  #before: { local: FakePeerConnection["localDescription"]; remote: FakePeerConnection["remoteDescription"]; fragment: string } | null = null;

  constructor(name = "page") {
    super();
    this.#name = name;
  }

  addTransceiver(): void {
    this.change();
  }

  addTrack(): void {
    this.change();
  }

  /** Something is to be negotiated. */
  change(): void {
    this.#needed = true;
    this.#ask();
  }

  restartIce(): void {
    this.#restart = true;
    this.change();
  }

  /** Say what ICE has come to. */
  ice(state: RTCIceConnectionState): void {
    this.iceConnectionState = state;
    this.dispatchEvent(new Event("iceconnectionstatechange"));
  }

  /** Find a candidate of the present fragment, or of an older one. */
  find(candidate: string, fragment = this.#fragment): void {
    const found = { candidate, usernameFragment: fragment };
    this.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate: { toJSON: () => found } }));
  }

  get fragment(): string {
    return this.#fragment;
  }

  async setLocalDescription(): Promise<void> {
    const type: Kind = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    if (type === "offer") this.#needed = false;
    await tick();
    if (this.closed) throw new DOMException("closed", "InvalidStateError");
    // As a browser does it: an offer that has come meanwhile is answered.
    const now: Kind = this.signalingState === "have-remote-offer" ? "answer" : "offer";
    if (now === "offer") this.#before = { local: this.localDescription, remote: this.remoteDescription, fragment: this.#fragment };
    if (!this.#fragment || this.#restart) this.#fragment = `${this.#name}${++fragments}`;
    if (now === "answer") this.#restart = false;
    this.localDescription = { type: now, sdp: `v=0\r\na=ice-ufrag:${this.#fragment}\r\n` };
    this.#signaling(now === "offer" ? "have-local-offer" : "stable");
  }

  async setRemoteDescription({ type, sdp }: RTCSessionDescriptionInit): Promise<void> {
    await tick();
    if (this.closed) throw new DOMException("closed", "InvalidStateError");
    if (type === "offer" && this.signalingState === "have-local-offer") {
      this.rollbacks += 1;
      this.localDescription = this.#before!.local;
      this.#fragment = this.#before!.fragment;
      this.#needed = true;
    } else if ((type === "answer") !== (this.signalingState === "have-local-offer")) {
      throw new DOMException(`${type} in ${this.signalingState}`, "InvalidStateError");
    }
    if (type === "offer" && this.remoteDescription && fragment(sdp!) !== fragment(this.remoteDescription.sdp)) this.#restart ||= this.#fragment !== "";
    if (type === "answer") this.#restart = false;
    this.remoteDescription = { type: type as Kind, sdp: sdp! };
    this.#signaling(type === "offer" ? "have-remote-offer" : "stable");
  }

  async addIceCandidate({ candidate, usernameFragment }: RTCIceCandidateInit): Promise<void> {
    await tick();
    if (!this.remoteDescription) throw new DOMException("no remote description", "InvalidStateError");
    const remote = fragment(this.remoteDescription.sdp);
    if (usernameFragment && usernameFragment !== remote) throw new DOMException("an unknown fragment", "OperationError");
    this.added.push({ candidate: candidate!, remote });
  }

  close(): void {
    this.closed = true;
    this.signalingState = "closed";
  }

  #signaling(state: RTCSignalingState): void {
    this.signalingState = state;
    this.dispatchEvent(new Event("signalingstatechange"));
    this.#ask();
  }

  #ask(): void {
    setTimeout(() => {
      if (this.#needed && this.signalingState === "stable") {
        this.#needed = false;
        this.dispatchEvent(new Event("negotiationneeded"));
      }
    });
  }
}

const fragment = (sdp: string): string => /a=ice-ufrag:(\S+)/.exec(sdp)![1]!;
const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
