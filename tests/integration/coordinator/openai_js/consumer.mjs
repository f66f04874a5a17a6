// What a consumer's own JavaScript does, with OpenAI's package as it is, by itself or over client/js: each story's
// findings go to stdout as JSON.
import OpenAI from "openai";
import { fetchThrough } from "../../../../client/js/openai.mjs";

const [baseURL, key, how] = process.argv.slice(2);

function consumer(apiKey) {
  const over = how === "through" ? { fetch: fetchThrough([{ baseURL, apiKey }]) } : {};
  return new OpenAI({ baseURL, apiKey, maxRetries: 0, ...over });
}

const client = consumer(key);
const model = "storyteller";
const messages = [{ role: "user", content: "tell me a story" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const found = {};

async function refusal(work) {
  try {
    await work();
    return null;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const { data: whole, response } = await client.chat.completions
  .create({ model, messages, max_tokens: 5, seed: 7, stop: ["zzz"], logprobs: true, top_logprobs: 2 })
  .withResponse();
found.chat = {
  text: whole.choices[0].message.content,
  finish: whole.choices[0].finish_reason,
  usage: whole.usage.total_tokens,
  logprobs: whole.choices[0].logprobs.content.map((one) => one.top_logprobs.length),
  cost: response.headers.get("x-lading-cost"),
  receipt: response.headers.get("x-lading-receipt"),
};

const texts = ["", ""];
let usage = null;
const stream = await client.chat.completions.create({
  model, messages, n: 2, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  for (const choice of chunk.choices) texts[choice.index] += choice.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
found.stream = { texts, tokens: usage.completion_tokens };

const helped = client.chat.completions.stream({ model, messages });
found.helper = (await helped.finalChatCompletion()).choices[0].message.content;

const asked = {
  model: "caller",
  messages,
  tools: [{ type: "function", function: { name: "weather", parameters } }],
  tool_choice: "required",
};
const called = await client.chat.completions.create(asked);
found.call = {
  finish: called.choices[0].finish_reason,
  name: called.choices[0].message.tool_calls[0].function.name,
  given: JSON.parse(called.choices[0].message.tool_calls[0].function.arguments),
};
const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
found.callStreamed = JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments);

const completion = await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 3 });
found.completions = completion.choices.map((choice) => choice.text);

const short = await client.responses.create({ model, input: "tell me", max_output_tokens: 4 });
found.response = { text: short.output_text, status: short.status, tokens: short.usage.output_tokens };
const events = [];
let text = "";
for await (const event of await client.responses.create({ model, input: "tell me", stream: true })) {
  events.push(event.type);
  if (event.type === "response.output_text.delta") text += event.delta;
}
const final = await client.responses.stream({ model, input: "tell me" }).finalResponse();
found.responseStream = { text, last: events.at(-1), final: final.output_text };
const function_ = { type: "function", name: "weather", parameters, strict: true };
const item = await client.responses.create({ model: "caller", input: "x", tools: [function_], tool_choice: "required" });
found.responseCall = { kind: item.output[0].type, given: JSON.parse(item.output[0].arguments) };

const vectors = await client.embeddings.create({ model, input: ["a b", "c"] });
found.vectors = vectors.data.map((row) => row.embedding);
found.models = (await client.models.list()).data.map((one) => one.id);

found.refused = await refusal(() => client.chat.completions.create({ model: "nope", messages }));
found.echo = await refusal(() => client.completions.create({ model, prompt: "a", echo: true }));
found.stored = await refusal(() => client.responses.create({ model, input: "a", previous_response_id: "resp_1" }));
found.stranger = await refusal(() => consumer("lk_nobody").models.list());
found.strangerChat = await refusal(() => consumer("lk_nobody").chat.completions.create({ model, messages }));
found.broken = await refusal(async () => {
  for await (const _ of await client.chat.completions.create({ model: "breaker", messages, stream: true }));
});
found.brokenResponse = await refusal(async () => {
  for await (const _ of await client.responses.create({ model: "breaker", input: "x", stream: true }));
});

const left = await client.chat.completions.create({ model: "talker", messages, stream: true });
for await (const _ of left) break;
process.stdout.write(JSON.stringify(found));
