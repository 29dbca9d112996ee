// Moves the focus to an element of the page.

/**
 * Focus the first element of a CSS selector, if there is one.
 * @param {string} selector
 */
export function focusFirst(selector) {
  const element = document.querySelector(selector);
  if (element instanceof HTMLElement) element.focus();
}
