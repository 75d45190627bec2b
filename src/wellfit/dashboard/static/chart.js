// The small chart of one run on a canvas: the mean loss, and validation accuracy on its own scale. A chart of this kind
// costs a tenth of a millisecond; a full Plotly figure costs hundreds of times that, which is why the grid has none.

import { colours } from "./colours.js";
import { number, percent } from "./words.js";

const LEFT = 4, RIGHT = 48, TOP = 8, BOTTOM = 6;

// what: "both", "loss", "accuracy" or "lr". scales: {loss: [low, high], steps: n} where cards share them, else null.
// width, height: of the canvas on the page; it is not asked for them, since that would lay the whole page out.
export function drawChart(canvas, curve, what, [width, height], scales = null) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  if (!(width > 0)) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const shown = colours();
  const epochs = curve.epochs ?? { steps: [], validation: [], averaged: [] };
  const last = Math.max(1, scales?.steps ?? 1, curve.steps.at(-1) ?? 0, epochs.steps.at(-1) ?? 0);
  const across = (step) => LEFT + (step / last) * (width - LEFT - RIGHT);
  const floor = height - BOTTOM;

  pen.strokeStyle = shown.grid;
  pen.lineWidth = 1;
  pen.beginPath();
  for (const y of [TOP, (TOP + floor) / 2, floor]) {
    pen.moveTo(LEFT, Math.round(y) + 0.5);
    pen.lineTo(width - RIGHT, Math.round(y) + 0.5);
  }
  pen.stroke();

  if (curve.scores?.length && !curve.steps.length) {
    drawScores(pen, curve.scores, shown, width, floor);
    return;
  }

  const ends = [];
  const draw = (steps, values, [low, high], colour, dash, say, log = false) => {
    const map = log ? Math.log : (v) => v;
    const span = map(high) - map(low) || 1;
    const down = (v) => floor - ((map(Math.min(Math.max(v, low), high)) - map(low)) / span) * (floor - TOP);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.8;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    pen.beginPath();
    let open = false, end = null;
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      if (v === null || (log && v <= 0)) {
        open = false;
        continue;
      }
      const x = across(steps[i]), y = down(v);
      if (open) pen.lineTo(x, y);
      else pen.moveTo(x, y);
      open = true;
      end = { x, y, text: say?.(v), colour };
    }
    pen.stroke();
    pen.setLineDash([]);
    if (!end || !say) return;
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(end.x, end.y, 2.6, 0, 7);
    pen.fill();
    ends.push(end);
  };

  if (what === "lr") draw(curve.steps, curve.lr ?? [], range(curve.lr ?? []), shown.muted, [], number);
  if (what === "both" || what === "loss") {
    const [low, high] = scales?.loss ?? range(curve.loss);
    const log = low > 0 && high > 6 * low;
    pen.globalAlpha = 0.3;
    draw(curve.steps, curve.loss, [low, high], shown.train, [], null, log);
    pen.globalAlpha = 1;
    draw(curve.steps, smooth(curve.loss), [low, high], shown.train, [], number, log);
  }
  if (what === "both" || what === "accuracy") {
    const best = epochs.validation.map((v, i) => (v === null ? epochs.averaged[i] : Math.max(v, epochs.averaged[i] ?? v)));
    if (what === "accuracy") draw(epochs.steps, epochs.train ?? [], [0, 1], shown.train, [], (v) => percent(v, 0));
    draw(epochs.steps, best, [0, 1], shown.validation, [4, 2], (v) => percent(v, 0));
  }
  label(pen, ends, width, height);
}

// A search: a dot a trial, and the best so far.
function drawScores(pen, scores, shown, width, floor) {
  const [low, high] = range(scores);
  const across = (i) => LEFT + 3 + ((i + 0.5) / scores.length) * (width - LEFT - RIGHT - 6);
  const down = (v) => floor - 3 - ((v - low) / (high - low)) * (floor - TOP - 6);
  let best = -Infinity;
  pen.strokeStyle = pen.fillStyle = shown.validation;
  pen.lineWidth = 1.6;
  pen.beginPath();
  scores.forEach((v, i) => {
    if (i) pen.lineTo(across(i), down(Math.max(best, low)));
    best = Math.max(best, v);
    if (i) pen.lineTo(across(i), down(best));
    else pen.moveTo(across(i), down(best));
  });
  pen.stroke();
  pen.fillStyle = shown.muted;
  for (const [i, v] of scores.entries()) {
    pen.beginPath();
    pen.arc(across(i), down(v), 2.4, 0, 7);
    pen.fill();
  }
  label(pen, [{ x: across(scores.length - 1), y: down(best), text: percent(best, 0), colour: shown.validation }], width, floor + BOTTOM);
}

function label(pen, ends, width, height) {
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  ends.sort((a, b) => a.y - b.y);
  let above = 2;
  for (const [i, end] of ends.entries()) {
    const y = Math.min(Math.max(end.y, above + 5), height - 6 - 13 * (ends.length - 1 - i));
    pen.fillStyle = end.colour;
    pen.fillText(end.text, width - RIGHT + 7, y);
    above = y + 8;
  }
}

// The moving average of the report: exponential, with bias correction; what is not known repeats the average before it.
export function smooth(values, horizon = Math.max(2, values.length / 40)) {
  const keep = 1 - 1 / horizon;
  let mean = 0, weight = 0;
  return values.map((v) => {
    if (v !== null) {
      mean = keep * mean + (1 - keep) * v;
      weight = keep * weight + (1 - keep);
    }
    return weight ? mean / weight : null;
  });
}

export function range(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v === null) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low <= high ? (low === high ? [low - Math.abs(low) * 0.1 - 1e-9, high + Math.abs(high) * 0.1 + 1e-9] : [low, high]) : [0, 1];
}
