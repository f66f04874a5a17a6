// A peer that listens and echoes; its first line says where. It also asks back: what comes to /ask/1 names a protocol
// that the caller serves, and the answer is what that one says.

import { readFileSync } from 'node:fs'

import { byteStream } from '@libp2p/utils'

import { unhex } from './papers.mjs'
import { makePeer } from './peer.mjs'

const given = JSON.parse(readFileSync(0, 'utf8'))
const peer = await makePeer(unhex(given.secret), given.network_key, '/ip4/127.0.0.1/tcp/0')

// Not `for await` over the stream itself: that never ends when the other side had ended before it began.
async function whole (stream) {
  const parts = []
  const bytes = byteStream(stream)
  for (let data = await bytes.read(); data !== null; data = await bytes.read()) parts.push(data.subarray())
  return Buffer.concat(parts)
}

async function write (stream, data) {
  for (let at = 0; at < data.length; at += 32768) {
    if (!stream.send(data.subarray(at, at + 32768))) await stream.onDrain()
  }
  await stream.close()
}

await peer.handle('/echo/1', async (stream) => write(stream, await whole(stream)))
await peer.handle('/ask/1', async (stream, connection) => {
  const back = await connection.newStream((await whole(stream)).toString())
  await back.close()
  await write(stream, await whole(back))
})
console.log(JSON.stringify({ endpoint: peer.getMultiaddrs()[0].toString() }))
