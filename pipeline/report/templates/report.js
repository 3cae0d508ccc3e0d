"use strict";

// A press on a heading sorts its table by that column: numbers fall first, names rise first.
function value(row, column, isNumber) {
  const cell = row.cells[column];
  if (!isNumber) return cell.textContent.trim();
  return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
}

function sort(button) {
  const heading = button.closest("th");
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const column = Number(heading.dataset.column);
  const isNumber = heading.classList.contains("number");
  const first = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  const rows = Array.from(body.rows);
  rows.sort((a, b) => {
    const left = value(a, column, isNumber);
    const right = value(b, column, isNumber);
    if (left === right) return 0;
    if (isNumber) return sign * (left < right ? -1 : 1);
    return sign * left.localeCompare(right);
  });
  for (const each of table.tHead.querySelectorAll("[aria-sort]")) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  body.append(...rows);
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => sort(button));
}
