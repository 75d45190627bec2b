// All runs as the server last told of them; asks for what changed, more rarely while nobody looks.

import { ask, Refused } from "./server.js";

const PAUSE = 1500;

export class Store extends EventTarget {
  runs = new Map(); // key → run
  version = 0;
  instance = "";
  behind = 0;
  total = 0;
  outside = [];
  ready = false;
  lost = 0; // when the server was last heard, once it is no longer

  start() {
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon(0));
    this.#soon(0);
  }

  byName(name) {
    let found;
    for (const run of this.runs.values()) if (run.name === name && (!found || run.state !== "deleted")) found = run;
    return found;
  }

  #timer = 0;
  #heard = Date.now();

  #soon(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), wait);
  }

  async #look() {
    if (document.hidden) return;
    try {
      const said = await ask(`/api/runs?since=${this.version}&instance=${this.instance}`);
      this.#take(said);
      this.#heard = Date.now();
      if (this.lost) this.lost = 0;
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof TypeError)) console.error(error);
      this.lost = this.#heard;
    }
    this.dispatchEvent(new CustomEvent("looked"));
    this.#soon(this.behind ? 700 : this.lost ? 3000 : PAUSE);
  }

  #take(said) {
    const changed = new Set();
    if (said.instance !== this.instance) {
      this.runs.clear(); // keys are those of another server
      this.instance = said.instance;
      changed.add("all");
    }
    for (const key of said.gone) {
      const run = this.runs.get(key);
      if (run) {
        this.runs.set(key, { ...run, state: "deleted", progress: null });
        changed.add(key);
      }
    }
    for (const run of said.runs) {
      for (const [key, old] of this.runs) if (old.state === "deleted" && old.name === run.name) this.runs.delete(key);
      this.runs.set(run.key, run);
      changed.add(run.key);
    }
    Object.assign(this, { version: said.version, behind: said.behind, total: said.total, outside: said.outside, ready: true });
    if (changed.size) this.dispatchEvent(new CustomEvent("changed", { detail: changed }));
  }
}
