// A7: one upload that takes its time. usage: node uploads.mjs URL
// Half of it is sent at once, the rest slowly until a line comes on stdin, or the node says that it goes. Then it is made once more with
// its key, and read.

import { api } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'
import { TYPE, kept, pieces, ranged, recording } from './recording.mjs'

const [url] = process.argv.slice(2)
const BYTES = 300000
const PIECES = 600
const SLOW_MS = 400 // a minute and more for what is left after half of it
let goes = false

const hurry = () => {
  goes = true
}
const page = new Page(url, { on: { goaway: hurry } })
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)
const voice = recording(page.session, BYTES)
const headers = { 'Idempotency-Key': `${page.session}-slow`, 'Content-Type': TYPE }

commands(hurry)

async function pause(share) {
  if (share === 0.5) say('sending')
  if (share >= 0.5 && !goes) await new Promise((resolve) => setTimeout(resolve, SLOW_MS))
}

const post = () => request('POST', '/v1/blobs', { headers, body: () => pieces(voice, PIECES, pause) })
const first = await kept(await post(), voice)
say('stored', first)
const again = await kept(await post(), voice)
say('repeated', { ...again, same: again.blob === first.blob })
say('read', await ranged(request, first.blob, voice))
say('end')
process.exit(0)
