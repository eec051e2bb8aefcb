// A transcript as text for people and as SRT for players.

const pad = (number, width) => String(Math.floor(number)).padStart(width, "0");

// 65,400 ms: "1:05".
export function clock(ms) {
  const seconds = Math.max(0, ms) / 1000;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  const head = hours ? `${hours}:${pad(minutes, 2)}` : `${minutes}`;
  return `${head}:${pad(seconds % 60, 2)}`;
}

// 65,400 ms: "00:01:05,400".
export function srtTime(ms) {
  const whole = Math.max(0, Math.round(ms));
  const seconds = whole / 1000;
  return [
    pad(seconds / 3600, 2),
    pad((seconds / 60) % 60, 2),
    `${pad(seconds % 60, 2)},${pad(whole % 1000, 3)}`,
  ].join(":");
}

const spoken = (segments) => segments.filter((segment) => segment.text);

export function asText(segments) {
  return spoken(segments).map((segment) => `${segment.text}\n`).join("");
}

export function asSrt(segments) {
  return spoken(segments)
    .map(
      ({ start_ms: start, end_ms: end, text, speaker }, i) =>
        `${i + 1}\n${srtTime(start)} --> ${srtTime(end)}\n${speaker ? `Speaker ${speaker}: ` : ""}${text}\n`,
    )
    .join("\n");
}

// The `lang` of a text, so that browsers render it and screen readers pronounce it correctly.
export const languageOf = (text) => (/[\u3400-\u9fff]/.test(text) ? "zh-CN" : "en");

export function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
