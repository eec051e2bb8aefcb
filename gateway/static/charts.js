// Small SVG charts without a library. Their main values are beside them as text.

const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// 1, 2 or 5 times a power of ten, at least `value`.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

// Runs of neighbouring values; null is a gap.
export function runs(values) {
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    if (i === 0 || values[i - 1] === null) found.push([]);
    found.at(-1).push([i, value]);
  });
  return found;
}

function curve(values, { width, height, top, kind }) {
  const x = (i) => ((i + 0.5) / values.length) * width;
  const y = (value) => height - (value / top) * height;
  const group = node("g", { class: `curve ${kind}` });
  for (const run of runs(values)) {
    const points = run.map(([i, value]) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
    if (run.length === 1) {
      const [[i, value]] = run;
      group.append(node("circle", { cx: x(i), cy: y(value), r: 2.2 }));
    } else {
      group.append(node("polyline", { points: points.join(" "), fill: "none" }));
    }
  }
  return group;
}

// A curve without axes, beside its value.
export function sparkline(svg, values) {
  const box = { width: 120, height: 32, top: Math.max(1, ...values), kind: "first" };
  svg.setAttribute("viewBox", "-1 -2 122 36");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(curve(values, box));
}

const BOX = { width: 600, height: 150 };

// Grid lines below the curves, labels above them.
function frame(svg, top, unit, ...drawn) {
  svg.setAttribute("viewBox", "0 -26 600 178");
  const label = (value) => node("text", { x: 0, y: BOX.height * (1 - value) - 5 }, unit(top * value));
  const rule = (value) =>
    node("line", {
      x1: 0,
      x2: BOX.width,
      y1: BOX.height * (1 - value),
      y2: BOX.height * (1 - value),
    });
  svg.replaceChildren(...[0, 0.5, 1].map(rule), ...drawn, ...[0.5, 1].map(label));
}

export function lines(svg, series, unit) {
  const top = roundUp(Math.max(0, ...series.flatMap(({ values }) => values)));
  const curves = series.map(({ values, kind }) => curve(values, { ...BOX, top, kind }));
  frame(svg, top, unit, ...curves);
}

export function bars(svg, values, unit) {
  const top = 2 * roundUp(Math.max(0, ...values) / 2); // counts: half of it is whole, too
  const step = BOX.width / values.length;
  const drawn = values.map((value, i) => {
    const height = (value / top) * BOX.height;
    return node("rect", { x: i * step + 1, y: BOX.height - height, width: step - 2, height, rx: 1 });
  });
  frame(svg, top, unit, node("g", { class: "bars first" }, ...drawn));
}
