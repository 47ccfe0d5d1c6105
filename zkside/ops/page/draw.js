// Elements out of plain values. Whatever comes from the daemon becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

/** An element; `properties` are attributes, but for `class`. Children are nodes or strings. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== ''));
  return node;
}

/** Change a text only if it is another: a selection, and a screen reader's place, stay where they are. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null || value === '') node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * Make the children of a node be these items, in this order. An item that was there keeps its element, and with
 * it what is focused or unfolded inside; `fill` is called for each.
 */
export function keep(parent, items, keyOf, make, fill) {
  const before = parent.kept ?? new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (now.has(key)) continue;
    const node = before.get(key) ?? make(item);
    now.set(key, node);
    fill(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  while (place !== null) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
  parent.kept = now;
}

/** Replace what a node shows, if what it is made from has changed. */
export function fillWith(node, source, make) {
  const version = JSON.stringify(source);
  if (node.version === version) return;
  node.version = version;
  node.replaceChildren(...[make(source)].flat().filter((child) => child !== null && child !== ''));
}

// What would change how the text around it reads, or cannot be seen: controls, directions, joiners, odd spaces.
const ODD = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u115f\u1160\u3164\uffa0]/u;

/** A path or a name as somebody else chose it: shown letter by letter, with a place to break after each slash. */
export function verbatim(text, tag = 'bdi') {
  const node = element(tag, { class: 'name' });
  let run = '';
  for (const letter of text) {
    if (ODD.test(letter)) {
      node.append(run, element('span', { class: 'odd' }, `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`));
      run = '';
    } else if (letter === '/' && (run !== '' || node.hasChildNodes())) {
      node.append(run, element('wbr'));
      run = letter;
    } else run += letter;
  }
  node.append(run);
  return node;
}

/** A table that becomes cards on a narrow screen. The roles say so where `display` would hide it. */
export function table(label, columns) {
  const head = element('tr', { role: 'row' }, ...columns.map((column) =>
    element('th', { role: 'columnheader', scope: 'col', class: column.class ?? null }, column.title)));
  const body = element('tbody', { role: 'rowgroup' });
  const node = element('table', { role: 'table', 'aria-label': label },
    element('thead', { role: 'rowgroup' }, head), body);
  return { node, body };
}

/** A row whose cells are filled by `fillRow`. */
export function row(columns) {
  return element('tr', { role: 'row' }, ...columns.map((column) =>
    element('td', { role: 'cell', 'data-label': column.title, class: column.class ?? null })));
}

export function fillRow(node, columns, item) {
  columns.forEach((column, index) => fillWith(node.children[index], column.of(item), (source) => column.draw(source, item)));
}
