// B7: what the operator has set is told, and holds. usage: node limits.mjs URL

import { Page, say } from './page.mjs'

const [url] = process.argv.slice(2)
const PINGS = 3
let pings = 0

const page = new Page(url, {
  on: {
    opened: ({ limits, heartbeat_ms }) => say('told', { limits, heartbeat_ms }),
    pinged: () => {
      if (++pings !== PINGS) return
      say('pings', { pings })
      // One byte more than the largest message there may be.
      const fields = { type: 'message', seq: page.said + 1, data: '' }
      const room = Number(process.argv[3]) - JSON.stringify(fields).length
      page.write({ ...fields, data: 'x'.repeat(room + 1) })
    },
    gone: () => process.exit(0),
  },
})
