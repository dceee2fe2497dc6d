// What htmx does not do: keep a selection while its place is refreshed, copy text, mark a running request.
"use strict";

document.addEventListener("htmx:beforeSwap", (event) => {
  const selection = window.getSelection();
  const target = event.detail.target;
  if (selection && !selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(target)) {
    event.detail.shouldSwap = false;
  }
});

// What a refresh of a part would lose: how far a list was scrolled.
let scrolled = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  scrolled = [...event.detail.target.querySelectorAll(".log[id], .wide[id]")].map((one) => [one.id, one.scrollTop, one.scrollLeft]);
});
document.addEventListener("htmx:afterSwap", () => {
  for (const [id, top, left] of scrolled) document.getElementById(id)?.scrollTo(left, top);
  scrolled = [];
});

// A page that cannot be refreshed says so, and goes on trying.
function stale(is) {
  const note = document.getElementById("stale");
  if (note && note.hidden === is) note.hidden = !is;
}
document.addEventListener("htmx:afterRequest", (event) => {
  const status = event.detail.xhr ? event.detail.xhr.status : 0;
  // The tunnel of this page is gone: the page itself says so.
  if (status === 404 && event.detail.requestConfig.verb === "get") location.reload();
  // Without a status it failed, which is said below, or another took its place, which is no news.
  if (status) stale(status >= 500);
});
document.addEventListener("htmx:sendError", () => stale(true));

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copy));
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return;
  }
  button.textContent = button.dataset.done;
});

document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button[data-slow]")) button.setAttribute("aria-busy", "true");
});

// Fields that mean nothing as others are: the server leaves them out anyway.
function showFields() {
  for (const field of document.querySelectorAll("[data-when]")) {
    const cut = field.dataset.when.indexOf("=");
    const other = document.getElementsByName(field.dataset.when.slice(0, cut))[0];
    const wanted = field.dataset.when.slice(cut + 1);
    const is = !other ? field.dataset.is : other.type === "checkbox" ? (other.checked ? "yes" : "no") : other.value;
    field.hidden = is !== wanted;
  }
}
document.addEventListener("input", showFields);

// A field that is wrong says so to a screen reader too, while it is typed.
function markWrong() {
  for (const field of document.querySelectorAll("[aria-describedby]")) {
    const said = field.getAttribute("aria-describedby").split(" ").map((id) => document.getElementById(id));
    field.toggleAttribute("aria-invalid", false);
    if (said.some((one) => one && one.querySelector(".bad"))) field.setAttribute("aria-invalid", "true");
  }
}
document.addEventListener("htmx:oobAfterSwap", markWrong);

// Where to go on: at the field that was refused, or the one that the address names.
function goOn() {
  const refused = document.querySelector("[aria-invalid]");
  const named = location.hash.startsWith("#field-") && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const place = refused || named;
  if (!place) return;
  const control = place.matches("input, select, textarea") ? place : place.querySelector("input:not([type=hidden]), select, textarea");
  (control || place).focus();
}
document.addEventListener("DOMContentLoaded", () => {
  showFields();
  goOn();
});
// The browser goes to the named place by itself once all is loaded, and takes the focus off again.
window.addEventListener("load", () => setTimeout(() => document.activeElement === document.body && goOn(), 50));
