// Sources of a session's chunks. `get(N)` resolves to the bytes of chunk N, or to null if the audio
// ends before it. A resumed session may request a chunk again.

export const REPLAY_BYTES_MAX = 64 * 2 ** 20; // 35 minutes of 16 kHz PCM

export class ReplayGoneError extends Error {}

// Audio that is being recorded. Up to `bytesMax` are kept for a replay; the oldest is dropped first.
export class LiveSource {
  #chunks = [];
  #first = 0;
  #bytes = 0;
  #ended = false;
  #wake = [];
  #bytesMax;

  constructor(bytesMax = REPLAY_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  get count() {
    return this.#first + this.#chunks.length;
  }

  // The chunks that are kept, and the index of the first.
  get kept() {
    return { chunks: this.#chunks, first: this.#first };
  }

  // The next chunk has this index: those before were sent before a reload of the page. What was
  // recorded since follows.
  startAt(index) {
    this.#first = index;
  }

  push(chunk) {
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    while (this.#bytes > this.#bytesMax && this.#chunks.length > 1) {
      this.#bytes -= this.#chunks.shift().byteLength;
      this.#first += 1;
    }
    this.#wakeAll();
  }

  end() {
    this.#ended = true;
    this.#wakeAll();
  }

  async get(index) {
    while (index >= this.count) {
      if (this.#ended) return null;
      await new Promise((resolve) => this.#wake.push(resolve));
    }
    if (index < this.#first) throw new ReplayGoneError(`chunk ${index} is no longer kept`);
    return this.#chunks[index - this.#first];
  }

  #wakeAll() {
    for (const resolve of this.#wake.splice(0)) resolve();
  }
}

// A file in slices. Nothing is kept: a chunk that is needed again is read again.
export class FileSource {
  #blob;
  #chunkBytes;

  constructor(blob, chunkBytes = 32 * 2 ** 10) {
    this.#blob = blob;
    this.#chunkBytes = chunkBytes;
  }

  get count() {
    return Math.ceil(this.#blob.size / this.#chunkBytes);
  }

  async get(index) {
    if (index >= this.count) return null;
    const start = index * this.#chunkBytes;
    return this.#blob.slice(start, start + this.#chunkBytes).arrayBuffer();
  }
}
