// One request on its way through as many gateways as it takes: what each gives of the answer is handed on once.
//
// What was handed on, and what to ask the next one for, is continued.mjs's; this module owns the connections and the
// clock. It is lading.routes.passage in JavaScript.

import { Continued } from "./continued.mjs";

const PAUSES = [200, 500, 1000, 2000];
const MOST_GATEWAYS = 8;
// What another gateway, or the same one in a moment, may answer differently.
const PASSING = [429, 502, 503, 504];
const NEVER = { then() {} };
const QUIET = Symbol("quiet");
const CUT = "Ask again; only what was delivered was charged.";

/** In milliseconds. */
export const LIMITS = {
  /** For how long an answer that has begun is tried to be gone on with. */
  reconnect: 20_000,
  /** A gateway that is silent for so long is asked on another connection whether it lives, and has so long for that. */
  quiet: 5_000,
  probe: 5_000,
  /** Who sends for so long what is no part of an answer is left, where there is another. */
  stuck: 60_000,
};

/** The answer is not whole; the message is what a caller reads when nobody can go on. */
class Broken extends Error {}

/** A gateway's answer that is no success, as it came. */
export class Refused extends Error {
  constructor(root, response, text) {
    super(`The coordinator at ${root} answered ${response.status}.`);
    [this.response, this.text] = [response, text];
  }
}

/** One coordinator's address, given with or without /v1, and the key that it gave. Throws TypeError. */
export class Gateway {
  constructor(baseURL, apiKey) {
    const url = new URL(baseURL);
    if (!["http:", "https:"].includes(url.protocol)) throw new TypeError(`${baseURL} is no coordinator's address.`);
    this.root = url.href.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.apiKey = apiKey;
    this.headers([]);
  }

  headers(more) {
    const made = new Headers(more);
    made.set("authorization", `Bearer ${this.apiKey}`);
    return made;
  }
}

/** `gateways` grows with those that are learnt of; `sent` is what goes with each request to them, `signal` ends all. */
export class Passage {
  /** What is here, and the head of the last gateway's answer. */
  answer = new Continued();
  response = null;

  constructor({ gateways, fetch, limits, onMove }, path, asked, sent) {
    Object.assign(this, { gateways, fetch, limits, onMove, path, asked, sent });
  }

  /** The events of the answer, each with the empty line behind it. Nothing is handed out or charged twice.
   *
   * Throws Refused where nothing of the answer came and a gateway said why, the signal's reason where the caller left,
   * else an Error that says what happened. */
  async *blocks() {
    const { answer, gateways } = this;
    let [until, turn] = [performance.now() + this.limits.reconnect, 0];
    for (;;) {
      const [gateway, before] = [gateways[turn % gateways.length], answer.progress];
      try {
        yield* this.#read(gateway);
        return;
      } catch (error) {
        this.sent.signal.throwIfAborted();
        if (!(error instanceof Broken)) throw error;
        if (answer.progress > before) {
          [until, turn] = [performance.now() + this.limits.reconnect, gateways.indexOf(gateway)];
        }
        turn += 1;
        if (!this.#mayGoOn(turn, performance.now() < until)) throw error.cause instanceof Refused ? error.cause : error;
        this.onMove?.({ reason: error.message, url: gateways[turn % gateways.length].root });
      }
      const round = Math.min(Math.floor(turn / gateways.length), PAUSES.length);
      if (turn % gateways.length === 0) await within(NEVER, PAUSES[round - 1], this.sent.signal);
    }
  }

  /** An answer that has not begun is asked for once of each gateway, one that has begun until time is up. */
  #mayGoOn(turn, inTime) {
    return this.answer.able && (this.answer.begun ? inTime : turn < this.gateways.length);
  }

  /** What one gateway gives of the answer. Throws Broken where another one could go on. */
  async *#read(gateway) {
    const { answer } = this;
    this.sent.signal.throwIfAborted();
    const stop = new AbortController();
    const leave = () => stop.abort(this.sent.signal.reason);
    this.sent.signal.addEventListener("abort", leave);
    try {
      const response = await this.#ask(gateway, stop.signal);
      const [reader, decoder] = [response.body.getReader(), new TextDecoder("utf-8", { ignoreBOM: true })];
      let last = performance.now();
      for (;;) {
        const { done, value } = await this.#whileItLives(gateway, reader.read());
        if (done) break;
        const ready = answer.feed(decoder.decode(value, { stream: true }));
        yield* ready;
        if (answer.fault !== null) throw nonsense(gateway, answer.fault.message);
        if (ready.length > 0) last = performance.now();
        if (performance.now() - last > this.limits.stuck && this.gateways.length > 1) {
          throw new Broken(`${gateway.root} sends, but no answer. ${CUT}`);
        }
        if (answer.failed !== null) {
          yield this.#gaveUp();
          return;
        }
      }
    } catch (error) {
      if (error instanceof Broken || error instanceof Refused || this.sent.signal.aborted) throw error;
      if (!answer.done) throw new Broken(unreachable(gateway, error), { cause: error });
    } finally {
      this.sent.signal.removeEventListener("abort", leave);
      stop.abort();
    }
    yield* answer.end();
    if (answer.able && !answer.done) throw new Broken(`The answer from ${gateway.root} broke off. ${CUT}`);
  }

  /** The head of what a gateway answers. Throws Refused, or Broken where it may pass. */
  async #ask(gateway, signal) {
    const ask = async (headers) => {
      const body = JSON.stringify(this.answer.body(this.asked));
      const sent = { ...this.sent, method: "POST", headers: gateway.headers(headers), body, signal };
      const response = await this.#whileItLives(gateway, this.fetch(gateway.root + this.path, sent));
      return response.ok ? response : this.#refusal(gateway, response);
    };
    const followed = new Headers(this.sent.headers);
    followed.set("x-lading-ids", "2");
    let response = await ask(followed);
    // One that is older than this way of telling refuses the header: asked without it, it answers as it always did.
    if (response instanceof Refused && !this.answer.begun && names(response, "x-lading-ids")) {
      response = await ask(this.sent.headers);
    }
    if (response instanceof Refused) {
      throw this.#passing(response) ? new Broken(response.message, { cause: response }) : response;
    }
    this.#learn(gateway, response);
    try {
      this.answer.head(response.headers);
    } catch (error) {
      throw nonsense(gateway, error.message);
    }
    const kind = response.headers.get("content-type") ?? "";
    if (!/^(text\/event-stream|application\/json)/.test(kind)) throw nonsense(gateway, `it is '${kind.slice(0, 40)}'`);
    this.response = response;
    return response;
  }

  async #refusal(gateway, response) {
    return new Refused(gateway.root, response, await this.#whileItLives(gateway, response.text()));
  }

  /** Whether another gateway, or the same one later, may answer it. One that has just come back learns its models and
   * hosts in its first seconds. What one refuses of an answer that has begun, another may not. */
  #passing({ response: { status } }) {
    const { begun } = this.answer;
    const passing = PASSING.includes(status) || (begun && status === 404);
    return (passing && begun) || ((passing || begun) && this.gateways.length > 1);
  }

  /** A gateway may name others at which its own keys are good: it could spend from them anyway. */
  #learn(gateway, response) {
    for (const url of (response.headers.get("x-lading-gateways") ?? "").split(",").filter((one) => one.trim() !== "")) {
      const found = new Gateway(url.trim(), gateway.apiKey);
      const known = this.gateways.some((one) => one.root === found.root);
      if (!known && this.gateways.length < MOST_GATEWAYS) this.gateways.push(found);
    }
  }

  /** The event that says so, where nobody else could go on. */
  #gaveUp() {
    const { failed, shown } = this.answer;
    if (failed.code === "job_lost" && this.gateways.length > 1) throw new Broken(failed.message);
    return shown;
  }

  /** A program that was stopped, or a machine that is gone without a word, breaks no connection: so a gateway that is
   * silent is asked for something else. Throws Broken. */
  async #whileItLives(gateway, awaited) {
    for (;;) {
      const first = await within(awaited, this.limits.quiet, this.sent.signal);
      if (first !== QUIET) return first;
      await this.#probe(gateway);
    }
  }

  async #probe(gateway) {
    try {
      const signal = AbortSignal.timeout(this.limits.probe);
      const sent = { ...this.sent, method: "GET", headers: gateway.headers([]), signal };
      await (await this.fetch(`${gateway.root}/v1/models`, sent)).arrayBuffer();
    } catch (error) {
      const why = `The coordinator at ${gateway.root} is silent, on a second connection too.`;
      throw new Broken(`${why} ${CUT}`, { cause: error });
    }
  }
}

export function unreachable(gateway, error) {
  const why = error.cause?.message || error.cause?.code || error.message;
  return `The coordinator at ${gateway.root} cannot be reached: ${why}.`;
}

function nonsense(gateway, why) {
  return new Broken(`What ${gateway.root} answers is not a Lading coordinator's: ${why}.`);
}

/** Whether a refusal is about this parameter. */
function names(refused, parameter) {
  try {
    return JSON.parse(refused.text).error.param === parameter;
  } catch {
    return false;
  }
}

/** What `awaited` comes to, or QUIET after so many milliseconds. Throws the signal's reason as soon as there is one:
 * not every fetch ends a read that is waited for when its request is aborted. */
function within(awaited, milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const over = (settle, value) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
      settle(value);
    };
    const leave = () => over(reject, signal.reason);
    const timer = setTimeout(over, milliseconds, resolve, QUIET);
    signal.addEventListener("abort", leave);
    awaited.then((value) => over(resolve, value), (error) => over(reject, error));
  });
}
