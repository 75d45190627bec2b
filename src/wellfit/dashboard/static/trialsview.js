// The trials of a search, in the same grid as runs, with the edges of its stages.

import { el, fill, prose, say } from "./dom.js";
import { GridView } from "./gridview.js";
import { ask } from "./server.js";
import { counted, percent, label } from "./words.js";

export class TrialsView {
  #name = "";
  #version = -1;
  #known = false;
  #curves = new Map();

  // home(): the address of all runs. onAddress(text, name): what is asked of the trials of that search.
  constructor(parent, store, { address, home, onAddress }) {
    this.store = store;
    this.title = el("h1", {});
    this.back = el("a", {}, "Its page");
    this.all = el("a", { href: "#/" }, "All runs");
    this.said = el("div", { class: "said muted" });
    const head = el("div", {}, el("div", { class: "run-head" }, this.title, el("span", { class: "links" }, this.back, this.all)), this.said);
    this.grid = new GridView(parent, {
      id: "trials", noun: "trial", head, link: () => null, visit: null, onAddress: (text) => onAddress(text, this.#name),
      curvesOf: async (keys) => Object.fromEntries(keys.filter((key) => this.#curves.has(key)).map((key) => [key, this.#curves.get(key)])),
      empty: () => this.#known ? [el("h2", {}, "No trials yet"), el("p", {}, "They appear here as the search makes them.")] : [el("h2", {}, "Reading the trials …")],
    });
    this.address = address;
    this.home = home;
    store.addEventListener("changed", () => this.#look());
  }

  open(name, asked = "") {
    const other = name !== this.#name;
    this.#name = name;
    if (!name) return;
    this.all.href = this.home();
    if (other) {
      this.#version = -1;
      this.#known = false;
      fill(this.said);
      this.grid.update([]); // not those of another search, until its own are there
    }
    if (other || asked !== this.grid.address) this.grid.address = asked;
    this.#look();
  }

  async #look() {
    const name = this.#name;
    const run = name && this.store.byName(name);
    if (!run || run.version === this.#version) return;
    this.#version = run.version;
    say(this.title, `Trials of ${run.name}`);
    this.back.href = this.address(run);
    let found;
    try {
      found = await ask(`/api/run/${run.key}/trials`);
    } catch (error) {
      fill(this.said, `They cannot be shown: ${error.message}.`);
      return;
    }
    if (this.#name !== name) return;
    this.#known = true;
    const version = run.version;
    for (const item of found.runs) this.#curves.set(item.key, { ...item.curve, version });
    const items = found.runs.map((item) => ({ ...item, version, progress: null, stateText: item.best ? "chosen" : { done: item.stage, interrupted: "broken off", failed: "failed" }[item.state], note: "" }));
    const shares = Object.entries(found.importance).map(([setting, share]) => `${label(setting)} ${percent(share, 0)}`);
    const reasons = Object.entries(found.reasons).map(([stage, why]) => el("p", {}, el("b", {}, stage), ": ", prose(why)));
    fill(this.said, shares.length ? el("p", {}, `Share of the spread of scores that each setting explains: ${shares.join(", ")}.`) : null, reasons.length ? el("details", {}, el("summary", {}, `Why these ${counted(reasons.length, "stage")}`), reasons) : null);
    this.grid.update(items, { stages: found.ranges });
  }
}
