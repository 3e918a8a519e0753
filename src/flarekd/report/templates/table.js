"use strict";
// Tables with data-sort sort by a click on a heading. A cell's data-value is compared where it has
// one, else its text; numbers as numbers, and what is empty or – comes last in both directions.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...table.tBodies[0].rows].map((row) => {
        const cell = row.cells[column];
        const text = (cell.dataset.value ?? cell.textContent).trim().replace(/^–$/, "");
        return { row, text, number: text === "" ? NaN : Number(text) };
      });
      keyed.sort((a, b) => {
        if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
        const both = !Number.isNaN(a.number) && !Number.isNaN(b.number);
        const order = both ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...keyed.map((entry) => entry.row));
    });
  });
}
