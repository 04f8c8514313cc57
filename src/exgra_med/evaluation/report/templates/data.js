"use strict";
const $ = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll("#cards .card")].map((card) => ({
  card,
  rows: [...card.querySelectorAll(".asked li")].map((row) => ({ row, text: row.textContent.toLowerCase() })),
}));
const total = cards.reduce((sum, each) => sum + each.rows.length, 0);
const first = 3; // Questions of a picture that are shown before somebody asks for all.
function fold(card, folded) {
  card.classList.toggle("folded", folded);
  card.querySelector(".more").hidden = !folded;
}
for (const { card } of cards) card.querySelector(".more").addEventListener("click", () => fold(card, false));
function filter() {
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const split = $("split").value, type = $("type").value;
  const asked = words.length > 0 || split || type;
  let shown = 0, pictures = 0;
  for (const { card, rows } of cards) {
    let fits = 0;
    for (const { row, text } of rows) {
      const fit = (!split || row.dataset.split === split) && (!type || row.dataset.type === type) && words.every((word) => text.includes(word));
      row.hidden = !fit;
      fits += fit;
    }
    card.hidden = !fits;
    fold(card, rows.length > first && !asked);
    shown += fits;
    pictures += fits > 0;
  }
  $("count").textContent = `${shown} of ${total} questions, ${pictures} of ${cards.length} pictures`;
  $("none").hidden = shown > 0;
}
$("filter").addEventListener("input", filter);
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter").hidden = false;
filter();
