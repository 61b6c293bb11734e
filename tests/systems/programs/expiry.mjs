// B6: a page whose JWT runs out while it is open. usage: node expiry.mjs URL [renew]
// The variable NEXT_CREDENTIAL has the next JWT of the same user. With `renew` the page shows it when it is told to; without, it does not.

import { Page, say } from './page.mjs'

const [url, renew] = process.argv.slice(2)
const next = process.env.NEXT_CREDENTIAL
const STAYS_MS = 4000 // longer than the grace

function renewed() {
  if (page.credential === next) return false
  page.credential = next
  setTimeout(() => {
    say('stays', { open: page.socket !== null || page.opener !== null })
    process.exit(0)
  }, STAYS_MS)
  return true
}

const page = new Page(url, {
  on: {
    error: ({ code, retry_after_ms }) => {
      if (code !== 'auth_expiring') return
      say('expiring', { grace_ms: retry_after_ms })
      if (renew && renewed()) page.write({ type: 'auth', auth: next })
    },
    gone: (code) => {
      // A page that was between two connections when its JWT ran out is refused with the old one, and comes with the next.
      if (code === 4401 && renew && renewed()) page.dial()
      else process.exit(0)
    },
  },
})
