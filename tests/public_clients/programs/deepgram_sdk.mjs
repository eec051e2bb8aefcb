// Deepgram's SDK for Node, streaming: prints each final transcript as a line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// The package is installed in the working directory.
const { DeepgramClient } = createRequire(`${process.cwd()}/`)("@deepgram/sdk");
const [address, file] = process.argv.slice(2);
const [base, production] = [`http://${address}`, `ws://${address}`];
const environment = { base, production, agent: production, agentRest: base };
const client = new DeepgramClient({ apiKey: "any", environment });

const wav = readFileSync(file);
const rate = wav.readUInt32LE(24);
const pcm = wav.subarray(44);
const connection = await client.listen.v1.connect({
  model: "nova-3",
  encoding: "linear16",
  sample_rate: rate,
  interim_results: "true",
  punctuate: "true",
});
const closed = new Promise((resolve) => connection.on("close", resolve));
connection.on("error", (error) => console.error(error));
connection.on("message", (message) => {
  if (message.type === "Results" && message.is_final) {
    console.log(message.channel.alternatives[0].transcript);
  } else if (message.type === "Metadata") {
    connection.close();
  }
});
connection.connect();
await connection.waitForOpen();
const step = Math.floor(rate / 10) * 2;
for (let place = 0; place < pcm.length; place += step) {
  connection.sendMedia(pcm.subarray(place, place + step));
  await new Promise((resolve) => setTimeout(resolve, 25));
}
connection.sendCloseStream({ type: "CloseStream" });
await closed;
process.exit(0);
