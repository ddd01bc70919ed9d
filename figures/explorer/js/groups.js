"use strict";
// G rows of one prompt, k of them successes. A recipe is its two advantages, of a success and of a failure, given k.
const chances = (G, P) => {
  const p = [(1 - P) ** G];
  for (let k = 1; k <= G; k++) p.push((((p[k - 1] * (G - k + 1)) / k) * P) / (1 - P));
  return p;
};
const choose = (n, k) => {
  let c = 1;
  for (let i = 0; i < k; i++) c *= (n - i) / (k - i);
  return c;
};
const divided = (x, by) => (by > 0 ? x / by : 0);
const centred = (G, k, by) => [divided(1 - k / G, by), divided(-k / G, by)];
const groupStd = (G, k) => Math.sqrt((k / G) * (1 - k / G));
const standard = (G, k) => centred(G, k, groupStd(G, k));
const bestOfTwo = (G, k) => {
  const M = 1 - choose(G - k, 2) / choose(G, 2),
    S = Math.sqrt(Math.max(0, M * (1 - M)));
  return S < 1e-12 ? [0, 0] : [(1 - M) / S, (1 - M - (G - k - 1) / (G - 1)) / S];
};
const RECIPES = [
  ["REINFORCE", "costate.reinforce()", () => [1, 0]],
  ["RLOO", "costate.rloo()", (G, k) => [(G - k) / (G - 1), -k / (G - 1)]],
  [
    "PPO, exact critic",
    'costate.ppo(critic="exact")',
    (G, k, P) => [1 - P, -P],
    "values=costate.exact(world, policy).V",
  ],
  ["Dr. GRPO", "costate.dr_grpo()", (G, k) => centred(G, k, 1)],
  ["GRPO", "costate.grpo()", standard],
  ["GRPO, sample std", 'costate.grpo(std="sample")', (G, k) => centred(G, k, groupStd(G, k) * Math.sqrt(G / (G - 1)))],
  ["DAPO", "costate.dapo()", standard],
  ["GSPO", "costate.gspo()", standard],
  ["CISPO", "costate.cispo()", standard],
  ["REINFORCE++, one group", "costate.reinforce_pp()", standard, "prompts=1"],
  ["PKPO, k = 2", "costate.pkpo(k=2)", (G, k) => [(2 * (G - k)) / (G - 1), 0]],
  ["Pass@k training, k = 2", "costate.pass_k_training(k=2)", bestOfTwo],
];

// Cov(A, R) / Var(R) of one row, by a sum over the number of successes
const kappa = (advantages, G, P) => {
  const total = sum(
    chances(G, P).map((p, k) => {
      const [won, lost] = advantages(G, k, P);
      return p * (k * won * (1 - P) - (G - k) * lost * P);
    }),
  );
  return total / (G * P * (1 - P));
};
// F_G = int_0^P c_G, term by term: the incomplete beta function of whole numbers is the tail of a binomial law of G - 1 draws
const climbed = (G, P) => {
  const p = chances(G - 1, P);
  let tail = 0,
    total = 0;
  for (let k = G - 1; k >= 1; k--) {
    tail += p[k];
    total += (G / (k * (G - k))) * groupStd(G, k) * tail;
  }
  return total;
};
const arcsine = P => 2 * Math.asin(Math.sqrt(P));
const silent = (G, P) => P ** G + (1 - P) ** G;

const solveGroups = ({ g, p }) => ({
  kappas: RECIPES.map(([, , advantages]) => kappa(advantages, g, p)),
  objective: climbed(g, p),
  limit: arcsine(p),
  silent: silent(g, p),
});
const GRID = range(99, i => (i + 1) / 100);

definePanel({
  name: "groups",
  controls: [
    { name: "g", label: "G, rows in a group", min: 2, max: 64, step: 1, value: 8 },
    { name: "p", label: "P, probability of success", min: 0.01, max: 0.99, step: 0.01, value: 0.1 },
  ],
  solve: solveGroups,
  setup: ({ p }, number) =>
    number.setup || [
      "import math, costate",
      "world = costate.TokenMDP.from_rewards([1, 0])  # one token: the first wins",
      `policy = costate.MeanAttention([[1, 0], [0, 1]], [[0, 0], [0, 0]], offset=math.log(${p} / (1 - ${p})))`,
    ],
  numbers: [
    ...RECIPES.map(([name, call, , more], i) => ({
      name: `kappa ${name}`,
      label: name,
      of: m => m.kappas[i],
      bar: m => m.kappas[i] / Math.max(...m.kappas),
      heading: i ? "" : "kappa: the update over the gradient",
      line: ({ g }) =>
        `costate.expected_update(world, policy, ${call}, group=${g}${more ? `, ${more}` : ""}).alignment.scale`,
    })),
    {
      name: "F_G",
      label: "F_G, what GRPO climbs",
      heading: "What is climbed",
      of: m => m.objective,
      setup: ["import costate"],
      line: ({ g, p }) => `costate.grpo_objective(${p}, ${g})`,
    },
    {
      name: "arcsine",
      label: "2 arcsin √P, its limit",
      of: m => m.limit,
      setup: ["from theory.groups.binary_rewards import arcsine"],
      line: ({ p }) => `arcsine(${p})`,
    },
    {
      name: "silent",
      label: "share of silent groups",
      of: m => m.silent,
      setup: ["from theory.groups.binary_rewards import signal_probability"],
      line: ({ g, p }) => `1 - signal_probability(${p}, ${g})`,
    },
  ],
  chosen: "kappa GRPO",
  pictures: [
    {
      title: "How hard each recipe pushes",
      height: 250,
      legend: [
        ["score", "GRPO"],
        ["costate", "REINFORCE, RLOO, PPO"],
        ["score_value", "Dr. GRPO"],
        ["exact dashed", "GRPO in a large group: 1 / √(P(1-P))"],
      ],
      draw: (m, { g, p }, width, height) => {
        const top = Math.max(4, kappa(standard, g, 0.01) * 1.05),
          f = frame(width, height, { x: [0, 1], y: [0, top], xLabel: "P, probability of success", yLabel: "kappa" });
        const curve = (of, kind) =>
          line(
            GRID.map(q => [f.X(q), f.Y(of(q))]),
            kind,
          );
        const limit = GRID.map(q => [q, 1 / Math.sqrt(q * (1 - q))])
          .filter(([, y]) => y <= top)
          .map(([q, y]) => [f.X(q), f.Y(y)]);
        return (
          f.text +
          line(limit, "exact dashed") +
          curve(() => 1, "costate") +
          curve(() => (g - 1) / g, "score_value") +
          curve(q => kappa(standard, g, q), "score") +
          segment(f.X(p), f.box.top, f.X(p), f.box.bottom, "here") +
          dots([[f.X(p), f.Y(m.kappas[4])]], "score", 5)
        );
      },
      say: (m, { g, p }) =>
        `Kappa against P for G = ${g}. At P = ${p}: GRPO ${digits(m.kappas[4])}, Dr. GRPO ${digits(m.kappas[3])}, REINFORCE, RLOO and PPO 1.`,
    },
    {
      title: "What GRPO climbs, and how often it is silent",
      height: 250,
      legend: [
        ["score", "F_G"],
        ["exact dashed", "2 arcsin √P"],
        ["control", "share of silent groups"],
      ],
      draw: (m, { g, p }, width, height) => {
        const f = frame(width, height, {
          x: [0, 1],
          y: [0, Math.PI],
          xLabel: "P, probability of success",
          yTicks: [0, 1, 2, 3],
        });
        const curve = (of, kind) =>
          line(
            [0.0001, ...GRID, 0.9999].map(q => [f.X(q), f.Y(of(q))]),
            kind,
          );
        return (
          f.text +
          curve(arcsine, "exact dashed") +
          curve(q => silent(g, q), "control") +
          curve(q => climbed(g, q), "score") +
          segment(f.X(p), f.box.top, f.X(p), f.box.bottom, "here") +
          dots([[f.X(p), f.Y(m.objective)]], "score", 5) +
          dots([[f.X(p), f.Y(m.silent)]], "control", 5)
        );
      },
      say: (m, { g, p }) =>
        `At G = ${g}, P = ${p}: F_G is ${digits(m.objective)}, its limit 2 arcsin root P is ${digits(m.limit)}; ${percent(m.silent)} of the groups are silent.`,
    },
  ],
  sentence: (m, { g, p }) =>
    `With ${g} answers of which a share ${p} succeeds, GRPO pushes ${digits(m.kappas[4])} times as hard as REINFORCE; ${percent(m.silent)} of the groups have equal rewards and push not at all.`,
});
