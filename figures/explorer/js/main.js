"use strict";
// Light and dark, as in the report
const root = document.documentElement,
  system = matchMedia("(prefers-color-scheme: dark)"),
  theme = document.getElementById("theme");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const nameTheme = () => {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `${theme.textContent} colours`);
};
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    /* it lasts as long as the page */
  }
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();

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
