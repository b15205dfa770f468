// The page of one session.

import { h, fill, once, badge, time, plural } from './dom.js';
import { ask, sessionPath, Problem } from './api.js';
import { stateOf, shownHealth, healths, causeOf } from './words.js';
import { goingOn, next, todo } from './explain.js';
import { actions, perform } from './actions.js';
import { pairing } from './pairing.js';
import { timeline } from './timeline.js';
import { eventLog } from './events.js';
import { facts, reconnects } from './facts.js';
import { sender } from './send.js';
import { say, problemBox } from './notices.js';

// nameless says that there is no such session, or can be none of that name.
const nameless = (problem) => problem.status === 404 || problem.status === 422;

const every = 10_000; // ms: pongs and counters move without events

export function sessionView({ watch, me, name }) {
  const all = new AbortController();
  let session = null;
  let line = 'lost';
  let timer = 0;

  const head = h('div', { class: 'state' });
  const going = h('div', {});
  const coming = h('ul', { class: 'lines' });
  const advice = h('p', { class: 'advice' });
  const buttons = actions(me, () => load());
  const pair = me.operator ? pairing(name, () => perform(session, 'start', me).then(load)) : null;
  const bar = timeline(name);
  const again = reconnects();
  const details = facts();
  const message = me.operator ? sender(name) : null;
  const log = eventLog(name, {
    each: (event) => {
      bar.saw(event);
      watch.saw(event);
      if (event.type === 'session.state')
        say(`${name} is ${event.data?.state}${event.data?.cause ? `, for ${causeOf(event.data.cause).title}` : ''}.`);
      clearTimeout(timer);
      timer = setTimeout(load, 200);
    },
    read: (events) => events.forEach((event) => bar.saw(event)), // what its own asking came too early for
    told: (how) => {
      line = how;
      watch.dispatchEvent(new Event('change'));
    },
    ended: (problem) => nameless(problem) && missing(),
  });
  const parts = h(
    'div',
    { class: 'columns' },
    h(
      'div',
      {},
      h(
        'section',
        { class: 'card', 'aria-labelledby': 'now-title' },
        h('h2', { id: 'now-title' }, 'What goes on'),
        going,
        h('h3', {}, 'What comes next'),
        coming,
        advice,
      ),
      pair?.element,
      bar.element,
      log.element,
    ),
    h('div', {}, details.element, again.element, message?.element),
  );
  const content = h('div', {}, h('p', { class: 'muted' }, 'Reading the session …'));
  const element = h(
    'div',
    {},
    h('p', { class: 'crumb' }, h('a', { href: '#/' }, '← All sessions')),
    h('div', { class: 'headline' }, h('h1', { tabindex: '-1' }, name), head),
    content,
  );

  const drawHead = once();
  const drawGoing = once();

  function draw() {
    const s = session;
    if (!content.contains(parts)) fill(content, buttons.element, parts);
    drawHead([s.state, s.health, s.cause, s.since], () =>
      fill(
        head,
        badge(`${stateOf(s.state).tone} large`, stateOf(s.state).icon, s.state),
        shownHealth(s) && badge(`plainbadge ${healths[s.health]?.tone}`, healths[s.health]?.icon, s.health),
        s.cause && h('span', {}, h('code', {}, s.cause)),
        s.state !== 'unowned' && h('span', { class: 'muted' }, 'for ', time(s.since || s.createdAt, 'for')),
      ),
    );
    // The words change with the deadlines too, so these are drawn by what they say.
    const now1 = goingOn(s);
    const then = next(s, watch.workers);
    const words = (lines) =>
      lines.map((l) => l.map((x) => (x instanceof Element ? x.getAttribute('datetime') || x.textContent : (x.textContent ?? x))));
    drawGoing([words(now1), words(then), todo(s)], () => {
      fill(
        going,
        now1.map((l) => h('p', {}, l)),
      );
      fill(
        coming,
        then.map((l) => h('li', {}, l)),
      );
      fill(advice, todo(s) && [h('strong', {}, 'What to do: '), todo(s)]);
      advice.hidden = !todo(s);
    });
    buttons.update(s);
    pair?.update(s);
    bar.update(s);
    again.update(s);
    details.update(s);
    message?.update(s);
  }

  async function load() {
    clearTimeout(timer);
    timer = setTimeout(() => (document.hidden ? (timer = setTimeout(load, every)) : load()), every);
    try {
      session = await ask(sessionPath(name), { signal: all.signal });
      watch.set(session);
      if (!all.signal.aborted) draw();
    } catch (err) {
      if (all.signal.aborted) return;
      if (nameless(err)) missing();
      else if (!session) fill(content, problemBox('The session cannot be read', err));
      if (!(err instanceof Problem)) throw err;
    }
  }

  function missing() {
    stop();
    line = 'polling'; // of the list; this page is at its end
    watch.gone(name);
    fill(head);
    const near = [...watch.sessions.keys()].filter((x) => x.includes(name) || name.includes(x));
    fill(
      content,
      h(
        'div',
        { class: 'empty' },
        h('p', {}, h('strong', {}, `There is no session ${name}.`)),
        h(
          'p',
          {},
          'It was deleted, or never was. ',
          near.length > 0 && [
            `${plural(near.length, 'session')} with a name like it: `,
            near.slice(0, 5).map((x) => [h('a', { href: `#/sessions/${encodeURIComponent(x)}` }, x), ' ']),
          ],
        ),
        h('p', {}, h('a', { href: '#/' }, 'All sessions')),
      ),
    );
  }

  function stop() {
    all.abort();
    clearTimeout(timer);
    log.stop();
    pair?.stop();
    bar.stop();
    message?.stop();
  }

  session = watch.sessions.get(name) || null;
  if (session) draw();
  load();
  return { element, title: name, line: () => line, stop };
}
