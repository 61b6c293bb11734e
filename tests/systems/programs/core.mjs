// A9: a page that the core server lets in, or does not. usage: node core.mjs URL [LINES]
// Says a line now and then, or so many LINES; then, or on `end`, it ends its session.

import { Page, commands, say, until } from './page.mjs'

const [url, lines] = process.argv.slice(2)
const EVERY_MS = 200
let ended = false
let answered = 0

const page = new Page(url, {
  on: {
    opened: ({ type, settings }) => say('settings', { type, settings }),
    message: ({ data }) => {
      answered = data.to
      say('answered', { to: data.to })
    },
    gone: () => process.exit(0),
  },
})
commands(() => {
  ended = true
})

await until(() => page.session)
for (let n = 1; !ended && (lines === undefined || n <= lines); n++) {
  page.send({ line: n })
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
}
await until(() => page.outbox.length === 0 && answered === page.said)
await page.bye()
say('end', { said: page.said })
process.exit(0)
