// Sends forms marked data-json to the API as JSON, and says what it answers in its own words.
"use strict";

function put(body, path, value) {
  const [first, ...rest] = path.split(".");
  if (rest.length) put((body[first] ??= {}), rest.join("."), value);
  else body[first] = value;
}

function taken(body, path) {
  return path.split(".").reduce((held, key) => held?.[key], body);
}

function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (field.dataset.part) put(body, field.dataset.part, (body[field.dataset.part] ?? "") + field.value);
    if (!field.name || field.disabled) continue;
    if (field.dataset.type === "list") {
      if (!taken(body, field.name)) put(body, field.name, []);
      if (field.checked) taken(body, field.name).push(field.value);
    } else if (field.dataset.type === "boolean") {
      put(body, field.name, field.checked);
    } else if (field.dataset.type === "number") {
      if (field.value !== "") put(body, field.name, Number(field.value));
    } else if (field.dataset.type !== "optional" || field.value !== "") put(body, field.name, field.value);
  }
  // What is nothing without a choice is left out where none was made.
  for (const part of form.querySelectorAll("[data-optional]")) {
    if (!taken(body, `${part.dataset.optional}.${part.dataset.needs}`)?.length) delete body[part.dataset.optional];
  }
  return body;
}

function tell(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

async function send(form, address = form.getAttribute("action")) {
  const body = bodyOf(form);
  const headers = { Accept: "application/json" };
  if (form.dataset.key) headers["Idempotency-Key"] = form.dataset.key;
  const request = { method: "POST", headers };
  if (Object.keys(body).length) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const answer = await fetch(address, request);
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    // Another body under the same key would be refused, and a refused one made nothing.
    if (form.dataset.key && answer.status !== 409) form.dataset.key = crypto.randomUUID?.() ?? `${Math.random()}`;
    throw new Error(told.detail ?? `The server answered ${answer.status}.`);
  }
  return told;
}

function estimated(told) {
  const count = (n) => n.toLocaleString("en");
  const texts = Object.entries(told.n_measurements).map(([text, n]) =>
    `up to ${count(n)} measurements of ${count(told.n_tokens[text])} ${told.unit} in all on the ${text} text`);
  const lines = [`${texts.join(", ")}; the estimator sees ${count(told.n_estimator_tokens)} ${told.unit}.`];
  if (told.model) {
    const megabytes = Object.values(told.model.bank_bytes).reduce((sum, n) => sum + n, 0) / 1e6;
    const times = Object.entries(told.model.seconds_at_least).map(([device, s]) => `${device} ${s < 1 ? "under 1" : count(Math.round(s))} s`);
    const caches = Object.entries(told.model.cache_bytes ?? {}).map(([name, n]) => `${name} ${count(Math.ceil(n / 1e6))} MB`);
    if (caches.length) lines.push(`The whole KV cache in one format: ${caches.join(", ")}.`);
    const rate = times.length ? `; at the peak rate, which nothing reaches: ${times.join(", ")}` : "";
    lines.push(`${count(told.model.n_layers)} layers; ${count(Math.ceil(megabytes))} MB of disk${rate}.`);
  } else lines.push("Sizes and times are known for models in a folder of this installation only.");
  return lines.join(" ");
}

// A runtime ticks its own menu, and so does a base; what a runtime cannot load is not offered.
document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (!["runtime", "base"].includes(event.target.name)) return;
  const { runtime, base } = form.elements;
  // Another base has the same menu: what was ticked for the first stays.
  if (event.target === base && Boolean(base.dataset.is) === Boolean(base.value)) return;
  base.dataset.is = base.value;
  const menu = (base.value ? base : runtime.selectedOptions[0]).dataset.menu.split(" ");
  for (const box of form.elements.formats) {
    const isLoaded = runtime.value === "" || box.dataset.runtimes.split(" ").includes(runtime.value);
    box.disabled = !isLoaded || (box.dataset.ofBase !== undefined && !base.value);
    box.checked = !box.disabled && menu.includes(box.value);
  }
  const more = form.querySelector("[data-formats]");
  more.open ||= more.querySelector(":checked") !== null;
});

// A task has samples of its own kind: from elsewhere, of another number, without a length in tokens.
document.addEventListener("change", (event) => {
  const task = event.target;
  if (task.dataset.samples === undefined) return;
  const given = JSON.parse(task.selectedOptions[0].dataset.given);
  for (const field of task.form.elements) {
    const { samplesOf, source, ofTokens } = field.dataset;
    if (samplesOf !== undefined) field.value = given.n?.[samplesOf] ?? field.defaultValue;
    if (source !== undefined && [field.defaultValue, ""].includes(field.value)) field.value = given.source ?? field.defaultValue;
    if (ofTokens !== undefined) field.disabled = Boolean(given.sees);
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-estimate]");
  if (!button || !button.form.reportValidity()) return;
  const place = button.form.querySelector(".problem");
  const answer = document.getElementById("estimate");
  tell(place, "");
  answer.textContent = "";
  try {
    answer.textContent = estimated(await send(button.form, button.dataset.estimate));
  } catch (error) {
    tell(place, error instanceof TypeError ? "The server cannot be reached: try again." : error.message);
  }
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-json]")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  // Found before the form may be gone.
  const place = form.querySelector(".problem") ?? form.closest(".actions").querySelector(":scope > .problem");
  button.disabled = true;
  tell(place, "");
  try {
    const told = await send(form);
    const target = form.dataset.done.replace("{id}", encodeURIComponent(told.id ?? ""));
    if (typeof live === "undefined") location.assign(target);
    else {
      history.replaceState({}, "", target);
      await live.refresh();
      document.getElementById("spoken").textContent = "Done.";
    }
  } catch (error) {
    tell(place, error instanceof TypeError ? "The server cannot be reached: try again." : error.message);
  } finally {
    button.disabled = false;
  }
});
