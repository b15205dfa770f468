// The states of a session over time: a bar to see at a glance, and the same as a
// table.

import { h, fill, dash, icon, time, span, fullTime, plural } from './dom.js';
import { ask, sessionPath, now } from './api.js';
import { stateOf, causeOf } from './words.js';
import { problemTitle } from './notices.js';

const spans = { '1 h': 3600e3, '24 h': 86400e3, '7 d': 7 * 86400e3 };
const least = 60e3; // ms that the bar shows
const most = 500; // changes that are read
const atFirst = 8; // that the table shows

// segments turns session.state events, newest first, into stretches of time within
// [from, to], oldest first. Before the first event it was what that event says.
export function segments(events, from, to) {
  const list = [];
  let end = to;
  for (const e of events) {
    const at = Date.parse(e.time);
    if (at < end)
      list.push({ state: e.data?.state, cause: e.data?.cause, code: e.data?.code, from: Math.max(at, from), to: end, began: at });
    end = Math.min(end, at);
    if (at <= from) return list.reverse();
  }
  const first = events.at(-1);
  if (first?.data?.previous && end > from) list.push({ state: first.data.previous, from, to: end, began: null });
  return list.reverse();
}

export function timeline(name) {
  let events = [];
  let whole = false; // all there is was read
  let created = 0;
  let seen = Infinity; // nothing is known of the time behind it
  let open = false;
  let width = spans['24 h'];
  const bar = h('div', { class: 'bar', role: 'img' });
  const axis = h('div', { class: 'axis muted small', 'aria-hidden': 'true' });
  const body = h('tbody', {});
  const more = h('button', {
    type: 'button',
    class: 'quiet',
    on: {
      click: () => {
        open = !open;
        draw();
      },
    },
  });
  const choice = h(
    'div',
    { class: 'choice', role: 'group', 'aria-label': 'Span of the timeline' },
    Object.entries(spans).map(([word, ms]) =>
      h(
        'button',
        {
          type: 'button',
          class: 'quiet',
          'data-ms': ms,
          'aria-pressed': String(ms === width),
          on: {
            click: () => {
              choose(ms);
            },
          },
        },
        word,
      ),
    ),
  );
  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 'time-title' },
    h('div', { class: 'cardhead' }, h('h2', { id: 'time-title' }, 'Timeline'), choice),
    bar,
    axis,
    h(
      'table',
      { class: 'plain' },
      h('caption', { class: 'unseen' }, 'Changes of its state, the newest first'),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          h('th', { scope: 'col' }, 'At'),
          h('th', { scope: 'col' }, 'State'),
          h('th', { scope: 'col', class: 'mid' }, 'Cause'),
          h('th', { scope: 'col', class: 'num' }, 'Lasted'),
        ),
      ),
      body,
    ),
    more,
  );

  function choose(ms) {
    width = ms;
    for (const b of choice.children) b.setAttribute('aria-pressed', String(Number(b.dataset.ms) === ms));
    draw();
  }

  function draw() {
    const to = now();
    // Of a young session a day would be all but empty: it begins with the session.
    const wide = Math.min(width, Math.max(least, to - created));
    const from = to - wide;
    const within = segments(events, from, Math.min(to, Math.max(seen, from)));
    const known = created > from ? created : from;
    const online = within.filter((x) => x.state === 'online').reduce((ms, x) => ms + x.to - x.from, 0);
    const changes = within.length > 0 ? within.length - 1 : 0;
    bar.setAttribute(
      'aria-label',
      within.length === 0
        ? 'No states are known of this time.'
        : `Over the last ${span(wide)}: online for ${span(online)}, ${plural(changes, 'change')} of state. The table below has them.`,
    );
    fill(
      bar,
      within
        .filter((x) => x.to > known)
        .map((x) => {
          const begin = Math.max(x.from, known);
          const part = h(
            'div',
            {
              class: `part ${stateOf(x.state).tone}`,
              title: `${x.state}${x.cause ? `, ${x.cause}` : ''}: from ${fullTime(new Date(begin).toISOString())}, for ${span(x.to - begin)}`,
            },
            (x.to - begin) / wide > 0.06 && [icon(stateOf(x.state).icon), h('span', {}, x.state)],
          );
          // Also what was too short for a pixel is seen, at the right edge too.
          part.style.left = `min(${((begin - from) / wide) * 100}%, calc(100% - 3px))`;
          part.style.width = `max(3px, ${((x.to - begin) / wide) * 100}%)`;
          return part;
        }),
    );
    fill(
      axis,
      [0, 0.25, 0.5, 0.75].map((f) => h('span', {}, tick(from + f * wide, wide))),
      h('span', {}, 'now'),
    );

    const rows = open ? events : events.slice(0, atFirst);
    fill(
      body,
      rows.map((e, i) => {
        const d = e.data || {};
        const until = i === 0 ? null : Date.parse(events[i - 1].time);
        const cause = () => [h('code', { title: causeOf(d.cause).title }, d.cause), d.code ? ` ${d.code}` : ''];
        return h(
          'tr',
          {},
          h('td', {}, time(e.time, 'clock')),
          h(
            'td',
            {},
            h('span', { class: `word ${stateOf(d.state).tone}` }, icon(stateOf(d.state).icon), d.state),
            d.cause && h('div', { class: 'narrow' }, cause()),
          ),
          h('td', { class: 'mid' }, d.cause ? cause() : dash()),
          h('td', { class: 'num' }, until ? span(until - Date.parse(e.time)) : time(e.time, 'for')),
        );
      }),
      events.length === 0 && h('tr', {}, h('td', { colspan: 4, class: 'muted' }, 'No change is known.')),
    );
    more.hidden = events.length <= atFirst;
    more.textContent = open ? 'Show fewer' : `Show all ${events.length}${whole ? '' : ' that were read'}`;
  }

  const tick = (at, wide) =>
    new Intl.DateTimeFormat(
      undefined,
      wide > 86400e3
        ? { weekday: 'short', hour: '2-digit', minute: '2-digit' }
        : { hour: '2-digit', minute: '2-digit', second: wide < 600e3 ? '2-digit' : undefined },
    ).format(at);

  async function load() {
    try {
      const page = await ask(sessionPath(name, '/events'), { query: { type: 'session.state', order: 'desc', limit: most } });
      const read = new Set(page.events.map((e) => e.id));
      events = [...events.filter((e) => !read.has(e.id) && e.seq > (page.events[0]?.seq || 0)), ...page.events];
      whole = !page.next;
      draw();
    } catch (err) {
      if (err.status !== 404 && err.status !== 401)
        fill(axis, h('span', {}, `The timeline cannot be read: ${problemTitle(err)}.`));
    }
  }

  const moving = setInterval(() => document.hidden || element.contains(document.activeElement) || draw(), 15_000);
  load();
  return {
    element,
    saw(e) {
      if (e.type !== 'session.state' || events.some((x) => x.id === e.id)) return;
      events = [e, ...events].sort((x, y) => y.seq - x.seq).slice(0, most);
      draw();
    },
    update(s) {
      const at = Date.parse(s.createdAt) || 0;
      // What no live worker has may be anything since it was last looked at.
      const end = s.state === 'unowned' ? Date.parse(s.observedAt) || Infinity : Infinity;
      if (at !== created || end !== seen) {
        created = at;
        seen = end;
        draw();
      }
    },
    stop: () => clearInterval(moving),
  };
}
