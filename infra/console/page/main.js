// Sign-in, the frame around the views, and which of them is shown.

import { h, fill, once, icon } from './dom.js';
import { ask, signedIn, useKey } from './api.js';
import { Watch } from './watch.js';
import { banner } from './outage.js';
import { sessionsView } from './sessions.js';
import { sessionView } from './session.js';
import { workersView } from './workers.js';
import { problemBox } from './notices.js';

const $ = (id) => document.getElementById(id);
const main = $('main');
const roles = ['viewer', 'operator', 'admin'];

let me = null;
let watch = null;
let view = null;
let drawBanner = () => {};

const lines = {
  live: ['ok', 'check', 'live'],
  polling: ['idle', 'spin', 'polling'],
  lost: ['wait', 'alert', 'connecting'],
};
const drawLine = once();

function changed() {
  drawBanner();
  const [tone, shape, word] = lines[view?.line() || 'lost'];
  drawLine(word, () =>
    fill($('line'), h('span', { class: `word ${tone}`, title: 'How changes reach this page' }, icon(shape), word)),
  );
}

// route reads the address: #/, #/sessions/NAME, #/workers, with a filter behind ?.
function route() {
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const query = Object.fromEntries(new URLSearchParams(search));
  const [first, ...rest] = path.split('/');
  if (first === 'workers') return { view: 'workers' };
  if (first === 'sessions' && rest[0]) {
    try {
      return { view: 'session', name: decodeURIComponent(rest.join('/')) };
    } catch {
      return { view: 'sessions', query };
    }
  }
  return { view: 'sessions', query };
}

function setQuery(query) {
  const search = new URLSearchParams(Object.entries(query).filter(([, v]) => v && v !== 'attention')).toString();
  history.replaceState(null, '', search ? `#/?${search}` : '#/');
}

function show() {
  if (!me) return;
  view?.stop();
  const to = route();
  if (to.view === 'session') view = sessionView({ watch, me, name: to.name });
  else if (to.view === 'workers') view = workersView({ watch, me });
  else view = sessionsView({ watch, me, query: to.query, setQuery });
  fill(main, view.element);
  document.title = `${view.title} · Holdfast`;
  for (const link of document.querySelectorAll('nav a[data-view]')) {
    const current = link.dataset.view === to.view || (to.view === 'session' && link.dataset.view === 'sessions');
    if (current) link.setAttribute('aria-current', to.view === 'session' ? 'true' : 'page');
    else link.removeAttribute('aria-current');
  }
  window.scrollTo(0, 0);
  main.querySelector('h1')?.focus({ preventScroll: true });
  changed();
}

function enter(who) {
  const level = roles.indexOf(who.role);
  me = { ...who, operator: level >= 1, admin: level >= 2 };
  watch = new Watch();
  drawBanner = banner($('outage'), watch);
  watch.addEventListener('change', changed);
  watch.start();
  $('header').hidden = false;
  fill($('who'), h('span', { class: 'unseen' }, 'Signed in as '), h('strong', {}, me.name), ` (${me.role})`);
  show();
}

function leave(problem) {
  useKey('');
  view?.stop();
  watch?.stop();
  view = watch = me = null;
  drawBanner = () => {};
  fill($('outage'));
  fill($('notices'));
  $('said').textContent = '';
  for (const box of document.querySelectorAll('dialog')) box.close();
  $('header').hidden = true;
  signIn(problem);
}

function signIn(problem) {
  document.title = 'Sign in · Holdfast';
  const field = h('input', {
    id: 'key',
    type: 'password',
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: 'false',
    required: true,
    maxlength: 512,
    'aria-describedby': 'key-hint',
  });
  const trouble = h('div', {}, problem && problemBox('Signed out', problem));
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  let busy = false;
  const form = h(
    'form',
    {
      on: {
        submit: async (event) => {
          event.preventDefault();
          if (busy) return;
          busy = true;
          fill(trouble);
          useKey(field.value.trim());
          try {
            const who = await ask('me');
            enter(who);
          } catch (err) {
            useKey('');
            fill(trouble, problemBox('Not signed in', err));
            field.focus();
          } finally {
            busy = false;
          }
        },
      },
    },
    h(
      'div',
      { class: 'field' },
      h('label', { for: 'key' }, 'API key'),
      field,
      h(
        'p',
        { class: 'hint', id: 'key-hint' },
        'It is kept in this tab alone and forgotten when the tab is closed. With ',
        h('code', {}, 'holdfast dev'),
        ' it stands in ',
        h('code', {}, 'data/api.key'),
        '.',
      ),
    ),
    trouble,
    button,
  );
  fill(
    main,
    h(
      'div',
      { class: 'card signin' },
      h('h1', { tabindex: '-1' }, 'Holdfast'),
      h('p', { class: 'muted' }, 'Sessions of WhatsApp: what they are at, and what they should be.'),
      form,
    ),
  );
  field.focus();
}

$('signout').addEventListener('click', () => leave());
$('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', show);
window.addEventListener('holdfast:refused', (event) => me && leave(event.detail));

if (signedIn()) {
  ask('me').then(enter, (err) => {
    if (err.status === 401) leave(err);
    else {
      fill(
        main,
        problemBox('The console cannot begin', err),
        h('div', { class: 'buttons' }, h('button', { type: 'button', on: { click: () => location.reload() } }, 'Try again')),
      );
    }
  });
} else signIn();
