// The conversation: questions of the visitor, answers that grow. A text is drawn as it stands, never piece by piece: so a reload, or a piece that
// comes again, cannot make it wrong. Where a move of the nodes went through an answer, a mark stands in it.

const OUTCOMES = { cancelled: "stopped", failed: "failed", interrupted: "interrupted" };

const byId = (id) => document.getElementById(id);

export class Chat {
  answers = new Map();

  constructor(link) {
    this.link = link;
    this.list = byId("messages");
    this.box = byId("said");
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask(byId("question").value);
      byId("question").value = "";
    });
    for (const chip of document.querySelectorAll(".chip")) chip.addEventListener("click", () => this.ask(chip.textContent));
    link.onHistory((entries) => this.remember(entries));
    link.onStream((stream) => this.grow(stream));
  }

  ask(words) {
    const text = words.trim();
    if (!text) return;
    const item = this.add("mine", text);
    item.classList.add("kept");
    const sent = this.link.send({ text }, { kind: "chat" });
    Promise.resolve(sent?.acked).then(
      () => item.classList.remove("kept"),
      () => {},
    );
    this.scroll(true);
  }

  /** What was said before the page was loaded, oldest first. */
  remember(entries) {
    if (this.list.childElementCount) return;
    this.remembering = true;
    for (const entry of entries) {
      if (entry.from === "client" && typeof entry.data?.text === "string") this.add("mine", entry.data.text);
      else if (entry.stream !== undefined) {
        this.grow({ name: entry.stream, attempt: entry.attempt ?? 1, text: entry.data ?? "", outcome: entry.open ? null : (entry.outcome ?? "complete") });
      }
    }
    this.remembering = false;
    this.scroll(true);
  }

  add(kind, text) {
    byId("said-empty").hidden = true;
    const item = document.createElement("li");
    item.className = kind;
    item.textContent = text;
    this.list.append(item);
    return item;
  }

  grow({ name, attempt, text, outcome }) {
    let answer = this.answers.get(name);
    if (answer === undefined) {
      answer = this.begin(name);
      this.answers.set(name, answer);
    }
    if (attempt !== answer.attempt) Object.assign(answer, { attempt, cuts: [] });
    const changed = answer.outcome !== outcome;
    Object.assign(answer, { text, outcome });
    this.draw(answer);
    if (outcome && changed && !this.remembering) byId("announce").textContent = `Answer: ${text}`;
    this.scroll(false);
  }

  begin(name) {
    const item = this.add("theirs open", "");
    item.innerHTML = '<span class="text"></span><div class="more"><button type="button" class="quiet">Stop</button><span class="end"></span></div>';
    item.querySelector("button").addEventListener("click", () => this.link.cancel(name));
    return { name, item, attempt: 1, text: "", outcome: null, cuts: [] };
  }

  draw({ item, text, outcome, cuts }) {
    const parts = [];
    let from = 0;
    for (const { at, mark } of cuts) {
      parts.push(text.slice(from, at), mark);
      from = at;
    }
    parts.push(text.slice(from));
    item.querySelector(".text").replaceChildren(...parts);
    item.classList.toggle("open", outcome === null);
    item.querySelector("button").hidden = outcome !== null;
    item.querySelector(".end").textContent = outcome === null ? "" : (OUTCOMES[outcome] ?? "");
    item.querySelector(".more").hidden = outcome === "complete";
  }

  /** A move of the nodes goes through what is being said now. */
  cut({ kind, release }) {
    for (const answer of this.answers.values()) {
      if (answer.outcome !== null) continue;
      const mark = document.createElement("span");
      mark.className = `cut ${kind}`;
      mark.textContent = `${kind} ${release}`;
      answer.cuts.push({ at: answer.text.length, mark });
      this.draw(answer);
    }
  }

  /** Follow what grows, unless the reader has scrolled away from it. */
  scroll(always) {
    const { box } = this;
    if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 90) box.scrollTop = box.scrollHeight;
  }
}
