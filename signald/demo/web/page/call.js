// The page's side of a call: it offers to receive, the worker answers. Offer, answer and addresses are messages of the session: each arrives once,
// and in order. A deploy touches none of this. ICE is restarted only when ICE itself has failed.

import { Emitter } from "./emitter.js";

const KIND = "signal";

export class Call extends Emitter {
  restarts = 0;

  constructor(client) {
    super();
    this.client = client;
    // Without a server: both ends are on this machine.
    const pc = (this.pc = new RTCPeerConnection({ iceServers: [] }));
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.onicecandidate = ({ candidate }) => candidate && this.say({ candidate: candidate.toJSON() });
    pc.ontrack = (event) => this.emit("track", event);
    pc.onnegotiationneeded = () => this.offer();
    pc.oniceconnectionstatechange = () => {
      if (pc.iceConnectionState !== "failed") return;
      this.restarts += 1;
      pc.restartIce();
    };
    this.stop = client.on("message", (message) => message.kind === KIND && this.hear(message.data));
  }

  say(data) {
    this.client.send(data, { kind: KIND, history: false });
  }

  async offer() {
    await this.pc.setLocalDescription();
    this.say({ description: this.pc.localDescription.toJSON() });
  }

  async hear({ description }) {
    // An answer to the offer of a page that is gone fits nothing here.
    if (description?.type === "answer" && this.pc.signalingState === "have-local-offer") await this.pc.setRemoteDescription(description);
  }
}
