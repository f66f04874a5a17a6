// What client/js makes of the streams that stdin has, gateway after gateway: compared with lading.core.continued.
import { Continued } from "../../../../client/js/continued.mjs";

let given = "";
for await (const chunk of process.stdin) given += chunk;
const found = JSON.parse(given).map(({ asked, gateways }) => {
  const answer = new Continued();
  return gateways.map(({ head, pieces }) => {
    const body = structuredClone(answer.body(asked));
    answer.head(new Headers(head));
    const decoder = new TextDecoder();
    const ready = pieces.flatMap((one) => answer.feed(decoder.decode(Buffer.from(one, "base64"), { stream: true })));
    const { begun, able, done, moved, progress, jobs, hosts, failed, shown, fault } = answer;
    const lists = { jobs: [...jobs], hosts: [...hosts] };
    const told = { ready, body, begun, able, done, moved, progress, ...lists, shown, cost: String(answer.cost) };
    const why = { failed: failed && [failed.code, failed.message], fault: fault !== null };
    return { ...told, ...why, receipts: answer.receipts() };
  });
});
process.stdout.write(JSON.stringify(found));
