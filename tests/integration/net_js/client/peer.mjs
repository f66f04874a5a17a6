// Sections 1 and 3: a libp2p peer whose key is the payer's, and messages on its streams.

// Node 20 lacks what libp2p 3 uses.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@libp2p/noise')
const { yamux } = await import('@libp2p/yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { kadDHT, passthroughMapper } = await import('@libp2p/kad-dht')
const { gossipsub } = await import('@libp2p/gossipsub')
const { preSharedKey } = await import('@libp2p/pnet')
const { circuitRelayTransport } = await import('@libp2p/circuit-relay-v2')
const { privateKeyFromRaw } = await import('@libp2p/crypto/keys')
const { byteStream } = await import('@libp2p/utils')
const { decode, encode } = await import('@msgpack/msgpack')

// `listen` is one address or several, `more` are services beside those that every peer has.
export function makePeer (secret, networkKey, listen = [], more = {}) {
  return createLibp2p({
    privateKey: privateKeyFromRaw(secret),
    addresses: { listen: [listen].flat() },
    transports: [tcp(), circuitRelayTransport()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    ...(networkKey ? { connectionProtector: preSharedKey({ psk: new TextEncoder().encode(networkKey) }) } : {}),
    connectionGater: { denyDialMultiaddr: () => false },
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({ protocol: '/ipfs/kad/1.0.0', clientMode: true, peerInfoMapper: passthroughMapper }),
      pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }),
      ...more
    }
  })
}

// A stream of messages: 4 bytes of length, then msgpack.
export class Messages {
  constructor (stream) {
    this.stream = stream
    this.bytes = byteStream(stream)
  }

  async send (message) {
    const body = message instanceof Uint8Array ? message : encode(message)
    const head = new Uint8Array(4)
    new DataView(head.buffer).setUint32(0, body.length)
    await this.bytes.write(head)
    await this.bytes.write(body)
  }

  async receive () {
    const signal = AbortSignal.timeout(15_000)
    const head = (await this.bytes.read({ bytes: 4, signal })).subarray()
    const size = new DataView(head.buffer, head.byteOffset).getUint32(0)
    const body = (await this.bytes.read({ bytes: size, signal })).subarray()
    return decode(body, { useBigInt64: false })
  }
}
