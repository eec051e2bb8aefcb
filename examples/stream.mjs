// Stream a file from Node (22 or later), and print its text while it is spoken.
//
//   node examples/stream.mjs FILE [ws://HOST:PORT/ws/asr]
//
// The access token, if the server requires one, is taken from ASR_TOKEN.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const CHUNK_BYTES = 6_400; // 0.2 s of PCM at 16 kHz; the server reads the WAV header

const [path, url = "ws://127.0.0.1:8080/ws/asr"] = process.argv.slice(2);
const audio = await readFile(path);
const session = randomUUID();
// The WebSocket API cannot set headers, so the token is sent as a subprotocol.
const token = process.env.ASR_TOKEN;
const socket = new WebSocket(url, token ? ["asr", `bearer.${token}`] : []);

async function speak() {
  for (let offset = 0; offset < audio.length; offset += CHUNK_BYTES) {
    socket.send(audio.subarray(offset, offset + CHUNK_BYTES));
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

// The server is busy (503) or unreachable. A real client connects again, with resume_token once started.
socket.onclose = ({ code }) => process.exit(code === 1000 || code === 1005 ? 0 : 1);
