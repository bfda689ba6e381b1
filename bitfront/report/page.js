"use strict";
const maps = JSON.parse(document.getElementById("maps").textContent);

function show(map, view) {
  const hover = view.hover.map((row, i) => row.map((text, j) => [maps.names[i][j], text]));
  Plotly.restyle(map, { z: [view.values], text: [view.texts], customdata: [hover] });
}

for (const select of document.querySelectorAll("select[data-map]")) {
  const views = maps.views[select.dataset.map];
  select.replaceChildren(...views.map((view, index) => new Option(view.label, index)));
  select.addEventListener("change", () => show(select.dataset.map, views[select.value]));
}

// Plotly writes colours into the figures, so style sheets cannot follow the page's scheme for it.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  for (const figure of document.querySelectorAll(".js-plotly-plot")) {
    const axes = Object.keys(figure.layout).filter((key) => /^[xy]axis/.test(key));
    const change = { "font.color": ink, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    for (const axis of axes) Object.assign(change, { [axis + ".gridcolor"]: line, [axis + ".tickcolor"]: line });
    Plotly.relayout(figure, change);
  }
}
// A finger that drags over a figure scrolls the page.
if (window.matchMedia("(pointer: coarse)").matches)
  for (const figure of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(figure, { dragmode: false });

dark.addEventListener("change", paint);
paint();
