// What is known of all sessions and workers, kept fresh for the list, the banner and
// the page of one session: by the live events while the list is shown, and by
// reading all of it now and then, since health and ownership change without one.

import { ask, sessionPath, pause, Problem } from './api.js';
import { follow } from './live.js';

const pageSize = 500;
const atOnce = 4; // sessions that are read again at the same time
const rather = 25; // so many to read again, and all are read

export class Watch extends EventTarget {
  sessions = new Map(); // by name
  workers = null; // a list; null: not read yet
  loaded = false;
  problem = null; // why the last reading failed
  line = 'lost'; // how events come
  outages = []; // fleet.outage events, newest last

  #all = new AbortController();
  #stopEvents = null;
  #stale = new Set();
  #reading = 0;
  #timer = 0;
  #told = 0;

  start() {
    this.#loop().catch(() => {});
  }

  stop() {
    this.#all.abort();
    this.#stopEvents?.();
    clearTimeout(this.#timer);
  }

  // events switches the live events of all sessions on or off: the page of one
  // session has a stream of its own.
  events(on) {
    if (on && !this.#stopEvents) {
      this.#stopEvents = follow({
        path: 'events',
        told: (how) => {
          this.line = how;
          this.#changed();
        },
        poll: () => this.load(),
        each: (event) => this.saw(event),
      });
      this.load().catch(() => {});
    } else if (!on && this.#stopEvents) {
      this.#stopEvents();
      this.#stopEvents = null;
    }
  }

  // saw takes an event of any session.
  saw(event) {
    if (event.type === 'fleet.outage') {
      this.outages = [...this.outages, event].slice(-20);
      this.#changed();
    }
    if (event.type?.startsWith('message.')) return;
    this.#stale.add(event.session);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#refresh(), 250);
  }

  // set takes a session that was read elsewhere.
  set(session) {
    this.sessions.set(session.name, session);
    this.#changed();
  }

  gone(name) {
    if (this.sessions.delete(name)) this.#changed();
  }

  async #refresh() {
    if (this.#stale.size > rather) {
      this.#stale.clear();
      return this.load().catch(() => {});
    }
    for (const name of [...this.#stale]) {
      if (this.#reading >= atOnce) return undefined; // the one that ends goes on
      this.#stale.delete(name);
      this.#reading++;
      ask(sessionPath(name), { signal: this.#all.signal })
        .then(
          (s) => this.set(s),
          (err) => err instanceof Problem && err.status === 404 && this.gone(name),
        )
        .finally(() => {
          this.#reading--;
          if (this.#stale.size) this.#refresh();
        });
    }
    return undefined;
  }

  // load reads all sessions and workers.
  async load() {
    const signal = this.#all.signal;
    try {
      const found = new Map();
      let cursor = '';
      do {
        const page = await ask('sessions', { query: { limit: pageSize, cursor }, signal });
        for (const s of page.sessions) found.set(s.name, s);
        cursor = page.next;
      } while (cursor);
      this.sessions = found;
      this.workers = (await ask('workers', { signal })).workers;
      this.loaded = true;
      this.problem = null;
    } catch (err) {
      if (signal.aborted) return;
      this.problem = err;
      throw err;
    } finally {
      this.#changed();
    }
  }

  async #loop() {
    for (;;) {
      let every = 10_000;
      if (!document.hidden) await this.load().catch(() => (every = 4000));
      // Reading a session costs the store about what it costs here: large fleets are
      // read more rarely, as their events are live.
      const n = this.sessions.size;
      if (n > 200) every = Math.max(every, 30_000);
      if (n > 1000) every = Math.max(every, 120_000);
      await pause(every, this.#all.signal);
    }
  }

  #changed() {
    this.#told ||= setTimeout(() => {
      this.#told = 0;
      this.dispatchEvent(new Event('change'));
    }, 60);
  }
}
