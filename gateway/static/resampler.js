// Converts any sample rate to another with a low-pass below both Nyquist frequencies, which prevents
// aliasing: a windowed-sinc filter with one phase for each fractional position.
//
// No DOM and no audio API: it runs in an AudioWorklet, in a page and in Node.

const ZERO_CROSSINGS = 24; // of the sinc on each side: -60 dB from 8.4 kHz on, for 16 kHz
const PASSBAND = 0.94; // of the lower Nyquist frequency: where the filter is at half height
const KAISER_BETA = 8; // stop band below -80 dB

const greatestCommonDivisor = (a, b) => (b ? greatestCommonDivisor(b, a % b) : a);

function besselI0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-12 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

export class Resampler {
  #step; // whole input samples of an output sample,
  #remainder; // and the rest, in fractions of
  #phases;
  #phase = 0;
  #filters;
  #taps;
  #held;
  #position = 0; // of the next output's first tap, in #held

  constructor(fromHz, toHz) {
    const divisor = greatestCommonDivisor(Math.round(fromHz), Math.round(toHz));
    const from = Math.round(fromHz) / divisor;
    this.#phases = Math.round(toHz) / divisor;
    this.#step = Math.floor(from / this.#phases);
    this.#remainder = from % this.#phases;
    const cutoff = PASSBAND * Math.min(1, toHz / fromHz); // 1: the input's Nyquist frequency
    const half = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.#taps = 2 * half;
    this.#filters = Array.from({ length: this.#phases }, (_, phase) =>
      this.#filter(phase / this.#phases, half, cutoff),
    );
    this.#held = new Float32Array(half); // silence before the beginning: no delay is added
  }

  #filter(fraction, half, cutoff) {
    const taps = new Float32Array(this.#taps);
    let sum = 0;
    for (let i = 0; i < this.#taps; i += 1) {
      const distance = i - half + 1 - fraction;
      const x = Math.PI * cutoff * distance;
      const ratio = distance / half;
      const window =
        Math.abs(ratio) >= 1 ? 0 : besselI0(KAISER_BETA * Math.sqrt(1 - ratio * ratio));
      taps[i] = (x === 0 ? 1 : Math.sin(x) / x) * window;
      sum += taps[i];
    }
    return taps.map((tap) => tap / sum); // a constant is unchanged in every phase
  }

  // Takes a Float32Array and returns the samples that are complete. `finish` returns the rest.
  push(input) {
    const samples = new Float32Array(this.#held.length + input.length);
    samples.set(this.#held);
    samples.set(input, this.#held.length);
    const output = [];
    let position = this.#position;
    while (position + this.#taps <= samples.length) {
      const filter = this.#filters[this.#phase];
      let sum = 0;
      for (let i = 0; i < filter.length; i += 1) sum += samples[position + i] * filter[i];
      output.push(sum);
      position += this.#step;
      this.#phase += this.#remainder;
      if (this.#phase >= this.#phases) {
        this.#phase -= this.#phases;
        position += 1;
      }
    }
    const keepFrom = Math.min(position, samples.length);
    this.#held = samples.slice(keepFrom);
    this.#position = position - keepFrom;
    return Float32Array.from(output);
  }

  finish() {
    return this.push(new Float32Array(this.#taps / 2));
  }
}

// Converts float samples from -1 to 1 to 16-bit integers. Louder samples are clipped.
export function toInt16(samples) {
  return Int16Array.from(samples, (sample) =>
    Math.max(-32768, Math.min(32767, Math.round(sample * 32767))),
  );
}
