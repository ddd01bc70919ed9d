"use strict";
// A panel: controls, what is solved from them, numbers with their line of Python, pictures, and one sentence.
const DATA = JSON.parse(document.getElementById("data").textContent);
const panels = [],
  state = {};
const definePanel = panel => {
  panels.push(panel);
};

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const textOf = (control, value) => (control.show ? control.show(value) : String(value));

// Controls: a range of numbers, a button that is on or off, a button that draws anew, a choice, a table of numbers
const makeRange = (control, id, changed) => {
  const place = control.place || (v => v),
    at = control.at || (v => v);
  const input = make("input", { type: "range", id, min: control.min, max: control.max, step: control.step });
  const output = make("output", { for: id });
  input.addEventListener("input", () => {
    state[control.name] = at(Number(input.value));
    changed();
  });
  control.refresh = () => {
    const value = state[control.name],
      text = textOf(control, value);
    if (document.activeElement !== input || at(Number(input.value)) !== value) input.value = place(value);
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  return make("div", { class: "control" }, make("label", { for: id }, control.label), output, input);
};
const makeToggle = (control, id, changed) => {
  const button = make("button", { type: "button", id, "aria-pressed": "false" });
  button.addEventListener("click", () => {
    state[control.name] = 1 - state[control.name];
    changed();
  });
  control.refresh = () => {
    button.setAttribute("aria-pressed", String(state[control.name] === 1));
    button.textContent = control.label;
  };
  return button;
};
const makeAgain = (control, id, changed) => {
  const button = make("button", { type: "button", id }, control.label);
  button.addEventListener("click", () => {
    state[control.name] = (state[control.name] % 999) + 1;
    changed();
  });
  control.refresh = () => {};
  return button;
};
const makeChoice = (control, id, changed) => {
  const select = make("select", { id }, ...control.options.map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", () => {
    state[control.name] = Number(select.value);
    changed();
  });
  control.refresh = () => {
    select.value = String(state[control.name]);
  };
  return make("div", { class: "control" }, make("label", { for: id }, control.label), select);
};
const makeTable = (control, id, changed) => {
  const inputs = control.cells.map((cell, i) => {
    const input = make("input", {
      type: "number",
      id: `${id}-${i}`,
      min: -9,
      max: 9,
      step: 0.5,
      "aria-label": `reward of ${cell}`,
    });
    input.addEventListener("input", () => {
      if (!input.value || (!input.validity.valid && !input.validity.stepMismatch)) return;
      state[control.name] = state[control.name].map((old, j) => (i === j ? Number(input.value) : old));
      changed();
    });
    return input;
  });
  control.refresh = () =>
    inputs.forEach((input, i) => {
      if (document.activeElement !== input) input.value = state[control.name][i];
    });
  const cells = control.cells.map((cell, i) =>
    make("span", {}, make("span", { "aria-hidden": "true" }, cell), inputs[i]),
  );
  return make("fieldset", { class: "table" }, make("legend", {}, control.label), ...cells);
};
const MAKERS = { range: makeRange, toggle: makeToggle, again: makeAgain, choice: makeChoice, table: makeTable };

// Numbers: a table whose rows choose the line of Python that is shown
const makeNumbers = (panel, choose) => {
  const body = make("tbody");
  panel.numbers.forEach(number => {
    if (number.heading)
      body.append(make("tr", { class: "heading" }, make("th", { colspan: 2, scope: "colgroup" }, number.heading)));
    number.button = make("button", { type: "button", "aria-pressed": "false" }, number.label);
    number.cell = make("td", { class: "n" });
    number.button.addEventListener("click", () => choose(number.name));
    body.append(make("tr", {}, make("th", { scope: "row" }, number.button), number.cell));
  });
  return make(
    "table",
    { class: "numbers" },
    make("caption", { class: "hidden" }, `Exact numbers: ${panel.name}`),
    body,
  );
};
const makePython = panel => {
  const code = make("code"),
    copy = make("button", { type: "button" }, "Copy"),
    name = make("b");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => {
      copy.textContent = "Copy";
    }, 2000);
  });
  panel.showPython = (number, lines, last) => {
    name.textContent = number.label;
    code.replaceChildren(
      make("span", { class: "setup" }, lines.map(text => `${text}\n`).join("")),
      make("span", { class: "last" }, last),
    );
  };
  return make(
    "figure",
    { class: "python" },
    make("figcaption", {}, make("span", {}, "Python for ", name), copy),
    make("pre", {}, code),
  );
};
const makePicture = picture => {
  picture.place = make("div", { class: "picture", role: "img" });
  const swatches = (picture.legend || []).map(([kind, text]) => {
    const item = make("li");
    item.innerHTML = `<svg width="26" height="10" aria-hidden="true">${segment(1, 5, 25, 5, kind)}</svg>`;
    item.append(text);
    return item;
  });
  return make(
    "figure",
    picture.broad ? { class: "broad" } : {},
    make("figcaption", {}, picture.title),
    ...(swatches.length ? [make("ul", { class: "legend" }, ...swatches)] : []),
    picture.place,
  );
};

const snippet = (panel, number) => ({ lines: panel.setup(state, number), last: number.line(state) });

const drawPanel = panel => {
  const began = performance.now();
  const model = panel.solve(state);
  panel.controls.forEach(control => control.refresh());
  panel.numbers.forEach(number => {
    const value = number.of(model, state);
    number.cell.textContent = shown(value);
    number.cell.style.setProperty("--share", number.bar ? clamp(number.bar(model), 0, 1) : 0);
    number.button.setAttribute("aria-pressed", String(number.name === panel.chosen));
  });
  const number = panel.numbers.find(one => one.name === panel.chosen),
    { lines, last } = snippet(panel, number);
  panel.showPython(number, lines, last);
  panel.pictures.forEach(picture => {
    const width = Math.max(240, picture.place.clientWidth),
      height = typeof picture.height === "function" ? picture.height(width) : picture.height;
    picture.place.innerHTML = `<svg viewBox="0 0 ${width} ${height}" height="${height}" aria-hidden="true" focusable="false">${picture.draw(model, state, width, height)}</svg>`;
    picture.place.setAttribute("aria-label", picture.say(model, state));
  });
  panel.sentence_.textContent = panel.sentence(model, state);
  panel.milliseconds = performance.now() - began;
  return model;
};

// What changed is drawn once a frame; the address follows, and a screen reader hears the sentence when the slider has come to rest
const waiting = new Set();
let frameAsked = false,
  speaking = 0,
  writing = 0;
const redraw = panel => {
  waiting.add(panel);
  if (frameAsked) return;
  frameAsked = true;
  requestAnimationFrame(() => {
    frameAsked = false;
    const now = [...waiting];
    waiting.clear();
    now.forEach(drawPanel);
  });
};
const changedBy = panel => () => {
  redraw(panel);
  clearTimeout(writing);
  clearTimeout(speaking);
  writing = setTimeout(writeAddress, 250);
  speaking = setTimeout(() => {
    panel.live.textContent = panel.sentence_.textContent;
  }, 800);
};

const buildPanel = panel => {
  const section = document.getElementById(panel.name),
    changed = changedBy(panel);
  const choose = name => {
    panel.chosen = name;
    redraw(panel);
  };
  panel.controls.forEach(control => {
    state[control.name] = control.value;
  });
  const controls = panel.controls.map(control =>
    MAKERS[control.kind || "range"](control, `${panel.name}-${control.name}`, changed),
  );
  panel.sentence_ = make("p", { class: "sentence" });
  panel.live = make("p", { class: "hidden", "aria-live": "polite" });
  const work = make("div", { class: "work" });
  const side = make(
    "div",
    { class: "side" },
    make("div", { class: "controls", role: "group", "aria-labelledby": `h-${panel.name}` }, ...controls),
    makeNumbers(panel, choose),
  );
  const pictures = make("div", { class: "pictures" }, panel.sentence_, ...panel.pictures.map(makePicture));
  work.append(side, pictures, makePython(panel));
  section.append(work, panel.live);
};
