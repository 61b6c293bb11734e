// B1, in part: requests over kept connections, one after the other. usage: node requests.mjs URL

import { commands, say } from './page.mjs'

const [url] = process.argv.slice(2)
const base = url.replace(/^ws/, 'http')
const EVERY_MS = 100 // half the rate that a node allows
let ended = false

commands(() => {
  ended = true
})

for (let n = 1; !ended; n++) {
  try {
    const answer = await fetch(`${base}/v1/nothing`)
    const document = await answer.json()
    say('answered', { status: answer.status, document: document.status === answer.status && 'title' in document })
  } catch (error) {
    say('broken', { why: error.cause?.code ?? String(error) })
  }
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
}
say('end')
process.exit(0)
