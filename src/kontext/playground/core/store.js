// The one store: holds the state, tells those who watch. Elements derive from `Part`, which draws when it changes.
import { LitElement } from '../vendor/lit/lit.js';
import { initial } from './state.js';

export const store = {
  state: initial(),
  watchers: new Set(),

  /** Replace the state by `change(state)` or by the fields of an object. */
  set(change) {
    const next = typeof change === 'function' ? change(store.state) : { ...store.state, ...change };
    if (next === store.state) return;
    store.state = next;
    for (const watcher of store.watchers) watcher();
  },
};

/** An element in the light DOM (labels and ids reach across) that follows the store. */
export class Part extends LitElement {
  #watch = () => this.requestUpdate();

  get state() {
    return store.state;
  }

  createRenderRoot() {
    return this;
  }

  connectedCallback() {
    super.connectedCallback();
    store.watchers.add(this.#watch);
  }

  disconnectedCallback() {
    store.watchers.delete(this.#watch);
    super.disconnectedCallback();
  }
}

export { html, nothing, svg } from '../vendor/lit/lit.js';
