"use strict";
// A pretraining run and the gain of RL from each of its checkpoints: means over the trajectories of a study, from its records.
const STUDY = DATA.checkpoints;
const STRIP = 90; // height of a strip of the picture
const STRIPS = [
  ["J", "reference", "J, reward before RL"],
  ["snr", "costate", "signal: the costate's signal to noise"],
  ["best_of", "score_value", "headroom: pass@8 - J"],
  ["product", "score_best", "signal × headroom"],
  ["gain", "exact", "gain of RL"],
];
const NUMBERS = [
  ["J", "J before RL", "J"],
  ["costate", "size of the value gradient", "costate"],
  ["snr", "signal to noise", "snr"],
  ["best_of", "headroom, pass@8 - J", "best_of"],
  ["rest", "headroom, best - J", "rest"],
  ["product", "signal × headroom", "snr x best_of"],
];

if (STUDY)
  definePanel({
    name: "checkpoints",
    controls: [
      ...(STUDY.corpora.length > 1
        ? [
            {
              name: "corpus",
              label: "corpus",
              kind: "choice",
              value: 0,
              options: STUDY.corpora.map((corpus, i) => [i, corpus.name]),
            },
          ]
        : []),
      {
        name: "at",
        label: "checkpoint",
        min: 0,
        max: STUDY.corpora[0].tokens.length - 1,
        step: 1,
        value: Math.floor(STUDY.corpora[0].tokens.length / 2),
      },
    ],
    solve: ({ corpus = 0, at }) => ({
      study: STUDY.corpora[corpus],
      at,
      best: STUDY.corpora[corpus].gain.indexOf(Math.max(...STUDY.corpora[corpus].gain)),
    }),
    setup: ({ corpus = 0 }) => [
      "import pandas as pd",
      "from figures.impact.tables import aligned",
      `study = pd.read_csv(${JSON.stringify(`${STUDY.folder}/rows/impact_runs.csv`)})`,
      `runs = aligned(study, "${STUDY.recipe}", known=${JSON.stringify(NUMBERS.map(([, , column]) => column))}).of(${JSON.stringify(STUDY.corpora[corpus].name)})`,
    ],
    numbers: [
      ...NUMBERS.map(([name, label, column], i) => ({
        name,
        label,
        heading: i ? "" : "Mean over the trajectories",
        of: m => m.study[name][m.at],
        line: ({ at }) => `runs.known["${column}"][:, ${at}].mean()`,
      })),
      {
        name: "gain",
        label: `gain after ${STUDY.budget} updates of ${STUDY.recipe}`,
        of: m => m.study.gain[m.at],
        line: ({ at }) => `runs.gain[:, ${at}].mean()`,
      },
    ],
    chosen: "gain",
    pictures: [
      {
        title: "Along pretraining",
        broad: true,
        height: 5 * STRIP + 30,
        draw: (m, s, width) => {
          const count = m.study.tokens.length,
            left = 8,
            right = width - 52,
            X = i => left + 14 + ((right - left - 28) * i) / (count - 1);
          const strips = STRIPS.map(([name, kind, title], n) => {
            const values = m.study[name],
              single = name === "gain" ? m.study.gains : [],
              all = [...values, ...single.flat()],
              top = Math.max(1e-12, ...all),
              low = Math.min(0, ...all);
            const base = STRIP * n + 76,
              Y = v => base - (42 * (v - low)) / (top - low);
            return (
              label(left, STRIP * n + 15, title, "axis") +
              segment(left, Y(0), right, Y(0), "floor") +
              label(right + 6, Y(values[m.at]) + 4, digits3(values[m.at]), "strong") +
              single
                .map(run =>
                  line(
                    run.map((v, i) => [X(i), Y(v)]),
                    "reference hair",
                  ),
                )
                .join("") +
              line(
                values.map((v, i) => [X(i), Y(v)]),
                kind,
              ) +
              dots(
                values.map((v, i) => [X(i), Y(v)]),
                kind,
                3,
              ) +
              dots([[X(m.at), Y(values[m.at])]], kind, 5.5)
            );
          });
          const every = m.study.tokens
            .map((t, i) => label(X(i), 5 * STRIP + 22, t >= 1000 ? `${Math.round(t / 1000)}k` : t, "tick", "middle"))
            .filter((_, i) => width > 420 || i % 2 === 0);
          return (
            segment(X(m.at), 4, X(m.at), 5 * STRIP + 4, "here") +
            strips.join("") +
            every.join("") +
            label(right + 6, 5 * STRIP + 22, "tokens", "tick")
          );
        },
        say: m => STRIPS.map(([name, , title]) => `${title}: ${digits(m.study[name][m.at])}`).join("; "),
      },
    ],
    sentence: m => {
      const { study, at, best } = m,
        share = name => percent(study[name][at] / study[name][best]);
      const gain = digits(study.gain[at]);
      if (at === best)
        return `From this checkpoint RL gains most: ${gain}. There is a signal to follow and something left to win.`;
      return `From here RL gains ${gain}; from the best checkpoint, at ${study.tokens[best]} tokens, ${digits(study.gain[best])}. Signal and headroom here are ${share("snr")} and ${share("best_of")} of what they are there.`;
    },
  });
