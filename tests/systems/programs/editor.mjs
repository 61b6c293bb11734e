// B5, C2: an editor of a Yjs document in a room. Written from docs/protocol.md alone, and the same code in Node and in a browser: its host
// gives it a WebSocket, a way to say what it sees, and commands.
//
// The document is a text of lines, each with a name of its own, and a map. An editor writes and erases whole lines, at random places, all the
// time and whether it is connected or not. So one that is lost, doubled or back from the dead shows.

import * as Y from 'yjs'

const ROOM = 'doc:1'
const ANSWER_MS = 10000
const EVERY_MS = 100
const SLOWER = 0.9 // than signald allows: two clocks measure it, and the network bunches what was sent apart
const ERASED = 0.25 // of the changes: the document grows, and what was erased can come back
const CURSOR_EVERY = 5

/** Close codes after which no connection of this page can help: docs/protocol.md, "Close codes". */
const FINAL = new Set([1000, 1002, 1007, 1008, 1009, 4001, 4400, 4401, 4403, 4409, 4410])
const LOST = 4404 // the session is not there any more: another one can be

const textOf = new TextDecoder()
const bytesOf = new TextEncoder()

/** Read a frame: its fields, and in `bytes` what a binary one carries. */
function parse(frame) {
  if (typeof frame === 'string') return JSON.parse(frame)
  const length = new DataView(frame).getUint16(0)
  return { ...JSON.parse(textOf.decode(frame.slice(2, 2 + length))), bytes: new Uint8Array(frame, 2 + length) }
}

/** Write a binary frame. */
function render(fields, bytes) {
  const header = bytesOf.encode(JSON.stringify(fields))
  const frame = new Uint8Array(2 + header.length + bytes.length)
  new DataView(frame.buffer).setUint16(0, header.length)
  frame.set(header, 2)
  frame.set(bytes, 2 + header.length)
  return frame
}

export class Editor {
  /**
   * @param Socket      the class of WebSockets of the host, with the interface of a browser's
   * @param say         `say(what, fields)` prints what was seen
   * @param url         where signald is, without a path
   * @param credential  a JWT
   * @param name        begins the name of each line that this editor writes
   */
  constructor({ Socket, say, url, credential, name }) {
    Object.assign(this, { Socket, say, url, credential, name })
    this.token = null
    this.socket = null // the connection whose opening was answered last
    this.opener = null // the connection whose opening is not answered yet
    this.failures = 0
    this.attempt = 0
    this.over = false
    this.lines = 0 // so many has it written
    this.changes = 0
    this.member = null
    this.resting = true
    this.pace = { rate: 0, burst: 0, left: 0, at: 0 } // of what signald takes, in messages and seconds
    this.begin(null)
    this.dial()
    setInterval(() => this.resting || this.change(), EVERY_MS)
    setInterval(() => this.publish(), EVERY_MS)
  }

  // --- the document ---------------------------------------------------------------------------------------------

  /** Begin with an empty document: that of the room with this epoch. What is unsaid belongs to another one. */
  begin(epoch) {
    this.doc?.destroy()
    this.doc = new Y.Doc()
    this.epoch = epoch
    this.received = 0
    this.seated = false // the room has told at which seq this member goes on
    this.seq = 0
    this.sent = 0 // the last one that was written to this connection
    this.unsaid = [] // {seq, bytes}: what is not published
    this.pieces = [] // of a snapshot
    this.doc.on('update', (bytes, origin) => {
      if (origin === 'room') return
      this.unsaid.push({ seq: ++this.seq, bytes })
      this.publish()
    })
  }

  /** Write a line or erase one, and something in the map now and then. */
  change() {
    if (this.epoch === null) return
    const text = this.doc.getText('text')
    const lines = text.toString().split('\n').slice(0, -1)
    const at = Math.floor(Math.random() * (lines.length + 1))
    const start = lines.slice(0, at).reduce((length, line) => length + line.length + 1, 0)
    if (at < lines.length && Math.random() < ERASED) {
      this.say('erased', { line: lines[at] })
      text.delete(start, lines[at].length + 1)
    } else {
      const line = `${this.name}${++this.lines}`
      this.say('wrote', { line, linked: this.seated })
      text.insert(start, `${line}\n`)
    }
    this.changes += 1
    if (this.changes % CURSOR_EVERY) return
    this.doc.getMap('map').set(`key${this.changes % 3}`, `${this.name}${this.changes}`)
    this.write({ type: 'presence', room: ROOM, presence: { name: this.name, cursor: start } })
  }

  /** Say what the document is, as soon as it has all up to `position` and nothing is under way. */
  show(position) {
    if (!this.seated || this.unsaid.length || this.received < position) {
      setTimeout(() => this.show(position), 20)
      return
    }
    const { pendingStructs, pendingDs } = this.doc.store
    const clients = [...Y.decodeStateVector(Y.encodeStateVector(this.doc))].sort(([one], [other]) => one - other)
    this.say('shown', {
      position: this.received,
      epoch: this.epoch,
      text: this.doc.getText('text').toString(),
      map: this.doc.getMap('map').toJSON(),
      clients,
      waits: pendingStructs !== null || pendingDs !== null,
    })
  }

  /** Obey a command: `write`, `rest`, `show POSITION`, `end`. */
  obey(line) {
    const [word, position] = line.split(' ')
    if (word === 'write') this.resting = false
    if (word === 'rest') this.resting = true
    if (word === 'show') this.show(Number(position))
    if (word === 'end') this.write({ type: 'bye' })
  }

  // --- the connection ---------------------------------------------------------------------------------------------

  dial(ticket) {
    if (this.over || this.opener) return
    const socket = new this.Socket(`${this.url}/v1/client`, ['signald.v1'])
    socket.binaryType = 'arraybuffer'
    this.opener = socket
    const late = setTimeout(() => this.closed(socket, 1006, '', ticket), ANSWER_MS)
    socket.addEventListener('open', () => socket.send(JSON.stringify(this.greeting(ticket))))
    socket.addEventListener('message', ({ data }) => {
      clearTimeout(late)
      this.take(socket, parse(data))
    })
    socket.addEventListener('error', () => {}) // `close` follows
    socket.addEventListener('close', ({ code, reason }) => {
      clearTimeout(late)
      this.closed(socket, code, reason, ticket)
    })
  }

  greeting(ticket) {
    const auth = { auth: this.credential }
    if (!this.token) return { type: 'connect', pair: false, ...auth }
    const rooms = this.epoch === null ? {} : { rooms: [this.place()] }
    const more = { attempt: ++this.attempt, ...rooms, ...(ticket ? { ticket } : {}) }
    return { type: 'restore_session', recovery_token: this.token, received: 0, ...auth, ...more }
  }

  /** What this editor has of the room. */
  place() {
    return { room: ROOM, received: this.received, epoch: this.epoch }
  }

  /** Send a frame that is not kept, if there is a connection. */
  write(fields) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(fields))
  }

  /** Write what is unsaid, as fast as signald takes it: after an hour without a network there is much. */
  publish() {
    const { pace } = this
    const now = Date.now() / 1000
    pace.left = Math.min(pace.burst, pace.left + (now - pace.at) * pace.rate)
    pace.at = now
    for (const { seq, bytes } of this.unsaid) {
      if (!this.seated || this.socket?.readyState !== 1 || pace.left < 1) return
      if (seq <= this.sent) continue
      this.socket.send(render({ type: 'publish', room: ROOM, seq, kind: 'yjs' }, bytes))
      this.sent = seq
      pace.left -= 1
    }
  }

  take(socket, fields) {
    const { type } = fields
    if (type === 'session_started' || type === 'session_restored') this.opened(socket, fields)
    else if (type === 'goaway') setTimeout(() => this.dial(fields.ticket), fields.not_before_ms)
    else if (type === 'session_ended') this.over = true
    else if (type === 'error') this.say('error', { code: fields.code })
    else if (fields.room === ROOM && socket === this.socket) this.heard(fields)
  }

  opened(socket, answer) {
    Object.assign(this, { opener: null, socket, failures: 0, seated: false })
    if (answer.limits) {
      const { messages_per_s: rate, messages_burst: burst } = answer.limits
      this.pace = { rate: rate * SLOWER, burst: burst * SLOWER, left: this.pace.at ? this.pace.left : burst * SLOWER, at: Date.now() / 1000 }
    }
    if (answer.recovery_token) this.token = answer.recovery_token
    this.say('opened', { session: answer.session, type: answer.type })
    const known = this.epoch === null ? {} : this.place()
    if (answer.type === 'session_started' || this.epoch === null) {
      this.write({ type: 'join', room: ROOM, ...known, presence: { name: this.name } })
    }
    this.session = answer.session
  }

  closed(socket, code, reason, ticket) {
    const opening = socket === this.opener
    if (!opening && socket !== this.socket) return // one that was left behind
    this.say('closed', { code })
    if (opening) this.opener = null
    else this.socket = null
    if (!this.socket) this.seated = false
    if (code === LOST) this.token = null
    if (this.opener) return // it is on the way already
    if (this.over || FINAL.has(code)) {
      this.say('gone', { code })
      return
    }
    const hint = code === 1013 && reason.startsWith('{') ? JSON.parse(reason).retry_after_ms : 0
    const wait = Math.max(hint, this.failures === 0 ? 0 : Math.min(1000, 50 * 2 ** this.failures))
    this.failures += 1
    setTimeout(() => this.dial(ticket), wait * (0.5 + Math.random() / 2) + (hint ? wait / 2 : 0))
  }

  // --- the room ---------------------------------------------------------------------------------------------------

  heard(fields) {
    const { type } = fields
    if (type === 'joined' && !fields.more) this.joined(fields)
    else if (type === 'snapshot') this.fold(fields)
    else if (type === 'room_message') this.changed(fields)
    else if (type === 'published') this.published(fields)
    else if (type === 'room_error') this.refused(fields)
    else if (type === 'room_presence' && fields.left?.length) this.say('left', { members: fields.left })
    else if (type === 'left') {
      this.say('put out', { reason: fields.reason })
      this.seated = false
      setTimeout(() => this.write({ type: 'join', ...this.place() }), 200)
    }
  }

  /** Another epoch: the store has lost the document. This copy is dropped, and nothing of it is published. */
  joined({ epoch, position, next_seq: next, recovered, replaying }) {
    this.say('joined', { epoch, position, recovered, replaying, next })
    if (epoch !== this.epoch) {
      if (this.epoch !== null) this.say('reset', { dropped: this.unsaid.length })
      this.begin(epoch)
    }
    if (!recovered) this.received = position // a snapshot follows, and the updates behind it
    if (this.session === this.member) this.unsaid = this.unsaid.filter(({ seq }) => seq >= next)
    else this.unsaid = this.unsaid.map(({ bytes }, n) => ({ seq: next + n, bytes })) // another member; Yjs takes an update twice
    this.member = this.session
    this.seq = this.unsaid.at(-1)?.seq ?? next - 1
    this.seated = true
    this.pieces = []
    this.sent = next - 1
    this.publish()
  }

  fold({ bytes, more = false }) {
    this.pieces.push(bytes)
    if (more) return
    const whole = new Uint8Array(this.pieces.reduce((length, piece) => length + piece.length, 0))
    this.pieces.reduce((at, piece) => {
      whole.set(piece, at)
      return at + piece.length
    }, 0)
    this.pieces = []
    Y.applyUpdate(this.doc, whole, 'room')
  }

  changed({ position, bytes }) {
    Y.applyUpdate(this.doc, bytes, 'room')
    this.received = Math.max(this.received, position)
    this.say('heard', { position })
  }

  published({ seq, position }) {
    this.unsaid = this.unsaid.filter((update) => update.seq > seq)
    this.received = Math.max(this.received, position)
  }

  /** Nothing that this editor publishes may be refused. What stands behind a gap is said again. */
  refused({ seq, code, expected }) {
    this.say('refused', { seq, code, expected })
    if (code !== 'gap') return
    this.sent = Math.min(this.sent, expected - 1)
    this.publish()
  }
}
