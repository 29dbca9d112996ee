// Errors, warnings and messages, each with its next steps.
import { dismiss } from '../core/notices.js';
import { html, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { repeat } from '../vendor/lit/lit.js';
import { icon } from './icons.js';

class Notices extends Part {
  render() {
    return html`<section class="notices" aria-label=${t('notices')}>
      ${repeat(
        this.state.notices,
        (notice) => notice.id,
        (notice) => html`<article class="notice ${notice.kind}">
          <div><b>${notice.title}</b>${notice.text ? html`<p>${notice.text}</p>` : ''}</div>
          <div class="steps">
            ${notice.actions.map((action) => html`<button type="button" class="quiet" @click=${() => (dismiss(notice.id), action.run())}>${action.label}</button>`)}
          </div>
          <button type="button" class="tool" aria-label=${t('dismiss')} @click=${() => dismiss(notice.id)}>${icon('close')}</button>
        </article>`,
      )}
    </section>`;
  }
}

customElements.define('kontext-notices', Notices);
