// A3 to A5, A7 and B8: a page that stays open. usage: node signals.mjs URL
// It offers media by `realtime`, which is carried at once or not at all, and sends texts with a trace of its own each.

import { randomBytes } from 'node:crypto'
import { Page, commands, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const EVERY_MS = 100
const TEXT_EVERY = 5 // offers for each text
const traces = new Map() // of the texts that are not answered yet, by seq
let ended = false

const page = new Page(url, {
  on: {
    realtime: ({ data }) => say('signal', { n: data.offer }),
    message: ({ data, trace }) => {
      say('answered', { to: data.to, traced: trace === traces.get(data.to) })
      traces.delete(data.to)
    },
    goaway: ({ deadline_ms }) => say('goaway', { deadline_ms }),
  },
})

commands(async () => {
  ended = true
  await until(() => traces.size === 0)
  await page.bye()
  say('end')
  process.exit(0)
})

await until(() => page.session)
for (let n = 1; !ended; n++) {
  page.write({ type: 'realtime', data: { offer: n, sdp: 'v=0' } })
  if (n % TEXT_EVERY === 0) {
    const trace = `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`
    traces.set(page.said + 1, trace)
    page.send({ line: page.said + 1 }, { trace })
  }
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
}
