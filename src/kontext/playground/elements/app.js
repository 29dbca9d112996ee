// The whole page: header, turns, stage and composer; and window events: keys, drop and paste.
import * as act from '../core/actions.js';
import { referenceFile } from '../core/references.js';
import { onKey, onKeyUp } from '../core/keys.js';
import { keep } from '../core/memory.js';
import { openAddress, openFile } from '../core/files.js';
import { waiting } from '../core/sending.js';
import { leave, logOut } from '../core/sessions.js';
import { html, nothing, Part } from '../core/store.js';
import { language, LANGUAGES, loadWords, t } from '../core/text.js';
import { nextTheme, theme } from '../core/theme.js';
import './composer.js';
import './notices.js';
import './start.js';
import { icon, tool } from './icons.js';

class App extends Part {
  static properties = { dragging: { state: true } };

  connectedCallback() {
    super.connectedCallback();
    window.addEventListener('keydown', onKey);
    window.addEventListener('keyup', onKeyUp);
    window.addEventListener('blur', () => act.showBefore(false));
    window.addEventListener('paste', (event) => this.#paste(event));
    window.addEventListener('dragover', (event) => this.#over(event));
    window.addEventListener('dragleave', (event) => event.relatedTarget ?? (this.dragging = ''));
    window.addEventListener('drop', (event) => this.#drop(event));
  }

  /** Drop zone under the pointer: the right half of an open session adds a reference picture. */
  #zone(event) {
    return this.state.session && event.clientX > innerWidth / 2 ? 'reference' : 'picture';
  }

  #over(event) {
    if (!event.dataTransfer.types.includes('Files')) return;
    event.preventDefault();
    this.dragging = event.target.closest?.('.references') ? '' : this.#zone(event);
  }

  #drop(event) {
    this.dragging = '';
    const file = event.dataTransfer.files[0];
    if (!file || event.defaultPrevented) return;
    event.preventDefault();
    if (this.#zone(event) === 'reference') referenceFile(file);
    else openFile(file);
  }

  #paste(event) {
    const file = [...event.clipboardData.files].find((item) => item.type.startsWith('image/'));
    if (file) {
      event.preventDefault();
      return this.state.session ? referenceFile(file) : openFile(file);
    }
    const text = event.clipboardData.getData('text/plain').trim();
    if (!event.target.closest?.('input, textarea') && /^https?:\/\/\S+$/.test(text)) openAddress(text);
  }

  async #speak() {
    const names = Object.keys(LANGUAGES);
    const next = names[(names.indexOf(language) + 1) % names.length];
    keep('language', next);
    await loadWords(next);
    document.querySelectorAll('*').forEach((element) => element instanceof Part && element.requestUpdate());
  }

  #header() {
    const { session, capabilities } = this.state;
    const other = Object.keys(LANGUAGES).find((code) => code !== language);
    const jobs = waiting(this.state);
    const button = (name, key, run, label, kind = '', tip = 'below') =>
      tool({ name, key, run, kind, tip, label: t(`key.${label}`), short: t(`short.${label}`) });
    return html`<header class="top">
      <button type="button" class="brand" @click=${leave} aria-label=${t('home')}>
        <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
          <rect class="body" width="32" height="32" rx="8" />
          <path class="part" d="M16 32V16h16v8a8 8 0 0 1-8 8z" />
        </svg>
        <span>Kontext</span>
      </button>
      ${
        session
          ? html`<input
            class="session-name"
            aria-label=${t('session.name')}
            maxlength="200"
            .value=${session.name}
            placeholder=${t('untitled')}
            @change=${(event) => act.renameSession(session.id, event.target.value)}
            @keydown=${(event) => event.key === 'Enter' && event.target.blur()}
          />`
          : nothing
      }
      <nav class="top-tools" aria-label=${t('page')}>
        ${
          capabilities?.model
            ? html`<span class="model" title=${capabilities.model.description}>${capabilities.model.name}</span>`
            : html`<span class="model waiting">${capabilities ? t('model.loading') : ''}</span>`
        }
        ${
          jobs.length
            ? html`<span class="busy-count">${tool({
                name: 'queue',
                label: t('queue.count', { n: jobs.length }),
                short: String(jobs.length),
                key: 'q',
                run: () => act.openPanel('queue'),
                tip: 'below',
              })}</span>`
            : nothing
        }
        ${session ? button('plus', 'n', leave, 'new') : nothing}
        ${button('gallery', 'h', () => act.openPanel('gallery'), 'gallery')}
        ${session ? button('code', 's', () => act.openPanel('code'), 'code', 'second') : nothing}
        <button type="button" class="tool text" lang=${other} @click=${this.#speak}>${LANGUAGES[other]}</button>
        ${tool({
          name: 'theme',
          label: t(`theme.${theme()}`),
          short: t(`theme.${theme()}`),
          run: () => (nextTheme(), this.requestUpdate()),
          tip: 'below',
        })}
        ${button('help', '?', () => act.openPanel('help'), 'help', 'second', 'below-end')}
        ${capabilities?.features.login && !this.state.login ? tool({ name: 'leave', label: t('logout'), short: t('logout'), run: logOut, tip: 'below-end' }) : nothing}
      </nav>
    </header>`;
  }

  #dropZones() {
    if (!this.dragging) return nothing;
    const { session } = this.state;
    const zone = (name, image, words) => html`<div class=${this.dragging === name ? 'chosen' : ''}>${icon(image)}<b>${words}</b></div>`;
    return html`<div class="drop ${session ? 'beside' : ''}" aria-hidden="true">
      ${zone('picture', 'picture', t(session ? 'drop.new' : 'drop.picture'))}
      ${session ? zone('reference', 'plus', t('drop.reference', { n: this.state.draft.references.length + 2 })) : nothing}
    </div>`;
  }

  render() {
    const { ready, session, arriving, said } = this.state;
    if (!ready) return nothing;
    const open = session || arriving;
    return html`
      <div class="page ${open ? 'working' : 'starting'}">
        ${this.#header()}
        ${
          open
            ? html`<kontext-turns></kontext-turns>
              <main class="work" aria-label=${t('work')}>
                <h1 class="spoken">${session?.name || t('untitled')}</h1>
                <kontext-tools></kontext-tools>
                <kontext-stage></kontext-stage>
                <kontext-caption></kontext-caption>
                <kontext-composer></kontext-composer>
              </main>`
            : html`<main class="welcome"><kontext-start></kontext-start></main>`
        }
      </div>
      <kontext-notices></kontext-notices>
      <kontext-gallery></kontext-gallery>
      <kontext-help></kontext-help>
      <kontext-details></kontext-details>
      <kontext-queue></kontext-queue>
      <kontext-code></kontext-code>
      <kontext-login></kontext-login>
      ${this.#dropZones()}
      <div class="spoken" role="status" aria-live="polite">${said}</div>
    `;
  }
}

customElements.define('kontext-app', App);
