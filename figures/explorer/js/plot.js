"use strict";
// SVG as text. A picture is as wide as its place in the page, so that letters keep their size on a phone.
const escaped = text =>
  String(text).replace(/[&<>"]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const r = x => (Number.isFinite(x) ? Math.round(x * 100) / 100 : 0);

const line = (points, kind) =>
  `<path class="line ${kind}" d="${points.map(([x, y], i) => `${i ? "L" : "M"}${r(x)} ${r(y)}`).join("")}"/>`;
const segment = (x1, y1, x2, y2, kind) =>
  line(
    [
      [x1, y1],
      [x2, y2],
    ],
    kind,
  );
const dots = (points, kind, size = 2) =>
  `<path class="dots ${kind}" d="${points.map(([x, y]) => `M${r(x - size)} ${r(y)}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0`).join("")}"/>`;
const rectangle = (x, y, width, height, kind) =>
  `<rect class="${kind}" x="${r(x)}" y="${r(y)}" width="${r(Math.max(0, width))}" height="${r(Math.max(0, height))}"/>`;
const label = (x, y, text, kind = "", anchor = "start") =>
  `<text class="${kind}" x="${r(x)}" y="${r(y)}" text-anchor="${anchor}">${escaped(text)}</text>`;
const arrow = ([x1, y1], [x2, y2], kind, head = 9) => {
  const length = Math.hypot(x2 - x1, y2 - y1);
  if (length < 1) return `<circle class="dots ${kind}" cx="${r(x1)}" cy="${r(y1)}" r="4"/>`;
  const h = Math.min(head, length),
    [u, v] = [(x2 - x1) / length, (y2 - y1) / length],
    [bx, by] = [x2 - h * u, y2 - h * v];
  const tip = [
    [x2, y2],
    [bx - 0.45 * h * v, by + 0.45 * h * u],
    [bx + 0.45 * h * v, by - 0.45 * h * u],
  ];
  return (
    segment(x1, y1, bx, by, kind) +
    `<polygon class="head ${kind}" points="${tip.map(p => p.map(r).join(",")).join(" ")}"/>`
  );
};

// Round numbers for an axis: some five of them between low and high
const roundStep = span => {
  const power = 10 ** Math.floor(Math.log10(span)),
    share = span / power;
  return power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
};
const ticks = (low, high, count = 4) => {
  const step = roundStep((high - low) / count),
    first = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - first + 1, i => Number(((first + i) * step).toPrecision(12)));
};
const decades = (low, high) => {
  const first = Math.ceil(Math.log10(low) - 1e-9),
    last = Math.floor(Math.log10(high) + 1e-9),
    every = Math.max(1, Math.ceil((last - first) / 5));
  return range(Math.floor((last - first) / every) + 1, i => 10 ** (first + i * every));
};
const tickText = x =>
  x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5)
    ? `1e${Math.round(Math.log10(Math.abs(x)))}`
    : String(Number(x.toPrecision(6)));

// A frame with axes: x and y are [low, high]; `log` is for y. Gives the frame as text, and the places of numbers.
const frame = (
  width,
  height,
  { x, y, log = false, xLabel = "", yLabel = "", xTicks = null, yTicks = null, xText = tickText },
) => {
  const box = { left: 52, right: width - 14, top: yLabel ? 24 : 8, bottom: height - (xLabel ? 40 : 24) };
  const scale = log ? Math.log10 : v => v;
  const X = v => box.left + ((box.right - box.left) * (v - x[0])) / (x[1] - x[0]);
  const Y = v => box.bottom - ((box.bottom - box.top) * (scale(v) - scale(y[0]))) / (scale(y[1]) - scale(y[0]));
  const across = (yTicks || (log ? decades(...y) : ticks(...y))).map(
    v => segment(box.left, Y(v), box.right, Y(v), "grid") + label(box.left - 6, Y(v) + 4, tickText(v), "tick", "end"),
  );
  const along = (xTicks || ticks(...x)).map(v => label(X(v), box.bottom + 16, xText(v), "tick", "middle"));
  const names = label((box.left + box.right) / 2, height - 6, xLabel, "axis", "middle") + label(4, 13, yLabel, "axis");
  const floor = segment(box.left, box.bottom, box.right, box.bottom, "floor");
  return { X, Y, box, text: across.join("") + floor + along.join("") + names };
};
