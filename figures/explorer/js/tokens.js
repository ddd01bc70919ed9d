"use strict";
// A world of three tokens and two steps under a policy that reads the mean of what was said. All nine paths are enumerated.
// delta is a zero vector that is added to the embedding of the prompt; slopes in it are rows of two numbers.
const TOKENS = ["a", "b", "c"],
  EMBEDDING = [
    [0, 1],
    [-1, -1],
    [1, 0],
  ],
  IDENTITY = [
    [1, 0],
    [0, 1],
  ];
const oneHot = a => TOKENS.map((_, i) => (i === a ? 1 : 0));
const laws = (input, slope, { tau, offset }) => {
  const z = times(EMBEDDING, input).map((x, a) => (x + (a === 0 ? offset : 0)) / tau),
    w = product(EMBEDDING, slope).map(row => scaled(1 / tau, row));
  const pi = softmax(z);
  return { pi, w, dpi: product(jacobian(pi), w) }; // law, slope of the logits, slope of the law
};
const weigh = (x, rows) => rows[0].map((_, d) => sum(rows.map((row, a) => x[a] * row[d])));

// What is read after the prompt and a relaxed token u whose slope is du
const secondStep = (u, du, s) => {
  const input = scaled(1 / 2, add(EMBEDDING[0], weigh(u, EMBEDDING)));
  const carried = product(transposed(EMBEDDING), du);
  return laws(
    input,
    IDENTITY.map((row, d) => scaled(1 / 2, add(row, carried[d]))),
    s,
  );
};
const covariance = (pi, w, Q) =>
  weigh(
    pi.map((p, a) => p * (Q[a] - dot(pi, Q))),
    w,
  );

const solveTokens = s => {
  const rewards = [0, 1, 2].map(c => s.r.slice(3 * c, 3 * c + 3)),
    alpha = s.alpha,
    first = laws(EMBEDDING[0], IDENTITY, s);
  const relaxed = (pi, c) => add(scaled(1 - alpha, pi), scaled(alpha, oneHot(c)));
  const branches = TOKENS.map((_, c) => {
    const u = relaxed(first.pi, c),
      du = first.dpi.map(row => scaled(1 - alpha, row)),
      paid = weigh(u, rewards);
    const second = secondStep(u, du, s),
      through = secondStep(u, first.dpi, s);
    const Q = TOKENS.map((_, d) => dot(paid, relaxed(second.pi, d))),
      V = dot(paid, second.pi);
    return { u, du, paid, second, through, Q, V };
  });
  const Q = branches.map(b => b.V),
    J = dot(first.pi, Q);
  // E[...] over the first token, and over both
  const over = of => branches.map((b, c) => scaled(first.pi[c], of(b))).reduce(add);
  const path = over(b =>
    TOKENS.map((_, d) => {
      const u2 = relaxed(b.second.pi, d),
        du2 = b.second.dpi.map(row => scaled(1 - alpha, row));
      return scaled(b.second.pi[d], add(weigh(times(rewards, u2), b.du), weigh(b.paid, du2)));
    }).reduce(add),
  );
  const averaged = over(b => add(weigh(times(rewards, b.second.pi), b.du), weigh(b.paid, b.second.dpi)));
  const through = over(b => add(weigh(times(rewards, b.second.pi), first.dpi), weigh(b.paid, b.through.dpi)));
  const score = add(
    weigh(Q, first.dpi),
    over(b => weigh(b.Q, b.second.dpi)),
  );
  // The error, step by step
  const covs = [covariance(first.pi, first.w, Q), over(b => covariance(b.second.pi, b.second.w, b.Q))];
  const bound = (law, q, factor) => diameter(law.w) * oscillation(q) * factor(law.pi);
  const summed = factor =>
    bound(first, Q, factor) + sum(branches.map((b, c) => first.pi[c] * bound(b.second, b.Q, factor)));
  const tiers = [
    norm(add(covs[0], covs[1])),
    norm(covs[0]) + sum(branches.map((b, c) => first.pi[c] * norm(covariance(b.second.pi, b.second.w, b.Q)))),
    summed(pi => spreadFactor(gini(pi))),
    summed(pi => spreadFactor(giniBound(entropy(pi)))),
  ];
  const perStep = of => (of(first.pi) + sum(branches.map((b, c) => first.pi[c] * of(b.second.pi)))) / 2;
  const gradient = add(path, score);
  return {
    rewards,
    first,
    branches,
    Q,
    J,
    gradient,
    path,
    averaged,
    score,
    through,
    tiers,
    entropy: perStep(entropy),
    gini: perStep(gini),
    gap: alpha * perStep(gini),
  };
};
