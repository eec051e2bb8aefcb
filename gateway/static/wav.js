// Chunks of 16 kHz mono s16le as a file that browsers play.

const RATE_HZ = 16_000;

export function wavOf(chunks) {
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const head = new DataView(new ArrayBuffer(44));
  const text = (at, letters) =>
    [...letters].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  head.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  head.setUint32(16, 16, true); // bytes of the format
  head.setUint16(20, 1, true); // PCM
  head.setUint16(22, 1, true); // channels
  head.setUint32(24, RATE_HZ, true);
  head.setUint32(28, RATE_HZ * 2, true);
  head.setUint16(32, 2, true); // bytes of a frame
  head.setUint16(34, 16, true); // bits of a sample
  text(36, "data");
  head.setUint32(40, bytes, true);
  return new Blob([head.buffer, ...chunks], { type: "audio/wav" });
}
