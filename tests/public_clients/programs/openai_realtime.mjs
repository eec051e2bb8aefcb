// OpenAI's Node package: a Realtime session whose turn the client commits; prints its transcript.
// The package always uses TLS, so a relay stands in for a reverse proxy.
import { readFileSync } from "node:fs";
import net from "node:net";
import tls from "node:tls";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { generate } from "selfsigned";

const [address, file] = process.argv.slice(2);
const [host, port] = address.split(":");
const { private: key, cert } = await generate([{ name: "commonName", value: "localhost" }]);
const relay = tls.createServer({ key, cert }, (socket) => {
  const inner = net.connect(Number(port), host);
  socket.pipe(inner).pipe(socket);
  for (const end of [socket, inner]) end.on("error", () => undefined);
});
await new Promise((ready) => relay.listen(0, "127.0.0.1", ready));

const wav = readFileSync(file);
const rate = wav.readUInt32LE(24);
const pcm = wav.subarray(wav.indexOf("data") + 8);
const client = new OpenAI({ apiKey: "any", baseURL: `https://127.0.0.1:${relay.address().port}/v1` });
const options = { rejectUnauthorized: false };
const connection = new OpenAIRealtimeWS({ model: "gpt-realtime-whisper", options }, client);
connection.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
connection.on("session.created", () => {
  const audio = { input: { format: { type: "audio/pcm", rate }, turn_detection: null } };
  connection.send({ type: "session.update", session: { type: "transcription", audio } });
  for (let place = 0; place < pcm.length; place += rate / 10) {
    const piece = pcm.subarray(place, place + rate / 10).toString("base64");
    connection.send({ type: "input_audio_buffer.append", audio: piece });
  }
  connection.send({ type: "input_audio_buffer.commit" });
});
connection.on("conversation.item.input_audio_transcription.completed", ({ transcript }) => {
  console.log(transcript);
  connection.close();
  relay.close();
});
