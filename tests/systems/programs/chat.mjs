// A8: a chat page. usage: node chat.mjs URL [RECOVERY_TOKEN]
// Says a line now and then, and shows what it finds in the history and what the worker answers. With a token it is the same page,
// reloaded: it knows nothing else. On `end` it says no more, waits until all is answered and ends.

import { Page, commands, say, until } from './page.mjs'

const [url, token] = process.argv.slice(2)
const EVERY_MS = 200
// A page is shown 1,000 messages at most, which are 500 lines and their answers. A story has 8 pages and takes at most 240 s: 432 lines.
const QUICK = 24 // lines of one page
const SLOW_MS = 1000 // between those behind them
let ended = false
let replies = 0 // the highest line that was answered

const answered = (data) => {
  replies = Math.max(replies, data.to)
}

const page = new Page(url, {
  token,
  history: 1000,
  on: {
    opened: ({ chat_history: entries = [] }) => {
      for (const { from, seq, data } of entries) {
        say('found', { from, seq, data })
        if (from === 'worker') answered(data)
      }
    },
    message: ({ seq, data }) => {
      say('answered', { from: 'worker', seq, data })
      answered(data)
    },
    ack: ({ seq }) => say('acked', { seq }),
  },
})

commands(async () => {
  ended = true
  await until(() => page.session && page.outbox.length === 0 && replies === page.said)
  say('end', { said: page.said })
  process.exit(0)
})

await until(() => page.session)
for (let own = 1; !ended; own++) {
  const n = page.said + 1
  const data = { line: n, text: `line ${n} of page ${process.pid}` }
  say('said', { seq: page.send(data), data })
  await new Promise((resolve) => setTimeout(resolve, own < QUICK ? EVERY_MS : SLOW_MS))
}
