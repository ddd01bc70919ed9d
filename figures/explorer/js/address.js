"use strict";
// The positions of all sliders stand in the page's address, so that they can be sent to somebody
const controlsOf = () => panels.flatMap(panel => panel.controls);
const readInto = text => {
  const given = new URLSearchParams(text);
  controlsOf().forEach(control => {
    if (!given.has(control.name)) return;
    const values = given.get(control.name).split(",").map(Number);
    if (values.some(v => !Number.isFinite(v))) return;
    if (control.kind === "table") {
      if (values.length === control.cells.length) state[control.name] = values.map(v => clamp(v, -9, 9));
      return;
    }
    const at = control.at || (v => v),
      [low, high] =
        control.kind === "choice"
          ? [0, control.options.length - 1]
          : control.kind === "toggle"
            ? [0, 1]
            : control.kind === "again"
              ? [1, 999]
              : [at(control.min), at(control.max)];
    const value = clamp(values[0], low, high);
    state[control.name] = control.kind || control.step === 1 ? Math.round(value) : value;
  });
};
const address = () =>
  controlsOf()
    .map(control => `${control.name}=${[state[control.name]].flat().join(",")}`)
    .join("&");
const writeAddress = () => {
  try {
    history.replaceState(null, "", `#${address()}`);
  } catch {
    /* a page without an address of its own */
  }
};

// `#probe=[...]` goes through a list of addresses and leaves every number, with its line of Python, in the page: for tests
const probe = list => {
  const found = list.map(text => {
    readInto(text);
    const moved = new Set(new URLSearchParams(text).keys());
    return panels
      .filter(panel => panel.controls.some(control => moved.has(control.name)))
      .map(panel => {
        const model = drawPanel(panel);
        return {
          panel: panel.name,
          address: text,
          milliseconds: panel.milliseconds,
          sentence: panel.sentence_.textContent,
          sample: panel.sample ? panel.sample(model, state) : null,
          says: panel.pictures.map(picture => picture.place.getAttribute("aria-label")),
          numbers: panel.numbers.map(number => {
            const { lines, last } = snippet(panel, number);
            return {
              name: number.name,
              value: number.of(model, state),
              shown: number.cell.textContent,
              setup: lines.join("\n"),
              last,
            };
          }),
        };
      });
  });
  document.body.append(make("pre", { id: "probe", hidden: "" }, JSON.stringify({ found, errors })));
};
