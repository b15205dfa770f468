// The table of sessions.

import { h, fill, once, dash, badge, time, icon, percent, plural } from './dom.js';
import { stateOf, shownHealth, healths, causes, order } from './words.js';
import { upcoming } from './explain.js';
import { createSession } from './create.js';
import { say } from './notices.js';

const page = 200; // rows that are shown at once

const rank = (s) => {
  const at = order.indexOf(s.state);
  return at < 0 ? order.length : at;
};

const sorts = {
  attention: (a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name),
  name: (a, b) => a.name.localeCompare(b.name),
  since: (a, b) => (b.since || '').localeCompare(a.since || '') || a.name.localeCompare(b.name),
};

// sessionsView makes the view. Its filter stands in the address, so that it can be
// kept and shared.
export function sessionsView({ watch, me, query, setQuery }) {
  let shown = page;
  const rows = new Map(); // by name
  const statesRow = h('div', { class: 'chips', role: 'group', 'aria-label': 'Filter by state' });
  const text = h('input', {
    id: 'f-text',
    type: 'search',
    autocomplete: 'off',
    spellcheck: 'false',
    value: query.q || '',
    on: { input: () => refine({ q: text.value.trim() }) },
  });
  const cause = h('select', { id: 'f-cause', on: { change: () => refine({ cause: cause.value }) } });
  const sort = h(
    'select',
    { id: 'f-sort', on: { change: () => refine({ sort: sort.value }) } },
    h('option', { value: 'attention' }, 'what needs a look'),
    h('option', { value: 'name' }, 'name'),
    h('option', { value: 'since' }, 'last change'),
  );
  sort.value = query.sort in sorts ? query.sort : 'attention';
  const count = h('p', { class: 'muted count', id: 'count' });
  const body = h('tbody', {});
  const more = h('button', {
    type: 'button',
    on: {
      click: () => {
        shown += page;
        draw();
      },
    },
  });
  const nothing = h('div', { class: 'empty' });
  const table = h(
    'table',
    { class: 'list', 'aria-describedby': 'count' },
    h('caption', { class: 'unseen' }, 'Sessions'),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'Session'),
        h('th', { scope: 'col' }, 'State'),
        h('th', { scope: 'col', class: 'mid' }, 'Cause'),
        h('th', { scope: 'col', class: 'mid' }, 'Health'),
        h('th', { scope: 'col' }, 'Since'),
        h('th', { scope: 'col', class: 'mid' }, 'Next'),
        h('th', { scope: 'col', class: 'wide num' }, 'Online 24 h'),
        h('th', { scope: 'col', class: 'wide' }, 'Worker'),
      ),
    ),
    body,
  );
  const element = h(
    'div',
    {},
    h(
      'div',
      { class: 'headline' },
      h('h1', { tabindex: '-1' }, 'Sessions'),
      me.operator && h('button', { type: 'button', class: 'primary', on: { click: () => createSession(watch) } }, 'New session'),
    ),
    statesRow,
    h(
      'form',
      { class: 'filters', role: 'search', 'aria-label': 'Sessions', on: { submit: (e) => e.preventDefault() } },
      h('div', { class: 'field grow' }, h('label', { for: 'f-text' }, 'Name, number or worker'), text),
      h('div', { class: 'field' }, h('label', { for: 'f-cause' }, 'Cause'), cause),
      h('div', { class: 'field' }, h('label', { for: 'f-sort' }, 'First'), sort),
    ),
    count,
    table,
    nothing,
    more,
  );

  function refine(change) {
    query = { ...query, ...change };
    shown = page;
    setQuery(query);
    draw(true);
  }

  const matches = (s) => {
    if (query.state && s.state !== query.state) return false;
    if (query.cause && s.cause !== query.cause) return false;
    if (query.owner && s.owner !== query.owner) return false;
    const q = (query.q || '').toLowerCase();
    return (
      !q ||
      [s.name, s.state, s.cause, s.pushName, s.jid, s.owner, ...Object.values(s.settings?.labels || {})].some((x) =>
        (x || '').toLowerCase().includes(q),
      )
    );
  };

  const chips = once();
  const options = once();
  const announced = { of: '' };
  let placed = '';

  function draw(asked = false) {
    const all = [...watch.sessions.values()];
    const counts = new Map();
    for (const s of all) counts.set(s.state, (counts.get(s.state) || 0) + 1);
    const present = order.filter((state) => counts.has(state) || state === query.state);
    chips([present.map((p) => [p, counts.get(p)]), query.state, all.length], () => {
      const focused = statesRow.contains(document.activeElement) ? document.activeElement.dataset.state : null;
      const chip = (state, n) =>
        h(
          'button',
          {
            type: 'button',
            class: `chip ${state ? stateOf(state).tone : ''}`,
            'data-state': state,
            'aria-pressed': String((query.state || '') === state),
            on: { click: () => refine({ state: query.state === state ? '' : state }) },
          },
          state && icon(stateOf(state).icon),
          state || 'all',
          h('b', {}, n),
        );
      fill(
        statesRow,
        chip('', all.length),
        present.map((state) => chip(state, counts.get(state) || 0)),
      );
      if (focused !== null) statesRow.querySelector(`[data-state="${CSS.escape(focused)}"]`)?.focus();
    });
    const known = Object.keys(causes).filter((c) => c === query.cause || all.some((s) => s.cause === c));
    options([known, query.cause], () => {
      fill(
        cause,
        h('option', { value: '' }, 'any'),
        known.map((c) => h('option', { value: c }, c)),
      );
      cause.value = query.cause || '';
    });
    const found = all.filter(matches).sort(sorts[sort.value]);
    const part = found.slice(0, shown);
    const filtered = found.length !== all.length;
    fill(
      count,
      filtered ? `${found.length} of ${plural(all.length, 'session')}` : plural(all.length, 'session'),
      query.owner && [
        ' of worker ',
        h('code', {}, query.owner),
        ' ',
        h('button', { type: 'button', class: 'quiet', on: { click: () => refine({ owner: '' }) } }, 'Show all'),
      ],
    );
    if (asked && announced.of !== count.textContent) say((announced.of = `${count.textContent}.`));

    const names = new Set(part.map((s) => s.name));
    for (const [name, row] of rows) {
      if (!names.has(name)) {
        row.element.remove();
        rows.delete(name);
      }
    }
    for (const s of part) {
      if (!rows.has(s.name)) rows.set(s.name, sessionRow(s.name));
      rows.get(s.name).update(s);
    }
    // Rows keep their places while somebody points or tabs at them.
    const wanted = part.map((s) => s.name).join(' ');
    const busy = !asked && body.children.length === part.length && body.matches(':hover, :focus-within');
    if (wanted !== placed && !busy) {
      placed = wanted;
      const focused = document.activeElement;
      part.forEach((s, i) => {
        const element = rows.get(s.name).element;
        if (body.children[i] !== element) body.insertBefore(element, body.children[i] || null);
      });
      if (body.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
    }
    more.hidden = found.length <= shown;
    more.textContent = `Show ${Math.min(page, found.length - shown)} more`;
    table.hidden = found.length === 0;
    nothing.hidden = found.length > 0;
    empty(all.length);
  }

  const emptied = once();
  const empty = (all) =>
    emptied([all > 0, watch.loaded, Boolean(watch.problem)], () =>
      fill(
        nothing,
        !watch.loaded && !watch.problem && h('p', {}, 'Reading the sessions …'),
        watch.loaded &&
          all > 0 && [
            h('p', {}, 'No session is like that.'),
            h(
              'button',
              {
                type: 'button',
                on: {
                  click: () => {
                    text.value = '';
                    refine({ q: '', state: '', cause: '', owner: '' });
                  },
                },
              },
              'Show all',
            ),
          ],
        watch.loaded &&
          all === 0 && [
            h('p', {}, h('strong', {}, 'There are no sessions yet.')),
            h(
              'p',
              {},
              'A session is one linked device of one WhatsApp account. ',
              me.operator
                ? 'Create the first one, then scan its code with the phone.'
                : 'Somebody with the role operator can create one.',
            ),
          ],
      ),
    );

  const changed = () => draw();
  watch.addEventListener('change', changed);
  watch.events(true);
  draw();
  return {
    element,
    title: 'Sessions',
    line: () => watch.line,
    stop: () => {
      watch.removeEventListener('change', changed);
      watch.events(false);
    },
  };
}

// sessionRow is a row that is changed in place.
function sessionRow(name) {
  const cell = (cls) => h('td', { class: cls });
  const cells = {
    state: cell(),
    cause: cell('mid'),
    health: cell('mid'),
    since: cell('since'),
    next: cell('mid'),
    up: cell('wide num'),
    owner: cell('wide'),
  };
  const who = h('span', { class: 'muted small' });
  const element = h(
    'tr',
    {},
    h('th', { scope: 'row' }, h('a', { href: `#/sessions/${encodeURIComponent(name)}`, class: 'cover' }, name), who),
    Object.values(cells),
  );
  const parts = Object.fromEntries(['who', ...Object.keys(cells)].map((k) => [k, once()]));
  return {
    element,
    update(s) {
      const st = stateOf(s.state);
      parts.who([s.pushName, s.jid], () => fill(who, [s.pushName, number(s.jid)].filter(Boolean).join(' · ')));
      const coming = upcoming(s);
      const cause = () => h('span', { title: causes[s.cause]?.title }, h('code', {}, s.cause), s.code ? ` ${s.code}` : '');
      parts.state([s.state, s.cause, s.code, s.nextAttemptAt, s.cooldownUntil, s.restrictedUntil, coming.length], () =>
        fill(
          cells.state,
          badge(st.tone, st.icon, s.state),
          // On a phone the other columns are not there.
          s.cause && s.cause !== s.state && h('div', { class: 'narrow' }, cause()),
          coming.length > 0 && h('div', { class: 'muted small narrow' }, coming),
        ),
      );
      parts.cause([s.cause, s.code], () => fill(cells.cause, s.cause ? cause() : dash()));
      const health = shownHealth(s);
      parts.health(health, () =>
        fill(
          cells.health,
          health ? badge(`plainbadge ${healths[health]?.tone}`, healths[health]?.icon, health) : dash('does not apply'),
        ),
      );
      // Since when nobody has had it is not known: the time is that of the state before.
      const since = s.state === 'unowned' ? '' : s.since;
      parts.since(since, () => fill(cells.since, time(since, 'for')));
      parts.next([s.nextAttemptAt, s.cooldownUntil, s.restrictedUntil, coming.length], () =>
        fill(cells.next, coming.length ? upcoming(s) : dash('nothing')),
      );
      const again = Object.values(s.day?.reconnects || {}).reduce((a, b) => a + b, 0);
      parts.up([s.day?.availability, again], () =>
        fill(
          cells.up,
          percent(s.day?.availability || 0),
          again > 0 && h('span', { class: 'muted small' }, plural(again, 'reconnect')),
        ),
      );
      parts.owner([s.owner, s.ownerIs], () =>
        fill(
          cells.owner,
          s.owner
            ? [
                h('code', { title: s.owner }, brief(s.owner)),
                s.ownerIs !== 'alive' && h('span', { class: 'small bad-text' }, s.ownerIs),
              ]
            : h('span', { class: 'muted' }, 'nobody'),
        ),
      );
    },
  };
}

// number is the phone number of a JID, as people write it.
export const number = (jid) => (jid ? `+${jid.replace(/[:.@].*$/, '')}` : '');

// brief shortens an incarnation to its end, which differs.
export const brief = (id) => (id.length > 12 ? `…${id.slice(-8)}` : id);
