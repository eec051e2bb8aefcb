// A file the user chose, as a source of chunks. What the server decodes goes as it is, in slices;
// anything else the browser may know (MP4, say) is decoded here and goes as PCM.

import { FileSource } from "./sources.js";
import { toInt16 } from "./resampler.js";

const RATE_HZ = 16_000;
export const DECODE_BYTES_MAX = 64 * 2 ** 20; // of a file decoded here: it has to fit in memory

export class FileError extends Error {
  // code: "file_empty", "file_unknown"
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

function serverDecodes(head) {
  const four = ascii(head, 0, 4);
  if (four === "RIFF") return ascii(head, 8, 12) === "WAVE";
  if (four === "OggS" || four === "fLaC" || four.startsWith("ID3")) return true;
  if (head[0] === 0x1a && head[1] === 0x45 && head[2] === 0xdf && head[3] === 0xa3) return true;
  return head[0] === 0xff && (head[1] & 0xe6) === 0xe2; // MP3 without tags
}

// Returns {source, decoded}. Throws FileError.
export async function sourceOf(file) {
  if (!file.size) throw new FileError("file_empty");
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  if (serverDecodes(head)) return { source: new FileSource(file), options: { mode: "auto" } };
  if (file.size > DECODE_BYTES_MAX) throw new FileError("file_unknown");
  const pcm = await decode(file);
  return { source: new FileSource(new Blob([pcm])), options: { mode: "stream" } };
}

async function decode(file) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ); // decodes to its own rate
  let audio;
  try {
    audio = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new FileError("file_unknown");
  }
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) =>
    audio.getChannelData(i),
  );
  const mono = channels[0].map(
    (_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length,
  );
  return toInt16(mono).buffer;
}
