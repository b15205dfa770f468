// The dialog that makes a session.

import { h } from './dom.js';
import { write } from './api.js';
import { dialog } from './dialogs.js';
import { notice } from './notices.js';

const field = (id, label, input, hint) =>
  h('div', { class: 'field' }, h('label', { for: id }, label), input, hint && h('p', { class: 'hint', id: `${id}-hint` }, hint));

export async function createSession(watch) {
  const name = h('input', {
    id: 'c-name',
    type: 'text',
    required: true,
    maxlength: 63,
    pattern: '[a-z0-9][a-z0-9_\\-]*',
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: 'false',
    'aria-describedby': 'c-name-hint',
    title: 'small letters, digits, - and _',
  });
  const profile = h(
    'select',
    { id: 'c-profile', 'aria-describedby': 'c-profile-hint' },
    h('option', { value: '' }, 'as the worker has it'),
    h('option', { value: 'guide' }, 'guide'),
    h('option', { value: 'gentle' }, 'gentle'),
  );
  const start = h('input', { id: 'c-start', type: 'checkbox', checked: true });
  const webhook = h('input', { id: 'c-webhook', type: 'url', autocomplete: 'off', maxlength: 2048, placeholder: 'https://' });
  const secret = h('input', { id: 'c-secret', type: 'password', autocomplete: 'new-password', maxlength: 512 });
  const proxy = h('input', {
    id: 'c-proxy',
    type: 'text',
    autocomplete: 'off',
    spellcheck: 'false',
    maxlength: 2048,
    placeholder: 'socks5://host:port',
  });
  const made = await dialog({
    title: 'New session',
    submit: 'Create',
    body: [
      field('c-name', 'Name', name, '1 to 63 of a–z, 0–9, - and _; not digits alone.'),
      h('div', { class: 'field check' }, start, h('label', { for: 'c-start' }, 'Start it now and show its code')),
      field('c-profile', 'Profile', profile, 'guide looks after the line often, gentle rarely.'),
      h(
        'details',
        {},
        h('summary', {}, 'Webhook and proxy'),
        field('c-webhook', 'Webhook URL', webhook),
        field('c-secret', 'Webhook secret', secret),
        field('c-proxy', 'Proxy', proxy),
      ),
    ],
    act: async () => {
      const settings = {};
      for (const [key, input] of Object.entries({ profile, webhookUrl: webhook, webhookSecret: secret, proxy })) {
        if (input.value.trim()) settings[key] = input.value.trim();
      }
      return write('sessions', { body: { name: name.value.trim(), wanted: start.checked ? 'running' : 'stopped', settings } });
    },
  });
  if (!made) return;
  watch.set(made);
  notice(`Session ${made.name} is created.`);
  location.hash = `#/sessions/${encodeURIComponent(made.name)}`;
}
