const colours = ["#d1242f", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#3b5bdb", "#7f7f7f"];
const draw = (tag, attributes, text) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const k in attributes) e.setAttribute(k, attributes[k]); if (text !== undefined) e.textContent = text; $("chart").append(e); return e };
const hidden = new Set();
const digits = v => Math.abs(v) < 10 ? v.toFixed(4) : v.toFixed(2);

options("metric", data.metrics.map(m => m.name), data.metrics.map(m => m.label));

function curves(metric) {
  const all = Object.entries(data.means).map(([name, points], i) => ({ name, colour: colours[i % colours.length], own: name === "pocketlic",
    points: points.map(p => [p.bpp, p.metrics[metric], `${name} at ${p.setting}`]) }));
  if (metric === "rgb_psnr") Object.entries(data.published).forEach(([name, points]) => all.push({ name: name + " (published)", colour: "#888", dashed: true, points: points.map(p => [...p, name]) }));
  return all;
}
function chart() {
  $("chart").replaceChildren();
  const metric = $("metric").value, log = $("log").checked, all = curves(metric), shown = all.filter(c => !hidden.has(c.name));
  const points = shown.flatMap(c => c.points);
  legend(all);
  if (!points.length) return;
  const f = log ? Math.log2 : v => v;
  const x0 = f(Math.min(...points.map(p => p[0]))) - (log ? .1 : .05), x1 = f(Math.min(4, Math.max(...points.map(p => p[0])))) + (log ? .1 : .05);
  const inside = points.filter(p => f(p[0]) <= x1), y0 = Math.min(...inside.map(p => p[1])), y1 = Math.max(...inside.map(p => p[1])), pad = (y1 - y0) * .04 || 1;
  const X = v => 60 + (f(v) - x0) / (x1 - x0) * 925, Y = v => 475 - (v - y0 + pad) / (y1 - y0 + 2 * pad) * 460;
  const xs = log ? [.0625, .125, .25, .5, 1, 2, 4] : [0, .5, 1, 1.5, 2, 2.5, 3, 3.5, 4];
  for (const v of xs) if (f(v) >= x0 && f(v) <= x1) { draw("line", { x1: X(v), x2: X(v), y1: 15, y2: 475, stroke: "var(--line)" }); draw("text", { x: X(v), y: 493, "text-anchor": "middle" }, v) }
  const raw = (y1 - y0) / 7, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map(k => k * unit).find(k => k >= raw);
  for (let v = Math.ceil((y0 - pad) / step) * step; v <= y1 + pad; v += step) { draw("line", { x1: 60, x2: 985, y1: Y(v), y2: Y(v), stroke: "var(--line)" }); draw("text", { x: 52, y: Y(v) + 4, "text-anchor": "end" }, +v.toPrecision(4)) }
  draw("text", { x: 520, y: 514, "text-anchor": "middle" }, "bits per pixel");
  const clip = draw("clipPath", { id: "clip" }), box = draw("rect", { x: 60, y: 10, width: 930, height: 470 }); clip.append(box);
  for (const c of shown) {
    draw("polyline", { points: c.points.map(p => `${X(Math.max(p[0], 1e-4))},${Y(p[1])}`).join(" "), fill: "none", stroke: c.colour, "stroke-width": c.own ? 3 : 1.7, "stroke-dasharray": c.dashed ? "6 4" : "none", "clip-path": "url(#clip)" });
    for (const p of c.points) { const dot = draw("circle", { cx: X(p[0]), cy: Y(p[1]), r: c.own ? 4.5 : 3.2, fill: c.colour, "clip-path": "url(#clip)" }); const t = document.createElementNS("http://www.w3.org/2000/svg", "title"); t.textContent = `${p[2]}: ${p[0].toFixed(4)} bpp, ${digits(p[1])}`; dot.append(t) }
  }
}
function legend(all) {
  $("legend").replaceChildren(...all.map(c => { const l = make("label"), box = make("input", "", { type: "checkbox", checked: !hidden.has(c.name) }), i = make("i"); i.style.borderTopColor = c.colour; if (c.dashed) i.style.borderTopStyle = "dashed";
    box.onchange = () => { hidden[box.checked ? "delete" : "add"](c.name); chart() }; l.append(box, i, c.name); return l }));
}
$("metric").onchange = $("log").onchange = chart;
chart();

function table(id, head, rows) {
  const row = (cells, tag) => { const r = make("tr"); cells.forEach(c => { const e = make(tag, c && c.text !== undefined ? c.text : c); if (c && c.title) e.title = c.title; if (c && c.better) e.className = "good"; r.append(e) }); return r };
  $(id).append(row(head, "th"), ...rows.map(r => row(r, "td")));
}
if (data.bd.rows.length) { $("bdnote").textContent = data.bd.note; table("bd", data.bd.head, data.bd.rows) }
else $("bdnote").textContent = "No anchor: give VVC streams, name an anchor, or evaluate Kodak's 24 pictures.";
table("means", ["codec", "setting", "bpp", ...data.metrics.map(m => m.label), "encode ms", "decode ms"],
  Object.entries(data.means).flatMap(([name, points]) => points.map((p, i) => [i ? "" : name, p.setting, p.bpp.toFixed(4), ...data.metrics.map(m => digits(p.metrics[m.name])), p.encode_ms === null ? "" : p.encode_ms.toFixed(0), p.decode_ms.toFixed(0)])));

if (data.pictures.length) {
  options("picture", data.pictures.map((_, i) => i), data.pictures.map(p => p.name));
  options("target", data.targets);
  const names = ["original", ...Object.keys(data.means)], picture = () => data.pictures[$("picture").value];
  const shots = () => ({ original: { image: picture().original, note: "original" }, ...picture().shots[$("target").value] });
  const show = viewer(names, [names[1], names.indexOf("jpeg") > 1 ? "jpeg" : names[0]], shots, () => picture().width, 2);
  $("picture").onchange = $("target").onchange = show;
}
