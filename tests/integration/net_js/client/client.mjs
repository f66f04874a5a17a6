// One conversation of each kind with a real node and its control plane; what came of it goes to stdout, a line each.

import { readFileSync } from 'node:fs'

import { decode, Encoder } from '@msgpack/msgpack'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

import { addressOf, amount, big, check, commitment, domain, hex, join, roll, same, sha256, sign, text, unhex, unpack, digest } from './papers.mjs'
import { makePeer, Messages } from './peer.mjs'

const given = JSON.parse(readFileSync(0, 'utf8'))
const say = (what, found = {}) => console.log(JSON.stringify({ what, ...found }))
const secret = unhex(given.secret)
const settlement = domain(given.chain_id, unhex(given.settlement))
const court = domain(given.chain_id, unhex(given.court))
const peer = await makePeer(secret, given.network_key)
// js-libp2p calls a connection limited when a relay stands between and says how much it carries.
const evenRelayed = { runOnLimitedConnection: true }
const me = addressOf(peer.peerId.publicKey.raw)

// -- section 3: the direct link

async function link () {
  const host = given.direct.split('/').at(-1) // not the relay on the way
  const met = new Promise((resolve) => peer.addEventListener('peer:identify', ({ detail }) => {
    if (detail.peerId.toString() === host) resolve(detail)
  }))
  const connection = await peer.dial(multiaddr(given.direct))
  const { agentVersion, protocols, observedAddr } = await met
  say('identified', {
    agentVersion, protocols, observed: observedAddr?.toString(), peer: connection.remotePeer.toString(),
    way: connection.remoteAddr.toString(), limited: connection.limits !== undefined
  })
  say('pinged', { ms: await peer.services.ping.ping(connection.remotePeer) })
  return connection
}

async function offers (connection) {
  const messages = new Messages(await connection.newStream('/lading/offers/1', evenRelayed))
  await messages.send(['want_offers'])
  const [tag, adverts] = await messages.receive()
  check(tag === 'adverts' && adverts.length === 1, `expected one advert, got ${tag} ${adverts?.length}`)
  const [, packed, detail] = adverts[0]
  const { value, signer } = unpack('Offer', packed, settlement)
  check(same(signer, value.host), 'the offer is not its host\'s')
  check(same(value.detail, sha256(new Encoder().encode(detail))), 'the offer\'s detail was altered')
  check(same(value.host, addressOf(connection.remotePeer.publicKey.raw)), 'the offer is not the peer\'s')
  say('offer', { name: detail[0], slots: Number(value.slots) })
  return { ...value, id: digest('Offer', value, settlement) }
}

// -- section 5: a job

// The request as all sides hash it: every field, floats of 64 bits.
function request (words, maxTokens) {
  const floats = new Encoder({ forceIntegerToFloat: true })
  const one = floats.encode(1), none = floats.encode(0)
  const whole = (value) => new Encoder().encode(value)
  const seed = whole(new Uint8Array(32).fill(7))
  const sampler = join(Uint8Array.of(0x9a), seed, one, one, whole(0), none, none, none, one, whole([]), whole(new Uint8Array(0)))
  return join(Uint8Array.of(0x95), whole('chat'), whole([['user', words]]), whole(maxTokens), sampler, whole([]))
}

async function job (connection, offer) {
  const id = crypto.getRandomValues(new Uint8Array(32))
  const asked = request('Tell me a story.', 70)
  const channel = { host: offer.host, terms: offer.terms, epoch: 0 }
  const lock = sign('Lock', { ...channel, cumulative: 10n ** 20n }, settlement, secret)
  const opening = [
    new Encoder().encode('open'), ...[1, id, 0, offer.id, me, 0].map((field) => new Encoder().encode(field)),
    asked, ...[[], lock, new Uint8Array(0)].map((field) => new Encoder().encode(field))
  ]
  const messages = new Messages(await connection.newStream('/lading/job/1', evenRelayed))
  await messages.send(join(Uint8Array.of(0x90 | opening.length), ...opening))
  const state = { ids: [], answer: '', rolling: sha256(join(text('lading/tokens/1'), id)), chunks: 0, signed: 0, marks: [], prompt: null }
  while (true) {
    const [tag, ...rest] = await messages.receive()
    if (tag === 'accept') state.prompt = { tokens: rest[0], hash: rest[1] }
    else if (tag === 't') take(state, rest)
    else if (tag === 'chunk' || tag === 'done') {
      mark(state, rest[1] ?? new Uint8Array(0))
      const owed = checkReceipt(state, { tag, packed: rest[0], id, asked, offer })
      await messages.send(['pay', sign('Voucher', { ...channel, cumulative: owed }, settlement, secret)])
      state.chunks += 1
      state.paid = owed
      if (tag === 'done') break
    } else throw new Error(`the host said ${tag}: ${rest}`)
  }
  await messages.stream.close()
  while (await messages.bytes.read() !== null); // the host ends when it has the last voucher: then we may go
  say('answered', { text: state.answer, ids: state.ids, chunks: state.chunks, paid: String(state.paid) })
}

function take (state, [first, ids, words, rolling]) {
  check(first === state.ids.length, `expected index ${state.ids.length}, got ${first}`)
  state.rolling = roll(state.rolling, ids)
  check(same(rolling, state.rolling), 'the rolling hash does not match')
  state.ids.push(...ids)
  state.answer += words
}

// Those of all chunks that were whole at the receipt before stay; what came is the rest.
function mark (state, added) {
  const kept = state.signed ? state.marks.slice(0, 1 + Math.floor(state.signed / 32)) : []
  for (let at = 0; at < added.length; at += 32) kept.push(added.slice(at, at + 32))
  check(kept.length === 0 || kept.length === 1 + Math.ceil(state.ids.length / 32), 'marks are missing')
  state.marks = kept
  state.signed = state.ids.length
}

function checkReceipt (state, { tag, packed, id, asked, offer }) {
  const { value, signer } = unpack('Receipt', packed, court)
  const owed = amount(offer, state.prompt.tokens, state.ids.length)
  check(same(signer, offer.host), 'the receipt is not signed by the host')
  for (const [name, expected] of Object.entries({
    job: id, request: sha256(asked), agent: offer.agent, terms: offer.terms, host: offer.host, signer: me,
    promptHash: state.prompt.hash, commitment: commitment(id, state.ids, state.marks)
  })) check(same(value[name], expected), `the receipt has another ${name}`)
  for (const [name, expected] of Object.entries({
    attempt: 0n, epoch: 0n, first: 0n, promptTokens: BigInt(state.prompt.tokens), outputTokens: BigInt(state.ids.length),
    priceIn: offer.priceIn, priceOut: offer.priceOut, amount: owed
  })) check(value[name] === expected, `the receipt has ${name} ${value[name]}, not ${expected}`)
  check((tag === 'done') === (value.finish > 0n), 'the receipt ends before the answer does, or after')
  return owed
}

// -- the control plane

// A host has one id at two addresses, and libp2p keeps one connection to an id: so this side is a peer of its own.
async function gossip (peer) {
  const heard = new Promise((resolve) => peer.services.pubsub.addEventListener('message', (event) => resolve(event.detail)))
  peer.services.pubsub.subscribe('/lading/offers/1')
  await peer.dial(multiaddr(given.gossip))
  const message = await heard
  const [tag, packed] = decode(message.data)
  const { value, signer } = unpack('Offer', packed, settlement)
  check(tag === 'offer' && same(signer, value.host), 'what gossip carries is no good offer')
  say('heard', { host: hex(value.host), topic: message.topic })
}

async function find (peer) {
  const far = peerIdFromString(given.far)
  for await (const event of peer.services.dht.findPeer(far, { signal: AbortSignal.timeout(15_000) })) {
    const told = event.closer?.find((each) => each.id.equals(far) && each.multiaddrs.length > 0)
    if (told === undefined) continue
    const connection = await peer.dial(told.multiaddrs)
    say('found', { peer: connection.remotePeer.toString(), at: connection.remoteAddr.toString() })
    return
  }
}

const connection = await link()
const offer = await offers(connection)
await job(connection, offer)
if (given.gossip) {
  const other = await makePeer(crypto.getRandomValues(new Uint8Array(32)), given.network_key)
  await gossip(other)
  await find(other)
  await other.stop()
}
await peer.stop()
say('done')
process.exit(0)
