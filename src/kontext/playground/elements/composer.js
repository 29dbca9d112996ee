// The composer: prompt, references, settings, and suggestions while the prompt is empty.
import { choose } from '../core/actions.js';
import { openFile } from '../core/files.js';
import { recall } from '../core/memory.js';
import { cancel, submit } from '../core/sending.js';
import { suggestions } from '../core/suggestions.js';
import { html, nothing, Part, store } from '../core/store.js';
import { t } from '../core/text.js';
import { tooLong } from '../core/tokens.js';
import { base, isActive, node } from '../core/tree.js';
import { fillIn, tokensHere } from '../core/words.js';
import { live } from '../vendor/lit/lit.js';
import { icon } from './icons.js';
import './references.js';
import './settings.js';
import { drawingBar } from './tools.js';

class Composer extends Part {
  #past = -1; // position in the prompt history; -1: the text being typed
  #typed = '';

  /** @returns {HTMLTextAreaElement | null} */
  get field() {
    return this.querySelector('#prompt');
  }

  #write(prompt) {
    store.set((state) => ({ ...state, draft: { ...state.draft, prompt } }));
  }

  #input(event) {
    this.#past = -1;
    this.#write(event.target.value);
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === 'ArrowUp' && (event.altKey || this.field.selectionEnd === 0 || this.#past >= 0)) {
      this.#recall(1, event);
    } else if (event.key === 'ArrowDown' && (event.altKey || this.#past >= 0)) {
      this.#recall(-1, event);
    } else if (event.key === 'Escape' && !store.state.jobs[store.state.here]) {
      this.field.blur();
      event.preventDefault();
    }
  }

  /** Recall older (1) or newer (-1) prompts; the text being typed comes back at the end. */
  #recall(by, event) {
    const prompts = recall('prompts', []);
    const at = Math.min(this.#past + by, prompts.length - 1);
    if (at === this.#past || at < -1) return;
    event.preventDefault();
    if (this.#past === -1) this.#typed = this.state.draft.prompt;
    this.#past = at;
    this.#write(at < 0 ? this.#typed : prompts[at]);
  }

  async #fill(template) {
    const { text, start, end } = fillIn(template);
    this.#write(text);
    await this.updateComplete;
    this.field.focus();
    this.field.setSelectionRange(start, end);
  }

  /** The line above the prompt: suggestions while it is empty, else a hint about the tool or keys. */
  #above(running) {
    const { draft, session, pointing, tool, compare, doubt } = this.state;
    const turn = base(this.state);
    const drawn = turn && pointing[turn.id];
    if (!session && doubt !== null && doubt === draft.prompt) return this.#doubt();
    if (running) return this.#aside(t('hint.running'));
    if (session && !turn) return this.#aside('');
    if (compare) return this.#aside(t(compare.mode === 'slider' ? 'hint.slider' : 'hint.compare'));
    if (tool !== 'move') return drawingBar(this.state);
    const long = tooLong(this.state);
    if (long) return html`<p class="above aside over">${long}</p>`;
    if (draft.prompt) return this.#aside(session ? t('hint.typing') : '');
    const offered = suggestions(this.state.capabilities, !session ? 'generate' : drawn?.box ? 'box' : 'edit');
    if (!offered.length) return this.#aside('');
    return html`<div class="above suggestions" role="group" aria-label=${t('suggestions')}>
      ${offered.map(({ label, prompt }) => html`<button type="button" class="chip" @click=${() => this.#fill(prompt)}>${label}</button>`)}
    </div>`;
  }

  /** The prompt sounds like an edit, but no picture is open. */
  #doubt() {
    return html`<div class="above doubt" role="alert">
      <span>${t('doubt')}</span>
      <button type="button" class="quiet" @click=${() => choose(openFile)}>${t('open.picture')}</button>
      <button type="button" class="quiet" @click=${() => submit(true)}>${t('doubt.create')}</button>
    </div>`;
  }

  #aside(words) {
    return html`<p class="above aside">${words}</p>`;
  }

  updated() {
    const { field } = this;
    if (field.value !== this.fitted) {
      this.fitted = field.value;
      field.style.height = 'auto';
      field.style.height = `${field.scrollHeight}px`;
    }
    const { session, arriving } = this.state;
    const opened = session?.id ?? (arriving ? 'arriving' : null);
    if (opened !== this.opened) this.#take();
    this.opened = opened;
  }

  /**
   * Focus the prompt as soon as a picture opens; not on phones, where the keyboard would cover the picture, nor from
   * a user who has begun to draw.
   */
  #take() {
    if (this.closest('.opening') || !matchMedia('(hover: hover)').matches) return;
    setTimeout(() => {
      const other = document.activeElement?.matches('input, textarea, select');
      if (!other && this.state.tool === 'move' && !document.querySelector('dialog[open]')) this.field?.focus();
    });
  }

  #button(running, sending) {
    if (sending) return html`<span class="send waiting" role="img" aria-label=${t('state.sending')}></span>`;
    const button = (name, key, kind, label, run, disabled = false) => html`<button type="button" class="send ${kind}"
      aria-label=${label} data-tip="${label}  ${key}" data-side="top-end" ?disabled=${disabled} @click=${run}>${icon(name)}</button>`;
    if (running) return button('stop', 'ESC', 'stopping', t('stop'), () => cancel());
    const { draft, session } = this.state;
    return button('send', 'ENTER', '', t(session ? 'send' : 'create'), () => submit(), !draft.prompt.trim());
  }

  render() {
    const { state } = this;
    const job = node(state, state.here)?.job;
    const running = job && isActive(job);
    const sending = state.sending || job?.state === 'sending';
    const turn = base(state);
    return html`${this.#above(running && !sending)}
      <form class="composer" @submit=${(event) => event.preventDefault()}>
        <div class="say">
          ${turn ? html`<kontext-references></kontext-references>` : nothing}
          <label class="spoken" for="prompt">${t(state.session ? 'prompt' : 'prompt.new')}</label>
          <textarea
            id="prompt"
            rows="1"
            dir="auto"
            aria-describedby=${tokensHere(state) ? 'tokens' : nothing}
            maxlength=${state.capabilities?.limits.prompt_characters ?? 10000}
            placeholder=${t(state.session ? 'prompt.change' : 'prompt.start')}
            .value=${live(state.draft.prompt)}
            @input=${this.#input}
            @keydown=${this.#key}
          ></textarea>
          ${this.#button(running, sending)}
        </div>
        <kontext-settings></kontext-settings>
      </form>`;
  }
}

customElements.define('kontext-composer', Composer);
