// Questions. They are the browser's own modal dialogs: the focus stays inside,
// Escape closes, and the focus goes back to where it was.

import { h, fill } from './dom.js';
import { problemBox } from './notices.js';

let count = 0;

// dialog asks. The options:
//   title   what is asked
//   body    nodes of explanation and fields
//   submit  the word on the button that does it; empty: there is only something to be told
//   danger  whether that button says so
//   typed   a word that has to be typed first
//   act     what the button does; an error that it throws is shown, and the dialog stays
// It returns a promise of what act returned, or undefined where it was cancelled.
export function dialog({ title, body = [], submit, danger = false, typed = '', act = async () => true }) {
  const id = `dialog-${++count}`;
  const back = document.activeElement;
  return new Promise((resolve) => {
    let outcome;
    let busy = false;
    const trouble = h('div', {});
    const word =
      typed &&
      h('input', {
        id: `${id}-word`,
        type: 'text',
        autocomplete: 'off',
        autocapitalize: 'none',
        spellcheck: 'false',
        'aria-describedby': `${id}-hint`,
        on: { input: () => word.removeAttribute('aria-invalid') },
      });
    const hint = typed && h('p', { id: `${id}-hint`, class: 'hint' }, 'Exactly as it is written here: ', h('code', {}, typed));
    const ok = submit && h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, submit);
    const cancel = h('button', { type: 'button', on: { click: () => box.close() } }, submit ? 'Cancel' : 'Close');
    const form = h(
      'form',
      { on: { submit: send } },
      body,
      typed && h('div', { class: 'field' }, h('label', { for: `${id}-word` }, 'Type the name to confirm'), word, hint),
      trouble,
      h('div', { class: 'buttons' }, cancel, ok),
    );
    const box = h('dialog', { 'aria-labelledby': id, class: danger ? 'grave' : null }, h('h2', { id }, title), form);

    async function send(event) {
      event.preventDefault();
      if (busy) return;
      if (typed && word.value.trim() !== typed) {
        word.setAttribute('aria-invalid', 'true');
        fill(trouble, h('p', { class: 'box bad', role: 'alert' }, 'That is not the name: nothing was done.'));
        word.focus();
        return;
      }
      busy = true;
      form.setAttribute('aria-busy', 'true');
      fill(trouble);
      try {
        outcome = await act(form);
        box.close();
      } catch (err) {
        fill(trouble, problemBox('Not done', err));
      } finally {
        busy = false;
        form.removeAttribute('aria-busy');
      }
    }
    box.addEventListener('close', () => {
      box.remove();
      // What had the focus may be gone with what was done.
      if (back?.isConnected && !back.hidden) back.focus();
      else document.getElementById('main').focus();
      resolve(outcome);
    });
    document.body.append(box);
    box.showModal();
    (form.querySelector('input, select, textarea') || cancel).focus();
  });
}
