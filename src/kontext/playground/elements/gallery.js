// The gallery of all sessions: open, search, rename, save, delete, or restore a file.
import * as act from '../core/actions.js';
import { api, located } from '../core/api.js';
import { openFile } from '../core/files.js';
import { openSession } from '../core/sessions.js';
import { html, nothing } from '../core/store.js';
import { language, t } from '../core/text.js';
import { Dialog } from './dialog.js';
import { icon, tool } from './icons.js';

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ['day', 86400],
  ['hour', 3600],
  ['minute', 60],
];

/** "2 hours ago" in the language of the page. */
function ago(seconds) {
  const past = Date.now() / 1000 - seconds;
  const [unit, length] = UNITS.find(([, size]) => past >= size) ?? UNITS[UNITS.length - 1];
  return new Intl.RelativeTimeFormat(language, { numeric: 'auto' }).format(-Math.floor(past / length), unit);
}

class Gallery extends Dialog {
  panel = 'gallery';
  static properties = { search: { state: true }, doomed: { state: true } };

  close() {
    this.doomed = null;
    super.close();
  }

  async #rename(session, field) {
    if (await act.renameSession(session.id, field.value)) act.loadSessions();
  }

  #card(session) {
    const open = () => (this.close(), openSession(session.id));
    const sure = this.doomed === session.id;
    return html`<li class="card">
      <button type="button" class="cover" aria-label=${t('gallery.open', { name: session.name || t('untitled') })} @click=${open}>
        ${session.thumbnail ? html`<img src=${session.thumbnail} alt="" loading="lazy" />` : icon('picture')}
      </button>
      <input class="session-name" aria-label=${t('session.name')} maxlength="200" .value=${session.name} placeholder=${t('untitled')}
        @change=${(event) => this.#rename(session, event.target)} />
      <div class="card-foot">
        <span>${t('turns.count', { n: session.turns })} · ${ago(session.updated)}</span>
        <a class="tool" href=${located(api.exportAddress(session.id))} download aria-label=${t('download.session')}>${icon('download')}</a>
        ${
          sure
            ? html`<button type="button" class="quiet danger" @click=${() => act.deleteSession(session.id)}>${t('delete.sure')}</button>`
            : tool({ name: 'trash', label: t('delete'), run: () => (this.doomed = session.id), tip: 'top-end' })
        }
      </div>
    </li>`;
  }

  content() {
    const { sessions } = this.state;
    const search = (this.search ?? '').toLowerCase();
    const found = (sessions ?? []).filter((session) => session.name.toLowerCase().includes(search));
    return html`<div class="gallery-bar">
        <label class="search">${icon('search')}<span class="spoken">${t('search')}</span>
          <input type="search" placeholder=${t('search')} .value=${this.search ?? ''} @input=${(event) => (this.search = event.target.value)} /></label>
        <button type="button" class="quiet" @click=${() => act.choose((file) => (this.close(), openFile(file)))}>${t('gallery.restore')}</button>
      </div>
      ${
        sessions === null
          ? nothing
          : found.length
            ? html`<ul class="cards">${found.map((session) => this.#card(session))}</ul>`
            : html`<p class="hint">${t(search ? 'gallery.nothing' : 'gallery.empty')}</p>`
      }`;
  }
}

customElements.define('kontext-gallery', Gallery);
