"""What peers say to each other: one closed union per stream and direction, as msgpack arrays with a leading tag.

Unknown fields and tags are refused; sizes are bounded in the types. Signed structs travel packed (eip712.Signed.pack).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from lading_protocol.elder import BATCH as BATCH
from lading_protocol.elder import INTERACTIVE as INTERACTIVE
from lading_protocol.elder import ElderOpen
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Digest
from lading_protocol.requests import MAX_FRAME as MAX_FRAME
from lading_protocol.requests import MAX_LIKELY as MAX_LIKELY
from lading_protocol.requests import MAX_TOKENS as MAX_TOKENS
from lading_protocol.requests import MAX_TOOLS as MAX_TOOLS
from lading_protocol.requests import CallRequest as CallRequest
from lading_protocol.requests import ChatRequest as ChatRequest
from lading_protocol.requests import Count as Count
from lading_protocol.requests import EmbedRequest as EmbedRequest
from lading_protocol.requests import Hash, Wire
from lading_protocol.requests import Message as Message
from lading_protocol.requests import Request as Request
from lading_protocol.requests import RichChat as RichChat
from lading_protocol.requests import Sampler as Sampler
from lading_protocol.requests import Streamed as Streamed
from lading_protocol.requests import operation_of as operation_of
from lading_protocol.transcript import sha256

BLOB_PART = 1 << 18
VOUCHER_PAGE = 1024

JOB = "/lading/job/1"
HEARTBEAT = "/lading/heartbeat/1"
OFFERS = "/lading/offers/1"
BLOB = "/lading/blob/1"
PUBLISH = "/lading/publish/1"
RELEASE = "/lading/release/1"
SETTLE = "/lading/settle/1"
CASE = "/lading/case/1"
AUDIT = "/lading/audit/1"
OPENING = "/lading/opening/1"
SHEAVES = "/lading/sheaves/1"
TOPIC_OFFERS = "/lading/offers/1"
TOPIC_COORDINATORS = "/lading/coordinators/1"

Packed = Annotated[bytes, Meta(min_length=65, max_length=1024)]
OptionalPaper = Annotated[bytes, Meta(max_length=1024)]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Line = Annotated[str, Meta(max_length=2000)]
# Digests of 32 bytes, one after the other: those of a prompt and of all chunks of an answer fit.
Marks = Annotated[bytes, Meta(max_length=32 * (MAX_TOKENS // 32 + 2))]
Code = Annotated[str, Meta(max_length=64)]
Logprob = Annotated[float, Meta(ge=-9999, le=0)]
Piece = Annotated[bytes, Meta(max_length=256)]


# A job: payer to host ------------------------------------------------------------------------------------------------


class Open(ElderOpen, frozen=True, tag="open"):
    """Begin an attempt under the offer with this digest; `emitted` holds the tokens that earlier attempts delivered.

    `signer` is the address whose vouchers pay; `lock` and `voucher` are packed and may be empty when nothing is new.
    A job of the band BATCH may be stopped at a token edge for one that is INTERACTIVE; `preempted` is how often it was.
    `proof` is the packed receipt of the host that read the prompt; with `early` a receipt comes with the first tokens.
    Both only to who names the feature `proof`: others read an ElderOpen.
    """

    proof: Annotated[bytes, Meta(max_length=1024)] = b""
    early: bool = False


class BareOpen(Open, frozen=True, tag="bare"):
    """As `open`, from a payer whose stream of sheaves has this name: the receipt of `done` may come bare, its words
    alone, and be signed there. Only to who has said on that stream that it binds."""

    sheaves: Annotated[bytes, Meta(max_length=32)] = b""


class Pay(Wire, frozen=True, tag="pay"):
    """A higher voucher for the channel of this job."""

    voucher: Packed


class Cancel(Wire, frozen=True, tag="cancel"):
    """Stop at the next token edge; the host still signs for what it delivered."""


ToHost = Open | BareOpen | Pay | Cancel


# Sheaves: payer to host, then host to payer ---------------------------------------------------------------------------


class WantSheaves(Wire, frozen=True, tag="want_sheaves"):
    """The last receipts of jobs that name this stream may be sent before they are signed."""

    name: Annotated[bytes, Meta(max_length=32)]


class Binding(Wire, frozen=True, tag="binding"):
    """The host knows how."""


class BoundReceipts(Wire, frozen=True, tag="bound"):
    """One signature under the receipts with these digests, in the order in which they were sent (sheaves.spread)."""

    signature: Annotated[bytes, Meta(min_length=65, max_length=65)]
    digests: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=1024)]


FromBinder = Binding | BoundReceipts


# A job: host to payer ------------------------------------------------------------------------------------------------


class Accept(Wire, frozen=True, tag="accept"):
    """The attempt runs. `prompt_hash` is transcript.prompt_hash of the rendered prompt."""

    prompt_tokens: Count
    prompt_hash: Hash


class Refuse(Wire, frozen=True, tag="refuse"):
    """An expected no, with its reason. `retry_ms` is 0 when waiting does not help."""

    code: Code
    message: Line
    retry_ms: Count = 0


class Tokens(Wire, frozen=True, tag="t"):
    """Output tokens from absolute index `first` on. `rolling` is the rolling hash after the last of them."""

    first: Count
    ids: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=4096)]
    text: Annotated[str, Meta(max_length=MAX_FRAME // 2)]
    rolling: Hash


class Chance(Wire, frozen=True):
    """How likely a token was: the natural logarithm of its share by the model's own logits, nothing shaped or scaled.

    `top` are the likeliest tokens at its place, best first, as (logarithm, bytes).
    """

    logprob: Logprob
    piece: Piece
    top: Annotated[tuple[tuple[Logprob, Piece], ...], Meta(max_length=MAX_LIKELY)] = ()


class WeighedTokens(Tokens, frozen=True, tag="tw"):
    """Tokens of a chat that asked for `logprobs`: one chance for each id. No receipt covers them."""

    chances: Annotated[tuple[Chance, ...], Meta(max_length=4096)] = ()


class Vectors(Wire, frozen=True, tag="vectors"):
    """Rows of float32 (little endian) from row `first` on."""

    first: Count
    width: Annotated[int, Meta(ge=1, le=2**16)]
    data: Annotated[bytes, Meta(min_length=4, max_length=MAX_FRAME - 256)]


class Chunk(Wire, frozen=True, tag="chunk"):
    """The signed receipt so far: the host is bound chunk by chunk.

    `marks` are what an engine with states adds (transcript.commitment): the prompt's with the first receipt that has
    tokens, and those of all chunks that were not whole at the receipt before."""

    receipt: Packed
    marks: Marks = b""


class Done(Wire, frozen=True, tag="done"):
    """The attempt ended as it should; the receipt says how. `marks` as in Chunk."""

    receipt: Packed
    marks: Marks = b""


class Fail(Wire, frozen=True, tag="fail"):
    """The host could not go on. What it delivered stays due; another host may resume."""

    code: Code
    message: Line


ToPayer = Accept | Refuse | Tokens | WeighedTokens | Vectors | Chunk | Done | Fail


# Offers and heartbeats -----------------------------------------------------------------------------------------------


class OfferDetail(Wire, frozen=True):
    """What an Offer's `detail` hash covers: how to reach the host, and what stands behind the offer.

    `credit` is how many output tokens the host delivers ahead of payment. `device` is the class of what the engine
    computes on, `region` where it stands ("eu-de": from the large to the small), as the host says ("" unknown): words
    to choose by, never a proof."""

    name: Annotated[str, Meta(max_length=128)]
    endpoints: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=8)]
    operations: Annotated[tuple[Code, ...], Meta(max_length=8)]
    engine: Code
    numeric: Code
    tier: Code
    context: Count
    credit: Count
    program: Code
    device: Code
    region: Code = ""


class Advert(Wire, frozen=True, tag="offer"):
    """An Offer, packed, and its detail."""

    offer: Packed
    detail: OfferDetail


class CoordinatorDetail(Wire, frozen=True):
    """How to reach a coordinator: direct-link endpoints for nodes, and the HTTP address for people."""

    endpoints: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=8)]
    http: Annotated[str, Meta(max_length=256)]
    program: Code


class Notice(Wire, frozen=True, tag="coordinator"):
    """A CoordinatorAd, packed, and its detail."""

    ad: Packed
    detail: CoordinatorDetail


class Hello(Wire, frozen=True, tag="hello"):
    """A host introduces itself on the heartbeat stream with all its offers; they replace those it sent before."""

    version: int
    adverts: Annotated[tuple[Advert, ...], Meta(max_length=64)]


class Beat(Wire, frozen=True, tag="beat"):
    """The host is alive. `free` of its slots are free, `waiting` requests queue. The link says who it is."""

    free: Count
    waiting: Count


ToIndex = Hello | Beat


class WantOffers(Wire, frozen=True, tag="want_offers"):
    """Ask a peer for the adverts it knows."""

    agent: Annotated[bytes, Meta(max_length=32)] = b""


class Adverts(Wire, frozen=True, tag="adverts"):
    adverts: Annotated[tuple[Advert, ...], Meta(max_length=256)]


# Blobs and publishing ------------------------------------------------------------------------------------------------


class GetBlob(Wire, frozen=True, tag="get"):
    """Ask for `length` bytes of a blob from `offset` on; several may be asked on one stream, one after the other."""

    digest: Hash
    offset: Annotated[int, Meta(ge=0, le=2**53)]
    length: Annotated[int, Meta(ge=1, le=BLOB_PART)]


class BlobPart(Wire, frozen=True, tag="part"):
    """`size` is that of the whole blob."""

    size: Annotated[int, Meta(ge=0, le=2**53)]
    data: Annotated[bytes, Meta(max_length=BLOB_PART)]


class NoBlob(Wire, frozen=True, tag="absent"):
    digest: Hash


FromStore = BlobPart | NoBlob


class Publish(Wire, frozen=True, tag="publish"):
    """Ask a coordinator to hold an agent; it fetches the blobs it lacks from the asking peer, over the same link.

    `paper` is a packed release.PackageSignature of the publisher, or empty.
    """

    agent: Hash
    terms: Hash
    paper: OptionalPaper = b""


class Move(Wire, frozen=True, tag="move"):
    """A packed release.ReleasePointer: hosts of the lineage should run the agent that it names, held before."""

    pointer: Packed


class Withdraw(Wire, frozen=True, tag="withdraw"):
    """A packed release.Yank, and the words that its `reason` hashes."""

    yank: Packed
    reason: Line


class Held(Wire, frozen=True, tag="held"):
    """The coordinator holds the whole package and gives it to hosts."""

    agent: Hash


class Kept(Wire, frozen=True, tag="kept"):
    """The coordinator keeps the pointer or yank of this sequence, and tells who follows the lineage."""

    agent: Hash
    sequence: Sequence


FromPublisher = Publish | Move | Withdraw
ToPublisher = Held | Kept | Refuse


# Releases ------------------------------------------------------------------------------------------------------------


class Follow(Wire, frozen=True, tag="follow"):
    """Tell me the pointers and yanks of these lineages, now and on every change; replaces what was asked before."""

    lineages: Annotated[tuple[Hash, ...], Meta(max_length=256)]


class Pointer(Wire, frozen=True, tag="pointer"):
    """A packed release.ReleasePointer."""

    packed: Packed


class Yanked(Wire, frozen=True, tag="yanked"):
    """A packed release.Yank, and the words that its `reason` hashes. All of a lineage come before its pointer."""

    packed: Packed
    reason: Line


FromFollower = Follow
ToFollower = Pointer | Yanked


# Settlement and audits -----------------------------------------------------------------------------------------------


class Collect(Wire, frozen=True, tag="collect"):
    """A host asks a payer for its latest vouchers; the link says who asks."""


class Vouchers(Wire, frozen=True, tag="vouchers"):
    """For each channel the latest packed voucher and, when it may not be on chain yet, the packed lock (or empty).

    A full page is followed by another one.
    """

    vouchers: Annotated[
        tuple[tuple[Packed, Annotated[bytes, Meta(max_length=1024)]], ...], Meta(max_length=VOUCHER_PAGE)
    ]


class GetCase(Wire, frozen=True, tag="get_case"):
    """A juror asks the challenger for the evidence of a dispute."""

    dispute: Hash


class Case(Wire, frozen=True, tag="case"):
    """All that a re-run needs. `emitted` holds the job's output tokens up to the end of the audited attempt, `marks`
    what stands in its commitment for the sketch (transcript.commitment)."""

    receipt: Packed
    request: Request
    emitted: Annotated[tuple[Count, ...], Meta(max_length=MAX_TOKENS)] = ()
    vectors: Annotated[bytes, Meta(max_length=MAX_FRAME - 65536)] = b""
    marks: Marks = b""


class GetOpening(Wire, frozen=True, tag="get_opening"):
    """Ask a host for the sketch that it committed to in this attempt. Answered by Sketch frames, or Refuse."""

    job: Hash
    attempt: Count


class Sketch(Wire, frozen=True, tag="sketch"):
    """A part of the sketch of an attempt: SKETCH_BYTES a position, from the prompt's first to that of the last token
    but one. `left` bytes follow in further frames. For an embedding the vectors stand in its place."""

    data: Annotated[bytes, Meta(max_length=MAX_FRAME // 2)]
    left: Annotated[int, Meta(ge=0, le=2**26)] = 0


class Unopened(Wire, frozen=True, tag="unopened"):
    """The host has not opened its sketch: the auditor judges without it."""

    reason: Line


class Check(Wire, frozen=True, tag="check"):
    """Ask a node to audit a case now, off chain. It answers Sealed; then the opening follows (Sketch or Unopened)."""

    case: Case


class Sealed(Wire, frozen=True, tag="sealed"):
    """The re-run is done and its numbers are fixed (audit.seal), before the auditor has seen the host's."""

    digest: Hash


class Finding(Wire, frozen=True, tag="finding"):
    """What a re-run found. `verdict` is 1 honest, 2 guilty, 0 cannot say; `worst` is the largest deviation seen.

    Units of `worst`: logits for chat, relative difference for vectors and sketches. `code` and `reason` name the test
    that decided. What follows is for the host's long record: `flips` tokens were not the auditor's own choice,
    `clipped` is the sum of their margins, each cut at audit.CLIP logits; `chunk` and `prompt` are the largest mean
    error of a chunk of the sketch, and the largest error of a prompt position (0 when not compared). `suspect` says
    that an honest host is rarely that far off, which proves nothing by itself.
    """

    receipt: Hash
    verdict: Annotated[int, Meta(ge=0, le=2)]
    code: Code
    reason: Line
    worst: float = 0.0
    position: Count = 0
    checked: Count = 0
    flips: Count = 0
    clipped: float = 0.0
    chunk: float = 0.0
    prompt: float = 0.0
    suspect: bool = False


class Reveal(Wire, frozen=True, tag="reveal"):
    """What the seal hid, after the Finding: the salt and a little-endian float32 margin an output token; the auditor's
    own sketch follows in Sketch frames."""

    salt: Hash
    margins: Annotated[bytes, Meta(max_length=4 * MAX_TOKENS)]


class Fee(Wire, frozen=True, tag="fee"):
    """What a finding is paid with, on its stream after the last Sketch: a voucher of the asker's own channel with the
    auditor, and the lock behind it when it may not be on chain yet. Only to who names the feature audit_fee."""

    voucher: Packed
    lock: OptionalPaper = b""


FromChallenger = Case | Sketch | Unopened | Refuse
ToAuditor = Check | Sketch | Unopened | Fee
FromAuditor = Sealed | Finding | Reveal | Sketch | Refuse
FromOpener = Sketch | Refuse


_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    return _encoder.encode(message)


def decode(kind: object, data: bytes) -> object:
    """Read one message of the union `kind`. Raises BadMessage. On hot paths keep a msgspec Decoder instead."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage(f"Not a message of this protocol: {error}.") from error


def request_hash(request: Request) -> Digest:
    """What a receipt's `request` field holds."""
    return sha256(_encoder.encode(request))


def finding_hash(finding: Finding) -> Digest:
    """What a juror reveals on chain as evidence."""
    return sha256(_encoder.encode(finding))
