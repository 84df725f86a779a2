"use strict";
// Draws the figures, and recomputes the envelope over the selected models whenever a box changes.
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = Uint8Array.from(atob(data.counts), (letter) => letter.charCodeAt(0));
const counts = new Uint32Array(bytes.buffer);
const numRadii = data.radii.length;
const axes = [["method", "method"], ["attack", "attack"], ["sigma_cert", "σ"], ["epsilon", "ε"], ["m_train", "m"], ["num_steps", "T"]];
const isBaseline = (model) => model.method === data.baseline && data.has_others;

function values(axis) {
  const found = [...new Set(data.models.map((model) => model[axis]))];
  return found.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
}

function box(parent, text, name, isTicked) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "checkbox", checked: isTicked, name });
  input.addEventListener("change", drawEnvelope);
  label.append(input, " ", text);
  parent.append(label);
  return input;
}

// Vanilla adversarial training is a baseline: it can be ticked, but is no substitute for SmoothAdv.
const startsTicked = (axis, value) => axis !== "method" || !data.apart.includes(value);
const nameOf = (numbers) => (numbers.every((number) => !data.apart.includes(data.models[number].method)) ? data.name : "Adversarial");

const boxes = {};
function makeToggles() {
  const toggles = document.getElementById("toggles");
  for (const [axis, title] of axes) {
    const found = values(axis);
    if (found.length < 2) continue;
    const group = document.createElement("span");
    group.append(Object.assign(document.createElement("b"), { textContent: title }));
    boxes[axis] = found.map((value) => [value, box(group, value === null ? "unknown" : value, axis, startsTicked(axis, value))]);
    toggles.append(group);
  }
  const group = document.createElement("span");
  group.append(Object.assign(document.createElement("b"), { textContent: "show" }));
  boxes.band = box(group, "band for all models and radii", "band", true);
  boxes.single = box(group, "single models", "single", data.models.length <= 200);
  toggles.append(group);
}

function isTicked(model) {
  // The attack's parameters do not apply to a model trained without an attack.
  const relevant = isBaseline(model) ? ["method", "sigma_cert"] : axes.map(([axis]) => axis);
  return relevant.every((axis) => !boxes[axis] || boxes[axis].find(([value]) => value === model[axis])[1].checked);
}

function envelopeOf(numbers) {
  const best = new Array(numRadii).fill(0), winner = new Array(numRadii).fill("none");
  for (const number of numbers) {
    for (let r = 0; r < numRadii; r++) {
      const count = counts[number * numRadii + r];
      if (count > best[r]) { best[r] = count; winner[r] = data.titles[number]; }
    }
  }
  return { accuracy: best.map((count) => (100 * count) / data.num_images), winner };
}

function line(name, numbers, color, dash) {
  const { accuracy, winner } = envelopeOf(numbers);
  return {
    x: data.radii, y: accuracy, customdata: winner, name: `${name} (best of ${numbers.length})`, mode: data.is_step ? "lines" : "lines+markers",
    line: { color, dash, width: 2.5, shape: data.is_step ? "vh" : "linear" },
    // All digits of data.radii: nothing was counted at a radius rounded up.
    hovertemplate: "r = %{x:.6~f}: %{y:.1f} %<br>%{customdata}<extra></extra>",
  };
}

function bandOf(trace, numModels) {
  const half = 100 * Math.sqrt(Math.log((2 * numModels) / data.error) / (2 * data.num_test_images));
  const up = trace.y.map((value) => Math.min(100, value + half)), down = trace.y.map((value) => Math.max(0, value - half));
  return {
    x: [...data.radii, ...data.radii.slice().reverse()], y: [...up, ...down.reverse()], fill: "toself", mode: "none",
    fillcolor: "rgba(0, 114, 178, 0.12)", hoverinfo: "skip", name: `${100 * (1 - data.error)} % band`,
  };
}

function singles(numbers) {
  const every = numbers.length > 100 ? Math.max(1, Math.floor(numRadii / 60)) : 1, x = [], y = [];
  for (const number of numbers) {
    for (let r = 0; r < numRadii; r += every) {
      const count = counts[number * numRadii + r];
      x.push(data.radii[r]); y.push((100 * count) / data.num_images);
      if (count === 0) break;
    }
    x.push(null); y.push(null);
  }
  return { x, y, mode: "lines", line: { color: "#bbbbbb", width: 0.6, shape: data.is_step ? "vh" : "linear" }, hoverinfo: "skip", name: "single models" };
}

const layout = (x, y) => ({
  margin: { l: 60, r: 20, t: 10, b: 45 }, hovermode: "closest", legend: { x: 1, xanchor: "right", y: 1 },
  xaxis: { title: { text: x }, rangemode: "tozero" }, yaxis: { title: { text: y }, rangemode: "tozero" },
});
const options = { responsive: true, displayModeBar: false };

function drawEnvelope() {
  const ticked = data.models.map((_, number) => number).filter((number) => isTicked(data.models[number]));
  const others = ticked.filter((number) => !isBaseline(data.models[number]));
  const baseline = ticked.filter((number) => isBaseline(data.models[number]));
  const traces = [];
  if (boxes.single.checked) traces.push(singles(ticked));
  if (others.length) {
    const envelope = line(nameOf(others), others, "#0072B2", "solid");
    if (boxes.band.checked) traces.push(bandOf(envelope, others.reduce((sum, number) => sum + data.seeds[number], 0)));
    traces.push(envelope);
  }
  if (baseline.length) traces.push(line("Gaussian", baseline, "#D55E00", "dash"));
  Plotly.react("envelope", traces, layout("l2 radius", "certified accuracy (%)"), options);
}

function drawBounds() {
  const place = document.getElementById("bounds");
  if (!data.bounds.length) { place.textContent = "The records contain no bounds."; place.style.height = "auto"; return; }
  const traces = data.bounds.map((group) => ({ x: data.bins, y: group.shares, type: "bar", name: `σ = ${group.sigma}` }));
  Plotly.react(place, traces, { ...layout("lower bound p", "share of images (%)"), barmode: "group", bargap: 0.1,
    legend: { x: 0, xanchor: "left", y: 1 } }, options);
}

// The table of models: a click on a heading sorts by it, and what is typed leaves the rows that contain all words.
function makeSearchable() {
  const table = document.querySelector("#models table"), body = table.tBodies[0], rows = [...body.rows];
  document.getElementById("search").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    let direction = -1;
    heading.addEventListener("click", () => {
      direction = -direction;
      const value = (row) => row.cells[column].textContent, number = (text) => (text === "-" ? -Infinity : Number(text));
      rows.sort((a, b) => {
        const [x, y] = [number(value(a)), number(value(b))];
        return direction * (Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : x < y ? -1 : x > y ? 1 : 0);
      });
      body.append(...rows);
    });
  });
}

makeSearchable();
makeToggles();
drawEnvelope();
drawBounds();
document.body.dataset.readyMs = Math.round(performance.now());
