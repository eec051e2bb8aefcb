// On the audio thread: converts the microphone's audio to 16 kHz mono s16le in chunks of 100 ms, each
// with the loudness of its 20 ms frames.

import { Resampler, toInt16 } from "./resampler.js";

const RATE_HZ = 16_000;
const CHUNK_SAMPLES = RATE_HZ / 10;
const FRAME_SAMPLES = RATE_HZ / 50;

class Capture extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, RATE_HZ);
  #chunk = new Float32Array(CHUNK_SAMPLES);
  #filled = 0;
  #over = false;

  constructor() {
    super();
    this.port.onmessage = () => this.#finish(); // the only message there is
  }

  process([channels]) {
    if (this.#over) return false;
    if (channels.length) this.#take(this.#resampler.push(mono(channels)));
    return true;
  }

  #take(samples) {
    for (let taken = 0; taken < samples.length; ) {
      const part = samples.subarray(taken, taken + CHUNK_SAMPLES - this.#filled);
      this.#chunk.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === CHUNK_SAMPLES) this.#post();
    }
  }

  #post() {
    const samples = this.#chunk.subarray(0, this.#filled);
    const levels = [];
    for (let start = 0; start < samples.length; start += FRAME_SAMPLES) {
      levels.push(rootMeanSquare(samples.subarray(start, start + FRAME_SAMPLES)));
    }
    const pcm = toInt16(samples).buffer;
    this.#filled = 0;
    this.port.postMessage({ pcm, levels }, [pcm]);
  }

  #finish() {
    if (this.#over) return;
    this.#over = true;
    this.#take(this.#resampler.finish());
    if (this.#filled) this.#post();
    this.port.postMessage({ over: true });
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, c) => sum + c[i], 0) / channels.length);
}

function rootMeanSquare(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / samples.length);
}

registerProcessor("capture", Capture);
