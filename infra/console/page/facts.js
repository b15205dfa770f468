// What is known of a session, in figures.

import { h, fill, once, badge, time, isTime, percent } from './dom.js';
import { shownHealth, healths, standings, causeOf } from './words.js';
import { number, brief } from './sessions.js';

// reconnects is the table of reconnects by cause.
export function reconnects() {
  const body = h('tbody', {});
  const shares = h('p', {});
  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 're-title' },
    h('h2', { id: 're-title' }, 'Reconnects by cause'),
    shares,
    h(
      'table',
      { class: 'plain' },
      h('caption', { class: 'unseen' }, 'Reconnects by cause'),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          h('th', { scope: 'col' }, 'Cause'),
          h('th', { scope: 'col', class: 'num' }, '24 h'),
          h('th', { scope: 'col', class: 'num' }, '7 days'),
          h('th', { scope: 'col', class: 'num' }, 'Ends, in all'),
        ),
      ),
      body,
    ),
  );
  const changed = once();
  function update(s) {
    changed([s.day, s.week, s.disconnects], () => {
      const day = s.day?.reconnects || {};
      const week = s.week?.reconnects || {};
      const all = s.disconnects || {};
      fill(
        shares,
        'Online ',
        h('strong', {}, percent(s.day?.availability || 0)),
        ' of the last 24 hours, ',
        h('strong', {}, percent(s.week?.availability || 0)),
        ' of 7 days.',
      );
      const names = [...new Set([...Object.keys(day), ...Object.keys(week), ...Object.keys(all)])].sort(
        (a, b) => (week[b] || 0) - (week[a] || 0) || (all[b] || 0) - (all[a] || 0),
      );
      fill(
        body,
        names.map((c) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, h('code', { title: causeOf(c).title }, c)),
            [day, week, all].map((n) => h('td', { class: 'num' }, n[c] || 0)),
          ),
        ),
        names.length === 0 && h('tr', {}, h('td', { colspan: 4, class: 'muted' }, 'It never had to reconnect.')),
      );
    });
  }
  return { element, update };
}

// facts is the list of all the rest.
export function facts() {
  const list = h('dl', { class: 'facts' });
  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 'facts-title' },
    h('h2', { id: 'facts-title' }, 'Details'),
    list,
  );
  const changed = once();
  const row = (name, ...value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  const seen = (iso) => (isTime(iso) ? time(iso) : 'never');
  function update(s) {
    changed(s, () => {
      const level = healths[s.health] || {};
      const st = standings[s.ownerIs] || standings.nobody;
      const set = s.settings || {};
      fill(
        list,
        row('Health', shownHealth(s) ? badge(`plainbadge ${level.tone}`, level.icon, s.health) : 'does not apply now'),
        row('Account', s.jid ? [number(s.jid), s.pushName && ` · ${s.pushName}`, s.platform && ` · ${s.platform}`] : 'none'),
        isTime(s.phoneLastSeen) && row('Phone last seen', time(s.phoneLastSeen)),
        row('Last connected', seen(s.lastConnectedAt)),
        row('Last pong', seen(s.lastPongAt)),
        row('Last inbound', seen(s.lastInboundAt)),
        row('Last activity', seen(s.lastActivityAt)),
        isTime(s.lastStallAt) && row('Last stall', time(s.lastStallAt)),
        row('Figures as of', seen(s.observedAt)),
        row('Wanted', s.wanted, s.generation !== s.observedGeneration && h('span', { class: 'muted' }, ' (not carried out yet)')),
        row('Phase', s.phase || 'none'),
        row(
          'Worker',
          s.owner
            ? [
                h('a', { href: '#/workers', title: s.owner }, brief(s.owner)),
                ' ',
                badge(`plainbadge ${st.tone}`, st.icon, s.ownerIs),
              ]
            : 'nobody',
          ` · epoch ${s.epoch}`,
        ),
        row(
          'Profile',
          set.profile || 'of the worker',
          Object.entries(set.override || {}).map(([k, v]) => h('div', { class: 'small' }, h('code', {}, `${k}: ${v}`))),
        ),
        set.proxy && row('Proxy', h('code', {}, set.proxy)),
        row(
          'Webhook',
          set.webhookUrl
            ? [
                h('code', {}, set.webhookUrl),
                h('div', { class: 'small muted' }, set.webhookSecretSet ? 'signed' : 'not signed: it has no secret'),
              ]
            : 'of the worker',
        ),
        Object.keys(set.labels || {}).length > 0 &&
          row(
            'Labels',
            Object.entries(set.labels).map(([k, v]) => h('div', {}, `${k}: ${v}`)),
          ),
        s.quarantined?.length > 0 &&
          row(
            'Kept credentials',
            s.quarantined.map((q) => h('div', {}, 'after ', h('code', {}, q.cause), ', destroyed in ', time(q.until, 'left'))),
          ),
        row('Created', time(s.createdAt)),
      );
    });
  }
  return { element, update };
}
