// The grid with its tools: find, sort, filter, pick, compare. It shows runs, or the trials of one search: both are things
// with settings, results and a curve.

import { read, written } from "./address.js";
import { Cards } from "./cards.js";
import { choose, columnsOf, leadingResult, OWN, tellingOf, within } from "./choose.js";
import { choices, el, fill, say } from "./dom.js";
import { MOST_OVERLAID, Panels } from "./panels.js";
import { counted, label, value } from "./words.js";

export class GridView {
  #items = [];
  #order = null; // keys in the order that is on the page; it changes when somebody asks
  #ranges = {};
  #picked = new Set();
  #stages = {};
  #query = "";

  // id: of what is remembered. visit(key), link(item): the page of one. onAddress(text): what is asked has changed.
  constructor(parent, { id, noun, link, visit, curvesOf, head, empty, onAddress }) {
    this.id = `wellfit-${id}`;
    this.noun = noun;
    this.empty = empty;
    const kept = remembered(this.id);
    this.usual = { sort: id === "runs" ? "started" : "validation_accuracy" };
    this.sortBy = this.usual.sort;
    this.down = true;
    this.judgedBy = ""; // a result; "": what most have
    this.onAddress = onAddress;
    this.search = el("input", {
      type: "search", class: "search", placeholder: id === "runs" ? "Find: resnet lr<0.01 state=training" : "Find: lr<0.01 validation>60%", "aria-label": `Find ${noun}s by words and comparisons`,
      autocomplete: "off", spellcheck: "false", oninput: () => this.#soon(),
    });
    this.sort = el("select", { onchange: () => this.#sorted() });
    this.direction = el("button", { type: "button", onclick: () => { this.down = !this.down; this.#sorted(); } });
    this.curve = el("select", { "aria-label": "What each chart draws", onchange: () => { this.cards.what = this.curve.value; this.cards.redraw(); } });
    choices(this.curve, [["both", "loss, accuracy"], ["loss", "loss"], ["accuracy", "accuracy"], ["lr", "learning rate"]]);
    this.judged = el("select", { onchange: () => { this.judgedBy = this.judged.value; this.#show(); } });
    this.same = el("input", { type: "checkbox", onchange: () => { this.cards.same = this.same.checked; this.cards.redraw(); } });
    this.filterButton = el("button", { type: "button", "aria-expanded": "false", onclick: () => this.#openFilters() }, "Filter …");
    this.filters = el("div", { class: "filters", hidden: true });
    this.fresh = el("button", { type: "button", class: "chip fresh", hidden: true, onclick: () => { this.#order = null; this.#show(); } });
    this.shown = el("span", { class: "shown", role: "status" });
    this.chips = el("div", { class: "chips" });
    this.pickAll = el("button", { type: "button", onclick: () => this.#pickShown() }, "Pick all");
    this.pickNone = el("button", { type: "button", onclick: () => { this.#picked.clear(); this.#show(); } }, "Pick none");
    const field = (text, node) => el("label", { class: "field" }, text, node);
    this.tools = el("section", { class: "tools", "aria-label": "Find and sort" }, this.search, field("Sort by", this.sort), this.direction,
      field("Judge by", this.judged), this.curve, el("label", { class: "check" }, this.same, "one scale"),
      this.filterButton);
    this.picks = el("span", { class: "end" }, this.pickAll, this.pickNone);
    this.notice = el("div", { class: "notice", hidden: true });
    const comparison = el("div", {});
    parent.append(head ?? "", this.tools, this.filters, this.chips, comparison, this.notice);
    this.cards = new Cards(parent, { link, curvesOf, onPick: (key, on) => this.#pick(key, on) });
    this.cards.picked = this.#picked;
    const wide = matchMedia("(min-width: 800px)").matches;
    this.panels = new Panels(comparison, {
      open: kept.panel ?? (wide ? "parallel" : ""), cards: this.cards, visit, noun,
      onBrush: (name, range) => this.#brush(name, range),
    });
    this.panels.onOpen = (panel) => remember(this.id, { panel });
    this.comparison = comparison;
  }

  // All items. stages: {stage: {setting: [low, high]}} of a search.
  update(items, { stages = {}, said = "" } = {}) {
    this.#items = items;
    this.#stages = stages;
    this.said = said;
    this.#show();
  }

  // What is asked, as the page's address holds it.
  get address() {
    return written({ query: this.#query, ranges: this.#ranges, sort: this.sortBy, down: this.down, judged: this.judgedBy }, this.usual);
  }

  set address(text) {
    const asked = read(text, this.usual);
    this.#query = this.search.value = asked.query;
    this.#ranges = asked.ranges;
    this.sortBy = asked.sort;
    this.down = asked.down;
    this.judgedBy = asked.judged;
    this.#order = null;
    this.#show();
  }

  #soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.#query = this.search.value;
      this.#order = null;
      this.#show();
    }, 120);
  }

  #sorted() {
    this.sortBy = this.sort.value;
    this.#order = null;
    this.#show();
  }

  #brush(name, range) {
    if (range) this.#ranges = { ...this.#ranges, [name]: range };
    else this.#ranges = Object.fromEntries(Object.entries(this.#ranges).filter(([key]) => key !== name));
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#show());
  }

  #pick(key, on) {
    if (on) this.#picked.add(key);
    else this.#picked.delete(key);
    this.#show();
    if (on && this.#picked.size === 2 && this.panels.open === "parallel") this.panels.choose("overlay");
  }

  #pickShown() {
    for (const item of this.cards.order.slice(0, MOST_OVERLAID)) this.#picked.add(item.key);
    this.#show();
  }

  #show() {
    const items = this.#items;
    const columns = columnsOf(items);
    this.columns = columns;
    const results = columns.filter((c) => c.result).map((c) => c.name);
    const judged = results.includes(this.judgedBy) ? this.judgedBy : leadingResult(items);
    choices(this.judged, results.length ? results.map((name) => [name, label(name)]) : [[judged, label(judged)]], judged);
    const sortable = [...Object.keys(OWN), ...columns.map((c) => c.name)];
    choices(this.sort, [...new Set(sortable)].map((name) => [name, OWN[name] ?? label(name)]), sortable.includes(this.sortBy) ? this.sortBy : "name");
    say(this.direction, this.down ? "↓" : "↑");
    this.direction.title = this.down ? "Greatest first" : "Least first";
    this.direction.setAttribute("aria-label", `${this.direction.title}; turn the order round`);

    const matching = choose(items, { query: this.#query, ranges: {}, sort: this.sortBy, down: this.down });
    const wanted = matching.filter((item) => within(item, this.#ranges));
    const shown = this.#settled(wanted);
    const told = tellingOf(columns, items.length).map((c) => c.name);
    this.cards.shownSettings = told.length ? told : ["model", "lr", "weight_decay", "batch_size"];
    this.cards.show(shown);
    this.#sayFilters();
    const byKey = new Map(items.map((item) => [item.key, item]));
    for (const key of this.#picked) if (!byKey.has(key)) this.#picked.delete(key);
    this.panels.show({
      all: matching, columns: columnsOf(matching.length ? matching : items), result: judged, ranges: this.#ranges, stages: this.#stages,
      picked: [...this.#picked].map((key) => byKey.get(key)),
    });
    this.pickNone.disabled = !this.#picked.size;
    this.pickAll.disabled = !shown.length;
    say(this.pickAll, shown.length > MOST_OVERLAID ? `Pick first ${MOST_OVERLAID}` : "Pick all");
    const some = shown.length < items.length ? `${shown.length} of ${counted(items.length, this.noun)}` : counted(items.length, this.noun);
    say(this.shown, `${some}${this.said ? ` · ${this.said}` : ""}`);
    this.tools.hidden = this.chips.hidden = this.comparison.hidden = !items.length;
    this.notice.hidden = shown.length > 0;
    if (!items.length) fill(this.notice, this.empty());
    else if (!shown.length) {
      fill(this.notice, el("h2", {}, `None of the ${counted(items.length, this.noun)} matches`),
        el("p", {}, "A comparison is written without spaces: lr<0.01, validation>90%, model=resnet18."),
        el("button", { type: "button", onclick: () => this.#clear() }, "Show all again"));
    }
    // A brush that is dragged asks for something else in each frame; a browser takes some addresses a second, no more.
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.onAddress?.(this.address), 250);
  }

  // Cards keep their places while data arrive: results that change reorder nothing until somebody asks. New ones come
  // in at once where nobody has scrolled away from the top.
  #settled(wanted) {
    if (!this.#order) {
      this.#order = wanted.map((item) => item.key);
      this.fresh.hidden = true;
      return wanted;
    }
    const byKey = new Map(wanted.map((item) => [item.key, item]));
    const known = new Set(this.#order);
    const news = wanted.filter((item) => !known.has(item.key));
    if (news.length && (scrollY < 60 || !this.#order.length)) {
      this.#order = wanted.map((item) => item.key).filter((key) => !known.has(key)).concat(this.#order.filter((key) => byKey.has(key)));
      if (this.sortBy === "started" && this.down) {
        this.fresh.hidden = true;
        return this.#order.map((key) => byKey.get(key));
      }
      this.#order = wanted.map((item) => item.key);
      this.fresh.hidden = true;
      return wanted;
    }
    const shown = this.#order.map((key) => byKey.get(key)).filter(Boolean);
    const inOrder = wanted.filter((item) => known.has(item.key));
    const moved = inOrder.some((item, i) => item.key !== shown[i].key);
    this.fresh.hidden = !news.length && !moved;
    say(this.fresh, news.length ? `${counted(news.length, "new " + this.noun)}: show` : "The order has changed: sort again");
    return shown;
  }

  #sayFilters() {
    const chips = Object.entries(this.#ranges).map(([name, range]) => {
      const text = range.values ? `${label(name)}: ${range.values.join(", ") || "none"}` : `${label(name)}: ${between(name, range)}`;
      return el("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${text}`, "data-filter": name, onclick: () => this.#brush(name, null) },
        text.length > 70 ? `${text.slice(0, 69)}…` : text, el("span", { class: "cross", "aria-hidden": "true" }, "×"));
    });
    const look = JSON.stringify([this.#ranges, this.#query]);
    if (this.chipsLook === look && this.chips.firstChild) return;
    this.chipsLook = look;
    const clear = chips.length || this.#query ? el("button", { type: "button", class: "chip", onclick: () => this.#clear() }, "Clear all") : null;
    fill(this.chips, this.shown, chips, clear, this.fresh, this.picks);
  }

  #clear() {
    this.#ranges = {};
    this.#query = this.search.value = "";
    this.#order = null;
    this.#show();
  }

  #openFilters() {
    const open = this.filters.hidden;
    this.filters.hidden = !open;
    this.filterButton.setAttribute("aria-expanded", open);
    if (!open) return;
    const column = el("select", { onchange: () => ends() });
    choices(column, this.columns.map((c) => [c.name, label(c.name)]));
    const where = el("div", {});
    const ends = () => {
      const chosen = this.columns.find((c) => c.name === column.value);
      if (!chosen) return;
      if (chosen.kind === "number") {
        const known = [...chosen.seen.keys()].filter(Number.isFinite);
        const low = el("input", { type: "text", inputmode: "decimal", "aria-label": "from", placeholder: value(chosen.name, Math.min(...known)) });
        const high = el("input", { type: "text", inputmode: "decimal", "aria-label": "to", placeholder: value(chosen.name, Math.max(...known)) });
        const typed = (node, otherwise) => {
          const text = node.value.trim(), share = text.endsWith("%");
          const found = Number(share ? text.slice(0, -1) : text);
          return text === "" || Number.isNaN(found) ? otherwise : share ? found / 100 : found;
        };
        const take = () => {
          const range = { low: typed(low, -Infinity), high: typed(high, Infinity) };
          this.#brush(chosen.name, Number.isFinite(range.low) || Number.isFinite(range.high) ? range : null);
        };
        fill(where, el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); take(); } }, low, " to ", high, " ", el("button", {}, "Keep these")));
      } else {
        const names = [...chosen.seen.keys()].map(String).sort().slice(0, 60);
        const boxes = names.map((name) => [name, el("input", { type: "checkbox", checked: !this.#ranges[chosen.name] || this.#ranges[chosen.name].values.includes(name), onchange: () => {
          const on = boxes.filter(([, box]) => box.checked).map(([v]) => v);
          this.#brush(chosen.name, on.length === names.length ? null : { values: on });
        } })]);
        fill(where, el("div", { class: "values" }, boxes.map(([name, box]) => el("label", {}, box, name))));
      }
    };
    fill(this.filters, el("label", {}, "Setting or result", column), where);
    ends();
    column.focus();
  }
}

function between(name, { low, high }) {
  if (low === -Infinity) return `up to ${value(name, high)}`;
  return high === Infinity ? `from ${value(name, low)}` : `${value(name, low)} to ${value(name, high)}`;
}

function remembered(id) {
  try {
    return JSON.parse(sessionStorage.getItem(id)) ?? {};
  } catch {
    return {};
  }
}

function remember(id, more) {
  try {
    sessionStorage.setItem(id, JSON.stringify({ ...remembered(id), ...more }));
  } catch {
    // storage is switched off: nothing is remembered
  }
}
