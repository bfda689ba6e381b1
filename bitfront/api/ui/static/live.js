// Refreshes what is on the page while it can be seen. Polls, because a browser grants a host six
// connections and an event stream would keep one a tab; an unchanged page costs one 304.
"use strict";

const live = {
  timer: 0,
  spoken: "",
  isAway: false,
  last: Promise.resolve(),

  region() {
    return document.getElementById("live");
  },

  // One after another: htmx would keep a second one for later and call it done.
  refresh() {
    live.last = live.last.then(live.fetch, live.fetch);
    return live.last;
  },

  async fetch() {
    const began = performance.now();
    live.isAway = false;
    try {
      await htmx.ajax("GET", location.pathname + location.search, {
        target: "#live", select: "#live", swap: "outerMorph",
      });
    } catch {
      live.isAway = true;
    }
    document.getElementById("away").hidden = !live.isAway;
    if (!live.region()) location.reload(); // the key has ended: there is another page now
    else if (!live.isAway) {
      live.say();
      document.dispatchEvent(new CustomEvent("refreshed"));
    }
    return performance.now() - began;
  },

  // A sentence is spoken when it is another one, less its numbers: not at every step.
  say() {
    const sentence = document.querySelector("[data-spoken]")?.textContent.trim() ?? "";
    const kind = sentence.replace(/\d+/g, "");
    if (live.spoken && kind !== live.spoken) document.getElementById("spoken").textContent = sentence;
    live.spoken = kind;
  },

  async tick() {
    let took = 0;
    if (!document.hidden) took = await live.refresh();
    const seconds = Number(live.region()?.dataset.seconds || 5);
    live.timer = setTimeout(live.tick, Math.max(seconds * 1000, 3 * took));
  },

  async show(url, focus) {
    history.pushState({}, "", url);
    await live.refresh();
    if (!focus) return;
    const title = document.getElementById("h-point");
    title?.focus({ preventScroll: true });
    title?.scrollIntoView({ block: "start" });
  },
};

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-point]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  live.show(link.href, true);
});

document.addEventListener("change", (event) => {
  if (!event.target.matches?.("select[data-shown]")) return;
  const url = new URL(location.href);
  url.searchParams.set("shown", event.target.value);
  history.replaceState({}, "", url);
  live.refresh();
});

for (const name of ["htmx:error", "htmx:response:error"])
  document.addEventListener(name, () => { live.isAway = true; });
window.addEventListener("popstate", () => live.refresh());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) live.refresh();
});
document.addEventListener("DOMContentLoaded", () => {
  live.say();
  const seconds = Number(live.region()?.dataset.seconds || 5);
  live.timer = setTimeout(live.tick, seconds * 1000);
});
