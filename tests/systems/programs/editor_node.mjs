// B5, C2: the editor of editor.mjs in Node. usage: node editor_node.mjs URL NAME

import WebSocket from 'ws'

import { Editor } from './editor.mjs'
import { CREDENTIAL, commands, say } from './page.mjs'

const [url, name] = process.argv.slice(2)

const editor = new Editor({
  Socket: WebSocket,
  say: (saw, more) => {
    say(saw, more)
    if (saw === 'gone') process.exit(0)
  },
  url,
  credential: CREDENTIAL,
  name,
})
commands((line) => editor.obey(line))
