// B6: a page whose user is recalled. usage: node recall.mjs URL
// It is shut out, tries once more with what it has, and comes back with the JWT that stands in a line on stdin.

import { Page, commands, say } from './page.mjs'

const [url] = process.argv.slice(2)
let refusals = 0

const page = new Page(url, {
  on: {
    opened: ({ session }) => {
      if (refusals === 0) return
      say('back', { session })
      process.exit(0)
    },
    gone: (code) => {
      say('refused', { code })
      if (++refusals === 1) page.dial()
    },
  },
})

commands((credential) => {
  page.credential = credential
  page.dial()
})
