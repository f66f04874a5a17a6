// A peer that serves what home machines need of others, or needs it itself: calling back, relays, straight links. Its
// first line says where it listens; then it says each of its connections, and which of its addresses were confirmed.

import { readFileSync } from 'node:fs'

import { autoNAT } from '@libp2p/autonat'
import { dcutr } from '@libp2p/dcutr'
import { multiaddr } from '@multiformats/multiaddr'

import { unhex } from './papers.mjs'
import { makePeer } from './peer.mjs'

const given = JSON.parse(readFileSync(0, 'utf8'))
const say = (told) => console.log(JSON.stringify(told))
const peer = await makePeer(unhex(given.secret), '', given.listen, { autonat: autoNAT(), dcutr: dcutr() })
peer.addEventListener('connection:open', ({ detail }) => say({
  connected: detail.remotePeer.toString(), way: detail.remoteAddr.toString(), direction: detail.direction
}))
if (given.listen.endsWith('/p2p-circuit')) while (peer.getMultiaddrs().length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
say({ endpoint: peer.getMultiaddrs()[0]?.toString() ?? '' })
for (const where of given.dial ?? []) await peer.dial(multiaddr(where))
let confirmed = ''
let later = given.later // whom to call once we know how we can be called ourselves
setInterval(() => {
  const now = peer.getMultiaddrs().map(String).join(' ')
  if (now !== confirmed) say({ addresses: confirmed = now })
  if (now !== '' && later) {
    peer.dial(multiaddr(later)).catch((error) => say({ failed: String(error) }))
    later = undefined
  }
}, 50)
