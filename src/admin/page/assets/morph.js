// Makes a tree look like another one and leaves equal parts alone, so that focus, selection and open details stay.

export function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // Details that the reader opened stay open.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, fresh);
}

const key = (node) => node.dataset?.key;

function children(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) if (key(child)) keyed.set(key(child), child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const isSame = at && !key(at) && !key(wanted) && at.nodeName === wanted.nodeName;
    const same = key(wanted) ? keyed.get(key(wanted)) : isSame ? at : undefined;
    if (!same || same.nodeName !== wanted.nodeName) {
      old.insertBefore(wanted, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else if (old.moveBefore) old.moveBefore(same, at);
    else old.insertBefore(same, at);
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, wanted);
    else if (same.data !== wanted.data) same.data = wanted.data;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
