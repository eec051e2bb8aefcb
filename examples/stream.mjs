// Stream a file from Node (22 or later), and print its words as they come.
//
//   node examples/stream.mjs FILE [ws://HOST:PORT/ws/asr]
//
// ASR_TOKEN in the environment, if the server wants a token.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const CHUNK_BYTES = 6_400; // 0.2 s of 16 kHz PCM; the server reads the WAV header by itself

const [path, url = "ws://127.0.0.1:8080/ws/asr"] = process.argv.slice(2);
const audio = await readFile(path);
const session = randomUUID();
// This WebSocket lets nobody set a header, so the token goes as a subprotocol.
const token = process.env.ASR_TOKEN;
const socket = new WebSocket(url, token ? ["asr", `bearer.${token}`] : []);

async function speak() {
  for (let place = 0; place < audio.length; place += CHUNK_BYTES) {
    socket.send(audio.subarray(place, place + CHUNK_BYTES));
    await sleep(200);
  }
  socket.send(JSON.stringify({ action: "finish", session_id: session }));
}

socket.onopen = () =>
  socket.send(JSON.stringify({ action: "start", session_id: session, partials: true }));

socket.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.status === "session_started") speak();
  if (event.type === "partial_result") console.log("…", event.text);
  if (event.type === "chunk_result") console.log(`${event.start_ms / 1000} s`, event.text);
  if (event.type === "error") console.error(event.code, event.message);
  if (event.type === "final_result") {
    console.log(event.text);
    socket.close();
  }
};

// Full (503), or gone: a client that lives longer tries again, with resume_token if it had begun.
socket.onclose = ({ code }) => process.exit(code === 1000 || code === 1005 ? 0 : 1);
