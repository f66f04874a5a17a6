// One chat, or one embedding, over each of several rows of coordinators, of which some lie: what came, or the error.
import OpenAI from "openai";
import { fetchThrough } from "../../../../client/js/openai.mjs";

const { rows, limits, vectors = false } = JSON.parse(process.argv[2]);

async function ask(urls) {
  const moves = [];
  const gateways = urls.map((baseURL, at) => ({ baseURL, apiKey: at === 0 ? "a" : "b" }));
  const through = fetchThrough(gateways, { ...limits, onMove: (moved) => moves.push(moved) });
  const client = new OpenAI({ baseURL: `${urls[0]}/v1`, apiKey: "no key of any", fetch: through, maxRetries: 0 });
  const found = { text: "", cost: null, moves };
  try {
    if (vectors) {
      const made = await client.embeddings.create({ model: "storyteller", input: "fox", encoding_format: "float" });
      return { ...found, vector: made.data[0].embedding };
    }
    const stream = await client.chat.completions.create({
      model: "storyteller", messages: [{ role: "user", content: "Tell me a story." }], stream: true, seed: 7,
    });
    for await (const event of stream) {
      found.text += event.choices[0].delta.content ?? "";
      found.cost = event.lading?.cost_wei ?? found.cost;
    }
  } catch (error) {
    found.error = { kind: error.constructor.name, code: error.code, message: error.message };
  }
  return found;
}

process.stdout.write(JSON.stringify(await Promise.all(rows.map(ask))));
