// Tables: a heading sorts, a word filters, a button saves. Rows of a panel stay together.
const NUMBER = /[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i;
const shownText = (cell) => cell.firstChild?.nodeType === 3 ? cell.firstChild.data.trim() : cell.textContent.trim();
const valueOf = (cell) => (cell.tagName === "TH" ? null : cell.dataset.value ?? shownText(cell).match(NUMBER)?.[0] ?? null);
const csvLine = (cells) => cells.map((one) => (/[",\r\n]/.test(one) ? `"${one.replaceAll('"', '""')}"` : one)).join(",");

function button(text, click, parent) {
  const made = parent.appendChild(line("button", text));
  made.type = "button";
  made.addEventListener("click", click);
  return made;
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = `${document.title.replace(/[^\w-]+/g, "-").replace(/^-|-$/g, "").toLowerCase() || "study"}-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function sortRows(table, column, down) {
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => valueOf(row.cells[column]));
    if (x === null && y === null) return a.cells[column].textContent.localeCompare(b.cells[column].textContent) * (down ? -1 : 1);
    if (x === null || y === null) return x === null ? 1 : -1;
    return (Number(x) - Number(y)) * (down ? -1 : 1);
  };
  const body = table.tBodies[0], groups = [[]];
  for (const row of body.rows) row.classList.contains("panel") ? groups.push([row]) : groups.at(-1).push(row);
  for (const rows of groups) {
    const heads = rows.filter((row) => row.classList.contains("panel"));
    body.append(...heads, ...rows.filter((row) => !heads.includes(row)).sort(compare));
  }
  [...table.tHead.rows[0].cells].forEach((head, k) => (k === column ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const inner = line("span", head.textContent), sort = () => { sortRows(table, column, head.getAttribute("aria-sort") === "ascending"); remember(); };
    inner.className = "sort";
    inner.tabIndex = 0;
    inner.setAttribute("role", "button");
    inner.addEventListener("click", sort);
    inner.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") event.preventDefault(), sort(); });
    head.replaceChildren(inner);
  });
}

const summary = document.querySelector("table.summary");
const find = document.createElement("input");
const tools = line("div", "");
function filterRows() {
  const wanted = find.value.trim().toLowerCase();
  document.querySelectorAll("table.summary tbody tr:not(.panel), #runs tbody tr").forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
}

function listRuns() {
  const box = $("runs");
  if (!box || box.querySelector("table")) return;
  const table = document.createElement("table"), panels = D.panels.some((panel) => panel.name);
  const head = table.createTHead().insertRow(), heads = ["Run", "Curve", ...(panels ? ["Panel"] : []), "Setting", "Seed", D.metric.label, "State"];
  heads.forEach((text) => head.appendChild(line("th", text)).setAttribute("scope", "col"));
  const body = table.createTBody();
  D.runs.forEach((run, r) => {
    const [k, j] = owner.get(r) ?? [], row = body.insertRow(), curve = D.curves[k];
    row.dataset.run = run[RUN.id];
    row.appendChild(line("th", run[RUN.id])).setAttribute("scope", "row");
    const loss = run[RUN.state] === "diverged" ? "–" : (D.metric.sign * run[RUN.loss]).toFixed(D.metric.digits);
    const cells = [curve?.name ?? "", ...(panels ? [D.panels[curve?.panel]?.name ?? ""] : []), curve ? curve.points[j][POINT.x] : "", run[RUN.seed], loss, run[RUN.state] + (run[RUN.reason] ? `: ${run[RUN.reason]}` : "")];
    cells.forEach((text, n) => {
      const cell = row.insertCell();
      cell.textContent = text;
      if (heads[n + 1] === "Curve" || heads[n + 1] === "Panel" || heads[n + 1] === "State") cell.className = "text";
    });
  });
  const scroll = box.appendChild(line("div", ""));
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.append(table);
  sortable(table);
  filterRows();
}

const runLines = () => {
  const heads = ["run", "curve", "panel", "setting", "seed", D.metric.name, "state", "reason", "step", ...D.keys];
  return [heads, ...D.runs.map((run, r) => {
    const [k, j] = owner.get(r) ?? [], curve = D.curves[k];
    const values = D.keys.map((_, n) => run[RUN.values][n]);
    return [run[RUN.id], curve?.name, D.panels[curve?.panel]?.name, curve?.points[j][POINT.x], run[RUN.seed], D.metric.sign * run[RUN.loss], run[RUN.state], run[RUN.reason], run[RUN.step], ...values];
  })].map((cells) => csvLine(cells.map((one) => (one === null || one === undefined ? "" : typeof one === "object" ? JSON.stringify(one) : String(one))))).join("\n") + "\n";
};
const tableLines = () => [...summary.rows].filter((row) => !row.classList.contains("panel")).map((row) => csvLine([...row.cells].map((cell) => (cell.tagName === "TH" ? cell.textContent.trim() : shownText(cell))))).join("\n") + "\n";

// What is hidden, sorted, filtered and chosen stands in the address, which is a link to just that.
let restoring = true;
function remember() {
  if (restoring) return;
  const state = new URLSearchParams();
  for (const chip of document.querySelectorAll("button[data-curve][aria-pressed=false]")) state.append("hide", chip.dataset.curve);
  const sorted = summary?.querySelector("th[aria-sort]");
  if (sorted) state.set("sort", `${sorted.textContent}${sorted.getAttribute("aria-sort") === "descending" ? " down" : ""}`);
  if (find.value) state.set("find", find.value);
  document.querySelectorAll(".choice input:checked").forEach((input) => { if (!input.defaultChecked) state.set(input.name, input.value); });
  if (zoomed.from !== null) state.set("zoom", `${zoomed.from.toPrecision(4)} ${zoomed.to.toPrecision(4)}`);
  if ($("runs")?.open) state.set("runs", "");
  history.replaceState(null, "", `#${state}`);
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1)), hide = state.getAll("hide");
  document.querySelectorAll("button[data-curve]").forEach((chip) => { if (hide.includes(chip.dataset.curve)) chip.click(); });
  const sort = state.get("sort"), down = sort?.endsWith(" down"), name = down ? sort.slice(0, -5) : sort;
  const column = summary && sort ? [...summary.tHead.rows[0].cells].findIndex((head) => head.textContent === name) : -1;
  if (column >= 0) sortRows(summary, column, down);
  find.value = state.get("find") ?? "";
  document.querySelectorAll(".choice input").forEach((input) => { if (input.value === state.get(input.name)) input.checked = true; });
  const zoom = (state.get("zoom") ?? "").split(" ").map(Number);
  if (zoom.length === 2 && zoom[1] > zoom[0]) [zoomed.from, zoomed.to] = zoom;
  if (state.has("runs") && $("runs")) $("runs").open = true;
  filterRows();
  restoring = false;
}

if (summary) {
  sortable(summary);
  tools.className = "tools";
  find.type = "search";
  find.placeholder = "Filter by a word";
  find.setAttribute("aria-label", "Filter the tables by a word");
  find.addEventListener("input", () => { filterRows(); remember(); });
  tools.append(find);
  button("Table, CSV", () => save("table.csv", "text/csv", tableLines()), tools);
  button("Runs, CSV", () => save("runs.csv", "text/csv", runLines()), tools);
  button("Data, JSON", () => save("data.json", "application/json", JSON.stringify(D)), tools);
  summary.closest(".scroll").before(tools);
}
$("runs")?.addEventListener("toggle", () => { if ($("runs").open) listRuns(); remember(); });
restore();
if (D.live)
  setInterval(async () => {
    const now = await fetch("version").then((answer) => (answer.ok ? answer.text() : D.live), () => D.live);
    if (now !== D.live) location.reload();
  }, 1000 * D.poll);
