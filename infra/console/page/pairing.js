// The QR that renews itself, what to do on the phone, and the code to type instead.

import { h, fill, once, time } from './dom.js';
import { open, ask, write, pause, sessionPath, now, Problem } from './api.js';
import { fault, say, problemBox } from './notices.js';

const held = 25; // s that the server holds the answer back until there is another code

// pairing makes the panel. Start is what its button does.
export function pairing(name, start) {
  const picture = h('img', {
    class: 'qr',
    width: 264,
    height: 264,
    alt: 'The QR code to scan with WhatsApp on the phone',
    hidden: true,
  });
  const instead = h('div', { class: 'qr none' });
  const until = h('p', { class: 'muted center' });
  const startButton = h('button', { type: 'button', class: 'primary', on: { click: start } }, 'Show a code');
  const steps = h(
    'ol',
    { class: 'steps' },
    h('li', {}, 'Open WhatsApp on the phone whose number this session is for.'),
    h(
      'li',
      {},
      'Android: ',
      h('b', {}, '⋮'),
      ' → ',
      h('b', {}, 'Linked devices'),
      '. iPhone: ',
      h('b', {}, 'Settings'),
      ' → ',
      h('b', {}, 'Linked devices'),
      '.',
    ),
    h('li', {}, 'Tap ', h('b', {}, 'Link a device'), ' and unlock the phone.'),
    h('li', {}, 'Point the camera at the code. It changes now and then; each is good only while it is shown.'),
  );
  const { element: byNumber, reset } = phoneCode(name);
  const element = h(
    'section',
    { class: 'card pairing', 'aria-labelledby': 'pair-title' },
    h('h2', { id: 'pair-title' }, 'Link a phone'),
    h('div', { class: 'pair' }, h('figure', {}, picture, instead, until), h('div', {}, steps, byNumber)),
  );

  let run = null; // of the loop
  let url = '';
  let ends = 0;
  const text = once();

  function hide(words, button) {
    picture.hidden = true;
    instead.hidden = false;
    if (url) URL.revokeObjectURL(url);
    picture.removeAttribute('src');
    url = '';
    until.replaceChildren();
    text([words, button], () => fill(instead, h('p', {}, words), button && startButton));
  }

  async function loop(signal) {
    let tag = '';
    let shownOnce = false;
    hide('Waiting for a code …', false);
    while (!signal.aborted) {
      if (document.hidden) {
        await pause(1000, signal);
        continue;
      }
      try {
        const answer = await open(sessionPath(name, '/qr'), {
          accept: 'image/svg+xml',
          query: { wait: `${held}s` },
          headers: tag ? { 'If-None-Match': tag } : {},
          signal,
        });
        if (answer.status === 304) continue;
        tag = answer.headers.get('ETag') || '';
        const before = url;
        // By the answer's own clock: Expires has whole seconds, and so has Date.
        ends =
          now() +
          Math.max(
            1000,
            Date.parse(answer.headers.get('Expires')) - Date.parse(answer.headers.get('Date') || new Date(now()).toUTCString()),
          );
        url = URL.createObjectURL(await answer.blob());
        picture.src = url;
        if (before) URL.revokeObjectURL(before);
        picture.hidden = false;
        instead.hidden = true;
        fill(until, 'Good for ', time(new Date(ends).toISOString(), 'left'), '; the next one follows by itself.');
        if (!shownOnce) say('A QR code to scan is shown.');
        shownOnce = true;
      } catch (err) {
        if (signal.aborted) return;
        if (!(err instanceof Problem)) throw err;
        tag = '';
        if (err.code === 'already_paired') return hide('It is paired.', false);
        if (err.status === 403 || err.status === 401) return hide('Codes are shown to operators only.', false);
        hide(err.code === 'no_qr' ? 'Waiting for a code …' : err.title, false);
        await pause(Math.min(Math.max(err.retryAfter, 1), 5) * 1000, signal);
      }
    }
  }

  // A code that is over must not be scanned any more.
  const watchEnd = setInterval(() => {
    if (url && now() > ends + 1500) hide('Waiting for the next code …', false);
  }, 500);

  function stop() {
    run?.abort();
    run = null;
  }

  function update(s) {
    element.hidden =
      s.paired ||
      !['unpaired', 'pairing', 'disconnected', 'connecting', 'reconnecting', 'restarting', 'stopped'].includes(s.state);
    // What pairs is shown at once; what waits for somebody shows a button.
    const pairs =
      !element.hidden && s.wanted === 'running' && s.state !== 'unpaired' && s.state !== 'stopped' && s.state !== 'disconnected';
    const waits = !element.hidden && s.wanted === 'running' && s.state === 'unpaired' && s.generation !== s.observedGeneration;
    if (pairs || waits) {
      if (!run) {
        run = new AbortController();
        loop(run.signal).catch((err) => run?.signal.aborted || fault('The code', err));
      }
      return;
    }
    stop();
    if (element.hidden) {
      hide('', false);
      // A worker that is missed for a moment takes nothing from who types just now.
      if (s.state !== 'unowned') reset();
    } else hide(s.cause === 'qr_expired' ? 'The codes were not scanned in time.' : 'No code is shown now.', true);
  }

  return {
    element,
    update,
    stop: () => {
      clearInterval(watchEnd);
      stop();
      hide('', false);
    },
  };
}

// phoneCode is the way without a camera: eight characters to type on the phone.
function phoneCode(name) {
  const phone = h('input', {
    id: 'p-phone',
    type: 'tel',
    autocomplete: 'off',
    required: true,
    maxlength: 32,
    placeholder: '+49 151 23456789',
    'aria-describedby': 'p-hint',
  });
  const out = h('div', { 'aria-live': 'polite' });
  const button = h('button', { type: 'submit' }, 'Get a code');
  const form = h(
    'form',
    { class: 'inline', on: { submit: send } },
    h('div', { class: 'field' }, h('label', { for: 'p-phone' }, 'Number of the phone, with country code'), phone),
    button,
  );
  const element = h(
    'details',
    { class: 'instead' },
    h('summary', {}, 'No camera? Type a code on the phone instead'),
    form,
    h('p', { class: 'hint', id: 'p-hint' }, 'WhatsApp then asks on the phone for the eight characters.'),
    out,
  );

  async function send(event) {
    event.preventDefault();
    if (button.getAttribute('aria-disabled')) return;
    button.setAttribute('aria-disabled', 'true');
    fill(out, h('p', {}, 'Asking WhatsApp for a code …'));
    try {
      let command = await write(sessionPath(name, '/pair-code'), { body: { phone: phone.value }, wait: 20 });
      while (command.state === 'pending' || command.state === 'running')
        command = await ask(`commands/${encodeURIComponent(command.id)}`, { wait: 30 });
      if (!command.pairCode) {
        throw new Problem({
          code: command.code || 'failed',
          title: command.problem || 'There is no code',
          detail: command.state === 'expired' ? 'No worker took it in time.' : '',
        });
      }
      const plain = command.pairCode.replace(/[^A-Z0-9]/gi, '');
      fill(
        out,
        h(
          'p',
          { class: 'paircode' },
          h('span', { class: 'unseen' }, `The code is ${[...plain].join(' ')}.`),
          h('span', { 'aria-hidden': 'true' }, `${plain.slice(0, 4)}-${plain.slice(4)}`),
        ),
        h(
          'ol',
          { class: 'steps' },
          h(
            'li',
            {},
            'On the phone, tap the notification of WhatsApp, or open ',
            h('b', {}, 'Linked devices'),
            ' → ',
            h('b', {}, 'Link a device'),
            ' → ',
            h('b', {}, 'Link with phone number instead'),
            '.',
          ),
          h('li', {}, 'Type the eight characters. They are good for about two minutes.'),
        ),
      );
    } catch (err) {
      fill(out, problemBox('No code', err));
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }
  return {
    element,
    reset: () => {
      out.replaceChildren();
      phone.value = '';
      element.open = false;
    },
  };
}
