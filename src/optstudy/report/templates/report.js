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

// One set of axes: returns the drawing group and the scales. `strip` keeps a band on top for diverged runs.
function axes(box, s) {
  const w = Math.max(260, box.clientWidth), h = s.height ?? (w < 480 ? 290 : 380);
  const left = 54, right = 12, bottom = 46, band = s.strip ? 8 + 8 * s.strip : 0, top = (s.title ? 26 : 12) + band;
  const svg = node("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": s.label }, box);
  const sx = (x) => left + ((x - s.x[0]) / (s.x[1] - s.x[0] || 1)) * (w - left - right);
  const sy = (y) => h - bottom - ((y - s.y[0]) / (s.y[1] - s.y[0] || 1)) * (h - top - bottom);
  node("text", { x: left, y: 13, class: "caption" }, svg, s.title);
  for (const [from, to] of s.bands ?? []) {
    node("rect", { x: sx(from), width: sx(to) - sx(from), y: top, height: h - bottom - top, class: "band" }, svg);
    node("text", { x: (sx(from) + sx(to)) / 2, y: top + 15, class: "hint", "text-anchor": "middle" }, svg, "within 3×");
  }
  for (const [at, text] of s.yticks((h - top - bottom) / 45)) {
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
  node("text", { x: (left + w - right) / 2, y: h - 9, "text-anchor": "middle", class: "title" }, svg, s.xlabel);
  node("text", { transform: `translate(12 ${(top + h - bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, svg, s.ylabel);
  const clip = `clip${clips++}`;
  node("rect", { x: left, y: top, width: w - left - right, height: h - top - bottom + 1 }, node("clipPath", { id: clip }, svg));
  if (s.strip) {
    node("rect", { x: left, y: 22, width: w - left - right, height: band, class: "strip" }, svg);
    node("text", { x: left - 6, y: 26 + band / 2, "text-anchor": "end", class: "hint" }, svg, "diverged");
  }
  return { svg, plot: node("g", { "clip-path": `url(#${clip})` }, svg), sx, sy, hits: [], strip: (row) => 30 + 8 * row };
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

function sweepChart(box, panel, aligned) {
  const { name, axis, log, plots } = D.panels[panel], curves = D.curves.filter((c) => c.panel === panel);
  const shift = (c) => (aligned ? c.points[c.best][POINT.at] : 0);
  const places = curves.flatMap((c) => c.points.map((p) => p[POINT.at] - shift(c)));
  const pad = 0.05 * (Math.max(...places) - Math.min(...places)) || 0.5;
  const range = lossRange(axis);
  const lost = (r) => D.runs[r][RUN.state] === "diverged" || D.runs[r][RUN.loss] > range[1];
  const losers = curves.filter((c) => !hidden.has(c.label) && c.points.some((p) => p[POINT.runs].some(lost)));
  const row = new Map(losers.map((c, k) => [c, k % 10]));
  const names = new Map(curves.flatMap((c) => c.points.map((p) => [p[POINT.at], p[POINT.x]])));
  const x = [Math.min(...places) - pad, Math.max(...places) + pad];
  const a = axes(box, {
    title: [name, plots.length === 1 ? "" : aligned ? "aligned at each best" : "as swept"].filter(Boolean).join(", "),
    label: `${D.metric.name} against ${axis}${aligned ? ", aligned at each best" : ""}`,
    x, y: range, strip: Math.min(losers.length, 10),
    xticks: (room) => (log ? logTicks(x, room, aligned ? factor : power) : [...names].sort((p, q) => p[0] - q[0])),
    yticks: (room) => linearTicks(range, room).map(([at, text]) => [at, D.metric.sign < 0 ? text.replace(/^-?/, (s) => (s || Number(text) === 0 ? "" : "-")) : text]),
    xlabel: aligned ? `${axis}, relative to each best` : axis, ylabel: D.metric.label,
    bands: aligned ? [[-Math.log10(3), Math.log10(3)]] : [],
  });
  for (const c of [...curves].reverse()) {
    if (hidden.has(c.label)) continue;
    const at = (p) => a.sx(p[POINT.at] - shift(c)), ink = colour(c.slot);
    const seeds = c.points.map((p) => p[POINT.runs].map((r) => D.runs[r][RUN.loss]));
    if (seeds.some((s) => s.length > 1))
      node("path", { d: path([...c.points.map((p, j) => [at(p), a.sy(Math.max(...seeds[j]))]), ...c.points.map((p, j) => [at(p), a.sy(Math.min(...seeds[j]))]).reverse()]) + "Z", fill: ink, opacity: 0.16 }, a.plot);
    node("path", { d: path(c.points.map((p) => [at(p), a.sy(p[POINT.mean])])), stroke: ink, class: "line", "stroke-dasharray": c.dashed ? "6 4" : "none" }, a.plot);
    let dots = "", crosses = "";
    for (const p of c.points) {
      const gone = p[POINT.runs].filter(lost);
      for (const r of p[POINT.runs]) {
        const off = lost(r), px = at(p) + (off ? 7 * (gone.indexOf(r) - (gone.length - 1) / 2) : 0);
        const y = off ? a.strip(row.get(c)) : a.sy(D.runs[r][RUN.loss]);
        if (off) crosses += D.runs[r][RUN.state] === "diverged" ? `M${px - 2.5} ${y - 2.5}l5 5m0 -5l-5 5` : `M${px - 2.5} ${y + 2}l2.5 -4l2.5 4`;
        else dots += `M${px} ${y}h0`;
        a.hits.push({ x: px, y, run: r, curve: c, point: p });
      }
    }
    node("path", { d: dots, stroke: ink, class: "dots" }, a.plot);
    node("path", { d: c.points.filter((p) => p[POINT.mean] <= range[1] && !p[POINT.runs].every(lost)).map((p) => outline(c.slot, at(p), a.sy(p[POINT.mean]), p === c.points[c.best] ? 6.5 : 4.5)).join(""), fill: ink, class: "marker" }, a.plot);
    node("path", { d: crosses, stroke: ink, class: "cross" }, a.svg);
  }
  hover(a, describe, (hit) => { clicked.has(hit.run) ? clicked.delete(hit.run) : clicked.add(hit.run); drawTraining(); });
}

function chosenRuns() {
  const offset = { best: 0, lower: -1, higher: 1 }[document.querySelector("input[name=which]:checked")?.value ?? "best"];
  const runs = D.curves.flatMap((c) => c.points[c.best + offset]?.[POINT.runs].slice(0, 1) ?? []);
  return [...new Set([...runs, ...clicked])].filter((r) => D.series[r] && !hidden.has(D.curves[owner.get(r)[0]].label));
}

function drawTraining() {
  const box = $("training");
  if (!box) return;
  box.replaceChildren();
  const runs = chosenRuns();
  const all = runs.flatMap((r) => [...(D.series[r].loss ?? []), ...(D.series[r].val_loss ?? [])]);
  if (all.length) {
    const x = [0, 1.01 * Math.max(...all.map((p) => p[0]))], losses = all.map((p) => p[1]);
    const y = [Math.min(...losses) - 0.1, Math.max(...losses) + 0.1];
    const a = axes(box, { title: "", label: `Loss against ${D.progress}`, height: 340, x, y, xlabel: D.progress, ylabel: ["loss", D.metric.unit].filter(Boolean).join(", "),
      xticks: (room) => linearTicks(x, Math.min(room, 8)).map(([at]) => [at, thousands(at)]), yticks: (room) => linearTicks(y, room) });
    for (const r of runs) {
      const [k, j] = owner.get(r), curve = D.curves[k], point = curve.points[j];
      const ink = colour(curve.slot), dash = clicked.has(r) ? "5 3" : "none";
      const place = ([t, l]) => [a.sx(t), a.sy(l)];
      node("path", { d: path((D.series[r].loss ?? []).map(place)), stroke: ink, class: "line faint" }, a.plot);
      const points = (D.series[r].val_loss ?? []).map(place);
      node("path", { d: path(points), stroke: ink, class: "line", "stroke-dasharray": dash }, a.plot);
      node("path", { d: points.map(([px, py]) => outline(curve.slot, px, py, 3.5)).join(""), fill: ink }, a.plot);
      points.forEach(([px, py]) => a.hits.push({ x: px, y: py, run: r, curve, point }));
    }
    hover(a, describe);
  } else box.append(line("p", "No training curve is recorded for this choice."));
  const effective = $("effective");
  if (effective) effective.replaceChildren(), runs.filter((r) => D.series[r].effective).slice(0, 4).forEach((r) => drawEffective(effective, r));
}

function drawEffective(parent, run) {
  const rows = D.series[run].effective, [k, j] = owner.get(run);
  parent.append(line("h3", `${D.curves[k].name}, ${axisOf(D.curves[k])} ${D.curves[k].points[j][POINT.x]}`));
  const grid = parent.appendChild(line("div", ""));
  grid.className = "charts";
  const log = (v) => Math.log10(Math.max(v, 1e-300));
  const values = rows.flatMap(([, roles]) => Object.values(roles).flatMap((q) => Object.values(q))).filter((v) => v > 0).map(log);
  const x = [0, rows.at(-1)[0]], y = [Math.min(...values), Math.max(...values)];
  const roles = [...new Set(rows.flatMap(([, found]) => Object.keys(found)))].map((role) => [role, grid.appendChild(line("div", ""))]);
  for (const [role, inner] of roles) {
    const of = rows.filter(([, roles]) => roles[role]), names = Object.keys(of[0][1][role]).sort();
    const a = axes(inner, { title: role, label: `Effective learning rate of ${role}`, height: 260, x, y, xlabel: "tokens", ylabel: "effective learning rate",
      xticks: (room) => linearTicks(x, Math.min(room, 6)).map(([at]) => [at, thousands(at)]), yticks: (room) => logTicks(y, room, power) });
    names.forEach((q, n) => node("path", { d: path(of.map(([t, roles]) => [a.sx(t), a.sy(log(roles[role][q]))])), class: "line", stroke: colour(D.curves[k].slot), opacity: 0.35 + 0.65 * (1 - Math.abs((2 * n) / Math.max(1, names.length - 1) - 1)) }, a.plot));
  }
}

function drawAll() {
  const box = $("figure");
  if (box) {
    box.replaceChildren();
    const charts = D.panels.flatMap(({ plots }, panel) => plots.map((aligned) => [box.appendChild(line("div", "")), panel, aligned]));
    charts.forEach(([inner, panel, aligned]) => sweepChart(inner, panel, aligned));
  }
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
document.querySelectorAll("input[name=which]").forEach((input) => input.addEventListener("change", () => { remember(); drawTraining(); }));
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
