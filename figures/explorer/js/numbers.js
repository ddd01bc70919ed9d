"use strict";
// Arithmetic that several panels share. Every number on the page is computed here, in the page; tests compare it with the library.
const range = (n, of = i => i) => Array.from({ length: n }, (_, i) => of(i));
const sum = xs => xs.reduce((total, x) => total + x, 0);
const mean = xs => sum(xs) / xs.length;
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const deviation = xs => {
  const m = mean(xs);
  return Math.sqrt(sum(xs.map(x => (x - m) ** 2)) / (xs.length - 1));
};

// Vectors and matrices as arrays
const dot = (x, y) => sum(x.map((xi, i) => xi * y[i]));
const add = (x, y) => x.map((xi, i) => xi + y[i]);
const scaled = (c, x) => x.map(xi => c * xi);
const times = (M, x) => M.map(row => dot(row, x));
const transposed = M => M[0].map((_, j) => M.map(row => row[j]));
const product = (M, N) => {
  const columns = transposed(N);
  return M.map(row => columns.map(column => dot(row, column)));
};
const norm = x => Math.hypot(...x);

// Laws over tokens. 1 - p of the likeliest token is the sum of the others, which keeps its digits.
const softmax = z => {
  const top = Math.max(...z),
    e = z.map(x => Math.exp(x - top)),
    total = sum(e);
  return e.map(x => x / total);
};
const others = p => p.map((_, a) => sum(p.filter((_, b) => b !== a)));
const jacobian = p => {
  const rest = others(p);
  return p.map((pa, a) => p.map((pb, b) => (a === b ? pa * rest[a] : -pa * pb)));
};
const gini = p => dot(p, others(p));
const entropy = p => {
  const rest = others(p);
  return -sum(p.map((x, a) => (x > 0 ? x * (x > 0.5 ? Math.log1p(-rest[a]) : Math.log(x)) : 0)));
};
const giniBound = H => Math.min(H / (2 * Math.LN2), -Math.expm1(-H));
const spreadFactor = G => Math.min(0.25, G / 2);
const oscillation = q => Math.max(...q) - Math.min(...q);
const diameter = rows => Math.max(...rows.flatMap(x => rows.map(y => norm(add(x, scaled(-1, y))))));

// Standard normal numbers: splitmix32 and Box-Muller, the same for the same seed
const uniforms = seed => {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x9e3779b9) >>> 0;
    let t = a ^ (a >>> 16);
    t = Math.imul(t, 0x21f0aaad);
    t ^= t >>> 15;
    t = Math.imul(t, 0x735a2d97);
    return ((t ^ (t >>> 15)) >>> 0) / 4294967296;
  };
};
const normals = (seed, count) => {
  const next = uniforms(seed);
  return range(count, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
};

// Text of a number: four significant digits, and 0 for what is rounding alone
const digits = x => {
  if (!Number.isFinite(x)) return "undefined";
  if (Math.abs(x) < 1e-12) return "0";
  const text = x.toPrecision(4);
  if (!text.includes("e")) return text;
  const size = Math.abs(x);
  return size >= 1e4 && size < 1e7 ? String(Math.round(x)) : text;
};
const shown = x => (Array.isArray(x) ? `(${x.map(digits).join(", ")})` : digits(x));
const percent = x => `${(100 * x).toFixed(x < 0.0995 || (x > 0.9905 && x < 0.9995) ? 1 : 0)} %`;
const python = x => (Array.isArray(x) ? `[${x.map(python).join(", ")}]` : String(x));
