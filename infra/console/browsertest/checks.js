// Rules that every view has to keep, in the manner of the checkers of accessibility:
// what each function returns are the faults, in words.
(() => {
  const faults = [];
  const say = (rule, element, words = '') => {
    const place = element
      ? `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ''}${typeof element.className === 'string' && element.className ? `.${element.className.trim().replace(/\s+/g, '.')}` : ''}`
      : 'page';
    faults.push(`${rule}: ${place} ${words} ${(element?.textContent || '').trim().slice(0, 40)}`.replace(/\s+/g, ' ').trim());
  };
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const modal = document.querySelector('dialog[open]');
  const scope = modal || document;

  // What a screen reader says of an element, as far as this page goes.
  const byIds = (ids) =>
    (ids || '')
      .split(/\s+/)
      .filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent || '')
      .join(' ')
      .trim();
  const spoken = (e) => {
    const copy = e.cloneNode(true);
    for (const hidden of copy.querySelectorAll('[aria-hidden=true]')) hidden.remove();
    for (const img of copy.querySelectorAll('img')) img.replaceWith(img.alt);
    return copy.textContent.trim();
  };
  const name = (e) =>
    e.getAttribute('aria-label')?.trim() ||
    byIds(e.getAttribute('aria-labelledby')) ||
    [...(e.labels || [])].map((l) => l.textContent.trim()).join(' ') ||
    (['INPUT', 'SELECT', 'TEXTAREA'].includes(e.tagName) ? '' : spoken(e)) ||
    e.getAttribute('title') ||
    '';

  if (!document.documentElement.lang) say('language', document.documentElement);
  if (!document.title.trim()) say('title');
  if (all('main').filter(seen).length !== 1) say('one main');
  if (all('h1').filter(seen).length !== 1) say('one h1', null, String(all('h1').filter(seen).length));

  const ids = new Map();
  for (const e of all('[id]')) {
    if (ids.has(e.id)) say('id twice', e);
    ids.set(e.id, e);
  }
  for (const attribute of ['aria-labelledby', 'aria-describedby', 'for']) {
    for (const e of all(`[${attribute}]`))
      for (const id of e.getAttribute(attribute).split(/\s+/)) if (!ids.has(id)) say(`${attribute} without its element`, e, id);
  }

  const operable = all('a[href], button, input, select, textarea, summary, [tabindex]', scope).filter(seen);
  for (const e of operable) {
    if (e.tabIndex > 0) say('tabindex above 0', e);
    if (e.tabIndex >= 0 && !name(e) && e.tagName !== 'MAIN') say('no name', e);
    if (e.closest('[aria-hidden=true]') && e.tabIndex >= 0) say('focus inside of what is hidden', e);
    if (['INPUT', 'SELECT', 'TEXTAREA'].includes(e.tagName) && !(e.labels?.length || e.getAttribute('aria-label')))
      say('no label', e);
  }
  for (const e of all('a[href] button, button a[href], button button')) say('one control in the other', e);
  for (const e of all('img')) if (!e.hasAttribute('alt')) say('no alt', e);
  for (const e of all('svg')) if (e.getAttribute('aria-hidden') !== 'true' && !name(e)) say('picture without a name', e);
  for (const e of all('[role=img], [role=group], [role=region], dialog, section, nav, meter'))
    if (seen(e) && !(e.getAttribute('aria-label') || byIds(e.getAttribute('aria-labelledby')))) say('part without a name', e);
  const parts = all('nav, section[aria-labelledby], section[aria-label], [role=region]')
    .filter(seen)
    .map((e) => e.getAttribute('aria-label') || byIds(e.getAttribute('aria-labelledby')));
  for (const n of parts) if (parts.indexOf(n) !== parts.lastIndexOf(n)) say('two parts of one name', null, n);

  let level = 0;
  for (const e of all('h1, h2, h3, h4', modal ? modal : document.querySelector('main')).filter(seen)) {
    const l = Number(e.tagName[1]);
    if (level && l > level + 1) say('a level of headings is left out', e);
    level = l;
  }

  for (const table of all('table').filter(seen)) {
    if (!table.caption && !table.getAttribute('aria-label')) say('table without a caption', table);
    const columns = [...table.tHead.rows[0].cells];
    for (const th of all('th', table)) if (!['col', 'row'].includes(th.scope)) say('th without scope', th);
    for (const th of columns) if (!th.textContent.trim()) say('column without a head', th);
    for (const row of table.tBodies[0].rows) {
      const cells = [...row.cells];
      if (cells.length === 1 && cells[0].colSpan === columns.length) continue;
      if (cells.length !== columns.length) say('row with other cells than the head', row);
      cells.forEach((c, i) => seen(c) !== seen(columns[i]) && say('cell is shown and its head is not, or the other way', c));
      cells.forEach(
        (c) =>
          seen(c) &&
          !c.textContent.trim() &&
          !c.querySelector('[aria-label], img[alt]') &&
          c.children.length === 0 &&
          say('empty cell', c),
      );
    }
  }
  for (const list of all('ul, ol'))
    for (const child of list.children) if (child.tagName !== 'LI') say('list with something else', child);
  for (const e of all('[aria-live], [role=status], [role=log]')) if (e.querySelector('time')) say('a clock in a live region', e);

  // Contrast of all text with what is behind it.
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (e) => {
    const layers = [];
    for (let x = e; x; x = x.parentElement) {
      const c = rgba(getComputedStyle(x).backgroundColor);
      layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reduceRight((ground, layer) => over(layer, ground), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const f = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  let texts = 0;
  const walker = document.createTreeWalker(scope === document ? document.body : scope, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e || !seen(e) || e.closest('.unseen, .skip, option, noscript')) continue;
    const style = getComputedStyle(e);
    const ground = behind(e);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const got = ratio(over(rgba(style.color), ground), ground);
    texts++;
    if (got < (large ? 3 : 4.5)) say('contrast', e, got.toFixed(2));
  }
  if (texts < 5) say('hardly any text was looked at', null, String(texts));

  // What is touched is not too small; links within a text may be.
  for (const e of operable) {
    if (e.tabIndex < 0 || (e.tagName === 'A' && getComputedStyle(e).display === 'inline') || e.id === 'skip') continue;
    const box = e.getBoundingClientRect();
    const label = e.labels?.[0]?.getBoundingClientRect();
    const height = Math.max(box.height, e.type === 'checkbox' && label ? label.height : 0);
    const least = matchMedia('(pointer: coarse)').matches ? 24 : 18;
    if (height < least || box.width < 18) say('too small to be touched', e, `${box.width.toFixed()}×${height.toFixed()}`);
  }
  // A phone makes its window wider with what does not fit.
  const root = document.scrollingElement;
  const width = Math.min(window.innerWidth, root.clientWidth);
  if (root.scrollWidth > width + 1) {
    const wide = all('body *')
      .filter((e) => seen(e) && !e.closest('.unseen') && e.getBoundingClientRect().right > width + 1)
      .at(-1);
    say('wider than the screen', wide, `${root.scrollWidth} > ${width}`);
  }
  for (const e of all('.card, .box, .banner, dialog, #header, td, th', scope)) {
    if (seen(e) && !e.closest('.unseen') && !e.querySelector('.unseen') && e.scrollWidth > e.clientWidth + 1)
      say('something sticks out', e, `${e.scrollWidth} > ${e.clientWidth}`);
  }
  for (const e of all('main table').filter(seen)) {
    if (e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + 1) say('table wider than its place', e);
  }
  return faults;
})();
