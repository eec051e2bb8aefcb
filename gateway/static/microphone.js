// The microphone as chunks of 16 kHz mono s16le. It always releases the device.

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

  // Calls onChunk({pcm: ArrayBuffer, levels: number[]}) ten times a second, and onLost() if the
  // device is disconnected. deviceId: "" is the browser's default. Throws MicrophoneError.
  static async open({ deviceId = "", onChunk, onLost }) {
    // Browsers hide the microphone from pages not served over HTTPS or from localhost.
    if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("insecure");
    const microphone = new Microphone();
    try {
      await microphone.#open(deviceId, onChunk, onLost);
    } catch (error) {
      microphone.#release();
      throw new MicrophoneError(CODES[error.name] ?? "failed", error);
    }
    return microphone;
  }

  async #open(deviceId, onChunk, onLost) {
    // Models are trained on unprocessed speech; noise suppression for human ears costs accuracy.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: true };
    if (deviceId) audio.deviceId = { ideal: deviceId };
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    this.#node = new AudioWorkletNode(this.#context, "capture", { outputChannelCount: [1] });
    this.#over = new Promise((resolve) => {
      this.#node.port.onmessage = ({ data }) => (data.over ? resolve() : onChunk(data));
    });
    // Its output is silence. Some browsers do not run nodes without a connected output.
    this.#context.createMediaStreamSource(this.#stream).connect(this.#node);
    this.#node.connect(this.#context.destination);
    for (const track of this.#stream.getAudioTracks()) track.onended = onLost;
    await this.#context.resume();
  }

  // Resolves after onChunk got the last chunk. Further calls have no effect.
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
