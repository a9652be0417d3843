// Training curves over tokens or time, on logarithmic or linear axes. Dragging sideways zooms in.
const zoomed = { from: null, to: null }; // tokens or seconds
const choice = (name, otherwise) => document.querySelector(`input[name=${name}]:checked`)?.value ?? otherwise;

function chosenRuns() {
  const offset = { best: 0, lower: -1, higher: 1 }[choice("which", "best")];
  const runs = D.curves.flatMap((c) => c.points[c.best + offset]?.[POINT.runs].slice(0, 1) ?? []);
  return [...new Set([...runs, ...clicked])].filter((r) => D.series[r] && !hidden.has(D.curves[owner.get(r)[0]].label));
}

// Places of values on an axis, and its ticks: powers of ten over more than a decade, else round values.
const placed = (log) => (log ? Math.log10 : (v) => v);
function ticksOf(log, [low, high], room, name) {
  if (!log) return linearTicks([low, high], room).map(([at, text]) => [at, name(at, text)]);
  if (high - low > 1) return logTicks([low, high], room, (k, m) => name(m * 10 ** k));
  return linearTicks([10 ** low, 10 ** high], room).map(([at, text]) => [Math.log10(at), name(at, text)]);
}

function drawTraining() {
  const box = $("training");
  if (!box) return;
  box.replaceChildren();
  const timed = choice("over", "progress") === "time", log = choice("scale", "log") === "log";
  const runs = chosenRuns().filter((r) => !timed || D.pace[r]);
  const longest = Math.max(0, ...runs.flatMap((r) => Object.values(D.series[r]).map((of) => of.at(-1)[0] * (timed ? D.pace[r] : 1))));
  const [unit, size] = !timed ? [D.progress, 1] : [["time, hours", 3600], ["time, minutes", 60], ["time, seconds", 1]].find(([, s]) => longest >= 2 * s || s === 1);
  const lines = runs.map((r) => {
    const per = timed ? D.pace[r] / size : 1, of = (key) => (D.series[r][key] ?? []).map(([x, y]) => [x * per, y]).filter(([x]) => x > 0 || !log);
    return { r, loss: of("loss"), points: of("val_loss") };
  });
  const all = lines.flatMap(({ loss, points }) => [...loss, ...points]);
  if (all.length) {
    const ends = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
    const from = Math.max((zoomed.from ?? 0) / size, ends[0]), to = Math.min((zoomed.to ?? Infinity) / size, ends[1]);
    const seen = all.filter(([x]) => x >= from && x <= to), losses = (seen.length ? seen : all).map((p) => p[1]);
    const down = log && Math.min(...losses) > 0, px = placed(log), py = placed(down);
    const span = (low, high, share) => [low - share * (high - low || 1), high + share * (high - low || 1)];
    const x = span(px(from), px(to), 0.01), y = span(py(Math.min(...losses)), py(Math.max(...losses)), 0.04);
    const a = axes(box, { title: "", label: `Loss against ${unit}`, height: 340, x, y, xlabel: unit, ylabel: ["loss", D.metric.unit].filter(Boolean).join(", "),
      xticks: (room) => ticksOf(log, x, Math.min(room, 8), timed ? (v) => String(+v.toPrecision(3)) : thousands),
      yticks: (room) => ticksOf(down, y, room, (v, text) => text ?? String(+v.toPrecision(3))) });
    for (const { r, loss, points } of lines) {
      const [k, j] = owner.get(r), curve = D.curves[k], point = curve.points[j];
      const ink = colour(curve.slot), dash = clicked.has(r) ? "5 3" : "none";
      const place = ([t, l]) => [a.sx(px(t)), a.sy(py(l))];
      node("path", { d: path(loss.map(place)), stroke: ink, class: "line faint" }, a.plot);
      const at = points.map(place);
      node("path", { d: path(at), stroke: ink, class: "line", "stroke-dasharray": dash }, a.plot);
      node("path", { d: at.map(([mx, my]) => outline(curve.slot, mx, my, 3.5)).join(""), fill: ink }, a.plot);
      at.forEach(([mx, my], n) => points[n][0] >= from && points[n][0] <= to && a.hits.push({ x: mx, y: my, run: r, curve, point }));
    }
    hover(a, describe);
    zoom(a, (at) => (log ? 10 ** at : at) * size);
  } else box.append(line("p", "No training curve is recorded for this choice."));
  const reset = $("unzoom");
  if (reset) reset.hidden = zoomed.from === null;
  const effective = $("effective");
  if (effective) effective.replaceChildren(), runs.filter((r) => D.series[r].effective).slice(0, 4).forEach((r) => drawEffective(effective, r));
}

function zoomTo(from, to) {
  [zoomed.from, zoomed.to] = [from, to];
  remember();
  drawTraining();
}

// A sideways drag over a chart chooses the part of its axis that is shown; a double click shows all.
function zoom(a, value) {
  const { svg, left, right, top, bottom } = a;
  let start = null;
  const mark = node("rect", { class: "band", y: top, height: bottom - top, visibility: "hidden" }, svg);
  const at = (event) => {
    const to = svg.getBoundingClientRect();
    return Math.min(right, Math.max(left, ((event.clientX - to.left) * svg.viewBox.baseVal.width) / to.width));
  };
  svg.classList.add("zooms");
  svg.addEventListener("pointerdown", (event) => { start = at(event); svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = at(event);
    mark.setAttribute("x", Math.min(start, now));
    mark.setAttribute("width", Math.abs(now - start));
    mark.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerup", (event) => {
    const [from, to] = [start, at(event)].sort((p, q) => p - q);
    start = null;
    mark.setAttribute("visibility", "hidden");
    if (to - from > 12) zoomTo(value(a.ux(from)), value(a.ux(to)));
  });
  svg.addEventListener("pointercancel", () => { start = null; mark.setAttribute("visibility", "hidden"); });
  svg.addEventListener("dblclick", () => zoomTo(null, null));
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

document.querySelectorAll(".choice input").forEach((input) => input.addEventListener("change", () => {
  if (input.name === "over") zoomed.from = zoomed.to = null;
  remember();
  drawTraining();
}));
$("unzoom")?.addEventListener("click", () => zoomTo(null, null));
