// The large figures of one run: the report's figure data, drawn by Plotly.

import { colours } from "./colours.js";
import { plain } from "./plots.js";
import { percent } from "./words.js";

// Purple below the healthy value, near the ground at it, orange above; lightness tells the distance from it.
const RATIOS = { light: ["#4b2a86", "#a79bd0", "#f4f2ee", "#f0a354", "#8a4306"], dark: ["#a48ee8", "#5b4c8f", "#20262c", "#a8641c", "#ffb566"] };
const RISING = { light: ["#f3f5f7", "#9dbfe0", "#2f66a9", "#122f57"], dark: ["#1d252d", "#2c5587", "#6ea6e6", "#dcebfb"] };

function scale(stops) {
  return (colours().dark ? stops.dark : stops.light).map((colour, i, all) => [i / (all.length - 1), colour]);
}

// Findings where they fired and notes where they were written: thin lines with numbers above, words on hover.
function fired(alarms, notes, top = 1) {
  const c = colours();
  const shapes = [], annotations = [];
  const mark = (step, text, said, colour) => {
    if (typeof step !== "number") return;
    shapes.push({ type: "line", xref: "x", yref: "paper", x0: step, x1: step, y0: 0, y1: top, line: { color: colour, width: 1, dash: "dot" } });
    annotations.push({ x: step, xref: "x", y: top, yref: "paper", yanchor: "bottom", text, hovertext: said, showarrow: false, font: { size: 10, color: colour }, captureevents: true });
  };
  alarms.forEach((alarm, i) => mark(alarm.step, `<b>${i + 1}</b>`, plain(`${alarm.title}: ${alarm.message}`), c.alarm));
  notes.forEach((note) => mark(note.step, "✎", plain(note.text), c.muted));
  return { shapes, annotations };
}

export function lossFigure(loss, alarms, notes) {
  const c = colours(), marks = fired(alarms, notes);
  const data = [
    { type: "scatter", mode: "markers", name: "one step", x: loss.steps, y: loss.losses, marker: { size: 3.5, color: c.train, opacity: 0.35 }, hovertemplate: "step %{x}: %{y:.4g}<extra></extra>" },
    { type: "scatter", mode: "lines", name: `average over about ${loss.horizon} steps`, x: loss.average_steps, y: loss.average, line: { color: c.train, width: 2.4 }, hovertemplate: "step %{x}: %{y:.4g}<extra></extra>" },
    { type: "scatter", mode: "lines", name: "learning rate", showlegend: false, x: loss.lr_steps, y: loss.lr.map((v) => (v > 0 ? v : null)), yaxis: "y2", line: { color: c.muted, width: 1.6 }, hovertemplate: "step %{x}: lr %{y:.3g}<extra></extra>" },
  ];
  const shapes = [...marks.shapes], annotations = [...marks.annotations];
  if (loss.guessing !== null && loss.guessing < (loss.limit ?? Infinity)) {
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: loss.guessing, y1: loss.guessing, line: { color: c.muted, width: 1, dash: "dot" } });
    annotations.push({ xref: "paper", x: 1, xanchor: "right", y: loss.guessing, yanchor: "bottom", text: `even guess ${loss.guessing.toFixed(2)}`, showarrow: false, font: { size: 10, color: c.muted } });
  }
  for (const step of loss.lost) shapes.push({ type: "line", yref: "paper", x0: step, x1: step, y0: 0.32, y1: 1, line: { color: c.alarm, width: 1 } });
  const rates = loss.lr.filter((v) => v > 0);
  const low = Math.min(...rates), high = Math.max(...rates);
  const ends = rates.length ? [Math.log10(high < 20 * low ? high / 30 : Math.max(low / 2, high / 1e4)), Math.log10(high * 2)] : [-4, 0];
  const least = Math.min(...loss.losses.filter((v) => v !== null));
  return {
    data,
    layout: {
      shapes, annotations,
      xaxis: { title: "step", anchor: "y2", rangemode: "tozero" },
      yaxis: { title: "loss", domain: [0.34, 1], ...(loss.limit ? { range: [Math.min(0, least), loss.limit] } : {}) },
      yaxis2: { title: "lr", domain: [0, 0.24], type: "log", range: ends, dtick: Math.max(1, Math.ceil((ends[1] - ends[0]) / 3)), tickformat: "~e", tickfont: { size: 10 } },
    },
  };
}

export function accuracyFigure(accuracy, alarms, notes) {
  const c = colours(), marks = fired(alarms, notes);
  const few = accuracy.steps.length <= 40;
  const line = (name, values, colour, dash) => ({
    type: "scatter", mode: few ? "lines+markers" : "lines", name, x: accuracy.steps, y: values, connectgaps: true,
    line: { color: colour, width: 2.2, dash }, marker: { size: 5 }, hovertemplate: `${name} %{y:.1%} at step %{x}<extra></extra>`,
  });
  const has = (values) => values.some((v) => v !== null);
  const data = [line("train", accuracy.train, c.train, "solid"), line("validation", accuracy.validation, c.validation, "solid")];
  if (has(accuracy.averaged)) data.push(line("averaged weights", accuracy.averaged, c.averaged, "dash"));
  if (accuracy.best !== null) {
    data.push({ type: "scatter", mode: "markers", name: `best ${percent(accuracy.best)}`, x: [accuracy.best_step], y: [accuracy.best], marker: { symbol: "star", size: 13, color: c.ink }, hovertemplate: "best %{y:.1%} at step %{x}<extra></extra>" });
  }
  const shapes = [...marks.shapes], annotations = [...marks.annotations];
  if (accuracy.gap !== null && Math.abs(accuracy.gap) >= 0.005) {
    const i = accuracy.steps.lastIndexOf(accuracy.gap_step);
    const ends = [accuracy.train[i], accuracy.validation[i]];
    if (ends[0] !== null && ends[1] !== null) {
      shapes.push({ type: "line", x0: accuracy.gap_step, x1: accuracy.gap_step, y0: ends[0], y1: ends[1], line: { color: c.ink, width: 1.5 } });
      annotations.push({ x: accuracy.gap_step, y: Math.min(...ends), xanchor: "right", yanchor: "top", yshift: -8, showarrow: false, text: `gap ${accuracy.gap > 0 ? "+" : "−"}${Math.abs(100 * accuracy.gap).toFixed(1)} points`, font: { size: 11, color: c.ink } });
    }
  }
  if (accuracy.chance !== null) {
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: accuracy.chance, y1: accuracy.chance, line: { color: c.muted, width: 1, dash: "dot" } });
    annotations.push({ xref: "paper", x: 1, xanchor: "right", y: accuracy.chance, yanchor: "bottom", text: `guessing ${percent(accuracy.chance)}`, showarrow: false, font: { size: 10, color: c.muted } });
  }
  return { data, layout: { shapes, annotations, xaxis: { title: "step", rangemode: "tozero" }, yaxis: { title: "accuracy", tickformat: ".0%" } } };
}

// Rows from the input of the network at the top to its output; names that do not fit are cut in their middle.
function rowsOf(names) {
  const short = names.map((name) => plain(name.length > 22 ? `${name.slice(0, 10)}…${name.slice(-11)}` : name));
  const every = Math.ceil(names.length / 16);
  return { tickvals: names.map((_, i) => i).filter((i) => i % every === 0), ticktext: short.filter((_, i) => i % every === 0), autorange: "reversed", tickfont: { size: 10 } };
}

export function ratioFigure(ratios) {
  const c = colours();
  const rows = ratios.names.map((_, i) => i);
  const text = ratios.names.map((name, i) => ratios.logs[i].map((v) => `${plain(name)}: ${v === null ? "–" : (10 ** v).toExponential(1)}`));
  const columns = ratios.steps.map((_, j) => ratios.logs.map((row) => row[j]).filter((v) => v !== null).sort((a, b) => a - b));
  const at = (share) => columns.map((column) => (column.length ? 10 ** column[Math.round(share * (column.length - 1))] : null));
  const band = { type: "scatter", mode: "lines", x: ratios.steps, yaxis: "y2", line: { width: 0 }, showlegend: false, hoverinfo: "skip" };
  const data = [
    {
      type: "heatmap", x: ratios.steps, y: rows, z: ratios.logs, zmin: -5, zmax: -1, colorscale: scale(RATIOS), text, hovertemplate: "%{text} at step %{x}<extra></extra>",
      colorbar: { thickness: 10, outlinewidth: 0, tickvals: [-5, -4, -3, -2, -1], ticktext: ["1e-5", "1e-4", "<b>1e-3</b>", "1e-2", "1e-1"], tickfont: { color: c.ink, size: 10 } },
    },
    { ...band, y: at(0.1) },
    { ...band, y: at(0.9), fill: "tonexty", fillcolor: c.dark ? "rgba(110, 166, 230, .22)" : "rgba(47, 102, 169, .18)" },
    { type: "scatter", mode: "lines", x: ratios.steps, y: at(0.5), yaxis: "y2", line: { color: c.train, width: 2.2 }, showlegend: false, hovertemplate: "median %{y:.2e} at step %{x}<extra></extra>" },
  ];
  const shapes = [{ type: "line", xref: "paper", yref: "y2", x0: 0, x1: 1, y0: 1e-3, y1: 1e-3, line: { color: c.ink, width: 1.4, dash: "dash" } }];
  const annotations = [{ xref: "paper", x: 1, xanchor: "right", yref: "y2", y: -3, yanchor: "bottom", text: "1e-3", showarrow: false, font: { size: 11, color: c.ink } }];
  return {
    data,
    layout: {
      shapes, annotations, xaxis: { title: "step", anchor: "y" }, yaxis: { ...rowsOf(ratios.names), domain: [0, 0.66] },
      yaxis2: { type: "log", domain: [0.72, 1], range: [-5, -1], dtick: 1, tickformat: "~e", tickfont: { size: 10 }, title: "median" }, margin: { l: 60, r: 8, t: 8, b: 40 },
    },
  };
}

export function tracksFigure(tracks, what) {
  const c = colours(), share = tracks.scale === "share";
  const values = share ? tracks.values : tracks.values.map((row) => row.map((v) => (v === null ? null : Math.log10(v))));
  const text = tracks.names.map((name, i) => tracks.values[i].map((v) => `${plain(name)}: ${v === null ? "–" : share ? percent(v) : v.toPrecision(3)}`));
  const flat = values.flat().filter((v) => v !== null);
  const ends = share ? [0, 1] : [Math.min(...flat, -1), Math.max(...flat, 1)];
  const colorbar = share ? { tickformat: ".0%" } : { tickvals: range(ends), ticktext: range(ends).map((v) => `1e${v}`) };
  return {
    data: [{
      type: "heatmap", x: tracks.steps, y: tracks.names.map((_, i) => i), z: values, zmin: ends[0], zmax: ends[1], colorscale: scale(RISING), text,
      hovertemplate: "%{text} at step %{x}<extra></extra>", colorbar: { thickness: 10, outlinewidth: 0, tickfont: { color: c.ink, size: 10 }, ...colorbar }, name: what,
    }],
    layout: { showlegend: false, xaxis: { title: "step" }, yaxis: rowsOf(tracks.names), margin: { l: 60, r: 8, t: 8, b: 40 } },
  };
}

function range([low, high]) {
  const found = [];
  for (let v = Math.ceil(low); v <= high; v++) found.push(v);
  return found;
}

export function gradientFigure(gradients) {
  const c = colours();
  return {
    data: [{ type: "scatter", mode: gradients.steps.length < 30 ? "lines+markers" : "lines", x: gradients.steps, y: gradients.norms, line: { color: c.averaged, width: 1.8 }, hovertemplate: "step %{x}: %{y:.3g}<extra></extra>" }],
    layout: { showlegend: false, margin: { l: 52, r: 12, t: 8, b: 40 }, xaxis: { title: "step", rangemode: "tozero" }, yaxis: { title: "norm", type: "log", tickformat: "~g", nticks: 5 } },
  };
}

export function confusionFigure(confusion) {
  const c = colours(), n = confusion.classes.length;
  const names = confusion.classes.map((name) => plain(name.length > 16 ? `${name.slice(0, 15)}…` : name));
  const every = Math.ceil(n / 30);
  const ticks = { tickvals: names.map((_, i) => i).filter((i) => i % every === 0), ticktext: names.filter((_, i) => i % every === 0), tickfont: { size: 10 }, showgrid: false };
  const text = confusion.counts.map((row, i) => row.map((count, j) => `${plain(confusion.classes[i])} taken for ${plain(confusion.classes[j])}: ${count} (${percent(confusion.shares[i][j])})`));
  const annotations = n > 12 ? [] : confusion.counts.flatMap((row, i) => row.map((count, j) => ({
    x: j, y: i, text: count ? String(count) : "", showarrow: false, font: { size: 10, color: (confusion.shares[i][j] > 0.5) !== c.dark ? "#ffffff" : c.dark && confusion.shares[i][j] > 0.5 ? "#10161b" : c.ink },
  })));
  return {
    data: [{ type: "heatmap", z: confusion.shares, zmin: 0, zmax: 1, colorscale: scale(RISING), text, hovertemplate: "%{text}<extra></extra>", showscale: false, xgap: 1, ygap: 1 }],
    layout: { showlegend: false, annotations, margin: { l: 70, r: 8, t: 8, b: 60 }, xaxis: { ...ticks, title: "answer" }, yaxis: { ...ticks, title: "true class", autorange: "reversed" } },
  };
}

// Measured accuracy against stated confidence; on the diagonal the model means what it says. Images of each bin below.
export function reliabilityFigure(reliability) {
  const c = colours();
  const off = reliability.confidence.flatMap((x) => [x, x, null]);
  const ends = reliability.confidence.flatMap((x, i) => [x, reliability.accuracy[i], null]);
  return {
    data: [
      { type: "scatter", mode: "lines", name: "says what is so", x: [0, 1], y: [0, 1], line: { color: c.muted, width: 1, dash: "dot" }, hoverinfo: "skip" },
      { type: "scatter", mode: "lines", name: "off by", x: off, y: ends, line: { color: c.validation, width: 2 }, hoverinfo: "skip" },
      {
        type: "scatter", mode: "lines+markers", name: "model", x: reliability.confidence, y: reliability.accuracy, customdata: reliability.images,
        line: { color: c.train, width: 2 }, marker: { size: 6 }, hovertemplate: "says %{x:.0%}, right %{y:.1%}, %{customdata:,} images<extra></extra>",
      },
      { type: "bar", name: "images", showlegend: false, x: reliability.confidence, y: reliability.images, yaxis: "y2", width: 0.035, marker: { color: c.train, opacity: 0.55 }, hovertemplate: "%{y:,} images<extra></extra>" },
    ],
    layout: {
      xaxis: { title: "stated confidence", tickformat: ".0%", range: [0, 1.03], anchor: "y2" },
      yaxis: { title: "measured accuracy", tickformat: ".0%", range: [0, 1.03], domain: [0.34, 1] },
      yaxis2: { title: "images", domain: [0, 0.24], nticks: 3, rangemode: "tozero", tickformat: "~s" },
    },
  };
}
