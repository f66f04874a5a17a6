// Sections 1, 2 and 5 of docs/protocol.md: bytes, hashes, signed papers, and the transcript of a job.

import { secp256k1 } from '@noble/curves/secp256k1.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { keccak_256 } from '@noble/hashes/sha3.js'

export { sha256 }
export const text = (string) => new TextEncoder().encode(string)
export const hex = (bytes) => Buffer.from(bytes).toString('hex')
export const unhex = (string) => Uint8Array.from(Buffer.from(string.replace(/^0x/, ''), 'hex'))
export const same = (one, other) => hex(one) === hex(other)
export const join = (...parts) => Uint8Array.from(Buffer.concat(parts))

export function check (true_, words) {
  if (!true_) throw new Error(words)
}

// An unsigned number as so many bytes, big endian.
export function big (number, size) {
  return unhex(BigInt(number).toString(16).padStart(2 * size, '0'))
}

export const number = (bytes) => BigInt('0x' + hex(bytes))

const TYPES = {
  Voucher: 'Voucher(address host,bytes32 terms,uint32 epoch,uint96 cumulative)',
  Lock: 'Lock(address host,bytes32 terms,uint32 epoch,uint96 cumulative)',
  Offer: 'Offer(address host,bytes32 agent,bytes32 terms,uint96 priceIn,uint96 priceOut,uint32 slots,uint64 sequence,uint64 expires,bytes32 detail)',
  Receipt: 'Receipt(bytes32 job,uint32 attempt,bytes32 request,bytes32 agent,bytes32 terms,address host,address signer,uint32 epoch,uint32 first,uint32 promptTokens,uint32 outputTokens,bytes32 promptHash,bytes32 commitment,uint96 priceIn,uint96 priceOut,uint96 amount,uint8 finish,uint64 issuedAt,uint8 tier)'
}

const fields = (kind) => TYPES[kind].replace(/^.*\(|\)$/g, '').split(',').map((field) => field.split(' '))

function words (kind, value) {
  return join(...fields(kind).map(([type, name]) => {
    const given = value[name]
    if (type === 'bytes32') return given
    return type === 'address' ? join(new Uint8Array(12), given) : big(given, 32)
  }))
}

export function domain (chainId, contract) {
  const kind = text('EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)')
  return keccak_256(join(
    keccak_256(kind), keccak_256(text('Lading')), keccak_256(text('1')), big(chainId, 32), new Uint8Array(12), contract
  ))
}

export function digest (kind, value, where) {
  return keccak_256(join(unhex('1901'), where, keccak_256(join(keccak_256(text(TYPES[kind])), words(kind, value)))))
}

export function addressOf (publicKey) {
  return keccak_256(secp256k1.Point.fromBytes(publicKey).toBytes(false).slice(1)).slice(12)
}

// A paper as it travels: its words, then r, s and v.
export function sign (kind, value, where, secret) {
  const signed = secp256k1.sign(digest(kind, value, where), secret, { prehash: false, format: 'recovered' })
  return join(words(kind, value), signed.slice(1), Uint8Array.of(27 + signed[0]))
}

export function unpack (kind, packed, where) {
  const value = {}
  fields(kind).forEach(([type, name], index) => {
    const word = packed.slice(32 * index, 32 * index + 32)
    value[name] = type === 'bytes32' ? word : type === 'address' ? word.slice(12) : number(word)
  })
  const signature = packed.slice(-65)
  check(same(packed.slice(0, -65), words(kind, value)), `the ${kind} is not in its own words`)
  const recovered = join(Uint8Array.of(signature[64] - 27), signature.slice(0, 64))
  const signer = addressOf(secp256k1.recoverPublicKey(recovered, digest(kind, value, where), { prehash: false }))
  return { value, signer }
}

export function roll (state, ids) {
  for (const id of ids) state = sha256(join(state, big(id, 4)))
  return state
}

// `marks` are the prompt's and one for each chunk where the host's engine has states (section 6a), else none.
export function commitment (job, ids, marks) {
  let row = marks.slice(0, 1)
  for (let at = 0; at < ids.length; at += 32) {
    const chunk = join(job, big(at, 4), ...ids.slice(at, at + 32).map((id) => big(id, 4)))
    row.push(sha256(marks.length ? join(Uint8Array.of(6), chunk, marks[1 + at / 32]) : join(Uint8Array.of(0), chunk)))
  }
  while (row.length > 1) {
    const above = []
    for (let at = 0; at + 1 < row.length; at += 2) above.push(sha256(join(Uint8Array.of(1), row[at], row[at + 1])))
    if (row.length % 2) above.push(row[row.length - 1])
    row = above
  }
  return row[0]
}

export function amount (offer, promptTokens, outputTokens) {
  return (offer.priceIn * BigInt(promptTokens) + offer.priceOut * BigInt(outputTokens) + 999n) / 1000n
}
