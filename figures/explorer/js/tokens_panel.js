"use strict";
const ARROWS = [
  ["exact wide", "grad V", m => m.gradient],
  ["control", "E1", m => m.path],
  ["attention", "E1b", m => m.averaged],
  ["score", "E2", m => m.score],
  ["score_best", "straight-through", m => m.through],
];
const TIERS = ["error, tier 0", "tier 1: Σ E|Cov|", "tier 2: the bound", "tier 3: entropy alone"];

// Arrows from one point, as large as fits; the scale goes in steps, so that they do not stand still while all of them grow
const drawArrows = (m, s, width, height) => {
  const vectors = ARROWS.map(([, , of]) => of(m)),
    ends = [...vectors, [0, 0]];
  const low = [0, 1].map(d => Math.min(...ends.map(v => v[d]))),
    high = [0, 1].map(d => Math.max(...ends.map(v => v[d])));
  const fits = Math.min(
    (0.85 * width) / Math.max(1e-9, high[0] - low[0]),
    (0.85 * height) / Math.max(1e-9, high[1] - low[1]),
  );
  const unit = 2 ** (Math.floor(2 * Math.log2(fits)) / 2),
    half = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
  const centre = [width / 2 - unit * half[0], height / 2 + unit * half[1]],
    step = roundStep(70 / unit);
  const across = range(Math.ceil((2 * width) / unit / step) + 1, i => (i - Math.ceil(width / unit / step)) * step);
  const rule = (v, x, y) =>
    (x > 0 && x < width ? segment(x, 0, x, height, v === 0 ? "floor" : "grid") : "") +
    (y > 0 && y < height ? segment(0, y, width, y, v === 0 ? "floor" : "grid") : "");
  return (
    across.map(v => rule(v, centre[0] + v * unit, centre[1] - v * unit)).join("") +
    label(8, height - 8, `one square: ${tickText(step)}`, "tick") +
    ARROWS.map(([kind], i) =>
      arrow(centre, [centre[0] + unit * vectors[i][0], centre[1] - unit * vectors[i][1]], kind, i ? 11 : 16),
    ).join("")
  );
};
const drawTiers = (m, s, width, height) => {
  const top = Math.max(m.tiers[3], 1e-9),
    left = 150,
    room = width - left - 70,
    tall = height / 4;
  return m.tiers
    .map(
      (tier, i) =>
        label(0, i * tall + tall / 2 + 5, TIERS[i]) +
        rectangle(left, i * tall + 6, (room * tier) / top, tall - 12, i ? "bar" : "bar first") +
        label(left + (room * tier) / top + 6, i * tall + tall / 2 + 5, digits(tier), "strong"),
    )
    .join("");
};
const drawTree = (m, s, width, height) => {
  const room = Math.min(width, 560),
    [x0, x1, x2] = [8, room * 0.2, room - 132],
    row = height / 9,
    y1 = c => (3 * c + 1.5) * row,
    y2 = (c, d) => (3 * c + d + 0.5) * row;
  const edge = (p, ...ends) => `<g style="stroke-width:${r(0.7 + 9 * p)}">${segment(...ends, "edge")}</g>`;
  const parts = TOKENS.map((token, c) => {
    const b = m.branches[c],
      p = m.first.pi[c];
    const after = TOKENS.map(
      (next, d) =>
        edge(b.second.pi[d], x1 + 76, y1(c), x2, y2(c, d)) +
        label(x2 + 5, y2(c, d) + 4, token + next, "strong") +
        label(x2 + 28, y2(c, d) + 4, `π ${b.second.pi[d].toFixed(2)}`) +
        label(x2 + 80, y2(c, d) + 4, `Q ${digits3(b.Q[d])}`),
    );
    return (
      edge(p, x0, y1(1), x1, y1(c)) +
      after.join("") +
      label(x1 + 6, y1(c) + 4, token, "strong") +
      label(x1 + 20, y1(c) - 4, `π ${p.toFixed(2)}`) +
      label(x1 + 20, y1(c) + 13, `Q ${digits3(m.Q[c])}`)
    );
  });
  return parts.join("") + dots([[x0, y1(1)]], "exact", 4);
};
const digits3 = x =>
  Number(x.toPrecision(3)) === 0 || Math.abs(x) < 5e-4 ? "0" : Math.abs(x) < 10 ? x.toFixed(2) : x.toPrecision(3);

const costate =
  name =>
  ({ alpha }) =>
    `costate.expected_costates(world, policy, "${name}", "embedding", alpha=${alpha})[0][0, -1].tolist()`;
const split =
  column =>
  ({ alpha }) =>
    `costate.error_split(world, policy, ${alpha}, site="embedding")["${column}"][0]`;

definePanel({
  name: "tokens",
  controls: [
    {
      name: "tau",
      label: "temperature",
      min: -1,
      max: 0.7,
      step: 0.01,
      value: 1,
      at: x => Number((10 ** x).toPrecision(3)),
      place: v => Math.log10(v),
    },
    { name: "offset", label: "offset on the logit of a", min: -4, max: 4, step: 0.1, value: 0 },
    { name: "alpha", label: "alpha: 0 soft, 1 real tokens", min: 0, max: 1, step: 0.01, value: 1 },
    {
      name: "r",
      label: "rewards of the nine answers",
      kind: "table",
      cells: TOKENS.flatMap(a => TOKENS.map(b => a + b)),
      value: [0, 0, 0, 0, 1, 1, 1, 0, 0],
    },
  ],
  solve: solveTokens,
  setup: ({ r: table, tau, offset }) => [
    "import costate",
    `world = costate.TokenMDP.from_rewards(${python([0, 3, 6].map(i => table.slice(i, i + 3)))})`,
    `policy = costate.MeanAttention(${python(EMBEDDING)}, temperature=${tau}, offset=${offset})`,
  ],
  numbers: [
    { name: "grad V", label: "grad V", heading: "Costates at the prompt", of: m => m.gradient, line: costate("total") },
    { name: "E1", label: "E1", of: m => m.path, line: costate("attention") },
    { name: "E1b", label: "E1b", of: m => m.averaged, line: costate("attention_expected") },
    { name: "E2", label: "E2", of: m => m.score, line: costate("score") },
    { name: "E3", label: "straight-through", of: m => m.through, line: costate("straight_through") },
    {
      name: "error",
      label: "error of E1",
      heading: "|grad V - E1| and its bound",
      of: m => m.tiers[0],
      line: split("error"),
    },
    { name: "tier1", label: "tier 1", of: m => m.tiers[1], line: split("tier1") },
    { name: "tier2", label: "tier 2, bound", of: m => m.tiers[2], line: split("tier2") },
    { name: "tier3", label: "tier 3, by entropy", of: m => m.tiers[3], line: split("tier3") },
    {
      name: "entropy",
      label: "entropy, nats",
      heading: "The policy, mean of its steps",
      of: m => m.entropy,
      line: split("entropy"),
    },
    { name: "gini", label: "Gini index", of: m => m.gini, line: split("gini") },
    { name: "gap", label: "sampling gap", of: m => m.gap, line: split("gap") },
    { name: "J", label: "J", of: m => m.J, line: ({ alpha }) => `costate.exact(world, policy, alpha=${alpha}).J` },
  ],
  chosen: "grad V",
  pictures: [
    {
      title: "Derivatives with respect to the prompt's embedding",
      height: 260,
      legend: [
        ["exact wide", "grad V"],
        ["control", "E1, attention"],
        ["attention", "E1b, own token averaged"],
        ["score", "E2, the loss"],
        ["score_best", "straight-through"],
      ],
      draw: drawArrows,
      say: m => ARROWS.map(([, name, of]) => `${name} ${shown(of(m))}`).join("; "),
    },
    {
      title: "All nine answers: probability π, value Q after the token",
      height: 286,
      draw: drawTree,
      say: m =>
        TOKENS.map((token, c) => `${token}: probability ${m.first.pi[c].toFixed(2)}, value ${digits3(m.Q[c])}`).join(
          "; ",
        ),
    },
    {
      title: "The error of E1, and four tiers of its bound",
      broad: true,
      height: 120,
      draw: drawTiers,
      say: m => TIERS.map((name, i) => `${name} ${digits(m.tiers[i])}`).join("; "),
    },
  ],
  sentence: (m, { alpha }) => {
    const size = norm(m.gradient),
      share = norm(add(m.gradient, scaled(-1, m.score))) / Math.max(size, 1e-300);
    if (size < 1e-9) return "The value gradient is 0 here: no reward depends on what is said.";
    if (alpha === 1)
      return `Real tokens: E2 is the value gradient exactly; E1 is 0, and E1b is off by ${percent(norm(add(m.gradient, scaled(-1, m.averaged))) / size)} of its size.`;
    if (alpha === 0)
      return "Soft tokens: the path through attention (E1) carries all of the gradient of this rollout, and E2 carries nothing.";
    return `Between soft and real tokens: E1 and E2 each carry a part, and their sum is the value gradient. E2 lacks ${percent(share)} of it.`;
  },
});
