"use strict";
// Sort, filter and tick. Ticks are kept in the browser, so that closing the page loses none; the
// download is what flarekd reads.
const place = document.getElementById("cases");
const cases = [...place.children];
const control = (name) => document.getElementById(name);
const key = `flarekd review ${location.pathname}`;

function stored() {
  try {
    return new Map(JSON.parse(localStorage.getItem(key) ?? "[]"));
  } catch {
    return new Map(); // no storage here: ticks live as long as the page
  }
}

function store() {
  try {
    localStorage.setItem(key, JSON.stringify([...ticks]));
  } catch {
    // full or forbidden: the download still has them
  }
}

const ticks = stored();
const known = new Set(cases.map((entry) => entry.dataset.case));
const places = new Map(cases.map((entry, index) => [entry, index]));

function show(entry) {
  const decision = ticks.get(entry.dataset.case);
  for (const button of entry.querySelectorAll("[data-decision]")) {
    button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
  }
}

function isFlagged(entry, flag, label) {
  const flags = entry.dataset.flags.split(" ").filter(Boolean).map((text) => text.split(":"));
  return flags.some(([kind, about]) => (flag === "any" || kind === flag) && (!label || about === label));
}

function isWanted(entry) {
  const [group, flag, label, ticked] = ["group", "flag", "class", "ticked"].map((name) => control(name).value);
  const data = entry.dataset;
  const decision = ticks.get(data.case) ?? "open";
  return (!group || data.group === group)
    && (!ticked || decision === ticked)
    && data.case.toLowerCase().includes(control("search").value.trim().toLowerCase())
    && (flag ? isFlagged(entry, flag, label) : !label || data.has.split(" ").includes(label));
}

function count() {
  const decisions = [...ticks].filter(([name]) => known.has(name)).map(([, decision]) => decision);
  const told = ["keep", "drop", "fix"].map((one) => `${decisions.filter((other) => other === one).length} ${one}`);
  const visible = cases.filter((entry) => !entry.hidden).length;
  control("count").textContent = `${visible} of ${cases.length} shown · ${told.join(" · ")}`;
}

function filter() {
  for (const entry of cases) entry.hidden = !isWanted(entry);
  count();
}

const byName = (a, b) => a.dataset.case.localeCompare(b.dataset.case, "en", { numeric: true });
const orders = {
  score: (a, b) => places.get(a) - places.get(b),
  case: byName,
  group: (a, b) => a.dataset.group.localeCompare(b.dataset.group, "en", { numeric: true }) || places.get(a) - places.get(b),
  tumor: (a, b) => b.dataset.tumor - a.dataset.tumor || places.get(a) - places.get(b),
};

function cell(text) {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table() {
  const rows = cases
    .filter((entry) => ticks.has(entry.dataset.case))
    .map((entry) => [entry.dataset.case, ticks.get(entry.dataset.case), entry.dataset.score]);
  return [["case", "decision", "suspicion"], ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

control("sort").addEventListener("change", () => {
  place.append(...[...cases].sort(orders[control("sort").value]));
});
for (const name of ["group", "flag", "class", "ticked"]) control(name).addEventListener("change", filter);
control("search").addEventListener("input", filter);
place.addEventListener("click", (event) => {
  const button = event.target.closest("[data-decision]");
  if (!button) return;
  const entry = button.closest(".case");
  const { decision } = button.dataset;
  if (ticks.get(entry.dataset.case) === decision) ticks.delete(entry.dataset.case);
  else ticks.set(entry.dataset.case, decision);
  store();
  show(entry);
  count();
});
control("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "review.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
for (const entry of cases) if (ticks.has(entry.dataset.case)) show(entry);
// browsers keep what was chosen before a reload, without the order
if (control("sort").value !== "score") control("sort").dispatchEvent(new Event("change"));
filter();
