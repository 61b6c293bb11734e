// A7: a user that knows the ids of voices of another user. usage: node thief.mjs URL SESSION BLOB…

import { api } from './api.mjs'
import { CREDENTIAL, Page, say, until } from './page.mjs'

const [url, session, ...blobs] = process.argv.slice(2)
const page = new Page(url)
await until(() => page.apiToken)
const own = api(url, () => page.apiToken)
const person = api(url, () => CREDENTIAL)
const nothing = api(url, () => '')

async function tried(step, answer) {
  say('tried', { step, status: answer.status, bytes: (await answer.arrayBuffer()).byteLength, type: answer.headers.get('content-type') })
}

for (const blob of blobs) {
  const path = `/v1/blobs/${blob}`
  await tried('reads', await own('GET', path))
  await tried('reads a part', await own('GET', path, { headers: { Range: 'bytes=0-9' } }))
  await tried('asks for its head', await own('HEAD', path))
  await tried('asks whether it has changed', await own('GET', path, { headers: { 'If-None-Match': '*' } }))
  await tried('removes', await own('DELETE', path))
  await tried('names the session', await own('GET', `${path}?session=${session}`))
  await tried('is a person', await person('GET', path))
  await tried('shows nothing', await nothing('GET', path))
}
await tried('uploads there', await own('POST', `/v1/blobs?session=${session}`, { body: 'x' }))
say('end')
process.exit(0)
