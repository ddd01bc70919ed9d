"use strict";
// The scalar linear-quadratic world s' = s + a + w, a = -K s + xi, cost s^2 + a^2 / 2 a step, eight steps, the last state costs s^2.
const STEPS = 8,
  ACTION_COST = 0.5,
  START_SD = 2,
  PATHS = 300;

// P_t of the value -(P_t s^2 + c_t); variance of the costate given s_t; slope of the mean costate where the policy's path is cut
const linearExact = K => {
  const phi = 1 - K,
    M = 1 + ACTION_COST * K * K,
    P = [1],
    cut = [-2];
  for (let t = 0; t < STEPS; t++) {
    P.unshift(M + phi * phi * P[0]);
    cut.unshift(-2 + phi * cut[0]);
  }
  const spread = [0];
  for (let t = STEPS - 1; t >= 0; t--)
    spread.unshift(4 * (phi * P[t + 1] - ACTION_COST * K) ** 2 + 4 * (phi * P[t + 1]) ** 2 + phi * phi * spread[0]);
  return { phi, P, cut, spread }; // spread is for noise of variance 1 in action and state
};
const linearPaths = ({ k, noise, again }) => {
  const drawn = normals(again, PATHS * (1 + 2 * STEPS));
  return range(PATHS, i => {
    const z = drawn.slice(i * (1 + 2 * STEPS), (i + 1) * (1 + 2 * STEPS)),
      s = [START_SD * z[0]],
      a = [];
    for (let t = 0; t < STEPS; t++) {
      a.push(-k * s[t] + noise * z[1 + 2 * t]);
      s.push(s[t] + a[t] + noise * z[2 + 2 * t]);
    }
    return { z, s, a };
  });
};
// One path's costate at time t, backwards; cut, the command's dependence on the state is left out
const costateOf = ({ s, a }, t, K, isCut) => {
  let after = -2 * s[STEPS];
  for (let j = STEPS - 1; j >= t; j--)
    after = -2 * s[j] + (isCut ? after : 2 * K * ACTION_COST * a[j] + (1 - K) * after);
  return after;
};
const solveLinear = state => {
  const { k, noise, t, cut } = state,
    exact = linearExact(k),
    paths = linearPaths(state);
  const points = paths.map(path => [path.s[t], costateOf(path, t, k, cut === 1)]);
  const squares = sum(points.map(([s]) => s * s)),
    slope = sum(points.map(([s, c]) => s * c)) / squares;
  const rest = points.map(([s, c]) => c - slope * s);
  const error = Math.sqrt(sum(points.map(([s], i) => (s * rest[i]) ** 2))) / squares;
  return {
    points,
    paths,
    slope,
    error,
    truth: -2 * exact.P[t],
    cutSlope: exact.cut[t],
    sd: noise * Math.sqrt(exact.spread[t]),
  };
};

const linearWorld = (noise, steps = STEPS) =>
  `world = costate.LinearQuadratic([[1]], [[1]], [[1]], [[${ACTION_COST}]], [[1]], [[${noise} ** 2]], [[${noise} ** 2]], S_0=[[${START_SD ** 2}]], horizon=${steps})`;

definePanel({
  name: "linear",
  controls: [
    { name: "k", label: "K, gain of the policy", min: 0, max: 1.8, step: 0.05, value: 0.4 },
    { name: "noise", label: "noise, sd", min: 0, max: 2, step: 0.05, value: 0.5 },
    { name: "t", label: "time t", min: 0, max: STEPS - 1, step: 1, value: 2 },
    { name: "cut", label: "Cut the policy's path", kind: "toggle", value: 0 },
    { name: "again", label: "New noise", kind: "again", value: 1 },
  ],
  solve: solveLinear,
  setup: (s, number) => number.setup(s),
  numbers: [
    {
      name: "slope",
      label: "slope of grad V, -2 P",
      heading: "Exact, at time t",
      of: m => m.truth,
      setup: ({ noise }) => ["import costate", linearWorld(noise)],
      line: ({ k, t }) => `-2 * costate.exact(world, [[${k}]]).value.P[${t}, 0, 0]`,
    },
    {
      name: "sd",
      label: "sd given s, path whole",
      of: m => m.sd,
      setup: ({ noise }) => [
        "import torch, costate",
        "from theory.continuous.lq_gradients import costate_covariance",
        linearWorld(noise),
      ],
      line: ({ k, t }) =>
        `sum(costate_covariance(world, torch.tensor([[${k}]], dtype=torch.float64), ${t}))[0, 0].sqrt()`,
    },
    {
      name: "cut",
      label: "slope with the path cut",
      of: m => m.cutSlope, // on the path without noise from s = 1, which is the mean of all
      setup: ({ k, noise, t }) => [
        "import torch, costate",
        "from agents.policies.linear import ClosedPath, LinearPolicy",
        "from agents.sampling.rollout import rollout",
        "from envs.noise import Noise",
        "from theory.continuous.costates import autograd_costates",
        linearWorld(noise, STEPS - t),
        `policy, still = ClosedPath(LinearPolicy([[${k}]]), "all"), torch.zeros(1, ${STEPS - t}, 1, dtype=torch.float64)`,
        "path = rollout(world, policy, Noise(still[:, 0] + 1, still, still))",
      ],
      line: () => "autograd_costates(path.returns, path.state_probe, 1.0)[0, 0, 0]",
    },
  ],
  chosen: "slope",
  pictures: [
    {
      title: "Costates of 300 noisy paths against the state at time t",
      broad: true,
      height: width => Math.min(420, Math.max(280, 0.75 * width)),
      legend: [
        ["costate", "one path's costate"],
        ["exact dashed", "grad V = -2 P s"],
        ["score", "mean of the paths"],
      ],
      draw: (m, s, width, height) => {
        const reach = Math.max(1, ...m.points.map(([x]) => Math.abs(x))) * 1.05,
          tall = Math.max(1, ...m.points.map(([, y]) => Math.abs(y)), Math.abs(m.truth * reach)) * 1.05;
        const f = frame(width, height, {
            x: [-reach, reach],
            y: [-tall, tall],
            xLabel: `state s at time ${s.t}`,
            yLabel: "costate",
          }),
          at = (x, y) => [f.X(x), f.Y(y)];
        const along = (slope, kind) => line([at(-reach, -reach * slope), at(reach, reach * slope)], kind);
        return (
          f.text +
          dots(
            m.points.map(([x, y]) => at(x, y)),
            "costate faint",
            2.6,
          ) +
          along(m.slope, "score thick") +
          along(m.truth, "exact dashed")
        );
      },
      say: (m, s) =>
        `A cloud of costates. Exact slope of grad V ${digits(m.truth)}; slope of the cloud ${digits(m.slope)}, standard error ${m.error.toPrecision(2)}${s.cut ? "; the policy's path is cut" : ""}.`,
    },
  ],
  sample: m => ({
    z: m.paths.slice(0, 12).map(path => path.z),
    points: m.points.slice(0, 12),
    slope: m.slope,
    error: m.error,
  }),
  sentence: (m, { cut }) =>
    `The ${PATHS} costates have slope ${digits(m.slope)} ± ${(2 * m.error).toPrecision(2)}; grad V has ${digits(m.truth)}. ` +
    (cut
      ? `With the policy's path cut their mean has slope ${digits(m.cutSlope)}: autograd no longer sees that the policy reacts to the state.`
      : m.sd > 0
        ? "Each path is off, their mean is right."
        : "Without noise every costate is exact."),
});
