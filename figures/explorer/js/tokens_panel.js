"use strict";
const ARROWS = [["exact wide", "grad V", m => m.gradient], ["control", "E1", m => m.path], ["attention", "E1b", m => m.averaged], ["score", "E2", m => m.score], ["score_best", "straight-through", m => m.through]];
const TIERS = ["error, tier 0", "tier 1: Σ E|Cov|", "tier 2: the bound", "tier 3: entropy alone"];

// Arrows from one point; the scale takes round numbers only, so that they do not stand still while all of them grow
const drawArrows = (m, s, width, height) => {
  const vectors = ARROWS.map(([, , of]) => of(m)), longest = Math.max(1e-9, ...vectors.map(norm));
  const low = [0, 1].map(d => Math.min(0, ...vectors.map(v => v[d]))), high = [0, 1].map(d => Math.max(0, ...vectors.map(v => v[d])));
  const reach = roundStep(longest) * (longest / roundStep(longest) > 1 ? 2 : 1), unit = 0.42 * Math.min(width, height * 1.1) / reach * 1.15;
  const centre = [width / 2 - unit * (low[0] + high[0]) / 2, height / 2 + unit * (low[1] + high[1]) / 2];
  const step = roundStep(reach / 3), lines = range(2 * Math.ceil(width / unit / step) + 1, i => (i - Math.ceil(width / unit / step)) * step);
  const grid = lines.map(v => [centre[0] + v * unit, centre[1] - v * unit, v]);
  const net = grid.map(([x, y, v]) => (x > 0 && x < width ? segment(x, 0, x, height, v === 0 ? "floor" : "grid") : "") + (y > 0 && y < height ? segment(0, y, width, y, v === 0 ? "floor" : "grid") : "")).join("");
  const rule = label(8, height - 8, `one square: ${tickText(step)}`, "tick");
  return net + rule + ARROWS.map(([kind], i) => arrow(centre, [centre[0] + unit * vectors[i][0], centre[1] - unit * vectors[i][1]], kind, i ? 11 : 16)).join("");
};
const drawTiers = (m, s, width, height) => {
  const top = Math.max(m.tiers[3], 1e-9), left = 150, room = width - left - 70, tall = height / 4;
  return m.tiers.map((tier, i) => label(0, i * tall + tall / 2 + 5, TIERS[i]) + rectangle(left, i * tall + 6, room * tier / top, tall - 12, i ? "bar" : "bar first")
    + label(left + room * tier / top + 6, i * tall + tall / 2 + 5, digits(tier), "strong")).join("");
};
const drawTree = (m, s, width, height) => {
  const [x0, x1, x2] = [12, width * 0.2, width * 0.6], row = height / 9, y1 = c => (3 * c + 1.5) * row, y2 = (c, d) => (3 * c + d + 0.5) * row, y0 = y1(1);
  const stroke = p => `<g style="stroke-width:${r(0.7 + 9 * p)}">`, tight = width < 430;
  const parts = TOKENS.map((token, c) => {
    const b = m.branches[c], edge = stroke(m.first.pi[c]) + segment(x0, y0, x1, y1(c), "edge") + "</g>";
    const after = TOKENS.map((next, d) => stroke(b.second.pi[d]) + segment(x1 + (tight ? 92 : 122), y1(c), x2, y2(c, d), "edge") + "</g>"
      + label(x2 + 5, y2(c, d) + 4, `${token}${next}`, "strong") + label(x2 + 28, y2(c, d) + 4, `π ${b.second.pi[d].toFixed(2)}  Q ${digits3(b.Q[d])}`));
    return edge + after.join("") + label(x1 + 5, y1(c) + 4, token, "strong") + label(x1 + 17, y1(c) + 4, tight ? `π ${m.first.pi[c].toFixed(2)} Q ${digits3(m.Q[c])}` : `π ${m.first.pi[c].toFixed(2)}  Q ${digits3(m.Q[c])}`);
  });
  return parts.join("") + dots([[x0, y0]], "exact", 4);
};
const digits3 = x => Number(x.toPrecision(3)) === 0 || Math.abs(x) < 5e-4 ? "0" : Math.abs(x) < 10 ? x.toFixed(2) : x.toPrecision(3);

const costate = name => ({ alpha }) => `costate.expected_costates(world, policy, "${name}", "embedding", alpha=${alpha})[0][0, -1].tolist()`;
const split = column => ({ alpha }) => `costate.error_split(world, policy, ${alpha}, site="embedding")["${column}"][0]`;

definePanel({
  name: "tokens",
  controls: [
    { name: "tau", label: "temperature", min: -1, max: 0.7, step: 0.01, value: 1, at: x => Number((10 ** x).toPrecision(3)), place: v => Math.log10(v) },
    { name: "offset", label: "offset on the logit of a", min: -4, max: 4, step: 0.1, value: 0 },
    { name: "alpha", label: "alpha: 0 soft, 1 real tokens", min: 0, max: 1, step: 0.01, value: 1 },
    { name: "r", label: "rewards of the nine answers", kind: "table", cells: TOKENS.flatMap(a => TOKENS.map(b => a + b)), value: [0, 0, 0, 0, 1, 1, 1, 0, 0] },
  ],
  solve: solveTokens,
  setup: ({ r: table, tau, offset }) => [
    "import costate",
    `world = costate.TokenMDP.from_rewards(${python([0, 3, 6].map(i => table.slice(i, i + 3)))})`,
    `policy = costate.MeanAttention(${python(EMBEDDING)}, temperature=${tau}, offset=${offset})`,
  ],
  numbers: [
    { name: "grad V", label: "grad V", heading: "Costates at the prompt", of: m => m.gradient, line: costate("total") },
    { name: "E1", label: "E1, attention", of: m => m.path, line: costate("attention") },
    { name: "E1b", label: "E1b, own token averaged", of: m => m.averaged, line: costate("attention_expected") },
    { name: "E2", label: "E2, score (GRPO's)", of: m => m.score, line: costate("score") },
    { name: "E3", label: "straight-through", of: m => m.through, line: costate("straight_through") },
    { name: "error", label: "error |grad V - E1|", heading: "The error of E1 and its bound", of: m => m.tiers[0], line: split("error") },
    { name: "tier1", label: "tier 1", of: m => m.tiers[1], line: split("tier1") },
    { name: "tier2", label: "tier 2, the bound", of: m => m.tiers[2], line: split("tier2") },
    { name: "tier3", label: "tier 3, by entropy", of: m => m.tiers[3], line: split("tier3") },
    { name: "entropy", label: "entropy, nats", heading: "The policy, mean of its steps", of: m => m.entropy, line: split("entropy") },
    { name: "gini", label: "Gini index", of: m => m.gini, line: split("gini") },
    { name: "gap", label: "sampling gap", of: m => m.gap, line: split("gap") },
    { name: "J", label: "J, expected reward", of: m => m.J, line: ({ alpha }) => `costate.exact(world, policy, alpha=${alpha}).J` },
  ],
  chosen: "grad V",
  pictures: [
    { title: "Derivative of the reward in the prompt's embedding", height: width => Math.min(300, 0.8 * width), legend: ARROWS.map(([kind, name]) => [kind, name]), draw: drawArrows, say: m => ARROWS.map(([, name, of]) => `${name} ${shown(of(m))}`).join("; ") },
    { title: "The error of E1, and four tiers of its bound", height: 120, draw: drawTiers, say: m => TIERS.map((name, i) => `${name} ${digits(m.tiers[i])}`).join("; ") },
    { title: "All nine answers: probability π, value Q after the token", height: 240, draw: drawTree, say: m => TOKENS.map((token, c) => `${token}: probability ${m.first.pi[c].toFixed(2)}, value ${digits3(m.Q[c])}`).join("; ") },
  ],
  sentence: (m, { alpha }) => {
    const size = norm(m.gradient), share = norm(add(m.gradient, scaled(-1, m.score))) / Math.max(size, 1e-300);
    if (size < 1e-9) return "The value gradient is 0 here: no reward depends on what is said.";
    if (alpha === 1) return `Real tokens: E2 is the value gradient exactly; E1 is 0, and E1b is off by ${percent(norm(add(m.gradient, scaled(-1, m.averaged))) / size)} of its size.`;
    if (alpha === 0) return "Soft tokens: the path through attention (E1) carries all of the gradient of this rollout, and E2 carries nothing.";
    return `Between soft and real tokens: E1 and E2 each carry a part, and their sum is the value gradient. E2 lacks ${percent(share)} of it.`;
  },
});
