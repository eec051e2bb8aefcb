// The desktop app's own connection code (electron/asrClient.ts, src/hooks/useAppIpcListeners.ts), with
// electron and react stubbed. Run by tsx in a folder that has both, with a plan as its argument:
//
//   {"mode": "unlimited" | "time_limit", "recordings": [{"chunks": ["file.wav", …], "pause_ms": 0}, …]}
//
// A recording is what the app does between its two buttons. Prints, as JSON, what its user sees.

import { readFileSync } from "node:fs";

const plan = JSON.parse(process.argv[2]);
const listeners = new Map();
globalThis.window = {
  ipcRenderer: {
    on(channel, listener) {
      listeners.set(channel, listener);
      return () => listeners.delete(channel);
    },
    invoke: async () => undefined,
  },
};

const { ASRClient } = await import("./electron/asrClient.ts");
const { useAppIpcListeners } = await import("./src/hooks/useAppIpcListeners.ts");

const seen = { segments: [], processing: "idle", status: "connecting", alerts: [] };
const set = (name) => (value) => {
  seen[name] = typeof value === "function" ? value(seen[name]) : value;
};
useAppIpcListeners({
  setStatus: set("status"),
  setProcessingStatus: set("processing"),
  setQueueCount: () => undefined,
  setSegments: set("segments"),
  setInterimText: () => undefined,
  setAlertState: (alert) => seen.alerts.push(alert),
  toggleRecording: () => undefined,
  vad: { isRecording: false },
  autoPaste: false,
  vadMode: plan.mode,
});

const app = new ASRClient({
  isDestroyed: () => false,
  webContents: { send: (channel, data) => listeners.get(channel)?.({}, data) },
});
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (reached) => {
  while (!reached()) await pause(20);
};

app.connect();
await until(() => seen.status === "connected");
for (const { chunks, pause_ms } of plan.recordings) {
  await pause(pause_ms);
  app.startRecording();
  for (const file of chunks) app.sendAudioChunk(readFileSync(file).toString("base64"));
  app.stopRecording();
  await until(() => seen.processing === "done" || seen.alerts.length > 0);
}
process.stdout.write(JSON.stringify(seen), () => process.exit(0));
