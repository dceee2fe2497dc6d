// What htmx does not do: keep a selection while its place is refreshed, copy text, mark a running request.
"use strict";

document.addEventListener("htmx:beforeSwap", (event) => {
  const selection = window.getSelection();
  const target = event.detail.target;
  if (selection && !selection.isCollapsed && selection.rangeCount && selection.getRangeAt(0).intersectsNode(target)) {
    event.detail.shouldSwap = false;
  }
});

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
document.addEventListener("DOMContentLoaded", showFields);
document.addEventListener("input", showFields);
