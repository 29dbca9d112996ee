// Base of all dialogs: open while `open` is true; closed by Escape, the close button or a click outside.
import { html, nothing, Part, store } from '../core/store.js';
import { t } from '../core/text.js';
import { icon } from './icons.js';

export class Dialog extends Part {
  /** Name of the panel in the state; the key of its texts. */
  panel = '';

  /**
   * What stands below the title.
   * @returns {unknown}
   */
  content() {
    return nothing;
  }

  get open() {
    return this.state.panel === this.panel;
  }

  close() {
    store.set({ panel: null });
  }

  updated() {
    const dialog = this.querySelector('dialog');
    if (this.open && !dialog.open) dialog.showModal();
    else if (!this.open && dialog.open) dialog.close();
  }

  render() {
    return html`<dialog class=${this.panel} aria-labelledby="${this.panel}-title"
      @close=${() => this.open && this.close()} @click=${(event) => event.target.localName === 'dialog' && this.close()}>
      ${
        this.open && this.state.ready
          ? html`<div class="sheet">
            <header>
              <h2 id="${this.panel}-title" tabindex="-1" autofocus>${t(`${this.panel}.title`)}</h2>
              <button type="button" class="tool" aria-label=${t('close')} @click=${() => this.close()}>${icon('close')}</button>
            </header>
            ${this.content()}
          </div>`
          : nothing
      }
    </dialog>`;
  }
}
