"use strict";
// Draws the page's figures from the JSON in #data. Only a served page asks its server whether runs ended.
const D = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const clicked = new Set();
let clips = 0;
const $ = (id) => document.getElementById(id);
const RUN = { id: 0, seed: 1, loss: 2, state: 3, reason: 4, step: 5, values: 6 };
const POINT = { x: 0, at: 1, mean: 2, runs: 3 };
const owner = new Map();
D.curves.forEach((c, k) => c.points.forEach((p, j) => p[POINT.runs].forEach((r) => owner.has(r) || owner.set(r, [k, j]))));
const axisOf = (curve) => D.panels[curve.panel].axis;
const colour = (slot) => D.colours[slot % D.colours.length];

function node(tag, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

const outline = (slot, x, y, r) =>
  "M" + D.markers[(slot + Math.floor(slot / D.markers.length)) % D.markers.length].map(([a, b]) => `${(x + r * a).toFixed(1)} ${(y + r * b).toFixed(1)}`).join("L") + "Z";
const path = (points) => (points.length ? "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L") : "");

function linearTicks([low, high], room) {
  const raw = (high - low) / Math.max(2, room);
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => k >= raw);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9); k++) ticks.push([k * step, (k * step).toFixed(digits)]);
  return ticks;
}

function logTicks([low, high], room, name) {
  const every = Math.max(1, Math.ceil((high - low) / room));
  const inside = high - low < 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let k = Math.floor(low); k <= high; k++)
    for (const m of inside) {
      const at = k + Math.log10(m);
      if (at >= low - 1e-9 && at <= high + 1e-9 && k % every === 0) ticks.push([at, name(k, m)]);
    }
  return ticks;
}
const power = (k, m) => (k >= -2 && k <= 3 ? String(+(m * 10 ** k).toPrecision(2)) : `${m}e${k}`);
const factor = (k, m) => (k === 0 && m === 1 ? "best" : k < 0 && m === 1 ? `÷${10 ** -k}` : `×${+(m * 10 ** k).toPrecision(2)}`);
const thousands = (n) => [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].reduce((s, [u, l]) => s ?? (n >= u ? `${+(n / u).toPrecision(3)} ${l}` : null), null) ?? String(n);

// One set of axes: returns the drawing group and the scales. `strip` keeps a band on top for diverged runs;
// `small` leaves out the axes' names.
function axes(box, s) {
  const w = Math.max(s.small ? 140 : 260, box.clientWidth), h = s.small ? 150 : s.height ?? (w < 480 ? 290 : 380);
  const left = s.small ? 34 : 54, right = 12, bottom = s.small ? 24 : 46, band = s.strip ? 8 + 8 * s.strip : 0, top = (s.title ? 26 : s.strip ? 8 : 12) + band;
  const svg = node("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": s.label }, box);
  const sx = (x) => left + ((x - s.x[0]) / (s.x[1] - s.x[0] || 1)) * (w - left - right);
  const sy = (y) => h - bottom - ((y - s.y[0]) / (s.y[1] - s.y[0] || 1)) * (h - top - bottom);
  if (s.title) node("text", { x: left, y: 13, class: "caption" }, svg, s.title);
  for (const [from, to] of s.bands ?? []) {
    node("rect", { x: sx(from), width: sx(to) - sx(from), y: top, height: h - bottom - top, class: "band" }, svg);
    node("text", { x: (sx(from) + sx(to)) / 2, y: top + 15, class: "hint", "text-anchor": "middle" }, svg, "within 3×");
  }
  for (const [at, text] of s.yticks((h - top - bottom) / (s.small ? 28 : 45))) {
    node("path", { d: `M${left} ${sy(at)}H${w - right}`, class: "grid" }, svg);
    node("text", { x: left - 7, y: sy(at) + 4, "text-anchor": "end" }, svg, text);
  }
  let last = -1e9;
  for (const [at, text] of s.xticks((w - left - right) / 52)) {
    node("path", { d: `M${sx(at)} ${h - bottom}v4`, class: "axis" }, svg);
    const half = 3.2 * text.length;
    if (sx(at) - half < last + 6 || sx(at) + half > w + 2) continue;
    last = sx(at) + half;
    node("text", { x: sx(at), y: h - bottom + 17, "text-anchor": "middle" }, svg, text);
  }
  node("path", { d: `M${left} ${top}V${h - bottom}H${w - right}`, class: "axis" }, svg);
  if (!s.small) {
    node("text", { x: (left + w - right) / 2, y: h - 9, "text-anchor": "middle", class: "title" }, svg, s.xlabel);
    node("text", { transform: `translate(12 ${(top + h - bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, svg, s.ylabel);
  }
  const clip = `clip${clips++}`;
  node("rect", { x: left, y: top, width: w - left - right, height: h - top - bottom + 1 }, node("clipPath", { id: clip }, svg));
  if (s.strip) {
    node("rect", { x: left, y: top - band - 4, width: w - left - right, height: band, class: "strip" }, svg);
    if (!s.small) node("text", { x: left - 6, y: top - band / 2, "text-anchor": "end", class: "hint" }, svg, "diverged");
  }
  const ux = (x) => s.x[0] + ((x - left) / (w - left - right)) * (s.x[1] - s.x[0]);
  return { svg, plot: node("g", { "clip-path": `url(#${clip})` }, svg), sx, sy, ux, left, right: w - right, top, bottom: h - bottom, hits: [], strip: (row) => top - band + 4 + 8 * row };
}

function hover(a, describe, click) {
  const ring = node("circle", { r: 8, class: "ring", visibility: "hidden" }, a.svg);
  const nearest = (event) => {
    const to = a.svg.getBoundingClientRect(), scale = a.svg.viewBox.baseVal.width / to.width;
    const x = (event.clientX - to.left) * scale, y = (event.clientY - to.top) * scale;
    let best = null, least = 28 ** 2;
    for (const hit of a.hits) {
      const d = (hit.x - x) ** 2 + (hit.y - y) ** 2;
      if (d < least) [best, least] = [hit, d];
    }
    return best;
  };
  const move = (event) => {
    const hit = nearest(event), tip = $("tip");
    ring.setAttribute("visibility", hit ? "visible" : "hidden");
    tip.hidden = !hit;
    a.svg.style.cursor = hit && click ? "pointer" : "";
    if (!hit) return;
    ring.setAttribute("cx", hit.x);
    ring.setAttribute("cy", hit.y);
    tip.replaceChildren(...describe(hit));
    const x = event.clientX + 14, y = event.clientY + 14;
    tip.style.left = `${Math.max(6, Math.min(x, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + tip.offsetHeight > innerHeight ? Math.max(6, event.clientY - tip.offsetHeight - 14) : y}px`;
  };
  a.svg.addEventListener("pointermove", move);
  a.svg.addEventListener("pointerdown", move);
  a.svg.addEventListener("pointerleave", () => { $("tip").hidden = true; ring.setAttribute("visibility", "hidden"); });
  if (click) a.svg.addEventListener("click", (event) => { const hit = nearest(event); if (hit) click(hit); });
}

function line(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function describe(hit) {
  const run = D.runs[hit.run], { curve, point } = hit;
  const lines = [
    line("strong", `${curve.name}, ${axisOf(curve)} ${point[POINT.x]}`),
    ...(D.panels[curve.panel].name ? [line("div", D.panels[curve.panel].name)] : []),
    line("div", run[RUN.state] === "diverged" ? `diverged${run[RUN.step] === null ? "" : ` at step ${run[RUN.step]}`}: ${run[RUN.reason] ?? "no reason recorded"}` : `${D.metric.name} ${(D.metric.sign * run[RUN.loss]).toFixed(D.metric.digits)}${D.metric.units}`),
    line("div", `seed ${run[RUN.seed]}, run ${run[RUN.id]}`),
  ];
  if (point[POINT.runs].length > 1) lines.push(line("div", `mean of ${point[POINT.runs].length} seeds ${(D.metric.sign * point[POINT.mean]).toFixed(D.metric.digits)}`));
  const list = document.createElement("dl");
  D.keys.slice(0, 12).forEach((key, n) => {
    const value = run[RUN.values][n];
    if (value !== null && value !== undefined) list.append(line("dt", key), line("dd", typeof value === "object" ? JSON.stringify(value) : String(value)));
  });
  return [...lines, list];
}

// The rule of figures.loss_range, over the curves that are shown of the panels with the same axis.
function lossRange(axis = D.panels[0].axis) {
  const all = D.curves.filter((c) => axisOf(c) === axis);
  const shown = all.filter((c) => !hidden.has(c.label)), curves = shown.length ? shown : all;
  const bests = curves.map((c) => c.points[c.best][POINT.mean]);
  const trained = curves.flatMap((c) => c.points.filter((p) => p[POINT.runs].every((r) => D.runs[r][RUN.state] !== "diverged")).map((p) => p[POINT.mean]));
  const means = trained.length ? trained : bests, low = Math.min(...means);
  const high = Math.min(Math.max(...means), Math.max(low + 2.5 * (Math.max(...bests) - low), low + 1.5));
  const pad = 0.04 * (high - low || 1);
  return [low - pad, high + pad];
}

const lost = (range) => (r) => D.runs[r][RUN.state] === "diverged" || D.runs[r][RUN.loss] > range[1];
const losesAny = (c, range) => c.points.some((p) => p[POINT.runs].some(lost(range)));

// Axes of a panel's curves, as swept or aligned at each best, with a row on top for each curve that lost runs.
function sweepAxes(box, panel, aligned, strip, more) {
  const { axis, log } = D.panels[panel], curves = D.curves.filter((c) => c.panel === panel);
  const places = curves.flatMap((c) => c.points.map((p) => p[POINT.at] - (aligned ? c.points[c.best][POINT.at] : 0)));
  const pad = 0.05 * (Math.max(...places) - Math.min(...places)) || 0.5;
  const names = new Map(curves.flatMap((c) => c.points.map((p) => [p[POINT.at], p[POINT.x]])));
  const range = lossRange(axis), x = [Math.min(...places) - pad, Math.max(...places) + pad];
  return axes(box, {
    x, y: range, strip,
    xticks: (room) => (log ? logTicks(x, room, aligned ? factor : power) : [...names].sort((p, q) => p[0] - q[0])),
    yticks: (room) => linearTicks(range, room).map(([at, text]) => [at, D.metric.sign < 0 ? text.replace(/^-?/, (s) => (s || Number(text) === 0 ? "" : "-")) : text]),
    ...more,
  });
}

function sweepChart(box, panel, aligned) {
  const { name, axis, plots } = D.panels[panel], curves = D.curves.filter((c) => c.panel === panel && !hidden.has(c.label));
  const range = lossRange(axis), losers = curves.filter((c) => losesAny(c, range));
  const a = sweepAxes(box, panel, aligned, Math.min(losers.length, 10), {
    title: [name, plots.length === 1 ? "" : aligned ? "aligned at each best" : "as swept"].filter(Boolean).join(", "),
    label: `${D.metric.name} against ${axis}${aligned ? ", aligned at each best" : ""}`,
    xlabel: aligned ? `${axis}, relative to each best` : axis, ylabel: D.metric.label,
    bands: aligned ? [[-Math.log10(3), Math.log10(3)]] : [],
  });
  for (const c of [...curves].reverse()) drawCurve(a, c, aligned, range, losers.indexOf(c) % 10);
  hover(a, describe, choose);
}

function drawCurve(a, c, aligned, range, row) {
  const shift = aligned ? c.points[c.best][POINT.at] : 0, off = lost(range);
  const at = (p) => a.sx(p[POINT.at] - shift), ink = colour(c.slot);
  const seeds = c.points.map((p) => p[POINT.runs].map((r) => D.runs[r][RUN.loss]));
  if (seeds.some((s) => s.length > 1))
    node("path", { d: path([...c.points.map((p, j) => [at(p), a.sy(Math.max(...seeds[j]))]), ...c.points.map((p, j) => [at(p), a.sy(Math.min(...seeds[j]))]).reverse()]) + "Z", fill: ink, opacity: 0.16 }, a.plot);
  node("path", { d: path(c.points.map((p) => [at(p), a.sy(p[POINT.mean])])), stroke: ink, class: "line", "stroke-dasharray": c.dashed ? "6 4" : "none" }, a.plot);
  let dots = "", crosses = "";
  for (const p of c.points) {
    const gone = p[POINT.runs].filter(off);
    for (const r of p[POINT.runs]) {
      const px = at(p) + (off(r) ? (a.right - a.left < 250 ? 4 : 7) * (gone.indexOf(r) - (gone.length - 1) / 2) : 0);
      const y = off(r) ? a.strip(row) : a.sy(D.runs[r][RUN.loss]);
      if (off(r)) crosses += D.runs[r][RUN.state] === "diverged" ? `M${px - 2.5} ${y - 2.5}l5 5m0 -5l-5 5` : `M${px - 2.5} ${y + 2}l2.5 -4l2.5 4`;
      else dots += `M${px} ${y}h0`;
      a.hits.push({ x: px, y, run: r, curve: c, point: p });
    }
  }
  node("path", { d: dots, stroke: ink, class: "dots" }, a.plot);
  node("path", { d: c.points.filter((p) => p[POINT.mean] <= range[1] && !p[POINT.runs].every(off)).map((p) => outline(c.slot, at(p), a.sy(p[POINT.mean]), p === c.points[c.best] ? 6.5 : 4.5)).join(""), fill: ink, class: "marker" }, a.plot);
  node("path", { d: crosses, stroke: ink, class: "cross" }, a.svg);
}

const choose = (hit) => { clicked.has(hit.run) ? clicked.delete(hit.run) : clicked.add(hit.run); drawTraining(); };

// A chart of its own for each of many curves, on the axes of all, with the reference in grey behind it.
function drawMultiples() {
  const box = $("multiples");
  box.parentElement.hidden = false;
  box.replaceChildren();
  D.panels.forEach(({ name, axis, plots }, panel) => {
    const all = D.curves.filter((c) => c.panel === panel), best = (c) => c.points[c.best][POINT.mean];
    const curves = all.filter((c) => !hidden.has(c.label)).sort((p, q) => best(p) - best(q));
    if (all.length <= D.many) return;
    if (name) box.append(line("h3", name));
    const grid = box.appendChild(line("div", "")), range = lossRange(axis), aligned = plots.at(-1);
    grid.className = "multiples";
    const reference = all.find((c) => c.reference);
    for (const c of curves) {
      const cell = grid.appendChild(line("div", ""));
      cell.append(line("h4", c.name));
      const a = sweepAxes(cell, panel, aligned, Number(curves.some((one) => losesAny(one, range))), { label: `${D.metric.name} of ${c.name}`, small: true });
      if (reference && reference !== c) {
        const shift = aligned ? reference.points[reference.best][POINT.at] : 0;
        node("path", { d: path(reference.points.map((p) => [a.sx(p[POINT.at] - shift), a.sy(p[POINT.mean])])), class: "line behind" }, a.plot);
      }
      drawCurve(a, c, aligned, range, 0);
      hover(a, describe, choose);
    }
  });
}

function drawAll() {
  const box = $("figure");
  if (box) {
    box.replaceChildren();
    const charts = D.panels.flatMap(({ plots }, panel) => plots.map((aligned) => [box.appendChild(line("div", "")), panel, aligned]));
    charts.forEach(([inner, panel, aligned]) => sweepChart(inner, panel, aligned));
  }
  if ($("multiples")) drawMultiples();
  drawTraining();
}

document.querySelectorAll("button[data-curve]").forEach((button) =>
  button.addEventListener("click", () => {
    const names = D.curves.filter((c) => c.name === button.dataset.curve).map((c) => c.label);
    const hide = button.getAttribute("aria-pressed") === "true";
    names.forEach((n) => (hide ? hidden.add(n) : hidden.delete(n)));
    button.setAttribute("aria-pressed", String(!hide));
    remember();
    document.querySelectorAll("tr[data-curve]").forEach((row) => row.classList.toggle("off", hidden.has(row.dataset.curve)));
    drawAll();
  }));
document.querySelectorAll("svg[data-slot]").forEach((icon) => node("path", { d: outline(+icon.dataset.slot, 7, 7, 5.5), fill: colour(+icon.dataset.slot) }, icon));
document.querySelector("details.sweeps")?.addEventListener("toggle", drawAll);
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
});
for (const [moment, on] of [["beforeprint", true], ["afterprint", false]])
  addEventListener(moment, () => { document.documentElement.classList.toggle("printing", on); drawAll(); });
let width = 0;
new ResizeObserver(() => { if (innerWidth !== width) { width = innerWidth; drawAll(); } }).observe(document.body);
