// Colours of the page's theme, read once for each theme; and those that stand for values.

let kept = null;

export function colours() {
  if (!kept) {
    const style = getComputedStyle(document.documentElement);
    kept = {};
    for (const name of ["ground", "panel", "ink", "muted", "grid", "line", "train", "validation", "averaged", "alarm", "accent"]) {
      kept[name] = style.getPropertyValue(`--${name}`).trim();
    }
    kept.dark = style.colorScheme.includes("dark");
  }
  return kept;
}

const listeners = new Set();

export function onTheme(listener) {
  listeners.add(listener);
}

export function themeChanged() {
  kept = null;
  for (const listener of listeners) listener();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

// Rising in lightness, so that order is seen in grey and by colour-blind readers; the same ends as in the report.
const SCALE = [[90, 75, 156], [63, 116, 184], [59, 163, 154], [157, 187, 58], [224, 185, 47]];

export function scaleColour(share, alpha = 1) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const i = Math.min(Math.floor(at), SCALE.length - 2), f = at - i;
  const mixed = SCALE[i].map((v, c) => Math.round(v + f * (SCALE[i + 1][c] - v)));
  return `rgb(${mixed.join(" ")} / ${alpha})`;
}

export function scaleGradient() {
  return `linear-gradient(90deg, ${SCALE.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
}

// Of lines laid over each other: Okabe and Ito's colours for every kind of sight, then the same with dashes.
const LINES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f8f", "#b8a800"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];

export function lineStyle(i) {
  return { color: LINES[i % LINES.length], dash: DASHES[Math.floor(i / LINES.length) % DASHES.length] };
}
