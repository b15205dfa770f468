// The fleet: who is alive, what each has, and the button that empties one.

import { h, fill, once, dash, badge, time, plural } from './dom.js';
import { write } from './api.js';
import { standings } from './words.js';
import { dialog } from './dialogs.js';
import { notice } from './notices.js';
import { brief } from './sessions.js';

const rank = { alive: 0, stale: 1, dead: 2 };

const trust = (w) => (w.standing === 'dead' || !w.trustSeconds ? '' : `${w.trustSeconds.toFixed(1)} s`);

export function workersView({ watch, me }) {
  const count = h('p', { class: 'muted count', id: 'w-count' });
  const body = h('tbody', {});
  const table = h(
    'table',
    { class: 'list', 'aria-describedby': 'w-count' },
    h('caption', { class: 'unseen' }, 'Workers'),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'Worker'),
        h('th', { scope: 'col' }, 'Standing'),
        h('th', { scope: 'col' }, 'Sessions'),
        h('th', { scope: 'col', class: 'mid num' }, 'Online'),
        h('th', { scope: 'col', class: 'mid num' }, 'Trust'),
        h('th', { scope: 'col', class: 'mid' }, 'Heartbeat'),
        h('th', { scope: 'col', class: 'wide' }, 'Since'),
        h('th', { scope: 'col', class: 'wide' }, 'Version'),
        me.admin && h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Change')),
      ),
    ),
    body,
  );
  const dead = h('input', { id: 'w-dead', type: 'checkbox', on: { change: () => draw() } });
  const nothing = h('div', { class: 'empty', hidden: true });
  const element = h(
    'div',
    {},
    h('div', { class: 'headline' }, h('h1', { tabindex: '-1' }, 'Workers')),
    h('div', { class: 'filters' }, h('div', { class: 'field check' }, dead, h('label', { for: 'w-dead' }, 'Show dead ones too'))),
    count,
    table,
    nothing,
    h(
      'p',
      { class: 'hint below' },
      'Trust is how long a worker may still go on without an answer of the store; at zero it closes its connections, so that no other worker has them twice.',
    ),
  );

  const changed = once();
  function draw() {
    const list = (watch.workers || []).filter((w) => !w.tool);
    const shown = list
      .filter((w) => dead.checked || w.standing !== 'dead')
      .sort((a, b) => (rank[a.standing] ?? 3) - (rank[b.standing] ?? 3) || a.id.localeCompare(b.id));
    changed([shown, watch.loaded, list.length], () => {
      const alive = list.filter((w) => w.alive);
      const sum = (key) => alive.reduce((n, w) => n + (w[key] || 0), 0);
      fill(
        count,
        watch.loaded
          ? `${plural(alive.length, 'worker')} alive, with ${plural(sum('sessions'), 'session')}, ${sum('online')} online.`
          : 'Reading the workers …',
      );
      const focused = body.contains(document.activeElement) ? document.activeElement.dataset.worker : null;
      fill(body, shown.map(row));
      if (focused) body.querySelector(`[data-worker="${CSS.escape(focused)}"]`)?.focus();
      table.hidden = shown.length === 0;
      nothing.hidden = shown.length > 0 || !watch.loaded;
      fill(
        nothing,
        h('p', {}, h('strong', {}, 'No worker is alive.')),
        h('p', {}, 'Start one with ', h('code', {}, 'holdfast worker'), '; it takes the sessions by itself.'),
      );
    });
  }

  function row(w) {
    const st = standings[w.standing] || standings.unknown;
    const draining = w.draining || w.drainWanted;
    const full = w.capacity ? w.sessions / w.capacity : 0;
    return h(
      'tr',
      {},
      h(
        'th',
        { scope: 'row' },
        h('code', { class: 'broad' }, w.id),
        h('code', { class: 'narrow', title: w.id }, brief(w.id)),
        h('span', { class: 'muted small' }, [w.host, w.task && w.task.replace(/^.*\//, 'task ')].filter(Boolean).join(' · ')),
      ),
      h(
        'td',
        {},
        badge(st.tone, st.icon, w.standing),
        draining && h('span', { class: 'word wait small' }, w.draining ? 'draining' : 'drain wanted'),
        trust(w) && h('span', { class: 'narrow muted small' }, `trust ${trust(w)}`),
      ),
      h(
        'td',
        {},
        h(
          'a',
          { href: `#/?owner=${encodeURIComponent(w.id)}`, 'aria-label': `${plural(w.sessions, 'session')} of this worker` },
          w.sessions,
        ),
        w.capacity ? ` of ${w.capacity}` : '',
        w.capacity
          ? h('meter', {
              min: 0,
              max: 1,
              high: 0.9,
              optimum: 0,
              value: Math.min(1, full),
              'aria-label': `${Math.round(full * 100)} % of its capacity`,
            })
          : '',
        h('span', { class: 'narrow muted small' }, `${w.online} online`),
      ),
      h('td', { class: 'mid num' }, w.online),
      h('td', { class: 'mid num' }, trust(w) || dash('not known')),
      h('td', { class: 'mid' }, time(w.seenAt)),
      h('td', { class: 'wide' }, time(w.since)),
      h(
        'td',
        { class: 'wide' },
        w.version || dash('not known'),
        w.deployment && w.deployment !== w.version && h('span', { class: 'muted small' }, w.deployment),
      ),
      me.admin &&
        h(
          'td',
          {},
          w.alive &&
            h(
              'button',
              { type: 'button', 'data-worker': w.id, on: { click: () => drain(w, !w.drainWanted) } },
              w.drainWanted ? 'Take back' : 'Drain …',
              h('span', { class: 'unseen' }, ` worker ${w.id}`),
            ),
        ),
    );
  }

  async function drain(w, wanted) {
    const others = (watch.workers || []).filter((o) => o.alive && !o.tool && o.id !== w.id && !o.drainWanted && !o.draining);
    const body = wanted
      ? [
          h(
            'p',
            {},
            `It takes nothing more and gives its ${plural(w.sessions, 'session')} to others, one by one. No credentials are lost; each session is off for a moment.`,
          ),
          others.length === 0
            ? h('p', { class: 'box wait' }, 'No other worker is alive to take them: they go off and stay off until one is there.')
            : h('p', {}, `${plural(others.length, 'other worker')} can take them.`),
        ]
      : [h('p', {}, 'It takes sessions again.')];
    const done = await dialog({
      title: wanted ? `Drain worker ${w.host || w.id}?` : `Take the drain of ${w.host || w.id} back?`,
      body,
      submit: wanted ? 'Drain' : 'Take back',
      act: () => write(`workers/${encodeURIComponent(w.id)}/drain`, { body: { wanted } }),
    });
    if (!done) return;
    notice(wanted ? `Worker ${w.id} drains.` : `Worker ${w.id} takes sessions again.`);
    watch.load().catch(() => {});
  }

  const redraw = () => draw();
  watch.addEventListener('change', redraw);
  watch.load().catch(() => {});
  const timer = setInterval(() => document.hidden || watch.load().catch(() => {}), 5000);
  draw();
  return {
    element,
    title: 'Workers',
    line: () => (watch.problem ? 'lost' : 'polling'),
    stop: () => {
      clearInterval(timer);
      watch.removeEventListener('change', redraw);
    },
  };
}
