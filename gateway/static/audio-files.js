// A file the user chose, as a source of chunks. A file that the server decodes is sent unchanged, in
// slices. Any other is decoded here, if the browser can (MP4, say), and sent as PCM.

import { SIGNATURES } from "./audio-formats.js";
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

function serverDecodes(head) {
  const begins = ([offset, bytes]) => bytes.every((byte, i) => head[offset + i] === byte);
  if (SIGNATURES.some((signature) => signature.every(begins))) return true;
  return head[0] === 0xff && (head[1] & 0xe6) === 0xe2; // MP3 without tags
}

// Returns {source, options}; the options are those of the session. Throws FileError.
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
