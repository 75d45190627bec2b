// Parallel coordinates: a line a run, from setting to setting to its result. Dragging along an axis keeps the lines that
// pass there; the two handles of an axis do the same from the keyboard. (Plotly has such a figure too: it makes code at
// run time, which this page's policy forbids, it has no handles for a keyboard, and it cannot be dragged on a phone.)

import { colours, onTheme, scaleColour, scaleGradient } from "./colours.js";
import { el, fill } from "./dom.js";
import { tellingOf, valueOf, within } from "./choose.js";
import { label, value } from "./words.js";

const TOP = 30, BOTTOM = 12, MOST = 9;

export class Parallel {
  #axes = [];
  #runs = [];
  #ranges = {};
  #frame = 0;
  #dragging = false;

  constructor(parent, onBrush) {
    this.onBrush = onBrush;
    this.key = el("span", { class: "key" });
    this.hint = el("span", {}, "Drag along an axis, or move its handles with the arrow keys; Delete clears it.");
    this.box = el("div", { class: "parallel" });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.empty = el("p", { class: "muted", hidden: true }, "At least two runs that differ in a setting are needed for this figure.");
    parent.append(el("div", { class: "row" }, this.key, this.hint), this.empty, this.box);
    this.box.append(this.canvas);
    new ResizeObserver(() => this.draw()).observe(this.box);
    onTheme(() => this.draw());
  }

  // runs: all that the text filter leaves; columns: as `columnsOf` gives them; result: the last axis, and the colours.
  show(runs, columns, result, ranges) {
    this.#runs = runs;
    this.#ranges = ranges;
    const settings = tellingOf(columns, runs.length);
    const chosen = settings.slice(0, MOST - 1);
    const last = columns.find((c) => c.name === result);
    if (last) chosen.push(last);
    const axes = chosen.map(scaleOf);
    this.result = axes.at(-1);
    const usable = runs.length > 1 && axes.length > 1;
    this.empty.hidden = usable;
    this.box.hidden = !usable;
    this.key.hidden = !usable || !last;
    const same = JSON.stringify(axes.map((a) => [a.name, a.ticks, a.names])) === JSON.stringify(this.#axes.map((a) => [a.name, a.ticks, a.names]));
    if (!same && !this.#dragging) {
      // New runs may bring new axes; the handle that somebody is at stays under their fingers.
      const at = document.activeElement?.closest?.(".handle");
      const where = at && this.box.contains(at) ? [at.closest(".axis").dataset.axis, at.dataset.end] : null;
      this.#axes = axes;
      this.#build();
      const axis = where && axes.find((a) => a.name === where[0]);
      if (axis) axis.handles[where[1] === "low" ? 0 : 1].focus({ preventScroll: true });
    }
    if (last) {
      fill(this.key, el("span", {}, `${label(result)} ${value(result, this.result.low)}`),
        el("i", { style: `background:${scaleGradient()}` }), el("span", {}, value(result, this.result.high)));
    }
    this.#settle();
    this.draw();
  }

  #build() {
    for (const axis of this.#axes) axis.node?.remove();
    this.box.replaceChildren(this.canvas);
    this.box.style.minWidth = `${Math.max(320, this.#axes.length * 92)}px`;
    for (const [i, axis] of this.#axes.entries()) {
      axis.brush = el("div", { class: "brush", hidden: true });
      axis.handles = ["low", "high"].map((end) => el("button", {
        type: "button", class: "handle", role: "slider", "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": 100,
        "aria-label": `${end === "low" ? "Least" : "Greatest"} ${label(axis.name)} shown`, "data-end": end,
        onkeydown: (event) => this.#key(event, axis, end),
      }));
      axis.track = el("div", { class: "track", onpointerdown: (event) => this.#drag(event, axis) }, axis.brush, axis.handles);
      const ticks = axis.ticks.map((tick) => el("span", { class: "tick", style: `top:calc(${TOP}px + (100% - ${TOP + BOTTOM}px) * ${1 - tick.at})`, title: tick.text }, tick.text));
      axis.node = el("div", { class: "axis", "data-axis": axis.name, style: `left:${this.#left(i)}` },
        el("div", { class: "title", title: label(axis.name) }, label(axis.name).replace("accuracy", "acc.")), ticks, axis.track);
      this.box.append(axis.node);
    }
  }

  #left(i) {
    const share = this.#axes.length > 1 ? i / (this.#axes.length - 1) : 0.5;
    return `calc(66px + (100% - 114px) * ${share})`;
  }

  // Brush from the filter's range, in shares of the axis.
  #settle() {
    for (const axis of this.#axes) {
      const range = this.#ranges[axis.name];
      const [low, high] = range ? axis.shares(range) : [0, 1];
      axis.node.classList.toggle("brushed", Boolean(range));
      axis.brush.hidden = !range;
      axis.brush.style.top = `${100 * (1 - high)}%`;
      axis.brush.style.height = `${100 * (high - low)}%`;
      for (const [handle, at] of [[axis.handles[0], low], [axis.handles[1], high]]) {
        handle.style.top = `${100 * (1 - at)}%`;
        handle.setAttribute("aria-valuenow", Math.round(100 * at));
        handle.setAttribute("aria-valuetext", axis.say(at));
      }
      axis.at = [low, high];
    }
  }

  #set(axis, low, high) {
    const range = low <= 0.001 && high >= 0.999 ? null : axis.range(Math.max(0, low), Math.min(1, high));
    this.onBrush(axis.name, range);
  }

  #key(event, axis, end) {
    const step = axis.names ? 1 / Math.max(1, axis.names.length) : event.shiftKey ? 0.1 : 0.02;
    let [low, high] = axis.at;
    const move = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step, PageUp: 0.2, PageDown: -0.2 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace" || event.key === "Escape") [low, high] = [0, 1];
    else if (move === undefined) return;
    else if (end === "low") low = Math.min(Math.max(0, low + move), high - 0.001);
    else high = Math.max(Math.min(1, high + move), low + 0.001);
    event.preventDefault();
    this.#set(axis, low, high);
  }

  #drag(event, axis) {
    event.preventDefault();
    const box = axis.track.getBoundingClientRect();
    const share = (e) => Math.min(1, Math.max(0, 1 - (e.clientY - box.top) / box.height));
    const end = event.target.dataset?.end;
    const from = end ? axis.at[end === "low" ? 1 : 0] : share(event);
    const began = share(event);
    let moved = Boolean(end);
    axis.track.setPointerCapture(event.pointerId);
    this.#dragging = true;
    const move = (e) => {
      const to = share(e);
      moved ||= Math.abs(to - began) > 0.02;
      if (moved) this.#set(axis, Math.min(from, to), Math.max(from, to, Math.min(from, to) + 0.001));
    };
    const up = (e) => {
      this.#dragging = false;
      if (!moved) this.#set(axis, 0, 1); // a click clears the axis
      else move(e);
      axis.track.removeEventListener("pointermove", move);
      axis.track.removeEventListener("pointerup", up);
      axis.track.removeEventListener("pointercancel", up);
    };
    axis.track.addEventListener("pointermove", move);
    axis.track.addEventListener("pointerup", up);
    axis.track.addEventListener("pointercancel", up);
  }

  draw() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.#draw();
      });
    }
  }

  #draw() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width || this.#axes.length < 2) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const last = this.#axes.length - 1;
    const xs = this.#axes.map((_, i) => 66 + (width - 114) * (i / last));
    const down = (share) => TOP + (height - TOP - BOTTOM) * (1 - share);
    const muted = colours().grid;
    const passes = [[], []];
    for (const run of this.#runs) passes[within(run, this.#ranges) ? 1 : 0].push(run);
    const alpha = Math.max(0.25, Math.min(0.9, 60 / (passes[1].length + 1)));
    for (const [kept, runs] of passes.entries()) {
      pen.lineWidth = kept ? 1.5 : 1;
      for (const run of runs) {
        const result = this.result ? this.result.share(valueOf(run, this.result.name)) : null;
        pen.strokeStyle = !kept ? muted : result === null ? colours().muted : scaleColour(result, alpha);
        pen.beginPath();
        let open = false;
        for (const [i, axis] of this.#axes.entries()) {
          const share = axis.share(valueOf(run, axis.name));
          if (share === null) {
            open = false;
            continue;
          }
          const y = down(share);
          if (open) {
            const middle = (xs[i - 1] + xs[i]) / 2;
            pen.bezierCurveTo(middle, open, middle, y, xs[i], y);
          } else pen.moveTo(xs[i], y);
          open = y;
        }
        pen.stroke();
      }
    }
  }
}

// An axis: share(value) in [0, 1] or null, range(low, high) in its own values, and back.
export function scaleOf(column) {
  const name = column.name;
  if (column.kind === "text") {
    const order = new Intl.Collator("en", { numeric: true });
    const names = [...column.seen.keys()].map(String).sort(order.compare);
    const n = names.length;
    const at = (i) => (n > 1 ? 0.04 + (0.92 * i) / (n - 1) : 0.5);
    const every = Math.ceil(n / 12);
    return {
      name, names, low: names[0], high: names.at(-1),
      share: (v) => (v === undefined || v === null ? null : names.includes(String(v)) ? at(names.indexOf(String(v))) : null),
      range: (low, high) => ({ values: names.filter((_, i) => at(i) >= low && at(i) <= high) }),
      shares: (range) => {
        const found = (range.values ?? []).map((v) => names.indexOf(v)).filter((i) => i >= 0).map(at);
        return found.length ? [Math.max(0, Math.min(...found) - 0.03), Math.min(1, Math.max(...found) + 0.03)] : [0, 0.001];
      },
      say: (share) => names[Math.round(Math.max(0, Math.min(n - 1, ((share - 0.04) / 0.92) * (n - 1))))] ?? "",
      ticks: names.map((text, i) => ({ at: at(i), text })).filter((_, i) => i % every === 0),
    };
  }
  const given = [...column.seen.keys()].filter((v) => typeof v === "number" && Number.isFinite(v));
  let low = Math.min(...given), high = Math.max(...given);
  const positive = given.filter((v) => v > 0);
  const least = Math.min(...positive);
  const log = low >= 0 && positive.length > 1 && high / least > 30;
  const zero = log && low === 0; // zeros of a logarithmic axis lie at its foot
  const foot = zero ? 0.12 : 0;
  const a = log ? Math.log10(least) : low, b = log ? Math.log10(high) : high;
  const span = b - a || 1;
  const share = (v) => {
    if (typeof v !== "number" || !Number.isFinite(v)) return null;
    if (log && v <= 0) return 0;
    const at = foot + (1 - foot) * (((log ? Math.log10(v) : v) - a) / span);
    return b === a ? 0.5 : Math.min(1, Math.max(0, at));
  };
  const back = (at) => {
    if (zero && at < foot) return 0;
    const v = a + ((at - foot) / (1 - foot)) * span;
    return log ? 10 ** v : v;
  };
  const few = given.length <= 6 ? given.filter((v) => v > 0 || !log).sort((x, y) => x - y) : null;
  const ticks = (few ?? (log && b - a >= 1.9 ? decades(a, b) : evenly(a, b, log))).map((v) => ({ at: share(v), text: value(name, v) }));
  if (zero) ticks.unshift({ at: 0, text: "0" });
  for (let i = 1; i < ticks.length; i++) if (ticks[i].at - ticks[i - 1].at < 0.09) ticks.splice(i--, 1);
  return {
    name, low, high, share, ticks,
    // A hair wider than what was brushed, so that the ends of an axis belong to it whatever the rounding.
    range: (from, to) => ({ low: from <= 0 ? low : back(from) - 1e-9 * Math.abs(back(from)), high: to >= 1 ? high : back(to) + 1e-9 * Math.abs(back(to)) }),
    shares: (range) => [range.low <= low ? 0 : share(range.low) ?? 0, range.high >= high ? 1 : share(range.high) ?? 1],
    say: (at) => value(name, back(at)),
  };
}

function decades(a, b) {
  const found = [];
  for (let d = Math.ceil(a - 1e-9); d <= b + 1e-9; d++) found.push(10 ** d);
  const every = Math.ceil(found.length / 6);
  return found.filter((_, i) => i % every === 0);
}

function evenly(a, b, log) {
  if (a === b) return [log ? 10 ** a : a];
  return [0, 0.25, 0.5, 0.75, 1].map((f) => a + f * (b - a)).map((v) => (log ? 10 ** v : v));
}
