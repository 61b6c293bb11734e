// B5, C2: the editor of editor.mjs in a browser. The server that the page came from, editor_browser.mjs, prints what it sees and sends commands.

import { Editor } from './editor.mjs'

const lines = []
let posting = false

/** Post what was said, in order: one request at a time. */
async function post() {
  if (posting) return
  posting = true
  while (lines.length) await fetch('/said', { method: 'POST', body: JSON.stringify(lines.splice(0)) })
  posting = false
}

function say(saw, more = {}) {
  lines.push({ saw, ...more })
  post()
}

addEventListener('error', ({ message }) => say('fault', { message }))
addEventListener('unhandledrejection', ({ reason }) => say('fault', { message: String(reason) }))

const { url, name, credential } = await (await fetch('/start')).json()
const editor = new Editor({ Socket: WebSocket, say, url, credential, name })
new EventSource('/commands').onmessage = ({ data }) => editor.obey(data)
say('browser', { agent: navigator.userAgent })
