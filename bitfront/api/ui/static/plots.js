// Draws the front and the audit from data.json; again when the study has changed.
"use strict";

const COLOURS = { front: "#2a8fd0", uniform: "#e0701a", best: "#12a583", rest: "#8c8c8c" };
const CONFIG = { displayModeBar: false, responsive: true };
const panel = document.getElementById("front-plot");
const strips = new Map();
let data = null;
let version = "";

// Plotly reads some tags in its texts; names come from models and plug-ins.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(title, more) {
  const line = ink("--line");
  return { title: { text: title }, gridcolor: line, linecolor: line, tickcolor: line, zeroline: false, automargin: true, ticks: "outside", ...more };
}

function layout(x, y, height, more) {
  return {
    height: window.innerWidth < 600 ? Math.min(height, 380) : height,
    margin: { l: 8, r: 12, t: 12, b: 8 },
    font: { color: ink("--ink"), family: "system-ui, sans-serif", size: 13 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hovermode: "closest",
    hoverlabel: { bgcolor: ink("--paper"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
    // A finger that drags over a plot scrolls the page.
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    xaxis: x, yaxis: y, ...more,
  };
}

function trace(name, series, on, style) {
  const texts = series.number.map((number, i) =>
    `trial ${number}, ${plain(series.origin[i])}<br>${data.loss} ${series.kl[i].toPrecision(4)}` +
    (series.kl_stderr[i] ? ` ± ${series.kl_stderr[i].toPrecision(1)}` : "") +
    `<br>${series.bits_per_weight[i]?.toFixed(3)} bits per weight, ${(series.bytes[i] / 1e6).toFixed(2)} MB`);
  const errors = series.kl_stderr.map((error) => error ?? 0);
  return {
    name, x: (series[on.quantity] ?? []).map((value) => (value === null ? null : value * on.scale)), y: series.kl,
    customdata: series.number, text: texts,
    // Pale points lie under those that count and would take the pointer from them.
    ...(style.opacity ? { hoverinfo: "skip" } : { hovertemplate: "%{text}<extra></extra>" }),
    // A bar down to zero or below has no place on a logarithmic axis.
    error_y: style.bars === false ? undefined : { array: errors, arrayminus: errors.map((e, i) => Math.min(e, 0.9 * series.kl[i])), thickness: 1.2, width: 3 },
    mode: style.mode, line: { color: style.colour, width: 1.5, dash: style.dash },
    marker: { color: style.colour, symbol: style.symbol, size: style.size ?? 8, opacity: style.opacity ?? 1 },
  };
}

function lossTitle() {
  return data.unit ? `${data.loss}, ${data.unit}` : data.loss;
}

function pick(all, number) {
  const at = all.number.indexOf(number);
  return at < 0 ? null : Object.fromEntries(Object.entries(all).map(([key, values]) => [key, [values[at]]]));
}

function drawFront() {
  const select = document.getElementById("axis");
  const on = data.axes[select.selectedIndex] ?? data.axes[0];
  const where = data.text === "evaluation" ? "" : " (calibration text)";
  const traces = [];
  if (data.pale.number.length) traces.push(trace("calibration text", data.pale, on, { mode: "markers", colour: COLOURS.rest, symbol: "circle", size: 6, opacity: 0.5, bars: false }));
  if (data.rest.number.length) traces.push(trace(`others${where}`, data.rest, on, { mode: "markers", colour: COLOURS.rest, symbol: "circle-open", bars: data.text === "evaluation" }));
  traces.push(trace(`front${where}`, data.front, on, { mode: "lines+markers", colour: COLOURS.front, symbol: "circle" }));
  if (data.uniform.number.length) {
    const uniform = trace("uniform", data.uniform, on, { mode: "lines+markers", colour: COLOURS.uniform, symbol: "square", dash: "dash" });
    uniform.text = uniform.text.map((text, i) => `uniform ${plain(data.uniform.name[i])}<br>${text}`);
    traces.push(uniform);
  }
  const best = data.best === null ? null : pick(data.front, data.best) ?? pick(data.rest, data.best) ?? pick(data.uniform, data.best);
  if (best) traces.push(trace("best within the budget", best, on, { mode: "markers", colour: COLOURS.best, symbol: "star", size: 16 }));
  const limit = data.budget.limits[on.quantity];
  const more = limit === undefined ? {} : {
    shapes: [{ type: "line", x0: limit * on.scale, x1: limit * on.scale, y0: 0, y1: 1, yref: "paper", line: { dash: "dot", color: COLOURS.rest, width: 1.5 } }],
    annotations: [{ x: limit * on.scale, y: 1, yref: "paper", text: ` budget ${plain(data.budget.label)}`, showarrow: false, xanchor: "left", yanchor: "top" }],
  };
  const target = document.getElementById("front");
  Plotly.react(target, traces, layout(axis(on.title), axis(lossTitle(), { type: "log", dtick: "D2", exponentformat: "e" }), 460, more), CONFIG);
  if (target.dataset.wired) return;
  target.dataset.wired = "yes";
  target.on("plotly_hover", (event) => showStrip(event.points[0].customdata));
  target.on("plotly_click", (event) => {
    const url = new URL(location.href);
    url.searchParams.set("point", event.points[0].customdata);
    live.show(url.href, false);
  });
}

function drawAudit() {
  const target = document.getElementById("audit");
  const figure = document.getElementById("audit-plot");
  const n = data.audit ? data.audit.uniform.kl.length + data.audit.search.kl.length : 0;
  if (!target || !n) return;
  figure.hidden = false;
  const traces = [["uniform", "square", COLOURS.uniform], ["search", "circle", COLOURS.front]].map(([name, symbol, color]) => ({
    name, x: data.audit[name].predicted, y: data.audit[name].kl, mode: "markers", marker: { symbol, color, size: 8 },
    text: data.audit[name].number.map((number) => `trial ${number}`), hovertemplate: "%{text}: predicted %{x:.3g}, measured %{y:.3g}<extra></extra>",
  }));
  Plotly.react(target, traces, layout(axis("predicted: sum of the loss table", { type: "log", exponentformat: "e" }), axis(`measured ${lossTitle()}`, { type: "log", exponentformat: "e" }), 400), CONFIG);
}

function drawGrowth() {
  const figure = document.getElementById("growth-plot");
  const { number, share } = data.growth;
  figure.hidden = number.length < 2;
  if (figure.hidden) return;
  const step = { x: number, y: share, mode: "lines+markers", line: { shape: "hv", color: COLOURS.front, width: 1.5 }, marker: { color: COLOURS.front, size: 5 }, hovertemplate: "trial %{x}: %{y:.4f}<extra></extra>" };
  Plotly.react(document.getElementById("growth"), [step], layout(axis("trial", { rangemode: "tozero" }), axis("share of the last", {}), 260), CONFIG);
}

function drawLeftOut() {
  const note = document.getElementById("left-out");
  note.hidden = !data.left_out;
  note.textContent = `${data.left_out.toLocaleString("en")} older points are not drawn; an export has them all.`;
}

function draw() {
  if (!data) return;
  const n = data.front.number.length + data.rest.number.length + data.pale.number.length;
  panel.hidden = !n;
  if (n) drawFront();
  drawLeftOut();
  drawGrowth();
  drawAudit();
}

async function load() {
  const now = document.getElementById("live").dataset.version;
  if (data && now === version) return;
  const answer = await fetch(panel.dataset.source, { headers: { Accept: "application/json" } }).catch(() => null);
  if (!answer?.ok) return;
  data = await answer.json();
  version = now;
  const select = document.getElementById("axis");
  if (select.options.length !== data.axes.length) select.replaceChildren(...data.axes.map((each) => new Option(each.title)));
  draw();
}

let wanted = null;
async function showStrip(number) {
  wanted = number;
  if (!strips.has(number)) {
    const answer = await fetch(panel.dataset.strips + number).catch(() => null);
    if (!answer?.ok) return;
    strips.set(number, await answer.text());
  }
  if (wanted !== number) return;
  const strip = document.getElementById("strip");
  strip.innerHTML = strips.get(number);
  strip.dataset.number = number;
}

if (panel) {
  document.getElementById("axis").addEventListener("change", draw);
  document.addEventListener("refreshed", load);
  document.addEventListener("focusin", (event) => {
    const link = event.target.closest?.("#points a[data-point]");
    if (link) showStrip(Number(link.dataset.point));
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  load();
}
