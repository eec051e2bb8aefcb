// Times and texts for people.

const pad = (number, width) => String(Math.floor(number)).padStart(width, "0");

// 65,400 ms: "1:05".
export function clock(ms) {
  const seconds = Math.max(0, ms) / 1000;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  const head = hours ? `${hours}:${pad(minutes, 2)}` : `${minutes}`;
  return `${head}:${pad(seconds % 60, 2)}`;
}

// The `lang` of a text, so that browsers render it and screen readers pronounce it correctly.
export const languageOf = (text) => (/[\u3400-\u9fff]/.test(text) ? "zh-CN" : "en");
