// Stream a file from Node (22 or later), and print its text while it is spoken.
//
//   node examples/stream.mjs FILE [ws://HOST:PORT/ws/asr]
//
// The access token, if the server requires one, is taken from ASR_TOKEN.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const CHUNK_BYTES = 6_400; // 0.2 s of PCM at 16 kHz; the server reads the WAV header

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

const [path, url = "ws://127.0.0.1:8080/ws/asr"] = process.argv.slice(2);
if (!path) fail("usage: node examples/stream.mjs FILE [ws://HOST:PORT/ws/asr]");
if (!/^wss?:/.test(url) || !URL.canParse(url)) fail(`${url} is no address: ws://HOST:PORT/ws/asr`);
const audio = await readFile(path).catch(({ message }) => fail(message));
if (!audio.length) fail(`${path} is empty`);
const session = randomUUID();
// The WebSocket API cannot set headers, so the token is sent as a subprotocol.
const token = process.env.ASR_TOKEN;
const socket = new WebSocket(url, token ? ["asr", `bearer.${token}`] : []);
let problems = 0;
let complete = false;

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
  if (event.type === "error") {
    problems += 1;
    console.error(event.code, event.message);
  }
  if (event.type === "final_result") {
    console.log(event.text);
    complete = true;
    socket.close();
  }
};

// A handshake that fails gives no reason. A real client connects again, with resume_token once started.
socket.onclose = ({ code }) => {
  if (!complete)
    fail(
      `no result from ${url} (${code}): is the server running, not busy, and ASR_TOKEN what it needs?`,
    );
  process.exit(problems ? 1 : 0);
};
