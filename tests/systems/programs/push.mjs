// B2: a page that asks for something once, and is pushed texts and bytes. usage: node push.mjs URL
// The worker counts: text 1, bytes 2, text 3, … On `end` it asks the worker to stop, and ends with the last push.

import { Page, commands, say } from './page.mjs'

const [url] = process.argv.slice(2)

const page = new Page(url, {
  on: {
    message: ({ data, binary = false, kind, end }) => {
      const n = binary ? data.readUInt32BE(0) : data.n
      const intact = binary ? data.length === 1024 && data.subarray(4).every((byte, at) => byte === (n + at) % 256) : true
      say('pushed', { n, binary, kind, intact })
      if (data.last) {
        say('end')
        process.exit(0)
      }
    },
  },
})
page.send({ push: { every_ms: 50 } }, { kind: 'ask' })
commands(() => page.send({ stop: true }, { kind: 'ask' }))
