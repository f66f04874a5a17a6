export interface Coordinator {
  /** With or without /v1. */
  baseURL: string;
  /** The key that this coordinator gave. */
  apiKey: string;
}

export interface Options {
  /** What sends the requests; the platform's own by default. */
  fetch?: typeof globalThis.fetch;
  /** Called when an answer goes on at another coordinator, with the reason in words. */
  onMove?: (moved: { reason: string; url: string }) => void;
  /** For how many milliseconds an answer that has begun is tried to be gone on with (20,000). */
  reconnect?: number;
  /** After how many milliseconds of silence a coordinator is asked on another connection whether it lives (5,000). */
  quiet?: number;
  /** How many milliseconds it has to answer that (5,000). */
  probe?: number;
  /** After how many milliseconds one that sends, but no answer, is left where there is another (60,000). */
  stuck?: number;
}

/** What the hosts signed for an answer, as `lading receipt verify` reads it. */
export interface Receipts {
  job: string;
  jobs: string[];
  receipts: string[];
  marks: string[];
  ids: number[];
}

export interface Through {
  (input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** `job` is what the answer's field `lading` and the header `x-lading-job` name. */
  receipts(job: string): Promise<Receipts>;
}

/** A `fetch` for OpenAI's package: an answer that has begun goes on at another coordinator when the first is gone. */
export function fetchThrough(gateways: readonly Coordinator[], options?: Options): Through;
