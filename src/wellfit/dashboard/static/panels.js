// The three views above the grid: settings side by side, results against each setting, and the picked runs overlaid.

import { smooth } from "./chart.js";
import { tellingOf, valueOf, within } from "./choose.js";
import { colours, lineStyle, scaleColour } from "./colours.js";
import { choices, el, fill } from "./dom.js";
import { Parallel, scaleOf } from "./parallel.js";
import { plain, plot, forget } from "./plots.js";
import { label, RESULTS, value } from "./words.js";

const TABS = [["parallel", "Settings side by side"], ["settings", "Result by setting"], ["overlay", "Overlay"]];
const MOST_SETTINGS = 12;
export const MOST_OVERLAID = 40;

export class Panels {
  constructor(parent, { onBrush, open, cards, visit, noun }) {
    this.cards = cards;
    this.open = open;
    this.tabs = TABS.map(([id, name], i) => el("button", {
      type: "button", role: "tab", "data-tab": id, onclick: () => this.#choose(id),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = this.tabs[(i + step + TABS.length) % TABS.length];
        next.focus();
        this.#choose(next.dataset.tab);
      },
    }, name));
    this.fold = el("button", { type: "button", class: "fold", onclick: () => this.#choose(this.open ? "" : this.last) });
    this.last = open || "parallel";
    this.bodies = Object.fromEntries(TABS.map(([id, name]) => [id, el("div", { class: `tab-body of-${id}`, role: "tabpanel", "aria-label": name })]));
    this.bodies.overlay.classList.add("tall");
    parent.append(el("section", { class: "panel", "aria-label": "Comparison" },
      el("div", { class: "tabs", role: "tablist" }, this.tabs, this.fold), Object.values(this.bodies)));
    this.parallel = new Parallel(this.bodies.parallel, onBrush);
    this.scatter = new ResultBySetting(this.bodies.settings, visit, noun);
    this.overlay = new Overlay(this.bodies.overlay, cards);
    this.#mark();
  }

  // What all three show; only the one in sight is drawn.
  show(state) {
    this.state = state;
    const n = state.picked.length;
    this.tabs[2].textContent = n ? `Overlay (${n})` : "Overlay";
    this.#draw();
  }

  choose(id) {
    this.#choose(id);
  }

  #choose(id) {
    this.open = id;
    if (id) this.last = id;
    this.#mark();
    this.#draw();
    this.onOpen?.(id);
  }

  #mark() {
    for (const tab of this.tabs) {
      const chosen = tab.dataset.tab === this.open;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen || (!this.open && tab === this.tabs[0]) ? 0 : -1;
    }
    for (const [id, body] of Object.entries(this.bodies)) body.hidden = id !== this.open;
    this.fold.textContent = this.open ? "Fold" : "Unfold";
    this.fold.setAttribute("aria-expanded", Boolean(this.open));
  }

  #draw() {
    if (!this.state) return;
    const { all, columns, result, ranges, stages, picked } = this.state;
    if (this.open === "parallel") this.parallel.show(all, columns, result, ranges);
    if (this.open === "settings") this.scatter.show(all, columns, result, ranges, stages);
    if (this.open === "overlay") this.overlay.show(picked);
  }
}

class ResultBySetting {
  #plots = new Map();

  // visit(key): opens one; null where there is no page to open.
  constructor(parent, visit, noun) {
    this.visit = visit;
    this.noun = noun;
    this.row = el("div", { class: "row" });
    this.box = el("div", { class: "multiples" });
    parent.append(this.row, this.box);
  }

  show(runs, columns, result, ranges, stages) {
    const settings = tellingOf(columns, runs.length);
    const shown = settings.slice(0, MOST_SETTINGS);
    const measured = runs.filter((run) => typeof run.results[result] === "number");
    if (!shown.length || !measured.length) {
      this.#clear(new Set());
      fill(this.row, el("p", {}, `Nothing to compare yet: no setting differs between ${this.noun}s that have a result.`));
      return;
    }
    const edges = Object.keys(stages ?? {}).length ? " Dashed lines are the edges of each stage: a best one on an edge asks for a wider range." : "";
    fill(this.row, el("span", {}, `Each dot is a ${this.noun}${this.visit ? "; a click opens it" : ""}.${edges}`),
      settings.length > shown.length ? el("span", {}, `Shown are ${shown.length} of ${settings.length} settings.`) : null);
    this.#clear(new Set(shown.map((c) => c.name)));
    for (const column of shown) {
      let node = this.#plots.get(column.name);
      if (!node) {
        node = el("div", { class: "plot", "data-setting": column.name });
        this.#plots.set(column.name, node);
      }
      this.box.append(node);
      plot(node, () => figure(measured, column, result, ranges, stages), this.visit && ((point) => this.visit(point.customdata)));
    }
  }

  #clear(kept) {
    for (const [name, node] of this.#plots) {
      if (kept.has(name)) continue;
      forget(node);
      node.remove();
      this.#plots.delete(name);
    }
  }
}

function figure(runs, column, result, ranges, stages) {
  const c = colours(), axis = scaleOf(column);
  const results = runs.map((run) => run.results[result]);
  const low = Math.min(...results), span = Math.max(...results) - low || 1;
  const inside = runs.map((run) => within(run, ranges));
  const shapes = [];
  for (const bounds of Object.values(stages ?? {})) {
    const ends = bounds[column.name];
    if (!ends || column.kind !== "number") continue;
    for (const end of ends) {
      const at = axis.share(end);
      if (at !== null) shapes.push({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: c.muted, width: 1, dash: "dash" } });
    }
  }
  const percentages = RESULTS[result]?.share;
  return {
    data: [{
      type: "scatter", mode: "markers", x: runs.map((run) => axis.share(valueOf(run, column.name))), y: results,
      customdata: runs.map((run) => run.key),
      text: runs.map((run) => `${plain(run.name)}<br>${plain(label(column.name))} ${plain(value(column.name, valueOf(run, column.name)))}<br>${plain(label(result))} ${value(result, run.results[result])}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { size: 7, color: results.map((v, i) => (inside[i] ? scaleColour((v - low) / span) : c.grid)), line: { width: 0.6, color: c.panel } },
    }],
    layout: {
      showlegend: false, margin: { l: 44, r: 8, t: 24, b: 28 }, shapes,
      title: { text: plain(label(column.name)), font: { size: 12, color: c.ink }, x: 0.02, y: 0.985, yanchor: "top" },
      xaxis: { range: [-0.09, 1.09], tickangle: 0, ticklabeloverflow: "allow", tickfont: { size: 10, color: c.muted }, tickvals: axis.ticks.map((t) => t.at), ticktext: axis.ticks.map((t) => plain(t.text.slice(0, 14))), automargin: false },
      yaxis: { tickformat: percentages ? ".0%" : "", nticks: 5, automargin: false },
    },
  };
}

const MEASURES = { loss: "loss", validation: "validation accuracy", train: "train accuracy", averaged: "averaged weights' accuracy", lr: "learning rate" };

class Overlay {
  constructor(parent, cards) {
    this.cards = cards;
    this.measure = el("select", { onchange: () => this.#draw() });
    choices(this.measure, Object.entries(MEASURES));
    this.across = el("select", { onchange: () => this.#draw() });
    choices(this.across, [["steps", "steps"], ["share", "share of the training"], ["seconds", "seconds"]]);
    this.log = el("input", { type: "checkbox", onchange: () => this.#draw() });
    this.empty = el("p", { class: "muted" }, "Tick the box of two or more runs to lay their curves over each other.");
    this.node = el("div", { class: "plot", hidden: true });
    this.smooth = el("input", { type: "checkbox", checked: true, onchange: () => this.#draw() });
    parent.append(el("div", { class: "row" }, el("label", {}, "Curve ", this.measure), el("label", {}, "against ", this.across),
      el("label", {}, this.log, " logarithmic"), el("label", {}, this.smooth, " moving average of the loss")), this.empty, this.node);
  }

  async show(picked) {
    this.picked = picked.slice(0, MOST_OVERLAID);
    this.empty.hidden = picked.length > 0;
    this.node.hidden = !picked.length;
    if (!picked.length) return;
    const stale = this.picked.filter((run) => !run.problem && this.curves?.get(run.key)?.version !== run.version);
    this.curves ??= new Map();
    if (stale.length) {
      const found = await this.cards.curvesOf(stale.map((run) => run.key)).catch(() => ({}));
      for (const run of stale) {
        const curve = found[run.key];
        if (curve) this.curves.set(run.key, { ...curve, version: run.version });
      }
    }
    this.#draw();
  }

  #draw() {
    if (this.node.hidden || !this.picked) return;
    const measure = this.measure.value, across = this.across.value;
    const points = (run) => {
      const curve = this.curves.get(run.key);
      if (!curve) return null;
      const byStep = measure === "loss" || measure === "lr";
      const epochs = curve.epochs ?? { steps: [], seconds: [] };
      const steps = byStep ? curve.steps : epochs.steps;
      let x = steps;
      if (across === "share") x = steps.map((s) => s / Math.max(1, curve.steps.at(-1) ?? 1));
      if (across === "seconds") x = byStep ? interpolated(steps, epochs.steps, epochs.seconds) : epochs.seconds;
      const y = (byStep ? curve[measure] : epochs[measure]) ?? [];
      return { x, y: measure === "loss" && this.smooth.checked ? smooth(y) : y };
    };
    plot(this.node, () => ({
      data: this.picked.flatMap((run, i) => {
        const found = points(run);
        if (!found) return [];
        const style = lineStyle(i);
        return [{
          type: "scatter", mode: found.y.length < 30 ? "lines+markers" : "lines", name: plain(run.name.slice(0, 40)), x: found.x, y: found.y,
          line: { color: style.color, dash: style.dash, width: 2 }, marker: { size: 5 }, hovertemplate: "%{y:.4g} at %{x}",
        }];
      }),
      layout: {
        xaxis: { title: across === "share" ? "share of the training" : across, tickformat: across === "share" ? ".0%" : "" },
        yaxis: { title: MEASURES[measure], type: this.log.checked || measure === "lr" ? "log" : "linear", tickformat: measure === "loss" || measure === "lr" ? "" : ".0%" },
        legend: { orientation: "v", x: 1.01, y: 1, xanchor: "left", yanchor: "top" },
        hovermode: "closest",
        ...(this.node.clientWidth < 560 ? { legend: { orientation: "h", x: 0, y: -0.25, yanchor: "top" } } : {}),
      },
    }));
  }
}

// Seconds are known at evaluations alone; between them steps are taken to be equally long.
function interpolated(steps, knownSteps, seconds) {
  const ks = [0], ss = [0];
  knownSteps.forEach((step, i) => {
    if (seconds[i] !== null && step > ks.at(-1)) {
      ks.push(step);
      ss.push(seconds[i]);
    }
  });
  let i = 0;
  return steps.map((step) => {
    while (i < ks.length - 2 && ks[i + 1] < step) i += 1;
    if (ks.length < 2) return null;
    return ss[i] + ((step - ks[i]) / (ks[i + 1] - ks[i])) * (ss[i + 1] - ss[i]);
  });
}

