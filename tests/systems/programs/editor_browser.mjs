// B5, C2: serves the page of editor_page.mjs, opens it in Chromium, and speaks for it. usage: node editor_browser.mjs URL NAME PORT
// PORT is where the page comes from: its origin. The browser is in the variable CHROMIUM.

import { spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'

import { CREDENTIAL, commands, say } from './page.mjs'

const [url, name, port] = process.argv.slice(2)
const HERE = import.meta.dirname ?? new URL('.', import.meta.url).pathname
const MODULES = join(HERE, '..', 'node_modules')
const ORIGIN = `http://127.0.0.1:${port}`
const QUIET = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-sync',
  '--disable-background-networking', '--disable-component-update', '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding', '--log-level=3',
]

/** Yjs and its library as they are published: modules that name each other as Node does. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>editor</title><link rel="icon" href="data:,">
<script type="importmap">{"imports": {"yjs": "/node/yjs/dist/yjs.mjs", "lib0/": "/node/lib0/"}}</script>
<script type="module" src="/editor_page.mjs"></script>`

function fileOf(path) {
  if (/^\/editor\w*\.mjs$/.test(path)) return join(HERE, path)
  const module = /^\/node\/((?:yjs|lib0)\/[\w/.-]+)$/.exec(path)?.[1]
  if (module === undefined || module.includes('..')) return null
  return join(MODULES, /\.m?js$/.test(module) ? module : `${module}.js`)
}

let sendCommand = null
const waiting = [] // commands from before the page was there
function command(line) {
  if (sendCommand) sendCommand(line)
  else waiting.push(line)
}

async function said(request) {
  let text = ''
  for await (const piece of request) text += piece
  return JSON.parse(text)
}

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, ORIGIN)
  const answer = (type, body) => response.writeHead(200, { 'Content-Type': type }).end(body)
  if (pathname === '/') answer('text/html', PAGE)
  else if (pathname === '/start') answer('application/json', JSON.stringify({ url, name, credential: CREDENTIAL }))
  else if (pathname === '/said') {
    const lines = await said(request)
    for (const { saw, ...more } of lines) say(saw, more)
    answer('text/plain', '')
    if (lines.some(({ saw }) => saw === 'gone')) leave(0)
  } else if (pathname === '/commands') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders()
    sendCommand = (line) => response.write(`data: ${line}\n\n`)
    waiting.splice(0).forEach(sendCommand)
  } else {
    const file = fileOf(pathname)
    if (file === null) response.writeHead(404).end()
    else answer('text/javascript', await readFile(file))
  }
})

let browser = null
function leave(code) {
  browser?.kill('SIGKILL')
  process.exit(code)
}

// The browser ends when the pipes by which it could be driven are closed: so none is left over, whatever becomes of this process.
server.listen(Number(port), '127.0.0.1', () => {
  const profile = mkdtempSync(join(process.cwd(), 'chromium-'))
  const home = { HOME: profile, PATH: process.env.PATH }
  browser = spawn(
    process.env.CHROMIUM,
    [...QUIET, '--remote-debugging-pipe', `--user-data-dir=${profile}`, `${ORIGIN}/`],
    { stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'], env: home },
  )
  browser.on('error', (error) => {
    say('fault', { message: `no browser: ${error.message}` })
    leave(1)
  })
  browser.on('exit', (code, signal) => {
    say('fault', { message: `the browser has ended: ${code ?? signal}` })
    leave(1)
  })
})
process.on('SIGTERM', () => leave(143))
commands(command)
