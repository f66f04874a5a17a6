// A relay of js-libp2p; its first line says where.

import { readFileSync } from 'node:fs'

import { circuitRelayServer } from '@libp2p/circuit-relay-v2'

import { unhex } from './papers.mjs'
import { makePeer } from './peer.mjs'

const given = JSON.parse(readFileSync(0, 'utf8'))
const relay = circuitRelayServer()
const peer = await makePeer(unhex(given.secret), given.network_key, given.listen, { relay })
console.log(JSON.stringify({ endpoint: peer.getMultiaddrs()[0].toString() }))
