import { spawn } from "node:child_process";
import http from "node:http";
import { once } from "node:events";

const [rounds, requests, leak] = [process.argv[2] ?? 30, process.argv[3] ?? 1000, process.argv[4] ?? 100_000].map(Number);
const CLIENTS = 20;

const start = async (kind) => {
  const child = spawn(process.execPath, ["--expose-gc", "app.mjs", kind], { stdio: ["ignore", "pipe", "inherit"] });
  process.once("exit", () => child.kill());
  const [port] = await once(child.stdout.setEncoding("utf8"), "data");
  return { kind, child, port: Number(port), agent: new http.Agent({ keepAlive: true, maxSockets: CLIENTS }) };
};

const call = ({ port, agent }, method, path, body) =>
  new Promise((resolve, reject) => {
    const headers = body ? { "content-type": "application/json", "content-length": Buffer.byteLength(body) } : {};
    const request = http.request({ host: "127.0.0.1", port, agent, method, path, headers }, async (response) => {
      let text = "";
      for await (const chunk of response.setEncoding("utf8")) text += chunk;
      if (response.statusCode === 200) resolve(JSON.parse(text));
      else reject(new Error(`${response.statusCode} ${text}`));
    });
    request.on("error", reject);
    request.end(body);
  });

const load = async (app, count) => {
  let left = count;
  const client = async () => {
    while (left-- > 0) await call(app, "POST", "/todo", JSON.stringify({ task: `Sleep ${left}`, isCompleted: false }));
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
};

/** Milliseconds of CPU time for each request, without the collection of garbage that /spent does last. */
const cost = async (app, count) => {
  await call(app, "GET", "/spent");
  const before = await call(app, "GET", "/spent");
  await load(app, count);
  const after = await call(app, "GET", "/spent");
  return (after.cpu - before.cpu) / count;
};

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

const apps = [await start("bemi"), await start("same"), await start("empty")];
for (const app of apps) await load(app, 3000);
const costs = { bemi: [], same: [], empty: [] };
for (let round = 0; round < rounds; round++) {
  // Each is the first in half of the rounds.
  for (const app of round % 2 ? apps : apps.toReversed()) costs[app.kind].push(await cost(app, requests));
}
for (const kind of Object.keys(costs)) console.log(`${kind}: ${median(costs[kind]).toFixed(3)} ms of CPU time a request`);
const ratio = (kind) => median(costs.empty.map((empty, round) => empty / costs[kind][round])).toFixed(3);
console.log(`throughput with the package, by CPU time: ${ratio("bemi")} of that with an empty AsyncLocalStorage`);
console.log(`throughput of the same application in another process: ${ratio("same")}`);

if (leak === 0) process.exit();
const heaps = [];
for (let i = 0; i <= 4; i++) {
  if (i > 0) await load(apps[0], leak / 4);
  heaps.push((await call(apps[0], "GET", "/spent")).heap.toFixed(1));
}
console.log(`heap after each quarter of ${leak} requests: ${heaps.join(", ")} MB`);
process.exit();
