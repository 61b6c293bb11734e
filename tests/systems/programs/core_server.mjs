// A9: a core server, which is asked who may come in and told what happens. Written from docs/core-server.md alone.
// usage: node core_server.mjs PORT
//
// Users named `banned…` may not come in. Now and then an event is answered late, wrongly, or not at all; each that was answered well is
// told once more as `taken`.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import http from 'node:http'
import { say } from './page.mjs'

const [port] = process.argv.slice(2)
const KEY = Buffer.from(process.env.SECRET.replace('whsec_', ''), 'base64')
const OLD_S = 300
const LATE_MS = 1500 // above what the operator gives an event
const SETTINGS = { voice: 'alto' }
let events = 0

function signed(headers, body) {
  const stamp = headers['webhook-timestamp'] ?? ''
  if (!(Math.abs(Date.now() / 1000 - Number(stamp)) < OLD_S)) return false
  const right = `v1,${createHmac('sha256', KEY).update(`${headers['webhook-id']}.${stamp}.`).update(body).digest('base64')}`
  const said = (headers['webhook-signature'] ?? '').split(' ')
  return said.some((one) => one.length === right.length && timingSafeEqual(Buffer.from(one), Buffer.from(right)))
}

function authorize(question, answer) {
  const { role, subject, claims, remote, want } = question
  const complete = claims?.sub === subject && typeof remote === 'string' && typeof want === 'object'
  say('asked', { role, subject, complete, session: question.session })
  const told = subject.startsWith('banned') ? { allow: false, reason: 'the account is closed' } : { allow: true, settings: SETTINGS }
  answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(told))
}

/** Answer an event, most often well. */
function event(request, fields, body, answer) {
  const { type, timestamp, data } = fields
  const { session, worker, n } = data
  const line = { id: request.headers['webhook-id'], type, n, queue: session ?? worker ?? 'cluster', data, timestamp, body: createHash('sha256').update(body).digest('hex') }
  const count = ++events
  say('told', line)
  if (count % 19 === 0) answer.writeHead(503, { 'retry-after': '1' }).end()
  else if (count % 23 === 0) request.socket.destroy()
  else if (count % 29 === 0) setTimeout(() => answer.writeHead(204).end(), LATE_MS)
  else if (count % 31 === 0) answer.writeHead(302, { location: '/elsewhere' }).end()
  else {
    say('taken', line)
    answer.writeHead(204).end()
  }
}

const server = http.createServer(async (request, answer) => {
  const parts = []
  try {
    for await (const part of request) parts.push(part)
  } catch {
    return // its sender has given it up
  }
  const body = Buffer.concat(parts)
  const good = request.method === 'POST' && request.headers['content-type']?.startsWith('application/json') && signed(request.headers, body)
  if (!good) say('unsigned', { method: request.method, url: request.url })
  if (request.url === '/authorize') authorize(JSON.parse(body), answer)
  else if (request.url === '/events') event(request, JSON.parse(body), body, answer)
  else say('lost', { url: request.url })
})
server.listen(Number(port), '127.0.0.1', () => say('listening'))
process.stdin.on('end', () => process.exit(0)).resume()
