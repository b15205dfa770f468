// Events as they come: server-sent events, read through fetch so that the key can
// be a header. Where no stream is offered, they are asked for now and then.

import { open, ask, pause, Problem } from './api.js';

const silence = 45_000; // ms without even a heartbeat after which a stream is dead; the server sends one every 15 s
const hiddenFor = 60_000; // ms that a tab is out of sight before its stream is let go
const pollEvery = 4_000; // ms

// follow calls each(event) for every event until stop() is called. The options:
//   path   of the events
//   after  the seq behind which they begin, for the events of one session; 0: all
//          there are. Without it they begin with the next one
//   told   called with 'live', 'polling' or 'lost' when that changes
//   poll   what to do instead, where no stream is offered; without it the events
//          behind the last one are asked for, which only those of a session can
//   ended  called with the Problem that ends it for good
export function follow({ path, after, each, told = () => {}, poll, ended = () => {} }) {
  const all = new AbortController();
  let last = after === undefined ? '' : String(after);
  let how = '';
  const say = (word) => {
    if (word !== how) told((how = word));
  };

  async function run() {
    for (let failures = 0; !all.signal.aborted;) {
      await inSight(all.signal);
      try {
        const streamed = await stream(all.signal, path, last, {
          began: () => {
            failures = 0;
            say('live');
          },
          each: (event, id) => {
            last = id || last;
            each(event);
          },
        });
        if (!streamed) {
          say('polling');
          await asked();
        }
        await pause(500, all.signal); // the server ends streams now and then
      } catch (err) {
        if (all.signal.aborted) return;
        if (err instanceof Problem && [400, 401, 403, 404, 422].includes(err.status)) return ended(err);
        say('lost');
        await pause(Math.min(1000 * 2 ** failures++, 15_000) * (0.8 + 0.4 * Math.random()), all.signal);
      }
    }
  }

  async function asked() {
    await pause(pollEvery, all.signal);
    if (poll) return poll();
    const page = await ask(path, { query: { order: 'asc', after: last || undefined, limit: 200 }, signal: all.signal });
    for (const event of page.events) {
      last = String(event.seq);
      each(event);
    }
  }

  run().catch((err) => {
    if (!all.signal.aborted) throw err;
  });
  return () => all.abort();
}

// inSight waits until the tab is seen.
function inSight(signal) {
  if (!document.hidden) return undefined;
  return new Promise((resolve, reject) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', look);
      signal.removeEventListener('abort', look);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look);
  });
}

// stream reads one connection's worth of events; false where the answer is none.
async function stream(outer, path, last, { began, each }) {
  const mine = new AbortController();
  const stop = () => mine.abort(outer.reason);
  outer.addEventListener('abort', stop, { once: true });
  let quiet = setTimeout(() => mine.abort(), silence);
  let unseen;
  const look = () => {
    clearTimeout(unseen);
    if (document.hidden) unseen = setTimeout(() => mine.abort(), hiddenFor);
  };
  document.addEventListener('visibilitychange', look);
  try {
    const answer = await open(path, {
      accept: 'text/event-stream',
      headers: last ? { 'Last-Event-ID': last } : {},
      signal: mine.signal,
    });
    if (!answer.body || !(answer.headers.get('Content-Type') || '').startsWith('text/event-stream')) {
      await answer.body?.cancel();
      return false;
    }
    began();
    const parse = parser(each);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      clearTimeout(quiet);
      quiet = setTimeout(() => mine.abort(), silence);
      parse(value);
    }
  } catch (err) {
    if (err.code === 'streaming_not_here') return false;
    if (document.hidden && !outer.aborted) return true; // let go on purpose; it goes on when the tab is seen
    throw err;
  } finally {
    clearTimeout(quiet);
    clearTimeout(unseen);
    outer.removeEventListener('abort', stop);
    document.removeEventListener('visibilitychange', look);
    mine.abort();
  }
}

// parser takes pieces of a stream and calls each with its events. It knows the
// fields id and data; the rest stands in the data anyway.
export function parser(each) {
  let rest = '';
  let data = [];
  let id = '';
  return (piece) => {
    const lines = (rest + piece).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) {
          const text = data.join('\n');
          data = [];
          let event;
          try {
            event = JSON.parse(text);
          } catch {
            continue; // not one of ours
          }
          each(event, id);
        }
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'data') data.push(value);
      else if (field === 'id') id = value;
    }
  };
}
