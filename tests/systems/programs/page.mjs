// A page in a browser, as signald sees it: one session over as many connections as it takes. Written from docs/protocol.md alone.

import WebSocket from 'ws'

/** Print one thing that this program saw, as a line of JSON. */
export const say = (saw, more = {}) => process.stdout.write(`${JSON.stringify({ saw, ...more })}\n`)

/** Close codes after which no new connection can help: docs/protocol.md, "Close codes". */
const FINAL = new Set([1000, 1002, 1007, 1008, 1009, 4001, 4400, 4401, 4403, 4404, 4409, 4410])
const ANSWER_MS = 10000

/** The JWT of this program's user, in the environment because a command line is public. */
export const { CREDENTIAL } = process.env

/** The labels of the workers that may serve this page: in the environment, as JSON. */
export const WANT = JSON.parse(process.env.WANT ?? '{}')

/** Read a frame: its fields, and in `data` the value or the bytes. */
export function parse(frame, binary) {
  if (!binary) return JSON.parse(frame.toString())
  const length = frame.readUInt16BE(0)
  return { ...JSON.parse(frame.subarray(2, 2 + length).toString()), data: frame.subarray(2 + length), binary: true }
}

/** Write a frame: binary when `data` is bytes. */
export function render(fields) {
  if (!Buffer.isBuffer(fields.data)) return JSON.stringify(fields)
  const { data, ...rest } = fields
  const header = Buffer.from(JSON.stringify(rest))
  const length = Buffer.alloc(2)
  length.writeUInt16BE(header.length)
  return Buffer.concat([length, header, data])
}

export class Page {
  /**
   * @param url     where signald is, without a path
   * @param token   the recovery token of an earlier page, or nothing
   * @param on      what to call: `message(fields)` for each message of the worker, once and in order; `opened(answer)` for each
   *                answer to an opening; any other type of frame by its name
   * @param opening fields of `connect`, or of `restore_session`
   */
  constructor(url, { token = null, on = {}, opening = {}, history = 0, headers = {} } = {}) {
    Object.assign(this, { url, token, on, opening, history, headers })
    this.credential = CREDENTIAL
    this.session = null
    this.apiToken = null
    this.received = null // of a page that was reloaded: not known until the first message
    this.shown = new Set() // seqs of the worker's messages that stood in the history
    this.said = 0
    this.acked = 0
    this.outbox = [] // what signald has not acked
    this.socket = null // the connection whose opening was answered last
    this.opener = null // the connection whose opening is not answered yet
    this.failures = 0
    this.over = false
    this.dial()
  }

  /** Send a message; it is kept until signald has acked it. */
  send(data, fields = {}) {
    const message = { type: 'message', seq: ++this.said, data, ...fields }
    this.outbox.push(message)
    this.write(message)
    return message.seq
  }

  /** Send a frame that is not kept, if there is a connection. */
  write(fields) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(render(fields))
  }

  dial(ticket) {
    if (this.over || this.opener) return
    const socket = new WebSocket(`${this.url}/v1/client`, ['signald.v1'], { handshakeTimeout: ANSWER_MS, headers: this.headers })
    this.opener = socket
    const late = setTimeout(() => socket.terminate(), ANSWER_MS)
    say('dialing')
    socket.on('open', () => socket.send(JSON.stringify(this.greeting(ticket))))
    socket.on('ping', () => this.on.pinged?.())
    socket.on('message', (frame, binary) => {
      clearTimeout(late)
      this.take(socket, parse(frame, binary))
    })
    socket.on('error', () => {}) // `close` follows
    socket.on('close', (code, reason) => {
      clearTimeout(late)
      this.closed(socket, code, reason.toString(), ticket)
    })
  }

  greeting(ticket) {
    const auth = this.credential ? { auth: this.credential } : {}
    if (!this.token) return { type: 'connect', api: true, want: WANT, ...auth, ...this.opening }
    const known = this.received === null ? {} : { received: this.received, acked: this.acked }
    const history = this.received === null ? { history: this.history } : {}
    return { type: 'restore_session', api: true, recovery_token: this.token, ...auth, ...known, ...history, ...(ticket ? { ticket } : {}), ...this.opening }
  }

  take(socket, fields) {
    const { type } = fields
    if (type === 'session_started' || type === 'session_restored') this.opened(socket, fields)
    else if (type === 'message') this.heard(fields)
    else if (type === 'ack') this.drop(fields.seq)
    else if (type === 'goaway') setTimeout(() => this.dial(fields.ticket), fields.not_before_ms)
    else if (type === 'error') this.refused(fields)
    else if (type === 'session_ended') this.over = true
    if (fields.api_token) this.apiToken = fields.api_token
    if (type === 'peer') say('peer', { state: fields.state, id: fields.id })
    if (type !== 'message') this.on[type]?.(fields)
  }

  opened(socket, answer) {
    this.opener = null
    this.socket = socket
    this.failures = 0
    this.session = answer.session
    if (answer.recovery_token) {
      this.token = answer.recovery_token
      say('token', { token: this.token })
    }
    for (const entry of answer.chat_history ?? []) if (entry.from === 'worker') this.shown.add(entry.seq)
    if (answer.type === 'session_started') this.received = 0
    else if (this.received === null && answer.next_received) this.received = answer.next_received - 1
    this.said = Math.max(this.said, answer.accepted ?? 0)
    this.drop(answer.accepted ?? 0)
    say('opened', { session: this.session, type: answer.type, peer: answer.peer, extensions: socket.extensions })
    this.on.opened?.(answer)
    for (const message of this.outbox) this.write(message)
  }

  heard(message) {
    if (this.received !== null && message.seq <= this.received) return // it came over the other connection
    if (this.received !== null && message.seq !== this.received + 1) say('hole', { after: this.received, seq: message.seq })
    this.received = message.seq
    if (!this.shown.has(message.seq)) this.on.message?.(message)
    this.write({ type: 'ack', seq: message.seq })
  }

  drop(seq) {
    this.acked = Math.max(this.acked, seq)
    this.outbox = this.outbox.filter((message) => message.seq > seq)
  }

  refused(error) {
    if (error.expected === undefined) {
      say('error', { code: error.code })
      return
    }
    setTimeout(() => {
      for (const message of this.outbox) if (message.seq >= error.expected) this.write(message)
    }, error.retry_after_ms ?? 0)
  }

  closed(socket, code, reason, ticket) {
    say('closed', { code })
    const opening = socket === this.opener
    if (opening) this.opener = null
    if (socket === this.socket) this.socket = null
    else if (!opening) return // one that was left behind
    if (this.opener) return // it is on the way already
    if (this.over || FINAL.has(code)) {
      say('gone', { code })
      this.on.gone?.(code)
      return
    }
    const hint = code === 1013 && reason.startsWith('{') ? JSON.parse(reason).retry_after_ms : 0
    const wait = Math.max(hint, this.failures === 0 ? 0 : Math.min(1000, 50 * 2 ** this.failures))
    this.failures += 1
    setTimeout(() => this.dial(ticket), wait * (0.5 + Math.random() / 2) + (hint ? wait / 2 : 0))
  }

  /** End the session, and resolve when signald has said so. */
  bye() {
    return new Promise((resolve) => {
      this.on.session_ended = resolve
      this.write({ type: 'bye', reason: 'done' })
    })
  }
}

/** Call `obey(line)` for each line on stdin; the program ends with it. */
export function commands(obey) {
  let rest = ''
  process.stdin.setEncoding('utf8')
  process.stdin.on('data', (text) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()
    lines.forEach(obey)
  })
  process.stdin.on('end', () => process.exit(0))
}

/** Resolve when `holds()` is true. */
export async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 20))
}
