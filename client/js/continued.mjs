// An answer that may come from several gateways, one after the other: what is here, and how to ask for the rest.
//
// The rules of docs/consuming.md, "When a coordinator is gone", as lading.core.continued has them in Python: a test
// holds the two together. Pure: no clock, no I/O. Amounts are wei, as BigInt.

const MARK = ": lading ";
const MOST_CHOICES = 16;
const MOST_HELD = 32 * 1024 * 1024;
const MOST_TOKENS = 2 ** 17;
const MOST_COUNT = 2 ** 32 - 1;
const CHUNK_TOKENS = 32;
const WORD = 32;
// Where these fields are in a packed receipt, in words of 32 bytes (docs/protocol.md, "Receipt").
const [JOB, ATTEMPT, FIRST, OUTPUT_TOKENS, RECEIPT_WORDS] = [0, 1, 8, 10, 19];

/** What an answer is as long as `feed` and `head` are given what gateways send. */
export class Continued {
  /** Each choice as far as it is here. */
  choices = [];
  /** All jobs and hosts so far, in order. */
  jobs = [];
  hosts = [];
  /** What was wrong with what the gateway that is read sent. */
  fault = null;
  /** The error (code, message) with which it gave up, and the event that said so. */
  failed = null;
  shown = "";

  #receipts = new Map();
  #agent = "";
  #created = 0;
  #gateways = 0;
  #events = 0;
  #paid = 0n;
  #costs = new Map();
  #follows = false;
  #untold = false;
  #buffer = "";
  #told = null;
  #held = [];
  #size = 0;

  /** Whether it came from more than one gateway. */
  get moved() {
    return this.#gateways > 1;
  }

  /** Whether a part of the answer is here, so that asking anew would repeat or charge it twice. */
  get begun() {
    return this.#untold || this.#events > 0 || this.choices.some((one) => one.ids.length > 0);
  }

  /** Whether another gateway can go on: it is known what all that was handed out is. */
  get able() {
    return !this.#untold;
  }

  /** Whether the gateway that is read says what its events are. */
  get follows() {
    return this.#follows;
  }

  /** Grows with all that comes. */
  get progress() {
    return this.choices.reduce((sum, one) => sum + one.ids.length, this.#events);
  }

  get done() {
    return this.choices.length > 0 && this.choices.every((one) => one.finish !== "");
  }

  /** Wei, of all gateways. */
  get cost() {
    return [...this.#costs.values()].reduce((sum, one) => sum + one, this.#paid);
  }

  /** What to ask a gateway for; for one that comes later, only the rest of the same answer. */
  body(asked) {
    [this.#paid, this.#costs] = [this.cost, new Map()];
    [this.#buffer, this.#told, this.#held, this.#size] = ["", null, [], 0]; // only what was handed out stays
    [this.fault, this.failed] = [null, null];
    if (!this.begun) return { ...asked };
    const lading = {
      agent: this.#agent,
      job: this.jobs[0],
      created: this.#created,
      events: this.#events,
      choices: this.choices.map((one) => ({ ...one })),
      paid: String(this.#paid),
      jobs: [...this.jobs],
    };
    return { ...asked, lading };
  }

  /** The head of an answer, as Headers. Throws where one that goes on with it does not say what its events are. */
  head(headers) {
    this.#follows = headers.get("x-lading-ids") === "2";
    if (!this.#follows) {
      if (this.begun) throw new Error("it does not know how to go on with an answer");
      return;
    }
    const most = listed(headers, "x-lading-max-tokens").map((one) => count(Number(one), MOST_TOKENS));
    if (!this.begun) {
      this.#agent = headers.get("x-lading-agent") ?? "";
      this.#created = count(Number(headers.get("x-lading-created") ?? NaN), 2 ** 40 - 1);
      const empty = { ids: [], text: "", chances: [], finish: "", prompt: 0, proof: "" };
      this.choices = most.map((one) => ({ most: one, ...structuredClone(empty) }));
      [this.jobs, this.#gateways] = [[], 0];
    }
    this.#gateways += 1;
    this.jobs.push(...listed(headers, "x-lading-job"));
    for (const one of listed(headers, "x-lading-host")) if (!this.hosts.includes(one)) this.hosts.push(one);
  }

  /** Text of the stream; the events that may be handed out now, each with the empty line behind it.
   *
   * What no gateway sends ends it (`fault`): what was right before that counts. */
  feed(text) {
    this.#buffer += text;
    this.#size += text.length;
    const ready = [];
    try {
      // A long answer in one line is looked through once.
      for (const block of text.includes("\n") && this.fault === null ? this.#blocks() : []) {
        const found = this.#block(block);
        if (found.length > 0) this.#size = 0;
        ready.push(...found);
      }
      if (this.#size > MOST_HELD) throw new Error("an event of it has no end");
    } catch (error) {
      this.fault = error;
    }
    return ready;
  }

  /** The answer is over: what another server sent last, which may lack the empty line. */
  end() {
    const left = this.#buffer.replace(/^\n+|\n+$/g, "");
    this.#buffer = "";
    if (this.#follows || left === "") return [];
    this.#untold = true;
    return [`${left}\n\n`];
  }

  /** What hosts signed through all gateways, as `lading receipt verify` reads it. */
  receipts() {
    const signed = [...this.#receipts.values()];
    signed.sort((a, b) => this.jobs.indexOf(a.job) - this.jobs.indexOf(b.job));
    return {
      job: this.jobs[0],
      jobs: [...this.jobs],
      receipts: signed.map((one) => hex(one.packed)),
      marks: signed.map((one) => `0x${one.marks.map((mark) => hex(mark).slice(2)).join("")}`),
      ids: [...this.choices[0].ids],
    };
  }

  #blocks() {
    const blocks = this.#buffer.replaceAll("\r\n", "\n").split("\n\n");
    this.#buffer = blocks.pop();
    return blocks;
  }

  #block(block) {
    let rest = block;
    if (block.startsWith(MARK)) {
      if (this.#told !== null) throw new Error("it broke off a run of events");
      const end = block.indexOf("\n");
      this.#told = readTold(block.slice(MARK.length, end < 0 ? undefined : end));
      rest = end < 0 ? "" : block.slice(end + 1);
    } else if (this.#told === null) {
      return this.#other(block);
    }
    if (rest !== "") this.#held.push(`${rest}\n\n`);
    if (this.#held.length < this.#told.events) return [];
    if (this.#held.length > this.#told.events) throw new Error("it sent an event that it did not announce");
    const [held, told] = [this.#held, this.#told];
    [this.#held, this.#told] = [[], null];
    this.#take(told);
    return held;
  }

  /** An event without a word about what it is: an error of a gateway that follows, anything of another server. */
  #other(block) {
    if (!this.#follows) {
      this.#untold = true;
      return [`${block}\n\n`];
    }
    const data = block.split("\n").find((line) => line.startsWith("data: "));
    if (data === undefined) return [];
    const { error } = JSON.parse(data.slice(6));
    if (error === undefined) throw new Error("it sent an event without a word about what it is");
    [this.failed, this.shown] = [{ code: String(error.code), message: String(error.message) }, `${block}\n\n`];
    return [];
  }

  /** A run is here as a whole. What is wrong in it is found before any of it counts. */
  #take(told) {
    if (told.events > 0 && told.ids.length === 0 && told.finish === "") {
      this.#events += told.events;
      return;
    }
    const choice = this.choices[told.index];
    if (choice === undefined) throw new Error(`it has no choice ${told.index}`);
    const there = choice.ids.length;
    if (told.ids.length > 0 && told.first !== there) {
      throw new Error(`it sent token ${told.first} where ${there} is next`);
    }
    if (there + told.ids.length > choice.most) {
      throw new Error(`it sent more than the ${choice.most} tokens that it said`);
    }
    if (told.receipt !== "") this.#sign(choice, told);
    this.#events += told.events;
    if (told.ids.length > 0) {
      for (const id of told.ids) choice.ids.push(id);
      for (const chance of told.chances) choice.chances.push(chance);
      choice.text += told.text;
    }
    choice.prompt = told.prompt || choice.prompt;
    choice.finish = told.finish || choice.finish;
    const before = this.#costs.get(told.index) ?? 0n;
    this.#costs.set(told.index, told.cost > before ? told.cost : before);
  }

  /** Keeps the last receipt of each attempt, with the marks of all that were before it. */
  #sign(choice, told) {
    const packed = bytes(told.receipt);
    if (packed.length <= RECEIPT_WORDS * WORD) throw new Error("it sent a receipt that is cut short");
    const name = hex(packed.subarray(0, (ATTEMPT + 1) * WORD));
    const before = this.#receipts.get(name);
    const signed = before === undefined ? 0 : number(before.packed, OUTPUT_TOKENS);
    const kept = signed > 0 ? before.marks.slice(0, 1 + Math.floor(signed / CHUNK_TOKENS)) : [];
    const [first, added, marks] = [number(packed, FIRST), bytes(told.marks), []];
    for (let at = 0; at < added.length; at += WORD) marks.push(added.subarray(at, at + WORD));
    const job = hex(packed.subarray(JOB * WORD, (JOB + 1) * WORD));
    if (!this.jobs.includes(job)) throw new Error("it sent a receipt of another job");
    this.#receipts.set(name, { job, packed, marks: [...kept, ...marks] });
    if (choice.proof === "" && first === 0) choice.proof = told.receipt;
  }
}

/** What the next events of a stream are. Throws for what no gateway says. */
function readTold(text) {
  const told = JSON.parse(text);
  if (!isObject(told)) throw new Error("it told nothing of its events");
  const { index = 0, first = 0, ids = [], events = 0, prompt = 0, cost = "0" } = told;
  const { text: said = "", chances = [], finish = "", receipt = "", marks = "" } = told;
  for (const one of [first, events, prompt]) count(one, MOST_COUNT);
  count(index, MOST_CHOICES - 1);
  for (const one of array(ids)) count(one, MOST_COUNT);
  for (const one of array(chances)) checkChance(one);
  if (![said, receipt, marks].every((one) => typeof one === "string")) throw new Error("it sent a text that is none");
  if (typeof cost !== "string" || !/^\d{1,30}$/.test(cost)) throw new Error("it sent a cost that is none");
  if (!["", "stop", "length"].includes(finish)) throw new Error("it sent an end that is none");
  const wei = BigInt(cost);
  return { index, first, ids, events, prompt, cost: wei, text: said, chances, finish, receipt, marks };
}

/** It is only handed on: what is wrong in it would make the next gateway refuse all that is right. */
function checkChance(chance) {
  const [logprob, piece, top = []] = array(chance);
  for (const [likely, bytes] of [[logprob, piece], ...array(top)]) {
    if (!(typeof likely === "number" && likely >= -9999 && likely <= 0 && typeof bytes === "string")) {
      throw new Error("it sent a likelihood that is none");
    }
  }
}

/** Whether a value out of JSON is an object, not a list. */
export function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function array(value) {
  if (!Array.isArray(value)) throw new Error("it sent a list that is none");
  return value;
}

function count(value, most) {
  if (!Number.isInteger(value) || value < 0 || value > most) throw new Error("it sent a number that is none");
  return value;
}

function listed(headers, name) {
  return (headers.get(name) ?? "").split(",").map((one) => one.trim()).filter((one) => one !== "");
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
}

function hex(data) {
  return `0x${Array.from(data, (one) => one.toString(16).padStart(2, "0")).join("")}`;
}

/** A whole number of at most 32 bits, out of one word. */
function number(packed, at) {
  const word = packed.subarray(at * WORD, (at + 1) * WORD);
  const fine = word.length === WORD && word.subarray(0, WORD - 4).every((one) => one === 0);
  if (!fine) throw new Error("it sent a receipt that is none");
  return new DataView(word.buffer, word.byteOffset + WORD - 4).getUint32(0);
}
