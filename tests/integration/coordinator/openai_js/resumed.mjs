// OpenAI's package over several coordinators. Prints a line at each event, and all that it heard as the last one.
import OpenAI from "openai";
import { fetchThrough } from "../../../../client/js/openai.mjs";

const { gateways, asked, limits = {} } = JSON.parse(process.argv[2]);
const moves = [];
const through = fetchThrough(gateways, { ...limits, onMove: (moved) => moves.push(moved) });
const client = new OpenAI({
  baseURL: `${gateways[0].baseURL}/v1`, apiKey: "no key of any", fetch: through, maxRetries: 0,
});
const calls = { chat: client.chat.completions, completions: client.completions, responses: client.responses };

async function ask({ where, body }) {
  const answer = await calls[where].create(body);
  if (!body.stream) return [answer];
  const events = [];
  for await (const event of answer) {
    events.push(event);
    process.stdout.write("heard\n");
  }
  return events;
}

const heard = await Promise.all(asked.map(ask));
const job = heard[0].at(-1).lading?.job;
const receipts = job ? await through.receipts(job) : null;
process.stdout.write(`${JSON.stringify({ heard, moves, receipts })}\n`);
