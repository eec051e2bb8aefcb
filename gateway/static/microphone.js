// The microphone as chunks of 16 kHz mono s16le. Ends the device's use in every case.

export class MicrophoneError extends Error {
  // code: "insecure", "denied", "missing", "failed"
  constructor(code, cause) {
    super(code, { cause });
    this.code = code;
  }
}

const CODES = { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "missing" };

export class Microphone {
  #stream;
  #context;
  #node;
  #over;

  // onChunk({pcm: ArrayBuffer, levels: number[]}) is called ten times a second; onLost() when the
  // device goes away by itself. Throws MicrophoneError.
  static async open({ onChunk, onLost }) {
    // Browsers hide the microphone from pages that did not come over https or from localhost.
    if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("insecure");
    const microphone = new Microphone();
    try {
      await microphone.#open(onChunk, onLost);
    } catch (error) {
      microphone.#release();
      throw new MicrophoneError(CODES[error.name] ?? "failed", error);
    }
    return microphone;
  }

  async #open(onChunk, onLost) {
    // Models are trained on speech as it is: what cleans it up for human ears costs them words.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: true };
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    this.#node = new AudioWorkletNode(this.#context, "capture", { outputChannelCount: [1] });
    this.#over = new Promise((resolve) => {
      this.#node.port.onmessage = ({ data }) => (data.over ? resolve() : onChunk(data));
    });
    // Its output is silence; what leads nowhere is not run in every browser.
    this.#context.createMediaStreamSource(this.#stream).connect(this.#node);
    this.#node.connect(this.#context.destination);
    for (const track of this.#stream.getAudioTracks()) track.onended = onLost;
    await this.#context.resume();
  }

  // Resolves when the last chunk was given to onChunk. Once is enough, twice does no harm.
  async close() {
    if (!this.#stream) return;
    this.#node.port.postMessage("finish");
    await Promise.race([this.#over, new Promise((resolve) => setTimeout(resolve, 1_000))]);
    if (!this.#stream) return;
    this.#release();
  }

  #release() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#context?.close();
    this.#stream = this.#context = null;
  }
}
