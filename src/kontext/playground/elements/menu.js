// Small panels that open from a button: one at a time, closed by Escape or a click elsewhere.

export class Menu {
  constructor(host) {
    this.host = host;
    host.addEventListener('keydown', (event) => this.#key(event));
    document.addEventListener('pointerdown', (event) => this.#elsewhere(event));
  }

  get open() {
    return [...this.host.querySelectorAll('details.menu[open]')];
  }

  /** Called after each render: opening one panel closes the others. */
  watch() {
    for (const menu of this.host.querySelectorAll('details.menu')) {
      menu.ontoggle ??= () => menu.open && this.open.forEach((other) => other !== menu && (other.open = false));
    }
  }

  #key(event) {
    if (event.key !== 'Escape' || !this.open.length) return;
    event.preventDefault();
    event.stopPropagation();
    for (const menu of this.open) {
      menu.open = false;
      menu.querySelector('summary').focus();
    }
  }

  #elsewhere(event) {
    for (const menu of this.open) if (!menu.contains(event.target)) menu.open = false;
  }
}
