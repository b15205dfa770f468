// A message to try the session with.

import { h, fill, once, time } from './dom.js';
import { ask, write, sessionPath, newKey, pause } from './api.js';
import { problemBox, say } from './notices.js';

const words = {
  queued: 'stored, not sent yet',
  sending: 'on its way',
  sent: 'sent: WhatsApp has it',
  delivered: 'delivered to the phone',
  read: 'read',
  failed: 'failed',
  cancelled: 'cancelled',
};
const followed = 90; // s that its further way is shown for

export function sender(name) {
  const to = h('input', {
    id: 's-to',
    type: 'text',
    inputmode: 'tel',
    autocomplete: 'off',
    required: true,
    maxlength: 128,
    placeholder: '+49 151 23456789',
    'aria-describedby': 's-hint',
  });
  const text = h('textarea', { id: 's-text', required: true, rows: 2, maxlength: 4096 });
  const button = h('button', { type: 'submit' }, 'Send');
  const out = h('div', { class: 'sent' });
  const why = h('p', { class: 'hint' });
  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 'send-title' },
    h('h2', { id: 'send-title' }, 'Send a test message'),
    h(
      'form',
      { on: { submit: send } },
      h(
        'div',
        { class: 'field' },
        h('label', { for: 's-to' }, 'To'),
        to,
        h('p', { class: 'hint', id: 's-hint' }, 'A number with its country code, or a JID.'),
      ),
      h('div', { class: 'field' }, h('label', { for: 's-text' }, 'Text'), text),
      why,
      h('div', { class: 'buttons' }, button),
    ),
    out,
  );
  let following = new AbortController();
  // The key stays until it went through, so that a second press sends nothing twice.
  let key = newKey();
  let keyOf = '';

  function show(m) {
    fill(
      out,
      h(
        'p',
        { class: `box ${m.state === 'failed' ? 'bad' : 'ok'}`, 'data-state': m.state },
        h('strong', {}, words[m.state] || m.state),
        ' · ',
        time(m.changedAt || m.at, 'clock'),
        ' · ',
        h('code', {}, m.messageId),
        m.problem && h('span', {}, ` · ${m.problem}`),
      ),
    );
    say(`The message is ${words[m.state] || m.state}.`);
  }

  async function send(event) {
    event.preventDefault();
    if (button.getAttribute('aria-disabled')) return;
    const body = { to: to.value.trim(), text: text.value };
    if (JSON.stringify(body) !== keyOf) {
      key = newKey();
      keyOf = JSON.stringify(body);
    }
    button.setAttribute('aria-disabled', 'true');
    following.abort();
    following = new AbortController();
    const signal = following.signal;
    try {
      fill(out, h('p', { class: 'muted' }, 'Sending …'));
      let m = await write(sessionPath(name, '/messages'), {
        body: { ...body, idempotencyKey: key },
        headers: { 'Idempotency-Key': key },
        wait: 10,
        signal,
      });
      keyOf = '';
      text.value = '';
      show(m);
      button.removeAttribute('aria-disabled');
      for (const end = Date.now() + followed * 1000; Date.now() < end && !['read', 'failed', 'cancelled'].includes(m.state);) {
        await pause(2000, signal);
        const then = await ask(sessionPath(name, `/messages/${encodeURIComponent(m.id)}`), { signal });
        if (then.state !== m.state) show(then);
        m = then;
      }
    } catch (err) {
      if (!signal.aborted) fill(out, problemBox('Not sent', err));
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }

  const changed = once();
  return {
    element,
    update(s) {
      element.hidden = !s.paired;
      changed(s.state, () =>
        fill(why, s.state === 'online' ? '' : `The session is ${s.state}: the message is stored and sent when it is online.`),
      );
    },
    stop: () => following.abort(),
  };
}
