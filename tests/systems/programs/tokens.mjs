// A1: what a recovery token is good for, and what not. usage: node tokens.mjs URL

import WebSocket from 'ws'
import { CREDENTIAL, WANT, say } from './page.mjs'

const [url] = process.argv.slice(2)

/** Open a connection with `opening`; resolve with the answer and how it ended: `then(socket)` speaks after the answer. */
function once(opening, then = (socket) => socket.close()) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${url}/v1/client`, ['signald.v1'])
    let answer = null
    socket.on('open', () => socket.send(JSON.stringify({ auth: CREDENTIAL, ...opening })))
    socket.on('message', (frame) => {
      const fields = JSON.parse(frame.toString())
      if (answer === null) {
        answer = fields
        if (fields.type !== 'error') then(socket)
      }
    })
    socket.on('error', () => {})
    socket.on('close', (code) => resolve({ ...answer, closed: code }))
  })
}

/** As `once`, again and again while there is no node, or none that admits. */
async function ask(opening, then) {
  for (;;) {
    const answer = await once(opening, then)
    if (answer.type && answer.closed !== 1013) return answer
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

const resume = (recovery_token) => ask({ type: 'restore_session', recovery_token })
const tell = (step, { type, code, closed, session }) => say('step', { step, type, code, closed, session })

const first = await ask({ type: 'connect', want: WANT })
tell('started', first)
const second = await resume(first.recovery_token)
tell('resumed', second)
const third = await resume(second.recovery_token)
tell('resumed again', third)
tell('stale token', await resume(first.recovery_token))
tell('after the theft', await resume(third.recovery_token))

const bye = (socket) => socket.send(JSON.stringify({ type: 'bye' }))
const ended = await ask({ type: 'connect', want: WANT }, bye)
tell('ended', ended)
tell('after the end', await resume(ended.recovery_token))
say('end', { secret: JSON.stringify(first.recovery_token).length > 45, ttl_ms: first.token_ttl_ms })
