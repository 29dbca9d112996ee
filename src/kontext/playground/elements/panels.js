// Two dialogs about requests: the queue, and the shown edit as code.
import { goTo } from '../core/actions.js';
import { serverAddress } from '../core/api.js';
import { curl, python } from '../core/calls.js';
import { pointers, problemHere } from '../core/drawing.js';
import { attempt } from '../core/notices.js';
import { copyText } from '../core/saving.js';
import { cancel, cancelAll, waiting } from '../core/sending.js';
import { chosenModel, editBody, optionsOf } from '../core/state.js';
import { html, nothing } from '../core/store.js';
import { t } from '../core/text.js';
import { base } from '../core/tree.js';
import { Dialog } from './dialog.js';
import { icon } from './icons.js';

class Queue extends Dialog {
  panel = 'queue';

  get open() {
    return super.open && Boolean(this.state.session);
  }

  #state(job) {
    if (job.state === 'running') return t('step.of', { i: job.step || 0, n: job.steps });
    if (job.state === 'sending') return t('state.sending');
    return t(job.position > 1 ? 'queue.place' : 'queue.next', { n: job.position });
  }

  content() {
    const jobs = waiting(this.state);
    if (!jobs.length) return html`<p class="hint">${t('queue.empty')}</p>`;
    return html`<ul class="jobs">
        ${jobs.map(
          (job) => html`<li>
            <button type="button" class="job" @click=${() => (this.close(), goTo(job.id))}>
              <b dir="auto">${job.prompt}</b><span>${this.#state(job)}</span>
            </button>
            <progress max=${job.steps || 1} value=${job.step || 0} aria-hidden="true"></progress>
            <button type="button" class="quiet" ?disabled=${job.state === 'sending'} @click=${() => cancel(job.id)}>${icon('stop')}${t('stop')}</button>
          </li>`,
        )}
      </ul>
      <div class="choices"><button type="button" class="quiet danger" @click=${cancelAll}>${t('queue.stop', { n: jobs.length })}</button></div>`;
  }
}

const LANGUAGES = { curl, python };

class Code extends Dialog {
  panel = 'code';
  static properties = { language: { state: true }, body: { state: true } };

  constructor() {
    super();
    this.language = 'curl';
    this.body = null;
  }

  get open() {
    return super.open && Boolean(this.state.session);
  }

  willUpdate() {
    if (this.open && !this.wasOpen) this.#loadBody();
    this.wasOpen = this.open;
    if (!this.open) this.body = null;
  }

  /** The request that Enter would send; with an empty prompt, the request of the shown edit. */
  async #loadBody() {
    const { state } = this;
    const turn = base(state);
    if (state.draft.prompt.trim() || turn?.kind !== 'edit') {
      const pointing = turn && !problemHere() ? await attempt(() => pointers(turn, state.draft.prompt)) : {};
      if (pointing) this.body = { ...editBody(state, turn?.id, pointing), prompt: state.draft.prompt.trim() || t('code.prompt') };
      return;
    }
    const { size, box, lock } = turn.settings;
    const model = chosenModel(state) && turn.facts.model;
    const plain = Object.entries({ ...optionsOf(turn.settings), size, box, lock, model }).filter(
      ([, value]) => value !== undefined && value !== null,
    );
    this.body = { parent: turn.parent, prompt: turn.prompt, seed: turn.seed, ...Object.fromEntries(plain) };
    this.partial = Boolean(turn.mask || turn.markup || turn.references.length);
  }

  content() {
    const { session, capabilities } = this.state;
    if (!this.body) return nothing;
    const call = {
      root: serverAddress(),
      session: session.id,
      body: this.body,
      key: Boolean(capabilities?.features.keys),
    };
    const text = LANGUAGES[this.language](call);
    return html`<div class="modes" role="group" aria-label=${t('code.languages')}>
        ${Object.keys(LANGUAGES).map(
          (name) =>
            html`<button type="button" aria-pressed=${String(this.language === name)} @click=${() => (this.language = name)}>${t(`code.${name}`)}</button>`,
        )}
      </div>
      <pre class="program" tabindex="0" aria-label=${t(`code.${this.language}`)}>${text}</pre>
      ${this.partial ? html`<p class="note">${t('code.partial')}</p>` : nothing}
      ${call.key ? html`<p class="note">${t('code.key')}</p>` : nothing}
      <div class="choices"><button type="button" class="quiet" @click=${() => copyText(text)}>${icon('copy')}${t('code.copy')}</button></div>`;
  }
}

customElements.define('kontext-queue', Queue);
customElements.define('kontext-code', Code);
