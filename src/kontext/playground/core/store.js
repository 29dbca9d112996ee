// The store: holds the state and notifies watchers. Elements extend `Part`, which re-renders when it changes.
import { LitElement } from '../vendor/lit/lit.js';
import { initial } from './state.js';

export const store = {
  state: initial(),
  watchers: new Set(),

  /** Update the state with `change(state)`, or merge the fields of an object. */
  set(change) {
    const next = typeof change === 'function' ? change(store.state) : { ...store.state, ...change };
    if (next === store.state) return;
    store.state = next;
    for (const watcher of store.watchers) watcher();
  },
};

/** An element in the light DOM (so that labels and ids work across elements) that follows the store. */
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
