// The grid: one card a run, of one size from the start, so that nothing moves as data arrive. Cards out of sight are
// not drawn, and their curves not asked for.

import { drawChart, range } from "./chart.js";
import { onTheme } from "./colours.js";
import { el, fill, say } from "./dom.js";
import { ask } from "./server.js";
import { number, percent, STATES, STATE_WORDS, value, label, ago } from "./words.js";

const AT_ONCE = 12; // curves of one request: what is parsed and kept between two frames
const BATCH = 40; // cards built between two frames
const FRAME = 6; // milliseconds of drawing in one frame
const MOST_ALIVE = 160; // canvases that keep their drawing

export class Cards {
  #cards = new Map();
  #wanted = new Set();
  #visible = new Set();
  #dirty = new Set();
  #curves = new Map();
  #queue = [];
  #asking = false;
  #drawing = false;
  #order = [];
  #alive = new Set(); // canvases with a drawing, the latest last
  #size = [0, 0];

  // link(run) → address of its page, or null. curvesOf(keys) → {key: curve}; by default the server's.
  constructor(parent, { link, onPick, curvesOf }) {
    this.list = el("ol", { class: "cards", "aria-label": "Runs" });
    parent.append(this.list);
    this.link = link;
    this.onPick = onPick;
    this.curvesOf = curvesOf ?? ((keys) => ask(`/api/curves?keys=${keys.join(",")}`));
    this.what = "both";
    this.same = false;
    this.shownSettings = [];
    this.picked = new Set();
    this.seen = new IntersectionObserver((entries) => this.#scrolled(entries), { rootMargin: "300px" });
    new ResizeObserver(() => { this.#measure(); this.redraw(); }).observe(this.list);
    onTheme(() => this.redraw());
  }

  get order() {
    return this.#order;
  }

  // The runs in their order. Cards that stay keep their elements, and with them focus and drawing.
  show(runs) {
    const keys = new Set(runs.map((run) => run.key));
    for (const [key, card] of this.#cards) {
      if (keys.has(key)) continue;
      this.seen.unobserve(card.node);
      card.node.remove();
      this.#cards.delete(key);
      this.#visible.delete(key);
    }
    this.#order = runs;
    this.#queue = [];
    let before = null;
    const focus = document.activeElement;
    for (const [i, run] of runs.entries()) {
      const card = this.#cards.get(run.key);
      if (!card) {
        this.#queue = runs.slice(i);
        break;
      }
      this.#place(card, before);
      this.update(run);
      before = card.node;
    }
    if (focus && focus !== document.activeElement && focus.isConnected) focus.focus({ preventScroll: true });
    if (this.#queue.length) this.#build();
  }

  #place(card, before) {
    const next = before ? before.nextSibling : this.list.firstChild;
    if (next !== card.node) this.list.insertBefore(card.node, next);
  }

  #build() {
    const now = this.#queue.splice(0, BATCH);
    for (const run of now) {
      let card = this.#cards.get(run.key);
      const fresh = !card;
      if (fresh) card = this.#make(run);
      this.list.append(card.node);
      this.update(run);
      if (fresh) this.seen.observe(card.node);
    }
    if (this.#queue.length) requestAnimationFrame(() => this.#queue.length && this.#build());
  }

  #make(run) {
    const parts = {
      pick: el("input", { type: "checkbox", onchange: () => this.onPick(run.key, parts.pick.checked) }),
      name: el("a", {}),
      badge: el("span", {}),
      canvas: el("canvas", { role: "img" }),
      problem: el("p", { class: "problem", hidden: true }),
      figures: el("div", { class: "figures" }),
      settings: el("div", { class: "settings" }),
      bar: el("i", {}),
    };
    parts.node = el("li", { class: "card", "data-key": run.key },
      el("div", { class: "head" }, el("label", { class: "pick" }, parts.pick), parts.name, parts.badge),
      parts.canvas, parts.problem, parts.figures, parts.settings, el("div", { class: "bar" }, parts.bar));
    const card = { ...parts, version: -1, drawn: -1 };
    this.#cards.set(run.key, card);
    return card;
  }

  update(run) {
    const card = this.#cards.get(run.key);
    if (!card) return;
    const picked = this.picked.has(run.key);
    if (card.pick.checked !== picked) card.pick.checked = picked;
    card.node.classList.toggle("picked", picked);
    const look = `${run.version} ${run.state} ${this.shownSettings.join()}`;
    if (card.look === look) return;
    card.look = look;
    card.run = run;
    const state = run.stopping ? "stopping" : run.state;
    card.pick.setAttribute("aria-label", `Overlay ${run.name}`);
    say(card.name, run.name);
    card.name.title = run.name;
    const address = this.link(run);
    if (address) card.name.href = address;
    card.badge.className = `badge ${state}`;
    say(card.badge, run.stateText ?? STATES[state] ?? state);
    card.badge.title = STATE_WORDS[state] ?? "";
    const instead = run.problem || wordsWithoutChart(run);
    card.canvas.hidden = Boolean(instead);
    card.problem.hidden = !instead;
    say(card.problem, instead);
    const share = run.state === "done" ? 1 : run.progress ?? 0; // a deadline may end a run before its planned steps
    card.bar.parentNode.hidden = Boolean(run.problem);
    card.bar.style.width = `${(100 * share).toFixed(1)}%`;
    const best = run.results.validation_accuracy, test = run.results.test_accuracy, loss = run.results.loss;
    const figures = [];
    if (test !== undefined) figures.push(el("b", {}, percent(test)), el("span", {}, "test"));
    if (best !== undefined) {
      figures.push(el(test === undefined ? "b" : "span", { class: "v" }, percent(best)), el("span", {}, "validation"));
    }
    if (loss !== undefined && test === undefined) figures.push(el("span", { class: "t" }, number(loss)), el("span", {}, "loss"));
    if (run.search) figures.push(el("span", {}, `${run.trials} trials`));
    if (!figures.length && !instead) figures.push(el("span", {}, run.read === false ? "being read …" : "no figure yet"));
    if (run.errors || run.warnings) {
      const n = run.errors || run.warnings;
      const word = run.errors ? "error" : "warning";
      figures.push(el("span", { class: `badge ${word}` }, `${n} ${word}${n > 1 ? "s" : ""}`));
    }
    fill(card.figures, figures);
    const told = this.shownSettings.filter((name) => name in run.settings).slice(0, 7);
    const named = told.map((name) => `${label(name)} ${value(name, run.settings[name])}`);
    if (run.note) named.unshift(`“${run.note.split("\n")[0].slice(0, 60)}”`);
    if (run.state === "failed" && run.reason && !instead) named.unshift(run.reason.slice(0, 90));
    if (run.torn && !run.problem) named.push("last line torn");
    if (run.started && run.state !== "running" && !run.problem) named.push(ago(run.changed));
    say(card.settings, named.join(" · "));
    const chart = `Loss ${number(loss)}, best validation accuracy ${percent(best)}`;
    card.canvas.setAttribute("aria-label", chart);
    if (this.#visible.has(run.key)) this.#want(run.key);
  }

  redraw() {
    for (const key of this.#visible) this.#paint(key);
  }

  curve(key) {
    return this.#curves.get(key);
  }

  #scrolled(entries) {
    for (const entry of entries) {
      const key = Number(entry.target.dataset.key);
      const card = this.#cards.get(key);
      if (!card) continue;
      if (entry.isIntersecting) {
        this.#visible.add(key);
        this.#want(key);
      } else {
        this.#visible.delete(key);
      }
    }
    this.#release();
  }

  #want(key) {
    const curve = this.#curves.get(key), run = this.#cards.get(key)?.run;
    if (curve) this.#paint(key);
    if (run && curve?.version !== run.version && !run.problem && run.state !== "deleted") {
      this.#wanted.add(key);
      this.#ask();
    }
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      await new Promise((done) => setTimeout(done, 30)); // a scroll brings many at once
      while (this.#wanted.size) {
        const keys = [...this.#wanted].filter((key) => this.#visible.has(key)).slice(0, AT_ONCE);
        if (!keys.length) {
          this.#wanted.clear();
          break;
        }
        for (const key of keys) this.#wanted.delete(key);
        for (const [key, curve] of Object.entries(await this.curvesOf(keys))) {
          this.#curves.set(Number(key), curve);
          this.#paint(Number(key));
        }
        await new Promise(requestAnimationFrame);
      }
    } catch {
      this.#wanted.clear(); // the next look at the runs asks again
    } finally {
      this.#asking = false;
    }
  }

  #paint(key) {
    this.#dirty.add(key);
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const until = performance.now() + FRAME;
    if (!this.#size[0]) this.#measure();
    const scales = this.same ? this.#sharedScales() : null;
    for (const key of this.#dirty) {
      this.#dirty.delete(key);
      const card = this.#cards.get(key), curve = this.#curves.get(key);
      if (card && curve && this.#visible.has(key) && !card.canvas.hidden) {
        this.#alive.delete(key);
        this.#alive.add(key);
        drawChart(card.canvas, curve, this.what, this.#size, scales);
      }
      if (performance.now() > until) break;
    }
    this.#drawing = this.#dirty.size > 0;
    if (this.#drawing) requestAnimationFrame(() => this.#draw());
  }

  // Drawings far out of sight give their memory back, the oldest first.
  #release() {
    if (this.#alive.size <= MOST_ALIVE) return;
    for (const key of this.#alive) {
      if (this.#alive.size <= MOST_ALIVE) break;
      if (this.#visible.has(key)) continue;
      this.#alive.delete(key);
      const card = this.#cards.get(key);
      if (card) card.canvas.width = 0;
    }
  }

  #measure() {
    const canvas = this.list.querySelector(".card canvas:not([hidden])");
    if (canvas) this.#size = [canvas.clientWidth, canvas.clientHeight];
  }

  #sharedScales() {
    const known = this.#order.map((run) => this.#curves.get(run.key)).filter(Boolean);
    const ranges = known.map((curve) => range(curve.loss));
    const steps = Math.max(1, ...known.map((curve) => curve.steps.at(-1) ?? 1));
    return { loss: [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))], steps };
  }
}

// What stands where there is nothing to draw; "" where there is a chart, or will be in a moment.
function wordsWithoutChart(run) {
  const known = run.results;
  if (run.read === false || "loss" in known || "train_accuracy" in known || run.lost) return "";
  if (run.search && "validation_accuracy" in known) return "";
  if (run.state === "failed") return run.reason || "It failed before its first step.";
  if (run.state === "deleted") return "Its folder is gone.";
  if (run.state === "running" || run.state === "starting") return `Its chart begins with the first ${run.search ? "trial" : "step"}.`;
  if (run.state === "done" && "validation_accuracy" in known) return "Classifiers on frozen features: there is no loss to draw.";
  return `It ended before its first ${run.search ? "trial" : "step"}.`;
}
