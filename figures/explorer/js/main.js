"use strict";
panels.forEach(buildPanel);
const asked = decodeURIComponent(location.hash.slice(1));
if (asked.startsWith("probe=")) probe(JSON.parse(asked.slice(6)));
else {
  readInto(asked);
  panels.forEach(drawPanel);
  const target = document.getElementById(asked);
  if (target) target.scrollIntoView();
}
document.getElementById("reset").addEventListener("click", () => {
  controlsOf().forEach(control => {
    state[control.name] = control.value;
  });
  panels.forEach(redraw);
  writeAddress();
});
addEventListener("hashchange", () => {
  readInto(location.hash.slice(1));
  panels.forEach(redraw);
});
let seenWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== seenWidth) {
    seenWidth = innerWidth;
    panels.forEach(redraw);
  }
});
