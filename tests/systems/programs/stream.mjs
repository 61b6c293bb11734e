// A8 and B2: a page that asks for a long answer, and reads it as it grows. usage: node stream.mjs URL [RECOVERY_TOKEN]
// The variable PIECES says how many pieces are asked for; without it the answer goes on until `end`.
// With a token it is the page, reloaded: it finds the text so far in the history. On `end` it asks the worker to come to an end.

import { Page, commands, say } from './page.mjs'

const [url, token] = process.argv.slice(2)
const STREAM = 'answer'
let text = ''
let upTo = 0 // seq of the last piece in the text

function over(outcome) {
  say('end', { text, outcome })
  process.exit(0)
}

const page = new Page(url, {
  token,
  history: 10,
  on: {
    opened: ({ chat_history: entries = [], next_received }) => {
      const entry = entries.find(({ stream }) => stream === STREAM)
      if (!entry) return
      text = entry.data
      upTo = entry.seq
      say('found', { text, seq: upTo, open: entry.open ?? false, attempt: entry.attempt, next_received })
      if (!entry.open) over(entry.outcome ?? null) // it came to its end while the page was reloaded
    },
    message: ({ seq, stream, data, end = false, outcome = null }) => {
      if (stream !== STREAM || seq <= upTo) return
      text += data
      upTo = seq
      say('piece', { seq, data })
      if (end) over(outcome)
    },
  },
})
if (!token) page.send({ generate: STREAM, pieces: Number(process.env.PIECES ?? 0), every_ms: Number(process.env.EVERY_MS ?? 30) }, { kind: 'ask' })
commands(() => page.send({ finish: STREAM }, { kind: 'ask' }))
