// B6: which token opens what. usage: node callers.mjs URL ORIGIN OTHER
// The page's user also has a cookie; ORIGIN is where the page comes from, OTHER the session of another user.

import { api } from './api.mjs'
import { CREDENTIAL, Page, say, until } from './page.mjs'

const [url, origin, other] = process.argv.slice(2)
const page = new Page(url)
await until(() => page.apiToken)
const session = page.session
const token = page.apiToken
const anonymous = { Authorization: '' }
const cookie = { ...anonymous, Cookie: `session=${CREDENTIAL}` }
const person = { Authorization: `Bearer ${CREDENTIAL}` }
const request = api(url, () => token)

async function tell(step, method, path, headers = {}, body) {
  const answer = await request(method, path, { headers, body })
  const type = answer.headers.get('content-type') ?? ''
  const asked = answer.headers.get('www-authenticate')
  say('step', { step, status: answer.status, problem: type.startsWith('application/problem+json'), challenge: asked !== null })
  return answer
}

const job = JSON.stringify({ kind: 'count', data: { pieces: 1 } })
const keyed = (key) => ({ 'Idempotency-Key': `${key}-${session}`, 'Content-Type': 'application/json' })
const forged = `${token.slice(0, -4)}${token.endsWith('AAAA') ? 'BBBB' : 'AAAA'}`

await tell('own session', 'GET', `/v1/sessions/${session}`)
await tell('nothing shown', 'GET', `/v1/sessions/${session}`, anonymous)
await tell('recovery token', 'GET', `/v1/sessions/${session}`, { Authorization: `Bearer ${page.token}` })
await tell('forged', 'GET', `/v1/sessions/${session}`, { Authorization: `Bearer ${forged}` })
await tell('session of another', 'GET', `/v1/sessions/${other}`)
await tell('all of a user', 'GET', '/v1/sessions?subject=callers')
await tell('person', 'GET', `/v1/jobs?session=${session}`, person)
await tell('person, no session', 'GET', '/v1/jobs', person)
await tell('person, of another', 'GET', `/v1/jobs?session=${other}`, person)
await tell('cookie', 'GET', `/v1/jobs?session=${session}`, { ...cookie, 'Sec-Fetch-Site': 'same-origin' })
await tell('cookie, cross-site', 'GET', `/v1/jobs?session=${session}`, { ...cookie, 'Sec-Fetch-Site': 'cross-site' })
await tell('cookie, posts', 'POST', `/v1/jobs?session=${session}`, { ...cookie, Origin: origin, ...keyed('a') }, job)
await tell('cookie, posts from elsewhere', 'POST', `/v1/jobs?session=${session}`, { ...cookie, Origin: 'https://evil.example', ...keyed('b') }, job)
const made = await tell('posts', 'POST', '/v1/jobs', keyed('c'), job)
const id = (await made.json()).job
for (;;) if ((await (await request('GET', `/v1/jobs/${id}`, { headers: { Prefer: 'wait=5' } })).json()).state === 'succeeded') break
await page.bye()
await tell('after the end', 'GET', `/v1/jobs/${id}`)
await tell('posts after the end', 'POST', '/v1/jobs', keyed('d'), job)
say('end')
process.exit(0)
