// Without this script all claims are shown, in the colours that the system asks for, and "Enlarge" opens the file beside the page.
const all = selector => Array.from(document.querySelectorAll(selector));
const one = selector => document.querySelector(selector);

// Contents: closed where the window is narrow, and the claim that is read is marked
const contents = one(".contents details"), narrow = matchMedia("(max-width: 62rem)");
const fold = () => { contents.open = !narrow.matches; };
fold();
narrow.addEventListener("change", fold);
one(".contents").addEventListener("click", event => { if (event.target.closest("a")) fold(); });
const seen = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  all(".contents [aria-current]").forEach(link => link.removeAttribute("aria-current"));
  one(`.contents a[href="#${entry.target.id}"]`)?.setAttribute("aria-current", "true");
}), { rootMargin: "-20% 0px -75% 0px" });
all("article.claim").forEach(article => seen.observe(article));

// Filter
const filter = one("#filter"), marked = all("[data-claim]"), claims = all("article.claim");
const wanted = ({ outcome, documented, controls }, { outcome: ofClaim, control }) =>
  (ofClaim === "unexpected" ? documented === "no" : !ofClaim || ofClaim.split(",").includes(outcome)) &&
  (!control || controls.split(" ").includes(control));
const apply = () => {
  const chosen = Object.fromEntries(new FormData(filter));
  marked.forEach(element => { element.hidden = !wanted(element.dataset, chosen); });
  const empty = group => !group.querySelector("[data-claim]:not([hidden])");
  all("section.group, .stack tbody").filter(group => group.querySelector("[data-claim]")).forEach(group => { group.hidden = empty(group); });
  all(".contents .heading").forEach(heading => { heading.hidden = empty(heading.nextElementSibling); });
  one("#shown").textContent = `${claims.filter(claim => !claim.hidden).length} of ${claims.length} claims shown`;
};
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.closest("[hidden]")) { filter.reset(); apply(); target.scrollIntoView(); }
};
filter.hidden = false;
filter.addEventListener("change", apply);
filter.addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", reveal);
filter.reset();
apply();

// A formula that is wider than the window says that it scrolls, and can be scrolled by the keyboard
const measure = () => all(".formulas").forEach(formulas => {
  const wide = formulas.scrollWidth > formulas.clientWidth + 1;
  formulas.toggleAttribute("data-wide", wide);
  if (wide) formulas.tabIndex = 0; else formulas.removeAttribute("tabindex");
});
measure();
addEventListener("resize", measure);

// What is folded
const folded = all("details.judging"), unfold = one("#unfold");
const show = open => { folded.forEach(details => { details.open = open; }); unfold.setAttribute("aria-pressed", String(open)); };
unfold.addEventListener("click", () => show(unfold.getAttribute("aria-pressed") !== "true"));
let before = [];
addEventListener("beforeprint", () => { before = folded.filter(details => !details.open); before.forEach(details => { details.open = true; }); });
addEventListener("afterprint", () => before.forEach(details => { details.open = false; }));

// Enlarge: the picture itself, whose text can be selected
const dialog = one("#enlarged");
const enlarge = figure => {
  const image = figure.querySelector("img"), text = image.src.slice(image.src.indexOf(",") + 1);
  const picture = new DOMParser().parseFromString(decodeURIComponent(text), "image/svg+xml").documentElement;
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", figure.querySelector("figcaption").firstChild.textContent.trim());
  one("#enlarged-title").textContent = figure.closest("article").querySelector("h3").textContent;
  one("#enlarged-picture").replaceChildren(document.adoptNode(picture));
  dialog.showModal();
};
all(".picture, .enlarge").forEach(link => link.addEventListener("click", event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  enlarge(link.closest("figure"));
}));
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
