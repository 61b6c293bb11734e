// C1, C2, C3, C5: people at canvases, each as the guide's page does it. usage: node canvas.mjs URL CANVAS/NAME …
// A page knows no `goaway`, no token and no seq: it restores its session on each connection, shows what comes, pings, and comes back when
// it is closed. What it has said carries an `id`, and is said again until a line of its own behind it has come back.

import WebSocket from 'ws'

import { CREDENTIAL, commands, say, until } from './page.mjs'

const [url, ...people] = process.argv.slice(2)
const EDIT_MS = Number(process.env.EDIT_MS ?? 300)
const CHAT_MS = Number(process.env.CHAT_MS ?? 700)
const SLOTS = Number(process.env.SLOTS ?? 60) // shapes of one person, so that a canvas is as large after an hour as after a minute
const UNCONFIRMED_MAX = 20 // with so much that has not come back a person waits; a fifth of what a client may say at once
const FIRST_MS = 200 // the first wait before a page comes back; doubled with each failure
const LONGEST_MS = 2000
const ANSWER_MS = 5000 // a connection without an answer for that long is given up
const PING_MS = 2000
let resting = false

class Person {
  constructor(canvas, name) {
    Object.assign(this, { canvas, name })
    this.view = {} // the canvas as this page shows it
    this.stored = {} // the canvas as the last restore_session told it
    this.mine = {} // what this person has drawn, by shape; undefined: removed
    this.chat = null // what the page shows, from the first line that it was told
    this.seen = {} // of each person, the number of the edit that was shown last
    this.outbox = [] // what was said since the last own line that came back
    this.edits = 0
    this.said = 0
    this.cursors = 0
    this.connections = 0
    this.failures = 0
    this.lostAt = null
    this.socket = null
    this.restored = false
    this.dial()
    setTimeout(() => this.draw(), EDIT_MS * Math.random())
    setTimeout(() => this.talk(), CHAT_MS * Math.random())
  }

  fault(what, more = {}) {
    say('fault', { what, name: this.name, canvas: this.canvas, ...more })
  }

  // --- the connection ---------------------------------------------------------------------------------------------------

  dial() {
    const headers = CREDENTIAL ? { Authorization: `Bearer ${CREDENTIAL}` } : {}
    const socket = new WebSocket(`${url}/ws/${this.canvas}`, { headers, handshakeTimeout: ANSWER_MS })
    this.socket = socket
    this.pinged = null
    this.asked = setTimeout(() => {
      say('unanswered', { name: this.name })
      socket.terminate()
    }, 2 * ANSWER_MS)
    socket.on('open', () => {
      socket.send(JSON.stringify({ type: 'restore_session', session_id: this.canvas }))
      this.beat = setInterval(() => this.ping(), PING_MS)
    })
    socket.on('message', (frame) => socket === this.socket && this.take(JSON.parse(frame.toString())))
    socket.on('error', () => {}) // `close` follows
    socket.on('close', (code) => this.closed(socket, code))
  }

  ping() {
    if (this.pinged !== null && Date.now() - this.pinged > ANSWER_MS) {
      this.fault('no pong')
      this.socket.terminate()
      return
    }
    this.pinged ??= Date.now()
    this.socket.send(JSON.stringify({ type: 'ping' }))
  }

  closed(socket, code) {
    clearTimeout(this.asked)
    clearInterval(this.beat)
    if (socket !== this.socket) return
    const own = this.leaving === socket
    if (this.restored || own) say('closed', { name: this.name, code, own })
    this.lostAt ??= performance.now()
    this.restored = false
    const wait = own ? 0 : Math.min(LONGEST_MS, FIRST_MS * 2 ** this.failures) * (0.5 + Math.random() / 2)
    if (!own) this.failures += 1
    setTimeout(() => this.dial(), wait)
  }

  /** Close the connection and come back at once, as the page does when it is reloaded with its canvas in memory. */
  reload() {
    this.leaving = this.socket
    this.socket.close(1000)
  }

  // --- what comes -------------------------------------------------------------------------------------------------------

  take(fields) {
    const { type } = fields
    if (type === 'session_restored') this.restore(fields)
    else if (type === 'canvas_update') this.update(fields)
    else if (type === 'chat_message') this.hear(fields)
    else if (type === 'pong') this.pinged = null
    else if (type === 'cursor') this.cursors += 1
    else this.fault('unknown', { fields })
  }

  restore({ canvas_state, chat_history }) {
    clearTimeout(this.asked)
    this.stored = canvas_state
    this.view = { ...canvas_state }
    this.seen = {}
    this.version = 0
    for (const [key, value] of Object.entries(canvas_state)) if (key.startsWith('last:')) this.seen[key] = value
    this.catchUp(chat_history.map(({ message }) => message))
    this.connections += 1
    this.failures = 0
    this.restored = true
    say('restored', { name: this.name, gap_ms: this.lostAt === null ? null : Math.round(performance.now() - this.lostAt) })
    this.lostAt = null
    for (const message of this.outbox) {
      change(this.view, message.patch ?? {})
      this.write(message)
    }
  }

  /** Show the lines that came while there was no connection; those of before must stand in the history as they were shown. */
  catchUp(history) {
    if (this.chat === null) this.chat = history
    else {
      const at = this.chat.length ? history.indexOf(this.chat.at(-1)) : -1
      if (this.chat.length && at < 0) this.fault('hole', { last: this.chat.at(-1), history: history.slice(0, 5) })
      const known = history.slice(0, at + 1)
      if (known.length && known.join('\n') !== this.chat.slice(-known.length).join('\n')) this.fault('another history', { known })
      this.chat.push(...history.slice(at + 1))
    }
    for (const line of this.chat) this.confirm(line)
  }

  update({ patch, version, from }) {
    if (!(version > this.version) || typeof from !== 'string' || !from) this.fault('version', { version, after: this.version, from })
    this.version = version
    const own = patch[`last:${this.name}`]
    if (own !== undefined) return this.late(own)
    for (const [key, value] of Object.entries(patch)) {
      if (key.startsWith('last:')) {
        if (value !== (this.seen[key] ?? 0) + 1) this.fault('edits', { key, value, after: this.seen[key] })
        this.seen[key] = value
      }
    }
    change(this.view, patch)
  }

  /** An own edit that the connection before had still taken, and that is stored now; it is shown already. */
  late(n) {
    const key = `last:${this.name}`
    if (!(n > (this.seen[key] ?? 0)) || n > this.edits) this.fault('own edit shown', { n, after: this.seen[key] })
    this.seen[key] = n
  }

  hear({ message, from, at }) {
    if (typeof from !== 'string' || !from || !at) this.fault('chat without its sender or time', { message, from, at })
    if (this.chat.includes(message)) this.fault('line shown twice', { message })
    this.chat.push(message)
    this.confirm(message)
  }

  /** An own line has come back: it is stored, and so is all that was said before it. */
  confirm(line) {
    const at = this.outbox.findIndex((one) => one.message === line)
    if (at < 0) return
    this.outbox.splice(0, at + 1)
    say('confirmed', { name: this.name, line })
  }

  // --- what is said -----------------------------------------------------------------------------------------------------

  write(fields) {
    if (this.restored && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(fields))
  }

  keep(fields) {
    this.outbox.push(fields)
    this.write(fields)
  }

  draw() {
    if (resting) return
    setTimeout(() => this.draw(), EDIT_MS * (0.5 + Math.random()))
    if (this.outbox.length >= UNCONFIRMED_MAX) return
    const n = ++this.edits
    const patch = { [`last:${this.name}`]: n }
    if (n % 5 === 0) patch[`shared:${n % 3}`] = { by: this.name, n }
    else if (n % 7 === 0) patch[this.slot(n - 1)] = null
    else patch[this.slot(n)] = { x: n, y: [n, { fill: n % 2 ? 'red' : null }], by: this.name }
    change(this.view, patch)
    for (const [key, value] of Object.entries(patch)) if (!key.startsWith('shared:')) this.mine[key] = value
    this.keep({ type: 'canvas_update', patch, id: `${this.name}-e${n}` })
    this.write({ type: 'cursor', name: this.name, at: [n, n] })
  }

  slot(n) {
    return `${this.name}:${n % SLOTS}`
  }

  talk() {
    if (resting) return
    // One more than edits: the line that confirms them.
    if (this.outbox.length <= UNCONFIRMED_MAX) this.line()
    setTimeout(() => this.talk(), CHAT_MS * (0.5 + Math.random()))
  }

  line() {
    const n = ++this.said
    this.keep({ type: 'chat_message', message: `${this.name} ${n}`, id: `${this.name}-c${n}` })
  }

  /** Wait until all own lines have come back, and tell how much was said. */
  async rest() {
    this.line()
    await until(() => this.restored && this.outbox.length === 0)
    const { name, canvas, edits, said } = this
    say('resting', { name, canvas, edits, said })
  }

  /** Show what this page shows once all `edits` of others have come, and then what is stored. */
  async show(edits) {
    const others = Object.entries(edits[this.canvas]).filter(([name]) => name !== this.name)
    await until(() => this.restored && others.every(([name, count]) => (this.seen[`last:${name}`] ?? 0) === count))
    const { connections, view } = this
    this.reload()
    await until(() => this.restored && this.connections > connections)
    const { name, canvas, said, stored, mine, chat, cursors } = this
    say('final', { name, canvas, edits: this.edits, said, view, stored, mine, chat, cursors, connections })
  }
}

function change(shapes, patch) {
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete shapes[key]
    else shapes[key] = value
  }
}

const shuffled = (list) => list.map((one) => [Math.random(), one]).sort(([a], [b]) => a - b).map(([, one]) => one)

const all = people.map((one) => new Person(...one.split('/')))

commands((line) => {
  const [verb, argument] = line.split(' ')
  if (verb === 'reload') shuffled(all).slice(0, Number(argument)).forEach((one) => one.reload())
  else if (verb === 'rest') {
    resting = true
    all.forEach((one) => one.rest())
  } else if (verb === 'show') all.forEach((one) => one.show(JSON.parse(argument)))
  else process.exit(0)
})
