// One run: what it came to in words, what happened on the way, and two things to do about it: stop it, write a note.

import { el, fill, prose, say } from "./dom.js";
import { forget, plot } from "./plots.js";
import { accuracyFigure, confusionFigure, gradientFigure, lossFigure, ratioFigure, reliabilityFigure, tracksFigure } from "./runfigures.js";
import { ask, post } from "./server.js";
import { counted, label, percent, STATES, STATE_WORDS, value } from "./words.js";

const LIVE = ["running", "silent", "starting"];

export class RunView {
  #name = "";
  #seen = "";
  #parts = null;
  #asking = false;
  #next = 0;
  #timer = 0;

  // address(run, kind): of a run's page, or of its trials. home(): of all runs, as they were last asked for.
  constructor(parent, store, { address, home }) {
    this.parent = parent;
    this.store = store;
    this.address = address;
    this.home = home;
    store.addEventListener("changed", () => this.#look());
    store.addEventListener("looked", () => this.#name && !this.#parts && this.#look());
  }

  open(name) {
    if (name === this.#name) return;
    this.#close();
    this.#name = name;
    if (name) this.#look();
  }

  #close() {
    clearTimeout(this.#timer);
    for (const node of this.parent.querySelectorAll(".plot")) forget(node);
    this.parent.replaceChildren();
    this.#parts = null;
    this.#seen = "";
  }

  async #look() {
    const name = this.#name;
    if (!name || this.#asking) return;
    const run = this.store.byName(name);
    if (!run) {
      if (this.store.ready && !this.store.behind && !this.#parts) {
        fill(this.parent, el("div", { class: "notice" }, el("h2", {}, `There is no run “${name}” here`), el("p", {}, "It may have been moved or deleted."), el("a", { href: this.home() }, "All runs")));
      }
      return;
    }
    if (!this.#parts) this.#build(run);
    this.#head(run);
    if (run.problem) {
      fill(this.#parts.verdict, el("p", {}, run.problem));
      return;
    }
    const seen = `${run.key}/${run.version}`;
    if (seen === this.#seen || run.state === "deleted") return;
    // Drawing all figures anew costs a moment: it is done every few seconds, and more rarely where it takes long.
    const wait = this.#next - performance.now();
    if (this.#seen && wait > 0) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#look(), wait);
      return;
    }
    this.#asking = true;
    const begun = performance.now();
    try {
      const page = await ask(`/api/run/${run.key}/page`);
      this.#seen = seen;
      if (this.#name === name && this.#parts) this.#show(run, page);
    } catch (error) {
      if (this.#name === name && this.#parts && !this.#seen) fill(this.#parts.verdict, el("p", {}, `This run cannot be shown: ${error.message}.`));
    } finally {
      this.#asking = false;
      this.#next = performance.now() + Math.max(2500, 4 * (performance.now() - begun));
    }
    if (this.#name && this.#name !== name) this.#look();
  }

  #build(run) {
    const box = (id, title, height, extra = "") => {
      const said = el("p", { class: "said" });
      const node = el("div", { class: `plot ${height}`, role: "img", "aria-label": title });
      return { id, said, node, box: el("figure", { class: `box ${extra}`, style: "margin:0 0 14px", "data-figure": id }, el("h2", {}, title), said, node) };
    };
    const figures = {};
    for (const [id, title, height, extra] of [
      ["loss", "Loss and learning rate", "", ""], ["accuracy", "Train and validation accuracy", "", ""],
      ["ratios", "Update / weight ratio", "", "wide"], ["std", "Spread of each layer's activations", "low", ""],
      ["dead", "Dead share of each layer's units", "low", ""], ["gradients", "Size of the gradient", "low", ""], ["saturated", "Saturated share", "low", ""],
    ]) figures[id] = box(id, title, height, extra);
    const p = (this.#parts = {
      title: el("h1", {}), badge: el("span", {}), trials: el("a", { hidden: true }, "Its trials"), report: el("a", { hidden: true, target: "_blank", rel: "noopener" }, "Report"),
      verdict: el("section", { class: "verdict", "aria-label": "Verdict" }, el("p", { class: "muted" }, "Reading the run …")),
      findings: el("section", { class: "box", hidden: true }), confusion: box("confusion", "Confusion matrix", "tallish", ""), reliability: box("reliability", "Reliability", "middling", ""),
      figures, filters: el("section", { class: "box", hidden: true }), pictures: el("section", { class: "box", hidden: true }), neighbours: el("section", { class: "box", hidden: true }),
      nothing: el("p", { class: "notice", hidden: true }, "Nothing to draw: it ended before its first step."), facts: el("dl", {}), settings: el("dl", {}), checks: el("div", {}), steps: el("div", {}),
    });
    p.stop = el("button", { type: "button", class: "danger", onclick: () => this.#stop() }, "Stop after this epoch");
    p.keep = el("button", { type: "button", hidden: true, onclick: () => this.#unsure() }, "Let it train");
    p.stopSaid = el("span", { class: "muted", role: "status" });
    p.note = el("textarea", { id: "note", maxlength: 4000, "aria-label": "Note on this run", placeholder: "What you saw, what you will try next" });
    p.note.value = run.note ?? "";
    p.noteKnown = run.note ?? "";
    p.save = el("button", { type: "button", class: "primary", onclick: () => this.#note() }, "Save note");
    p.noteSaid = el("span", { class: "muted", role: "status" });
    p.note.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.#note());
    p.confusionPairs = el("div", { class: "scroll" });
    p.confusion.box.append(p.confusionPairs);
    p.confusion.box.hidden = p.reliability.box.hidden = true;
    p.actions = el("section", { class: "box stop-and-note", "aria-label": "Stop and note" }, el("h2", {}, "Stop and note"), el("p", { class: "actions" }, p.stop, p.keep), p.stopSaid, p.note, el("div", { class: "actions" }, p.save, p.noteSaid));
    const side = el("aside", { class: "side" }, p.actions,
      el("section", { class: "box" }, el("h2", {}, "About"), p.facts), el("section", { class: "box" }, el("h2", {}, "Settings"), p.settings),
      el("section", { class: "box" }, el("h2", {}, "Checks"), p.checks), el("section", { class: "box" }, el("h2", {}, "Steps"), p.steps));
    fill(this.parent,
      el("div", { class: "run-head" }, p.title, p.badge, el("span", { class: "links" }, p.trials, p.report, el("a", { href: this.home() }, "All runs"))),
      p.verdict,
      el("div", { class: "split" },
        el("div", {}, p.nothing, p.findings, el("div", { class: "figs" }, Object.values(figures).map((f) => f.box)),
          p.filters, p.confusion.box, p.reliability.box, p.pictures, p.neighbours), side));
    say(p.title, run.name);
  }

  #head(run) {
    const p = this.#parts;
    const state = run.stopping ? "stopping" : run.state;
    p.badge.className = `badge ${state}`;
    say(p.badge, STATES[state] ?? state);
    p.badge.title = STATE_WORDS[state] ?? "";
    p.trials.hidden = !run.trials;
    p.trials.href = this.address(run, "trials");
    say(p.trials, `Its ${counted(run.trials ?? 0, "trial")}`);
    const live = LIVE.includes(run.state) && !run.problem;
    p.stop.parentNode.hidden = !live;
    p.stop.hidden = !live || run.stopping;
    if (!live || run.stopping) p.keep.hidden = true;
    const words = run.stopping
      ? `Asked to stop: it finishes its ${run.search ? "trial" : "epoch"}, evaluates and saves.`
      : live ? "" : run.state === "deleted" ? "Its folder is gone." : "It has ended; there is nothing to stop.";
    if (words || !p.stopSaid.dataset.said) say(p.stopSaid, words);
    p.save.disabled = p.note.disabled = run.state === "deleted" || Boolean(run.problem);
    // Another page may have written a note; what is being typed here is left alone.
    if ((run.note ?? "") !== p.noteKnown && p.note.value === p.noteKnown) p.note.value = run.note ?? "";
    p.noteKnown = run.note ?? "";
  }

  #unsure() {
    const p = this.#parts;
    p.stop.classList.remove("sure");
    say(p.stop, "Stop after this epoch");
    p.keep.hidden = true;
  }

  async #stop() {
    const p = this.#parts, run = this.store.byName(this.#name);
    if (!p.stop.classList.contains("sure")) {
      p.stop.classList.add("sure");
      say(p.stop, "Yes, stop it");
      p.keep.hidden = false;
      return;
    }
    p.stop.disabled = true;
    try {
      await post(`/api/run/${run.key}/stop`, {});
      p.stop.hidden = p.keep.hidden = true;
      say(p.stopSaid, "Asked to stop: it finishes what it is at, evaluates and saves.");
    } catch (error) {
      say(p.stopSaid, `It could not be asked: ${error.message}.`);
      p.stopSaid.dataset.said = "1";
    } finally {
      p.stop.disabled = false;
      this.#unsure();
      p.keep.hidden = true;
    }
  }

  async #note() {
    const p = this.#parts, run = this.store.byName(this.#name);
    p.save.disabled = true;
    say(p.noteSaid, "saving …");
    try {
      await post(`/api/run/${run.key}/note`, { note: p.note.value });
      say(p.noteSaid, "saved beside the run");
    } catch (error) {
      say(p.noteSaid, `not saved: ${error.message}`);
    } finally {
      p.save.disabled = false;
    }
  }

  #show(run, page) {
    const p = this.#parts, live = LIVE.includes(run.state);
    // What the report says of a record without an end is for one that was killed; this one goes on before our eyes.
    const going = run.state === "running";
    const sentences = going ? [...page.verdict.slice(0, 1), "It is still at work: how sure this is, and what to do next, is said at its end."] : page.verdict;
    fill(p.verdict, sentences.map((text) => el("p", {}, prose(text))), going ? null : [...page.state, ...(run.torn ? ["The last line of its record is torn; the others are shown."] : [])].map((text) => el("p", { class: "state" }, prose(text))));
    p.report.hidden = !page.report;
    p.report.href = `/report/${run.key}`;
    this.#findings(page);
    const placeholder = live && !page.search && !page.probe.length;
    const figure = (id, data, make, words) => {
      const f = p.figures[id];
      f.box.hidden = !data && !(placeholder && id !== "saturated");
      say(f.said, data ? words : "It comes with the first measured steps.");
      if (data) plot(f.node, make);
    };
    const a = page.accuracy, l = page.loss, layers = page.layers;
    figure("loss", l, () => lossFigure(l, page.alarms, page.notes), l && `Dots are steps, the line their average, now ${l.average.at(-1)?.toPrecision(3)}.${l.lost.length ? ` The loss was not finite at ${counted(l.lost.length, "step")}.` : ""}`);
    figure("accuracy", a, () => accuracyFigure(a, page.alarms, page.notes), a && gapWords(a));
    figure("ratios", page.ratios, () => ratioFigure(page.ratios), page.ratios && `How much a step changes each weight, as a share of it: about 1e-3 is healthy, purple is below, orange above. On top the median weight, with the middle 80% as a band.${shownOf(page.ratios)}`);
    figure("std", layers.std, () => tracksFigure(layers.std, "spread"), layers.std && `Light layers say little, dark ones much; a layer near 0 passes nothing on.${shownOf(layers.std)}`);
    figure("dead", layers.dead, () => tracksFigure(layers.dead, "dead share"), layers.dead && `Units that were silent on everything seen lately.${shownOf(layers.dead)}`);
    figure("saturated", layers.saturated, () => tracksFigure(layers.saturated, "saturated share"), layers.saturated && "Entries at the ends of a bounded non-linearity, where no gradient passes.");
    figure("gradients", page.gradients, () => gradientFigure(page.gradients), page.gradients && "The norm of the whole gradient, over all weights.");
    const half = ["std", "dead", "gradients", "saturated"].filter((id) => !p.figures[id].box.hidden).length;
    p.figures.gradients.box.classList.toggle("wide", half % 2 === 1); // no hole beside it
    this.#filters(page.filters);
    this.#confusion(page.confusion);
    this.#reliability(page.reliability);
    this.#pictures(run, page.mistakes);
    this.#neighbours(run, page.neighbours);
    p.nothing.hidden = [...Object.values(p.figures).map((f) => f.box), p.findings, p.filters, p.confusion.box, p.reliability.box, p.pictures].some((node) => !node.hidden);
    pairs(p.facts, page.facts);
    const asked = Object.entries(run.settings).map(([name, given]) => [label(name), value(name, given)]);
    pairs(p.settings, [...(page.settings.length > 2 ? page.settings : asked), ...page.probe]);
    fill(p.checks, page.checks.length ? el("ul", { class: "findings" }, page.checks.map((check) => el("li", { class: check.outcome === "failed" ? "error" : check.outcome === "undecided" ? "warning" : "" }, el("b", {}, `${check.outcome}: `), check.check, el("div", { class: "action" }, check.message)))) : el("p", { class: "muted" }, "None so far."));
    fill(p.steps, page.steps.length ? el("table", {}, el("tbody", {}, page.steps.map((step) => el("tr", { title: step.reason }, el("td", {}, step.name), el("td", {}, step.status), el("td", { class: "n" }, step.seconds))))) : el("p", { class: "muted" }, "None so far."));
  }

  #findings(page) {
    const p = this.#parts;
    const settled = new Set(page.findings.map((f) => f.id));
    const at = new Map();
    page.alarms.forEach((alarm, i) => at.has(alarm.id) || at.set(alarm.id, { step: alarm.step, number: i + 1 }));
    const all = [...page.findings, ...page.alarms.filter((alarm, i) => !settled.has(alarm.id) && page.alarms.findIndex((b) => b.id === alarm.id) === i)];
    p.findings.hidden = !all.length;
    fill(p.findings, el("h2", {}, "What was found"), el("ul", { class: "findings" }, all.map((finding) => {
      const fired = at.get(finding.id);
      return el("li", { class: finding.severity },
        el("div", {}, el("span", { class: `badge ${finding.severity}` }, finding.severity), " ", el("b", {}, finding.title), fired ? el("span", { class: "muted" }, ` · first at step ${fired.step} (mark ${fired.number})`) : null),
        el("div", {}, finding.message), finding.action ? el("div", { class: "action" }, "→ ", prose(finding.action)) : null);
    })));
  }

  #filters(filters) {
    const node = this.#parts.filters;
    node.hidden = !filters;
    if (!filters || node.dataset.image === filters.image) return;
    node.dataset.image = filters.image;
    fill(node, el("h2", {}, "First-layer filters"), el("p", { class: "said" }, `${filters.count} filters, each on its own scale; grey is a weight of 0.${filters.flat ? ` ${filters.flat} of them are near 0 beside the others.` : ""}`),
      el("img", { class: "filters-image", src: filters.image, alt: `${filters.count} filters of the first layer`, width: filters.width, height: filters.height }));
  }

  #confusion(confusion) {
    const p = this.#parts;
    p.confusion.box.hidden = !confusion;
    if (!confusion) return;
    p.confusion.node.hidden = !confusion.classes;
    p.confusion.node.style.height = "430px";
    say(p.confusion.said, confusion.classes ? `On the ${confusion.split} images: each row is a true class, shaded by the share of its answers.` : `${confusion.in_all} classes are too many to draw; the most frequent mistakes stand below.`);
    if (confusion.classes) plot(p.confusion.node, () => confusionFigure(confusion));
    fill(p.confusionPairs, confusion.pairs.length ? el("table", {}, el("caption", { class: "muted" }, "Most frequent mistakes"), el("thead", {}, el("tr", {}, ["true class", "taken for"].map((t) => el("th", {}, t)), ["images", "of the class"].map((t) => el("th", { class: "n" }, t)))),
      el("tbody", {}, confusion.pairs.map(([one, other, n, share]) => el("tr", {}, el("td", {}, one), el("td", {}, other), el("td", { class: "n" }, n), el("td", { class: "n" }, share))))) : el("p", { class: "muted" }, "Not one image was given a wrong class."));
  }

  #reliability(reliability) {
    const { box, said, node } = this.#parts.reliability;
    box.hidden = !reliability;
    if (!reliability) return;
    say(said, reliabilityWords(reliability));
    plot(node, () => reliabilityFigure(reliability));
  }

  #pictures(run, mistakes) {
    const node = this.#parts.pictures;
    node.hidden = !mistakes.length;
    const look = JSON.stringify(mistakes);
    if (!mistakes.length || node.look === look) return;
    node.look = look;
    fill(node, el("h2", {}, "Most confident mistakes"), el("p", { class: "said" }, "Often it is the label that is wrong."), el("div", { class: "pictures" }, mistakes.map((row) => picture(run, row))));
  }

  #neighbours(run, neighbours) {
    const node = this.#parts.neighbours;
    node.hidden = !neighbours || !(neighbours.examples.length + neighbours.suspects.length);
    const look = JSON.stringify(neighbours);
    if (node.hidden || node.look === look) return;
    node.look = look;
    const strips = (list) => list.map((strip) => el("div", { class: "strip", tabindex: 0 }, picture(run, strip.asked, "asked"), strip.neighbours.map((row) => picture(run, row, row.label === strip.asked.label ? "" : "other"))));
    fill(node, el("h2", {}, "Nearest neighbours"), el("p", { class: "said" }, "What the network holds for alike: an image, then the training images nearest to it. An orange frame marks another class."), strips(neighbours.examples),
      neighbours.suspects.length ? [el("h2", {}, `Perhaps mislabelled (${neighbours.suspects_in_all})`), strips(neighbours.suspects)] : null);
  }
}

function picture(run, row, kind = "") {
  const image = row.thumbnail
    ? el("img", { src: `/api/run/${run.key}/picture?file=${encodeURIComponent(row.thumbnail)}`, alt: `${row.file}: ${row.label}`, loading: "lazy" })
    : el("div", { class: "absent" }, "no picture");
  const words = row.predicted !== undefined ? [`${row.predicted} ${row.probability ?? ""}`, row.label !== row.predicted ? el("div", { class: "muted" }, `is ${row.label}`) : null] : [row.label, row.distance ? el("span", { class: "muted" }, ` at ${row.distance}`) : null];
  return el("figure", { class: `picture ${kind}` }, image, el("figcaption", {}, words, el("span", { class: "file", title: row.file }, row.file)));
}

function pairs(list, rows) {
  fill(list, rows.map(([name, text]) => [el("dt", {}, name), el("dd", { class: String(text).length > 90 ? "long" : "" }, text)]));
}

function gapWords(accuracy) {
  const parts = [];
  if (accuracy.best !== null) parts.push(`Best on validation: ${percent(accuracy.best)}.`);
  if (accuracy.gap !== null) {
    const points = Math.abs(100 * accuracy.gap).toFixed(1);
    parts.push(Math.abs(accuracy.gap) < 0.005 ? "Train and validation are level." : `Train is ${points} points ${accuracy.gap > 0 ? "ahead of" : "behind"} validation.`);
  }
  return parts.join(" ");
}

function reliabilityWords({ error, excess }) {
  const points = (share) => `${Math.abs(100 * share).toFixed(1)} points`;
  const side = Math.abs(excess) < 0.005 ? "on the whole neither too sure nor too unsure" : `on the whole ${points(excess)} too ${excess > 0 ? "sure" : "unsure"}`;
  return `Where it says 80%, is it right in 80 of 100 cases? ${error === null ? "" : `It is off by ${points(error)} on average, `}${side}.`;
}

function shownOf(table) {
  return table.names.length < table.in_all ? ` ${table.names.length} of ${table.in_all} rows are shown.` : "";
}
