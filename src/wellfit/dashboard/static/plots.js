// Plotly, fetched from the server's own installed copy when the first large figure is wanted.

import { colours, onTheme } from "./colours.js";

let loading = null;

function plotly() {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.min.js";
    script.onload = () => done(window.Plotly);
    script.onerror = () => {
      loading = null;
      failed(new Error("plotly.min.js could not be fetched"));
    };
    document.head.append(script);
  });
  return loading;
}

// Plotly reads a few tags in its texts; a foreign name has none.
export function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

const drawn = new Map(); // element → function that makes its figure anew
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.data && target.offsetParent) window.Plotly?.Plots.resize(target);
});

// make() → {data, layout}. The same element again updates its figure, keeping zoom and hidden lines.
export async function plot(node, make, onClick) {
  if (!drawn.has(node)) {
    node.classList.add("waiting");
    observer.observe(node);
  }
  drawn.set(node, make);
  const library = await plotly();
  if (drawn.get(node) !== make || !node.isConnected) return;
  const { data, layout } = make();
  node.classList.remove("waiting");
  const fresh = !node.data;
  await library.react(node, data, framed(layout), { displaylogo: false, responsive: false, displayModeBar: false, scrollZoom: false });
  if (fresh && onClick) node.on("plotly_click", (event) => onClick(event.points[0]));
}

export function forget(node) {
  drawn.delete(node);
  observer.unobserve(node);
  if (node.data) window.Plotly?.purge(node);
}

onTheme(() => {
  for (const [node, make] of drawn) if (node.isConnected) plot(node, make);
});

function framed(layout) {
  const c = colours();
  const axis = { gridcolor: c.grid, zeroline: false, linecolor: c.grid, tickfont: { color: c.muted }, title: { font: { color: c.muted, size: 12 }, standoff: 6 }, automargin: true };
  const out = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "keep", hovermode: "closest",
    font: { family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: c.ink },
    margin: { l: 52, r: 16, t: 30, b: 40 }, showlegend: true, dragmode: "zoom",
    legend: { orientation: "h", x: 0, y: 1.01, xanchor: "left", yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { color: c.ink, size: 11 } },
    hoverlabel: { bgcolor: c.panel, bordercolor: c.line, font: { color: c.ink } },
    ...layout,
  };
  for (const key of Object.keys(out)) {
    if (/^[xy]axis\d*$/.test(key)) {
      const own = out[key];
      const title = typeof own.title === "string" ? { text: own.title } : own.title ?? {};
      out[key] = { ...axis, ...own, title: { ...axis.title, ...title } };
    }
  }
  for (const key of ["xaxis", "yaxis"]) out[key] ??= { ...axis };
  return out;
}
