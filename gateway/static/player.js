// Plays the audio of a transcription that the browser has: the recording, or the file. It shows a
// waveform, unless decoding the file would take too much of the browser's memory.

import { DECODE_BYTES_MAX } from "./audio-files.js";
import { clock } from "./formats.js";
import { onLanguage, t } from "./i18n.js";
import WaveSurfer from "./wavesurfer.js";

const RATES = [1, 1.25, 1.5, 2, 0.75];

export class Player {
  #element; // with a button, a wave, a time and a button for the speed
  #surfer = null;
  #audio = null;
  #onPosition;
  #ready = null;

  // onPosition: called with the position in ms on the session's timeline.
  constructor(element, onPosition) {
    this.#element = element;
    this.#onPosition = onPosition;
    this.#part("play").addEventListener("click", () => this.#surfer?.playPause());
    this.#part("rate").addEventListener("click", () => this.#nextRate());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.#surfer?.setOptions(this.#colors()),
    );
    onLanguage(() => this.#draw());
  }

  // audio: {blob, offsetMs} or null.
  show(audio) {
    if (audio === this.#audio) return;
    this.#audio = audio;
    this.#surfer?.destroy();
    this.#surfer = null;
    this.#element.hidden = !audio;
    if (!audio) return;
    this.#surfer = WaveSurfer.create({
      container: this.#part("wave"),
      height: 48,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
      normalize: true,
      dragToSeek: true,
      ...this.#colors(),
    });
    const surfer = this.#surfer;
    for (const event of ["play", "pause", "finish", "ready"]) surfer.on(event, () => this.#draw());
    surfer.on("timeupdate", (seconds) => {
      this.#draw();
      this.#onPosition(seconds * 1000 + audio.offsetMs);
    });
    surfer.on("error", () => {
      if (surfer === this.#surfer) this.#element.hidden = true; // this browser cannot play it
    });
    const flat = audio.blob.size > DECODE_BYTES_MAX ? [[[0, 0]]] : [];
    this.#ready = surfer.loadBlob(audio.blob, ...flat).catch(() => {});
    this.#draw();
  }

  async seek(ms) {
    const surfer = this.#surfer;
    await this.#ready;
    if (!surfer || surfer !== this.#surfer) return;
    surfer.setTime(Math.max(0, (ms - this.#audio.offsetMs) / 1000));
    await surfer.play().catch(() => {});
  }

  pause() {
    this.#surfer?.pause();
  }

  #part(name) {
    return this.#element.querySelector(`[data-part="${name}"]`);
  }

  #colors() {
    const style = getComputedStyle(this.#element);
    return {
      waveColor: style.getPropertyValue("--wave"),
      progressColor: style.getPropertyValue("--accent"),
      cursorColor: style.getPropertyValue("--accent"),
    };
  }

  #nextRate() {
    const rate = RATES[(RATES.indexOf(this.#surfer.getPlaybackRate()) + 1) % RATES.length];
    this.#surfer.setPlaybackRate(rate);
    this.#draw();
  }

  #draw() {
    if (!this.#surfer) return;
    const playing = this.#surfer.isPlaying();
    this.#element.classList.toggle("playing", playing);
    this.#part("play").setAttribute("aria-label", t(playing ? "player.pause" : "player.play"));
    const [at, all] = [this.#surfer.getCurrentTime(), this.#surfer.getDuration()];
    this.#part("time").textContent = `${clock(at * 1000)} / ${clock(all * 1000)}`;
    const rate = this.#surfer.getPlaybackRate();
    this.#part("rate").textContent = `${rate}×`;
    this.#part("rate").setAttribute("aria-label", t("player.rate", { rate }));
  }
}
