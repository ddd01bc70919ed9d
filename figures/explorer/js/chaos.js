"use strict";
// The map s' = beta sin(s) + theta + 0.3 xi, reward cos(s_T), started at 1; the gradient is that in theta.
const THETA = 1,
  NOISE_SD = 0.3,
  BEGIN = 1,
  LONGEST = 20,
  POINTS = 96,
  CLOUD = 200,
  SHOWN = [-3.5, 5.5]; // states that the picture shows

// Weights of the noise that leads from one state to others, wrapped round the circle: the density times (xi / sd^2)^k, k = 0, 1, 2
const wrapped = (from, beta, weight) => {
  const out = [0, 1, 2].map(() => new Float64Array(POINTS)),
    middle = beta * Math.sin(from) + THETA,
    turn = 2 * Math.PI;
  for (let i = 0; i < POINTS; i++) {
    const gap = circle[i] - middle,
      near = gap - turn * Math.floor((gap + Math.PI) / turn);
    for (let image = -1; image <= 1; image++) {
      const xi = near + turn * image,
        slope = xi / NOISE_SD ** 2,
        density = (weight * Math.exp(-0.5 * xi * slope)) / (NOISE_SD * Math.sqrt(turn));
      out[0][i] += density;
      out[1][i] += density * slope;
      out[2][i] += density * slope * slope;
    }
  }
  return out;
};
const carried = (kernel, x) => {
  const y = new Float64Array(POINTS);
  for (let i = 0; i < POINTS; i++) {
    let total = 0;
    for (let j = 0; j < POINTS; j++) total += kernel[i * POINTS + j] * x[j];
    y[i] = total;
  }
  return y;
};
const along = of => Float64Array.from({ length: POINTS }, (_, i) => of(i));
const circle = along(i => (2 * Math.PI * i) / POINTS),
  cell = (2 * Math.PI) / POINTS;

// Exact moments of both estimators for T = 1 ... 20: what an estimator has gathered is carried round the circle with the law of s
const chaosExact = beta => {
  const columns = range(POINTS, j => wrapped(circle[j], beta, cell)),
    kernels = [0, 1, 2].map(k => {
      const kernel = new Float64Array(POINTS * POINTS);
      for (let j = 0; j < POINTS; j++) {
        const column = columns[j][k];
        for (let i = 0; i < POINTS; i++) kernel[i * POINTS + j] = column[i];
      }
      return kernel;
    });
  const first = wrapped(BEGIN, beta, 1),
    slope = along(i => beta * Math.cos(circle[i]));
  let law = first[0],
    path = [law, law],
    score = [first[1], first[2]];
  const rows = [];
  for (let t = 0; t < LONGEST; t++) {
    if (t) {
      const [p, q] = path,
        [a, b] = score,
        [k0, k1, k2] = kernels,
        d = law;
      path = [
        carried(
          k0,
          along(i => slope[i] * p[i] + d[i]),
        ),
        carried(
          k0,
          along(i => slope[i] ** 2 * q[i] + 2 * slope[i] * p[i] + d[i]),
        ),
      ];
      const parts = [carried(k0, a), carried(k1, d), carried(k0, b), carried(k1, a), carried(k2, d)];
      score = [along(i => parts[0][i] + parts[1][i]), along(i => parts[2][i] + 2 * parts[3][i] + parts[4][i])];
      law = carried(k0, d);
    }
    const total = of => cell * circle.reduce((sofar, s, i) => sofar + of(s, i), 0);
    const gradient = total((s, i) => -Math.sin(s) * path[0][i]),
      scored = total((s, i) => Math.cos(s) * score[0][i]);
    rows.push({
      gradient,
      pathwise: Math.sqrt(total((s, i) => Math.sin(s) ** 2 * path[1][i]) - gradient ** 2),
      score: Math.sqrt(total((s, i) => Math.cos(s) ** 2 * score[1][i]) - scored ** 2),
    });
  }
  return rows;
};
// Two hundred paths; of each the state, both estimators at every horizon
let chaosNoise = {};
const chaosPaths = (beta, seed) => {
  if (chaosNoise.seed !== seed) chaosNoise = { seed, drawn: normals(seed, CLOUD * LONGEST) };
  const { drawn } = chaosNoise;
  return range(CLOUD, n => {
    const xi = drawn.slice(n * LONGEST, (n + 1) * LONGEST),
      s = [BEGIN],
      pathwise = [],
      score = [];
    let D = 0,
      gathered = 0;
    for (let t = 0; t < LONGEST; t++) {
      D = beta * Math.cos(s[t]) * D + 1;
      gathered += xi[t] / NOISE_SD;
      s.push(beta * Math.sin(s[t]) + THETA + NOISE_SD * xi[t]);
      pathwise.push(-Math.sin(s[t + 1]) * D);
      score.push(Math.cos(s[t + 1]) * gathered);
    }
    return { xi, s, pathwise, score };
  });
};
let chaosKept = {};
const solveChaos = ({ beta, steps, draw }) => {
  if (chaosKept.beta !== beta || chaosKept.draw !== draw) {
    const paths = chaosPaths(beta, draw),
      exact = chaosKept.beta === beta ? chaosKept.exact : chaosExact(beta);
    const seen = range(LONGEST, t => ({
      pathwise: deviation(paths.map(path => path.pathwise[t])),
      score: deviation(paths.map(path => path.score[t])),
    }));
    chaosKept = { beta, draw, paths, exact, seen };
  }
  return { ...chaosKept, now: chaosKept.exact[steps - 1], measured: chaosKept.seen[steps - 1] };
};

definePanel({
  name: "chaos",
  controls: [
    { name: "beta", label: "beta, strength of the map", min: 0, max: 3, step: 0.05, value: 2.5 },
    { name: "steps", label: "T, steps", min: 1, max: LONGEST, step: 1, value: 12 },
    { name: "draw", label: "New noise", kind: "again", value: 1 },
  ],
  solve: solveChaos,
  setup: ({ beta, steps }) => [
    "import costate",
    "from theory.continuous.chaotic_map import circle_moments",
    `world = costate.world("ChaoticMap", beta=${beta}, horizon=${steps})`,
    `exact = circle_moments(world, theta=${THETA}.0)`,
  ],
  numbers: [
    {
      name: "pathwise",
      label: "sd, backprop through the map",
      heading: "Exact, of one path's gradient",
      of: m => m.now.pathwise,
      line: () => "exact.pathwise_sd[-1]",
    },
    { name: "score", label: "sd, score function", of: m => m.now.score, line: () => "exact.score_sd[-1]" },
    {
      name: "ratio",
      label: "ratio of the two",
      of: m => m.now.pathwise / m.now.score,
      line: () => "exact.pathwise_sd[-1] / exact.score_sd[-1]",
    },
    { name: "gradient", label: "the gradient itself", of: m => m.now.gradient, line: () => "exact.gradient[-1]" },
  ],
  chosen: "pathwise",
  pictures: [
    {
      title: "Two hundred paths from one start",
      height: 250,
      draw: (m, { steps }, width, height) => {
        const f = frame(width, height, {
          x: [0, steps],
          y: SHOWN,
          xLabel: "step",
          yLabel: "state",
          xTicks: ticks(0, steps).filter(Number.isInteger),
        });
        return (
          f.text +
          m.paths
            .map(path =>
              line(
                path.s.slice(0, steps + 1).map((s, t) => [f.X(t), f.Y(s)]),
                "costate hair",
              ),
            )
            .join("")
        );
      },
      say: (m, { beta, steps }) => `Two hundred paths of ${steps} steps at beta ${beta}.`,
    },
    {
      title: "Spread of the gradient of one path, log scale",
      height: 250,
      legend: [
        ["pathwise", "backprop (pathwise)"],
        ["score", "score function"],
        ["exact dashed", "exact"],
      ],
      draw: (m, { steps }, width, height) => {
        const all = m.exact.flatMap(row => [row.pathwise, row.score]),
          low = 10 ** Math.floor(Math.log10(Math.max(1e-3, Math.min(...all)))),
          high = 10 ** Math.ceil(Math.log10(Math.max(10, ...all)));
        const f = frame(width, height, {
          x: [0, LONGEST],
          y: [low, high],
          log: true,
          xLabel: "T, steps",
          yLabel: "standard deviation",
        });
        const at = (t, y) => [f.X(t + 1), f.Y(clamp(y, low, high))],
          names = ["pathwise", "score"];
        return (
          f.text +
          segment(f.X(steps), f.box.top, f.X(steps), f.box.bottom, "here") +
          names
            .map(
              name =>
                line(
                  m.exact.map((row, t) => at(t, row[name])),
                  "exact dashed",
                ) +
                dots(
                  m.seen.slice(0, steps).map((row, t) => at(t, row[name])),
                  name,
                  3.5,
                ),
            )
            .join("")
        );
      },
      say: (m, { steps }) =>
        `At T = ${steps}: standard deviation of backprop ${digits(m.now.pathwise)}, of the score function ${digits(m.now.score)}; of the paths shown ${digits(m.measured.pathwise)} and ${digits(m.measured.score)}.`,
    },
  ],
  sample: (m, { steps }) => ({
    paths: m.paths.slice(0, 12).map(p => ({
      xi: p.xi.slice(0, steps),
      s: p.s[steps],
      pathwise: p.pathwise[steps - 1],
      score: p.score[steps - 1],
    })),
    measured: m.measured,
  }),
  sentence: (m, { beta, steps }) => {
    const ratio = m.now.pathwise / m.now.score,
      both = `At beta ${beta} and ${steps} steps the gradient of one path`;
    if (ratio > 2)
      return `${both} spreads ${digits(ratio)} times as far by backprop as by the score function: both are right on average, but backprop needs the square of that many more paths.`;
    if (ratio > 0.5) return `${both} spreads about as far by backprop as by the score function.`;
    return `${both} spreads ${digits(1 / ratio)} times as far by the score function as by backprop: the world is tame, and backprop is the better estimator.`;
  },
});
