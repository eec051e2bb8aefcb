// The level of the microphone: the last seconds as bars; with reduced motion, a single bar.

const BARS_PER_CHUNK = 2;
const FLOOR_DB = -60;

const toShare = (level) => Math.max(0, 1 - (20 * Math.log10(level + 1e-9)) / FLOOR_DB);

export class LevelMeter {
  #element; // role="meter"
  #canvas;
  #bars = [];
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(element) {
    this.#element = element;
    this.#canvas = element.querySelector("canvas");
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  clear() {
    this.#bars = [];
    this.#element.setAttribute("aria-valuenow", "0");
    this.#draw();
  }

  heard(levels) {
    const size = Math.ceil(levels.length / BARS_PER_CHUNK);
    for (let i = 0; i < levels.length; i += size) {
      this.#bars.push(toShare(Math.max(...levels.slice(i, i + size))));
    }
    this.#element.setAttribute("aria-valuenow", String(Math.round(100 * this.#bars.at(-1))));
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    if (this.#still.matches) {
      context.fillStyle = style.color;
      context.fillRect(0, height / 2 - 4, width * (this.#bars.at(-1) ?? 0), 8);
      return;
    }
    const step = 6;
    const count = Math.floor(width / step);
    this.#bars = this.#bars.slice(-400);
    const shown = this.#bars.slice(-count);
    for (let i = 0; i < count; i += 1) {
      const share = shown[i - (count - shown.length)] ?? 0;
      const bar = Math.max(2, share * height);
      context.fillStyle = share ? style.color : style.getPropertyValue("--line");
      context.beginPath();
      context.roundRect(i * step, (height - bar) / 2, step - 3, bar, 1.5);
      context.fill();
    }
  }
}
