// OpenAI's package over several coordinators, as the `fetch` that it is given: the package is used as it is.
//
//     const through = fetchThrough([{ baseURL: "http://a.example:8600", apiKey: "lk_a…" }, …]);
//     const client = new OpenAI({ baseURL: "http://a.example:8600/v1", apiKey: "unused", fetch: through });
//
// It is lading.openai in JavaScript. Each request has the key of the coordinator that it goes to.

import { isObject } from "./continued.mjs";
import { Gateway, LIMITS, Passage, Refused, unreachable } from "./passage.mjs";

const VECTORS = "/v1/embeddings";
const ANSWERS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", VECTORS];
// With these a request has not arrived: whoever it was for has done and charged nothing.
const NEVER_ARRIVED = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"];
// Of a request these are ours, of a reply the framing of what came.
const NOT_SENT = ["host", "authorization", "content-length", "connection", "transfer-encoding", "accept-encoding"];
const NOT_TOLD = ["content-type", "content-length", "content-encoding", "transfer-encoding", "connection"];
const KEPT_ANSWERS = 64;

/** A `fetch` that asks these coordinators; see openai.d.ts. Throws TypeError for what is no address or no key. */
export function fetchThrough(gateways, { fetch = globalThis.fetch, onMove, ...limits } = {}) {
  if (gateways.length === 0) throw new TypeError("Name at least one coordinator.");
  const made = gateways.map((one) => new Gateway(one.baseURL, one.apiKey));
  const world = { gateways: made, fetch: (...given) => fetch(...given), limits: { ...LIMITS, ...limits }, onMove };
  const kept = new Map();

  const through = async (input, init = {}) => {
    const request = new Request(input, init);
    const { method, signal } = request;
    const { pathname, search } = new URL(request.url);
    const { body: _, ...more } = init; // what only this platform's fetch knows stays, such as a dispatcher
    const sent = { ...more, method, headers: without(request.headers, NOT_SENT), signal };
    const body = ["GET", "HEAD"].includes(method) ? undefined : await request.arrayBuffer();
    const asked = method === "POST" && ANSWERS.includes(pathname) ? object(body) : null;
    if (asked === null) return forward(world, pathname + search, { ...sent, body });
    return answer(world, pathname, pathname === VECTORS ? asked : seeded(asked), sent, kept);
  };

  through.receipts = async (job) => {
    const found = kept.get(job);
    if (found !== undefined) return found.receipts();
    const response = await forward(world, `/lading/v1/receipts/${job}`, { method: "GET", headers: new Headers() });
    if (!response.ok) throw new Error(`The coordinator has no receipts of ${job}: it answered ${response.status}.`);
    return response.json();
  };
  return through;
}

async function answer(world, path, asked, sent, kept) {
  const left = new AbortController();
  const leave = () => left.abort(sent.signal.reason);
  if (sent.signal.aborted) leave();
  sent.signal.addEventListener("abort", leave);
  const passage = new Passage(world, path, asked, { ...sent, signal: left.signal });
  const events = keeping(passage, kept, () => sent.signal.removeEventListener("abort", leave));
  try {
    const first = await events.next();
    if (asked.stream) return reply(passage, 200, "text/event-stream; charset=utf-8", flow(first, events, left));
    let whole = first.value ?? "";
    for await (const event of events) whole += event;
    const status = passage.answer.failed === null ? 200 : 502;
    const made = reply(passage, status, "application/json", whole.replace(/^data: /, "").trimEnd());
    // The head that the gateway sent was of a stream: nobody knew yet.
    if (passage.answer.follows) made.headers.set("x-lading-cost", String(passage.answer.cost));
    return made;
  } catch (error) {
    if (error instanceof Refused) {
      const { status, headers } = error.response;
      const kind = headers.get("content-type") ?? "application/json";
      return new Response(error.text, { status, headers: told(headers, kind) });
    }
    if (left.signal.aborted) throw error;
    throw new TypeError(error.message, { cause: error }); // as fetch does where nobody is reached
  }
}

/** The events of an answer; one that came from several gateways is kept: none of them knows all that was signed. */
async function* keeping(passage, kept, over) {
  try {
    yield* passage.blocks();
  } finally {
    over();
    const { answer: found } = passage;
    if (found.moved) kept.set(found.jobs[0], found);
    if (kept.size > KEPT_ANSWERS) kept.delete(kept.keys().next().value);
  }
}

/** The events as a body; whoever leaves it ends the request within one step. */
function flow(first, events, left) {
  const encoder = new TextEncoder();
  let next = first;
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = next ?? (await events.next());
      next = null;
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    async cancel(reason) {
      left.abort(reason);
      await events.return();
    },
  });
}

/** What is no answer goes to the first coordinator that can be reached. */
async function forward({ gateways, fetch }, path, sent) {
  for (const gateway of gateways) {
    try {
      return await fetch(gateway.root + path, { ...sent, headers: gateway.headers(sent.headers) });
    } catch (error) {
      sent.signal?.throwIfAborted();
      const again = ["GET", "HEAD"].includes(sent.method) || NEVER_ARRIVED.includes(error.cause?.code);
      if (!again || gateway === gateways.at(-1)) throw new TypeError(unreachable(gateway, error), { cause: error });
    }
  }
}

function reply(passage, status, kind, body) {
  return new Response(body, { status, headers: told(passage.response?.headers ?? new Headers(), kind) });
}

function told(headers, kind) {
  const made = without(headers, NOT_TOLD);
  made.set("content-type", kind);
  return made;
}

function without(headers, names) {
  const made = new Headers(headers);
  for (const name of names) made.delete(name);
  return made;
}

/** The JSON object that a body is, or null. */
function object(body) {
  try {
    const found = JSON.parse(new TextDecoder().decode(body));
    return isObject(found) ? found : null;
  } catch {
    return null;
  }
}

/** With a seed of its own, where there is none, so that every gateway would give the same answer. */
function seeded(asked) {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return { ...asked, seed: asked.seed ?? (high % 2 ** 21) * 2 ** 32 + low };
}
