// The live events of one session, and each in a line of words. What is in a message
// was written by a stranger: it is shown as text.

import { h, fill, time } from './dom.js';
import { ask, sessionPath } from './api.js';
import { follow } from './live.js';
import { causeOf } from './words.js';
import { problemTitle } from './notices.js';

const kept = 200; // lines
const longest = 400; // characters of a message that are shown

const cut = (text) => (text.length > longest ? `${text.slice(0, longest)} …` : text);
const by = (d) => d.pushName || (d.senderAlt || d.sender || d.chat || '').replace(/[:@].*$/, '');

// words puts an event's data into a line.
export function words(e) {
  const d = e.data || {};
  if (e.hidden) return 'for operators';
  if (d.problem && !d.status && !d.verb) return d.problem;
  switch (e.type) {
    case 'session.state':
      return [`${d.previous || 'new'} → ${d.state}`, d.cause && ` for ${d.cause}`, d.attempt > 0 && `, attempt ${d.attempt}`]
        .filter(Boolean)
        .join('');
    case 'session.health':
      return `${d.health}${d.why ? `: ${d.why}` : ''}`;
    case 'session.qr':
      return 'a new code is shown';
    case 'session.paired':
      return `with ${(d.jid || '').replace(/[:@].*$/, '')}`;
    case 'session.reconnect_exhausted':
      return `gave up for now after ${d.attempt ?? '?'} attempts for ${d.cause}`;
    case 'session.phone_absent':
      return 'the phone was not seen for 12 days';
    case 'session.queue_filling':
      return 'receivers do not take events: the queue is almost full';
    case 'session.inbound_stalled':
      return 'messages had been held back: the connection had stalled';
    case 'message.received': {
      if (e.trimmed && !d.text && !d.type) return 'delivered; its content is not kept';
      const what = d.text
        ? cut(d.text)
        : d.reaction
          ? `reacted ${d.reaction.emoji}`
          : `(${d.media?.kind || d.type || 'message'})`;
      return `${d.fromMe ? 'from this account' : `from ${by(d)}`}${d.isGroup ? ' in a group' : ''}: ${what}`;
    }
    case 'message.status':
      return `${d.messageId || d.id || ''} ${d.status || ''}${d.problem ? `: ${d.problem}` : ''}`;
    case 'message.undecryptable':
      return `from ${by(d)}: ${d.reason}`;
    case 'command.done':
      return `${d.verb}: ${d.state}${d.problem ? `: ${d.problem}` : ''}`;
    case 'fleet.outage':
      return d.outage || causeOf(d.cause).title;
    default:
      return e.trimmed ? 'delivered; its content is not kept' : cut(JSON.stringify(d));
  }
}

// eventLog makes the list. Each is called with every event that is new since the
// page was opened, and read with those before, the newest first.
export function eventLog(name, { each, read, told, ended }) {
  const list = h('ol', { class: 'events', tabindex: '0', 'aria-label': 'Events, the newest first' });
  const state = h('span', { class: 'muted small' });
  const held = [];
  let paused = false;
  const button = h('button', { type: 'button', class: 'quiet', 'aria-pressed': 'false', on: { click: toggle } }, 'Pause');
  const kind = h(
    'select',
    { id: 'e-kind', on: { change: choose } },
    ['all', 'session', 'message', 'command'].map((k) => h('option', { value: k }, k === 'all' ? 'all' : `${k}s`)),
  );
  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 'events-title' },
    h(
      'div',
      { class: 'cardhead' },
      h('h2', { id: 'events-title' }, 'Live events'),
      state,
      h('label', { for: 'e-kind', class: 'unseen' }, 'Kind of events'),
      kind,
      button,
    ),
    list,
  );

  const suits = (e) => kind.value === 'all' || e.type.startsWith(`${kind.value}.`);
  const line = (e) =>
    h(
      'li',
      {
        class: e.type === 'message.undecryptable' || e.type === 'fleet.outage' ? 'bad-line' : null,
        'data-type': e.type,
        hidden: !suits(e),
      },
      time(e.time, 'clock'),
      h('code', {}, e.type),
      h('span', { class: 'text', dir: 'auto' }, words(e)),
    );

  function choose() {
    for (const item of list.children) item.hidden = kind.value !== 'all' && !item.dataset.type?.startsWith(`${kind.value}.`);
  }

  function toggle() {
    paused = !paused;
    button.setAttribute('aria-pressed', String(paused));
    button.textContent = paused ? 'Go on' : 'Pause';
    if (!paused) for (const e of held.splice(0)) add(e);
  }

  function add(e) {
    if (paused) {
      held.push(e);
      if (held.length > kept) held.shift();
      button.textContent = `Go on (${held.length})`;
      return;
    }
    list.querySelector('.none')?.remove();
    list.prepend(line(e));
    while (list.children.length > kept) list.lastChild.remove();
  }

  let stop = () => {};
  const all = new AbortController();
  (async () => {
    let after; // not known: events begin with the next one
    try {
      const page = await ask(sessionPath(name, '/events'), { query: { order: 'desc', limit: 50 }, signal: all.signal });
      after = page.events[0]?.seq || 0;
      read(page.events);
      fill(list, page.events.length ? page.events.map(line) : h('li', { class: 'none muted' }, 'Nothing happened yet.'));
    } catch (err) {
      if (all.signal.aborted) return;
      if (err.status === 404 || err.status === 422) return ended(err);
      fill(list, h('li', { class: 'none' }, `The history cannot be read: ${problemTitle(err)}.`));
    }
    stop = follow({
      path: sessionPath(name, '/events'),
      after,
      ended,
      told: (how) => {
        state.textContent = { live: 'live', polling: 'asked for every 4 s', lost: 'connecting …' }[how];
        told(how);
      },
      each: (e) => {
        add(e);
        each(e);
      },
    });
    if (all.signal.aborted) stop();
  })();
  return {
    element,
    stop: () => {
      all.abort();
      stop();
    },
  };
}
